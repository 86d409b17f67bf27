// SPDX-License-Identifier: Apache-2.0
//! What `GET /v1/qos` contains: every class of every port and tunnel with a service policy.

use std::collections::HashMap;

use config::{Config, PolicyClassEntry};
use messages::{ClassDrops, Event, QueueState, ServiceTarget};
use serde::{Deserialize, Serialize};

use super::rows::port_name;
use crate::core::Listing;
use crate::view::{Dataplane, View};

/// `GET /v1/qos`. Bytes are those on the wire, preamble and gap included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QosRow {
    /// The port that packets leave by.
    pub port: String,
    /// The tunnel whose policy it is; none for the port's own.
    pub tunnel: Option<String>,
    /// The policy-map.
    pub policy_map: Option<String>,
    /// The class.
    pub class: String,
    /// "priority 0", or its bandwidth.
    pub service: Option<String>,
    /// Packets that came.
    pub offered_packets: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Packets that left.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that were dropped, over all reasons.
    pub dropped_packets: u64,
    /// By reason.
    pub dropped: DropsBody,
    /// Packets that got a CE mark.
    pub marked_packets: u64,
    /// Packets that wait.
    pub queued_packets: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Half of the packets waited no longer; at most a quarter too much.
    pub delay_p50_ns: Option<u64>,
    /// 99 % waited no longer.
    pub delay_p99_ns: Option<u64>,
    /// The shaper of the policy, if it has one.
    pub shaper: Option<ShaperBody>,
}

/// Packets that were dropped, by reason.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DropsBody {
    /// Above the policer.
    pub policed: u64,
    /// The queue was at its limit.
    pub queue_limit: u64,
    /// By WRED.
    pub wred: u64,
    /// By CoDel.
    pub codel: u64,
    /// The port's scheduler was full.
    pub no_room: u64,
    /// Too long.
    pub size: u64,
}

/// A shaper.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ShaperBody {
    /// Its rate.
    pub rate_bps: u64,
    /// Its depth.
    pub burst_bytes: u32,
    /// What it held when the last packet left.
    pub tokens_bytes: u32,
}

impl From<ClassDrops> for DropsBody {
    fn from(drops: ClassDrops) -> Self {
        let ClassDrops { policed, queue_limit, wred, codel, no_room, size } = drops;
        Self { policed, queue_limit, wred, codel, no_room, size }
    }
}

impl DropsBody {
    fn sum(&self) -> u64 {
        let Self { policed, queue_limit, wred, codel, no_room, size } = self;
        [policed, queue_limit, wred, codel, no_room, size].into_iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }
}

pub(super) fn rows(view: &View, dataplane: &Dataplane, listing: &Listing) -> Vec<QosRow> {
    let tunnels: HashMap<u32, &str> =
        listing.indices.tunnels.iter().map(|(name, number)| (*number, name.as_str())).collect();
    let state = |item: &Event| match item {
        Event::Qos(_, state) => Some(row(&view.saved.config, dataplane, &tunnels, state)),
        _ => None,
    };
    listing.items.iter().filter_map(state).collect()
}

fn row(config: &Config, dataplane: &Dataplane, tunnels: &HashMap<u32, &str>, state: &QueueState) -> QosRow {
    let port = port_name(dataplane, state.port);
    let (tunnel, policy_map) = match state.target {
        ServiceTarget::Port(_) => (None, config.port(&port).and_then(|port| port.service_policy.clone())),
        ServiceTarget::Tunnel(tunnel) => {
            let name = tunnels.get(&tunnel.0).copied();
            let entry = name.and_then(|name| config.tunnel(name));
            let label = name.map_or_else(|| tunnel.to_string(), str::to_owned);
            (Some(label), entry.and_then(|tunnel| tunnel.service_policy.clone()))
        }
    };
    let class = policy_map.as_deref().and_then(|name| class(config, name, state.class));
    let dropped = DropsBody::from(state.dropped);
    let shaper = match (state.rate_bps, state.burst_bytes, state.tokens_bytes) {
        (Some(rate_bps), Some(burst_bytes), Some(tokens_bytes)) => {
            Some(ShaperBody { rate_bps, burst_bytes, tokens_bytes })
        }
        _ => None,
    };
    QosRow {
        port,
        tunnel,
        class: class.map_or_else(|| state.class.to_string(), |class| class.class.clone()),
        service: class.and_then(service),
        policy_map,
        offered_packets: state.offered_packets,
        offered_bytes: state.offered_bytes,
        sent_packets: state.sent_packets,
        sent_bytes: state.sent_bytes,
        dropped_packets: dropped.sum(),
        dropped,
        marked_packets: state.marked,
        queued_packets: state.queued_packets,
        queued_bytes: state.queued_bytes,
        delay_p50_ns: state.delay_p50_ns,
        delay_p99_ns: state.delay_p99_ns,
        shaper,
    }
}

fn class<'a>(config: &'a Config, policy_map: &str, place: u8) -> Option<&'a PolicyClassEntry> {
    let map = config.policy_maps.iter().find(|map| map.name == policy_map)?;
    map.classes.get(usize::from(place))
}

fn service(class: &PolicyClassEntry) -> Option<String> {
    match (class.priority, class.bandwidth) {
        (Some(level), _) => Some(format!("priority {level}")),
        (None, Some(bandwidth)) => Some(bandwidth.to_string()),
        (None, None) => None,
    }
}
