// SPDX-License-Identifier: Apache-2.0
//! Quality of service: `[[class_map]]` and `[[policy_map]]`.
//!
//! Not here: where a policy-map is at work, which `[[port]]` and `[[tunnel]]` say (`service_policy`).

mod assemble;
mod check;
mod extent;
mod police;
mod values;

use ipnet::IpNet;
use messages::{PortRange, QueueLimit};
use serde::{Deserialize, Serialize};
use wire::{Dscp, IpProtocol};

use crate::scalar::{self, within};
use crate::{Item, Kind};

pub(crate) use assemble::{Numbers, class_map, of_port, of_tunnel, policy_map};
pub(crate) use check::check;
pub use police::PoliceEntry;
pub use values::{Bandwidth, BitRate, Flags, Matching};

/// The name of the class that takes what no other class of a policy-map takes.
pub const CLASS_DEFAULT: &str = "class-default";
/// How much of a class may wait, unless it says otherwise.
pub(crate) const QUEUE_LIMIT: QueueLimit = QueueLimit::Packets(64);

/// `[[class_map]]`: a name for packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ClassMapEntry {
    /// Its name.
    pub name: String,
    /// Whether all criteria have to match, or any. Default all.
    #[serde(rename = "match", with = "scalar", default, skip_serializing_if = "is_default")]
    pub matching: Matching,
    /// The criteria.
    pub criteria: Vec<CriterionEntry>,
}

/// A criterion: everything that it names has to match the original packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { dscp = [\"EF\"] }")]
pub struct CriterionEntry {
    /// It matches what does not match. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub not: bool,
    /// Another class-map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_map: Option<String>,
    /// Source addresses.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// Destination addresses.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpNet>,
    /// IP protocol, or IPv6 upper-layer protocol.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<IpProtocol>,
    /// Source ports of TCP, UDP or SCTP.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// Destination ports.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub destination_ports: Option<PortRange>,
    /// TCP flags.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<Flags>,
    /// Any of these DSCPs.
    #[serde(with = "scalar::list", default, skip_serializing_if = "Vec::is_empty")]
    pub dscp: Vec<Dscp>,
    /// Any of these IP precedences, 0 to 7.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub precedence: Vec<u8>,
    /// The tunnel that the packet goes into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// The port that the packet came in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// Any of these 802.1p priorities, 0 to 7, of the tag that it came with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlan_priority: Vec<u8>,
}

/// `[[policy_map]]`: classes, and how they are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PolicyMapEntry {
    /// Its name.
    pub name: String,
    /// What all classes together may send, wherever the policy-map is at work. Default no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<ProfileEntry>,
    /// The classes, in the order in which they are asked; the last one is `class-default`.
    pub classes: Vec<PolicyClassEntry>,
}

/// A rate and a burst.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { rate = \"10 Mbit/s\" }")]
pub struct ProfileEntry {
    /// The rate on the wire.
    #[serde(with = "scalar")]
    pub rate: BitRate,
    /// The burst in bytes on the wire. Default two longest packets, and what the rate carries in 1 ms.
    #[serde(
        deserialize_with = "within::optional::<_, _, 64, 1073741824>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub burst: Option<u32>,
}

/// A class of a policy-map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { class = \"voice\", priority = 0 }")]
pub struct PolicyClassEntry {
    /// The class-map, or `class-default` for what no other class takes.
    pub class: String,
    /// Served before all bandwidth classes; 0 before 1 before 2. Exactly one of priority and bandwidth, or neither in any
    /// class: then nothing waits.
    #[serde(
        deserialize_with = "within::optional::<_, _, 0, 2>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub priority: Option<u8>,
    /// A share of what the priority classes leave.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// What it is metered by on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub police: Option<PoliceEntry>,
    /// How much may wait. Default 64 packets.
    #[serde(with = "scalar", default = "queue_limit", skip_serializing_if = "is_queue_limit")]
    pub queue_limit: QueueLimit,
    /// Weighted random early detection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wred: Option<WredEntry>,
    /// CoDel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codel: Option<CodelEntry>,
    /// PIE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pie: Option<PieEntry>,
    /// Mark ECN-capable packets where WRED, CoDel or PIE would drop others. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ecn: bool,
    /// DSCP that packets get.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub set_dscp: Option<Dscp>,
    /// 802.1p priority that frames leave with, 0 to 7, by a port with tags. Default 0.
    #[serde(
        deserialize_with = "within::optional::<_, _, 0, 7>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub set_vlan_priority: Option<u8>,
}

