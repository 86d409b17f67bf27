// SPDX-License-Identifier: Apache-2.0
//! What `GET /v1/qos` contains: every class of every port and tunnel with a service policy.

use std::collections::HashMap;

use config::{Config, Environment, PolicyClassEntry, PolicyMapEntry, PortEntry, TunnelEntry};
use messages::{ClassDrops, ColourCount, Event, PortIndex, QueueState, ServiceTarget};
use serde::{Deserialize, Serialize};

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
    /// "priority 0", or its bandwidth; none if nothing waits in it.
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
    /// What its policer said, if it has one.
    pub colours: Option<ColoursBody>,
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

/// Packets and bytes by the colour that a policer gave them, whatever it did with them then.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ColoursBody {
    /// What conforms: green.
    pub conform: ColourBody,
    /// What exceeds: yellow.
    pub exceed: ColourBody,
    /// What violates: red.
    pub violate: ColourBody,
}

/// Packets and bytes of a colour.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ColourBody {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<[ColourCount; 3]> for ColoursBody {
    fn from(colours: [ColourCount; 3]) -> Self {
        let [conform, exceed, violate] =
            colours.map(|ColourCount { packets, bytes }| ColourBody { packets, bytes });
        Self { conform, exceed, violate }
    }
}

/// Packets that were dropped, by reason.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DropsBody {
    /// By the policer.
    pub policed: u64,
    /// The queue was at its limit.
    pub queue_limit: u64,
    /// By WRED.
    pub wred: u64,
    /// By CoDel.
    pub codel: u64,
    /// By PIE.
    pub pie: u64,
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
        let ClassDrops { policed, queue_limit, wred, codel, pie, no_room, size } = drops;
        Self { policed, queue_limit, wred, codel, pie, no_room, size }
    }
}

impl DropsBody {
    fn sum(&self) -> u64 {
        let Self { policed, queue_limit, wred, codel, pie, no_room, size } = self;
        [policed, queue_limit, wred, codel, pie, no_room, size]
            .into_iter()
            .fold(0, |sum, n| sum.wrapping_add(*n))
    }
}

pub(super) fn rows(view: &View, dataplane: &Dataplane, listing: &Listing) -> Vec<QosRow> {
    rows_of(&view.saved.config, &dataplane.environment, listing)
}

fn rows_of(config: &Config, environment: &Environment, listing: &Listing) -> Vec<QosRow> {
    let names = Names::new(config, environment, listing);
    let state = |item: &Event| match item {
        Event::Qos(_, state) => Some(names.row(state)),
        _ => None,
    };
    listing.items.iter().filter_map(state).collect()
}

/// What rows name: there are as many rows as tunnels have classes.
struct Names<'a> {
    environment: &'a Environment,
    /// By number.
    tunnels: HashMap<u32, &'a str>,
    port_entries: HashMap<&'a str, &'a PortEntry>,
    tunnel_entries: HashMap<&'a str, &'a TunnelEntry>,
    policy_maps: HashMap<&'a str, &'a PolicyMapEntry>,
}

impl<'a> Names<'a> {
    fn new(config: &'a Config, environment: &'a Environment, listing: &'a Listing) -> Self {
        Self {
            environment,
            tunnels: listing.indices.tunnels.iter().map(|(name, number)| (*number, name.as_str())).collect(),
            port_entries: config.ports.iter().map(|entry| (entry.name.as_str(), entry)).collect(),
            tunnel_entries: config.tunnels.iter().map(|entry| (entry.name.as_str(), entry)).collect(),
            policy_maps: config.policy_maps.iter().map(|entry| (entry.name.as_str(), entry)).collect(),
        }
    }

    fn port(&self, port: PortIndex) -> String {
        let known = self.environment.ports.get(port.index());
        known.map_or_else(|| port.to_string(), |port| port.name.clone())
    }

    fn class(&self, policy_map: &str, place: u8) -> Option<&'a PolicyClassEntry> {
        self.policy_maps.get(policy_map)?.classes.get(usize::from(place))
    }

    fn row(&self, state: &QueueState) -> QosRow {
        let port = self.port(state.port);
        let (tunnel, policy_map) = match state.target {
            ServiceTarget::Port(_) => {
                let entry = self.port_entries.get(port.as_str());
                (None, entry.and_then(|entry| entry.service_policy.clone()))
            }
            ServiceTarget::Tunnel(tunnel) => {
                let name = self.tunnels.get(&tunnel.0).copied();
                let entry = name.and_then(|name| self.tunnel_entries.get(name));
                let label = name.map_or_else(|| tunnel.to_string(), str::to_owned);
                (Some(label), entry.and_then(|entry| entry.service_policy.clone()))
            }
        };
        let class = policy_map.as_deref().and_then(|name| self.class(name, state.class));
        row(state, port, tunnel, policy_map, class)
    }
}

fn row(
    state: &QueueState,
    port: String,
    tunnel: Option<String>,
    policy_map: Option<String>,
    class: Option<&PolicyClassEntry>,
) -> QosRow {
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
        colours: state.colours.map(ColoursBody::from),
        marked_packets: state.marked,
        queued_packets: state.queued_packets,
        queued_bytes: state.queued_bytes,
        delay_p50_ns: state.delay_p50_ns,
        delay_p99_ns: state.delay_p99_ns,
        shaper,
    }
}

fn service(class: &PolicyClassEntry) -> Option<String> {
    match (class.priority, class.bandwidth) {
        (Some(level), _) => Some(format!("priority {level}")),
        (None, Some(bandwidth)) => Some(bandwidth.to_string()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use config::{EnvironmentPort, Indices};
    use messages::TunnelIndex;

    use super::*;

    const TOML: &str = r#"
[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24"]
service_policy = "branch"

[[tunnel]]
name = "branch-0"
source = "192.0.2.1"
destination = "192.0.2.7"
service_policy = "branch"

[[policy]]
name = "gre"
port = "wan"
protocol = "gre"
action = "bypass"

[[policy_map]]
name = "branch"
classes = [{ class = "class-default", bandwidth = "100 %" }]
"#;

    fn idle(target: ServiceTarget) -> QueueState {
        QueueState {
            port: PortIndex(0),
            target,
            class: 0,
            offered_packets: 0,
            offered_bytes: 0,
            sent_packets: 0,
            sent_bytes: 0,
            dropped: ClassDrops::default(),
            colours: None,
            marked: 0,
            queued_packets: 0,
            queued_bytes: 0,
            delay_p50_ns: None,
            delay_p99_ns: None,
            tokens_bytes: None,
            burst_bytes: None,
            rate_bps: None,
        }
    }

    #[test]
    fn rows_of_60_000_tunnels_are_named_in_time_that_grows_with_their_number_only() {
        const TUNNELS: u32 = 60_000;
        let mut config = Config::parse(TOML, "branch.toml").unwrap();
        let first = config.tunnels[0].clone();
        config.tunnels = (0..TUNNELS)
            .map(|number| TunnelEntry { name: format!("branch-{number}"), ..first.clone() })
            .collect();
        let ports = vec![EnvironmentPort { name: "wan".into(), mtu_max: 1500, is_tagged: false }];
        let environment = Environment { ports, workers: 1, sas_max: 8, tunnels_max: TUNNELS };
        let tunnels = (0..TUNNELS).map(|number| (format!("branch-{number}"), number)).collect();
        let targets = (0..TUNNELS).map(|number| ServiceTarget::Tunnel(TunnelIndex(number)));
        let targets = targets.chain([ServiceTarget::Port(PortIndex(0))]);
        let items = targets.map(|target| Event::Qos(1, idle(target))).collect();
        let listing = Listing { items, indices: Indices { tunnels, ..Indices::default() } };
        let began = Instant::now();
        let rows = rows_of(&config, &environment, &listing);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let last = rows.last().unwrap();
        assert_eq!((last.port.as_str(), last.tunnel.as_deref()), ("wan", None));
        assert!(rows.iter().all(|row| row.class == "class-default"));
        assert_eq!(rows[4_321].tunnel.as_deref(), Some("branch-4321"));
        assert_eq!(rows[4_321].policy_map.as_deref(), Some("branch"));
    }
}