/// Thresholds of WRED, on the average queue in packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { min = 20, max = 40 }")]
pub struct WredEntry {
    /// From here on packets are dropped now and then.
    pub min: u16,
    /// From here on all are.
    pub max: u16,
    /// One in so many just below `max`. Default 10.
    #[serde(default = "one_in", skip_serializing_if = "is_one_in")]
    pub one_in: u16,
    /// How slowly the average follows: by 2^-weight. Default 9.
    #[serde(
        deserialize_with = "within::number::<_, _, 0, 16>",
        default = "weight",
        skip_serializing_if = "is_weight"
    )]
    pub weight: u8,
    /// Other thresholds by DSCP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_dscp: Vec<DropProfileEntry>,
}

/// Thresholds of one DSCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { dscp = \"AF13\", min = 10, max = 20 }")]
pub struct DropProfileEntry {
    /// The DSCP.
    #[serde(with = "scalar")]
    pub dscp: Dscp,
    /// As above.
    pub min: u16,
    /// As above.
    pub max: u16,
    /// As above. Default 10.
    #[serde(default = "one_in", skip_serializing_if = "is_one_in")]
    pub one_in: u16,
}

/// Parameters of CoDel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, as in { target_us = 5000 }")]
pub struct CodelEntry {
    /// A delay that is acceptable for long, in microseconds. Default 5000 (RFC 8289 §4.3).
    pub target_us: u32,
    /// How long it has to be exceeded, in microseconds. Default 100000 (RFC 8289 §4.4).
    pub interval_us: u32,
}

impl Default for CodelEntry {
    fn default() -> Self {
        Self { target_us: 5_000, interval_us: 100_000 }
    }
}

impl PolicyMapEntry {
    /// Whether packets wait: not if no class is served and nothing is shaped.
    #[must_use]
    pub fn has_queues(&self) -> bool {
        let is_served = |class: &PolicyClassEntry| class.priority.is_some() || class.bandwidth.is_some();
        self.shape.is_some() || self.classes.iter().any(is_served)
    }
}

/// Parameters of PIE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table, as in { target_us = 15000 }")]
pub struct PieEntry {
    /// The delay that it aims at, in microseconds. Default 15000 (RFC 8033 §4.2).
    pub target_us: u32,
    /// How long a burst may be without a drop, in microseconds. Default 150000 (RFC 8033 §4.4).
    pub burst_us: u32,
}

impl Default for PieEntry {
    fn default() -> Self {
        Self { target_us: 15_000, burst_us: 150_000 }
    }
}

impl Item for ClassMapEntry {
    const KIND: Kind = Kind::ClassMap;

    fn label(&self) -> String {
        self.name.clone()
    }
}

impl Item for PolicyMapEntry {
    const KIND: Kind = Kind::PolicyMap;

    fn label(&self) -> String {
        self.name.clone()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn queue_limit() -> QueueLimit {
    QUEUE_LIMIT
}

fn is_queue_limit(limit: &QueueLimit) -> bool {
    *limit == QUEUE_LIMIT
}

const fn one_in() -> u16 {
    10
}

const fn is_one_in(value: &u16) -> bool {
    *value == one_in()
}

const fn weight() -> u8 {
    9
}

const fn is_weight(value: &u8) -> bool {
    *value == weight()
}
