// SPDX-License-Identifier: Apache-2.0
//! Quality of service: class-maps say which packets, policy-maps what becomes of them, service policies where.
//!
//! ```text
//! ServicePolicy(port or tunnel) ─▶ PolicyMap ─▶ PolicyClass … in order ─▶ ClassMap ─▶ Criterion …
//!                                                                             ▲──────────┘
//! ```
//!
//! A policy-map's classes are asked in the order of their places; the last one has no class-map and takes the rest.

use serde::{Deserialize, Serialize};

use crate::{ClassMapIndex, DscpMapIndex, IpPrefix, PolicyMapIndex, PortIndex, PortRange, TunnelIndex};

/// Classes that a policy-map has at most.
pub const CLASSES_MAX: u8 = 16;
/// Criteria that a class-map has at most.
pub const CRITERIA_MAX: u16 = 1024;
/// How deep class-maps may be nested: one that names no other is 1 deep.
pub const NESTING_MAX: usize = 8;
/// Criteria that a class-map comes to at most, and all policy-maps together, with those of nested class-maps counted
/// wherever they are named.
pub const EXPANDED_CRITERIA_MAX: usize = 1 << 17;
/// DSCPs with a drop profile of their own that a class has at most, so that it fits a record.
pub const PROFILES_MAX: usize = 32;

/// The longest times of PIE, in microseconds.
pub const PIE_US_MAX: u32 = 1_000_000;

/// A set of DSCPs: bit *n* stands for DSCP *n*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DscpSet(pub u64);

/// DSCPs that become others; those that it does not name stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DscpMap {
    /// Which map.
    pub dscp_map: DscpMapIndex,
    /// From and to, 0–63 both; at most 64.
    pub changes: Vec<(u8, u8)>,
}

/// What becomes of DSCPs at a tunnel's ends, beside the ToS policy of its delivery header. ECN follows RFC 6040.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelMarks {
    /// What the DSCP of the packet inside goes through before the delivery header copies it.
    pub outward: Option<DscpMapIndex>,
    /// The DSCP of a packet that comes out of the tunnel.
    pub receipt: ReceivedDscp,
}

/// The DSCP of a packet that comes out of a tunnel (RFC 2983 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceivedDscp {
    /// As it is inside.
    #[default]
    Keep,
    /// That of the delivery header.
    Copy,
    /// A fixed one, 0–63.
    Set(u8),
    /// What a map has for that of the delivery header.
    Map(DscpMapIndex),
}

/// TCP flags: those of `mask` are as in `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpFlags {
    /// Which flags are looked at.
    pub mask: u8,
    /// What they are; no bit outside the mask.
    pub value: u8,
}

/// A class-map: a name for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassMap {
    /// Which class-map.
    pub class_map: ClassMapIndex,
    /// One of its criteria is enough; otherwise all have to match.
    pub match_any: bool,
}

/// A criterion of a class-map. Whatever it names has to match; `None` is anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criterion {
    /// The class-map it belongs to.
    pub class_map: ClassMapIndex,
    /// Its place there.
    pub place: u16,
    /// It matches what does not match.
    pub negated: bool,
    /// Source addresses of the original packet.
    pub source: Option<IpPrefix>,
    /// Destination addresses.
    pub destination: Option<IpPrefix>,
    /// IP protocol, or IPv6 upper-layer protocol.
    pub protocol: Option<u8>,
    /// Source ports of TCP, UDP or SCTP; no later fragment has any.
    pub source_ports: Option<PortRange>,
    /// Destination ports.
    pub destination_ports: Option<PortRange>,
    /// TCP flags.
    pub tcp_flags: Option<TcpFlags>,
    /// DSCPs.
    pub dscps: Option<DscpSet>,
    /// The tunnel that the packet goes into.
    pub tunnel: Option<TunnelIndex>,
    /// The port that the packet came in by.
    pub ingress: Option<PortIndex>,
    /// 802.1p priorities of the tag that it came with: bit *n* stands for priority *n*. No frame without a tag has one.
    pub vlan_priorities: Option<u8>,
    /// Another class-map.
    pub nested: Option<ClassMapIndex>,
}

impl Criterion {
    /// The criterion that everything matches, at a place of a class-map: to be narrowed.
    #[must_use]
    pub const fn anything(class_map: ClassMapIndex, place: u16) -> Self {
        Self {
            class_map,
            place,
            negated: false,
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            tcp_flags: None,
            dscps: None,
            tunnel: None,
            ingress: None,
            vlan_priorities: None,
            nested: None,
        }
    }
}

/// A token bucket (RFC 2475 §2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficProfile {
    /// Rate in bit/s on the wire.
    pub rate_bps: u64,
    /// Depth in bytes on the wire; by default two longest packets and what the rate carries in 1 ms (shaper) or 20 ms
    /// (policer).
    pub burst_bytes: Option<u32>,
}

/// The second bucket of a policer, and with it the rule by which both give a packet its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecondBucket {
    /// None: what is above the committed rate is red.
    None,
    /// EBS in bytes, filled with what the first has no room for (RFC 2697).
    ExcessBurst(u32),
    /// PIR and PBS; a green packet takes of both (RFC 2698).
    Peak(TrafficProfile),
    /// EIR and EBS, each bucket for itself (RFC 4115).
    ExcessRate(TrafficProfile),
}

/// Colours that packets come with, by DSCP; all others are green.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColourAware {
    /// Yellow already.
    pub yellow: DscpSet,
    /// Red already.
    pub red: DscpSet,
}

/// What is done with a packet of a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoliceAction {
    /// It goes on.
    Transmit,
    /// It goes on with this DSCP, 0–63.
    SetDscp(u8),
    /// It is dropped.
    Drop,
}

/// A policer: a three-colour meter, and what is done with each colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Police {
    /// CIR and CBS.
    pub committed: TrafficProfile,
    /// The second bucket.
    pub second: SecondBucket,
    /// Colours that count already; without them the policer is colour-blind.
    pub aware: Option<ColourAware>,
    /// Green: what conforms.
    pub conform: PoliceAction,
    /// Yellow: what exceeds the committed rate only.
    pub exceed: PoliceAction,
    /// Red: what violates both.
    pub violate: PoliceAction,
}

impl Police {
    /// One bucket: what is above `committed` is dropped.
    #[must_use]
    pub const fn dropping(committed: TrafficProfile) -> Self {
        Self {
            committed,
            second: SecondBucket::None,
            aware: None,
            conform: PoliceAction::Transmit,
            exceed: PoliceAction::Transmit,
            violate: PoliceAction::Drop,
        }
    }
}

/// A policy-map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMap {
    /// Which policy-map.
    pub policy_map: PolicyMapIndex,
    /// What all its classes together may send, wherever it is at work.
    pub shape: Option<TrafficProfile>,
}

/// A share of the policy-map's rate, or of the port's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// Percent, 1–100.
    Percent(u8),
    /// Bit/s.
    Rate(u64),
}

/// How a class is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// Before all shares; level 0 before 1 before 2, one class for each.
    Priority {
        /// The level.
        level: u8,
    },
    /// By deficit round robin.
    Bandwidth(Share),
    /// Not at all: it goes straight on, metered and marked. All classes of a policy-map, or none.
    Unqueued,
}

/// How much of a class may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueLimit {
    /// Packets.
    Packets(u32),
    /// Bytes on the wire.
    Bytes(u32),
    /// What the class's rate carries in so many microseconds.
    Microseconds(u32),
}

/// Thresholds of WRED on the average queue in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropProfile {
    /// Below it nothing is dropped.
    pub min_packets: u16,
    /// From it on everything is.
    pub max_packets: u16,
    /// One packet in so many is dropped just below `max_packets`.
    pub one_in: u16,
}

/// Weighted random early detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wred {
    /// The average follows by 2^-weight; at most 16.
    pub weight: u8,
    /// For every DSCP without a profile of its own.
    pub default: DropProfile,
    /// By DSCP, at most [`PROFILES_MAX`].
    pub profiles: Vec<(u8, DropProfile)>,
}

/// What happens before the queue limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EarlyDrop {
    /// Nothing.
    None,
    /// WRED (RFC 2309).
    Wred(Wred),
    /// CoDel (RFC 8289).
    CoDel {
        /// Acceptable standing delay.
        target_us: u32,
        /// How long it has to be exceeded.
        interval_us: u32,
    },
    /// PIE (RFC 8033).
    Pie {
        /// The delay that it aims at; at most [`PIE_US_MAX`].
        target_us: u32,
        /// How long a burst may be without a drop; at most [`PIE_US_MAX`].
        burst_us: u32,
    },
}

/// A class of a policy-map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyClass {
    /// The policy-map it belongs to.
    pub policy_map: PolicyMapIndex,
    /// Its place there: classes are asked in order.
    pub place: u8,
    /// Which packets; none for the last class, which takes the rest.
    pub class_map: Option<ClassMapIndex>,
    /// How it is served.
    pub service: Service,
    /// What it is metered by on arrival.
    pub police: Option<Police>,
    /// How much may wait.
    pub limit: QueueLimit,
    /// What happens before.
    pub early: EarlyDrop,
    /// Mark ECN-capable packets where WRED, CoDel or PIE would drop others (RFC 3168 §5).
    pub ecn: bool,
    /// DSCP that the original packet gets, 0–63.
    pub set_dscp: Option<u8>,
    /// 802.1p priority that its frame leaves with, 0–7, by a port with tags.
    pub set_vlan_priority: Option<u8>,
}

impl PolicyClass {
    /// A class that meters and marks nothing, with 64 packets and tail drop where its packets wait: to be narrowed.
    #[must_use]
    pub const fn plain(
        policy_map: PolicyMapIndex,
        place: u8,
        class_map: Option<ClassMapIndex>,
        service: Service,
    ) -> Self {
        Self {
            policy_map,
            place,
            class_map,
            service,
            police: None,
            limit: QueueLimit::Packets(64),
            early: EarlyDrop::None,
            ecn: false,
            set_dscp: None,
            set_vlan_priority: None,
        }
    }
}

/// Where a policy-map is at work: on what leaves by a port, or on what goes into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServiceTarget {
    /// A port: its shaper stands before all tunnels', its classes take what has no policy of its own.
    Port(PortIndex),
    /// A tunnel.
    Tunnel(TunnelIndex),
}

/// A policy-map at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePolicy {
    /// Where.
    pub target: ServiceTarget,
    /// Which; a tunnel without one is served by its port's.
    pub policy_map: Option<PolicyMapIndex>,
    /// Classes look at the original packet; otherwise at the delivery header, as behind a router that does not
    /// pre-classify. Always true for a port.
    pub pre_classify: bool,
}

/// Packets of a class that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassDrops {
    /// By the class's policer.
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
    /// Too long for the port.
    pub size: u64,
}

/// Packets and bytes of one colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColourCount {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A class of a service policy as the dataplane sees it. Bytes are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The port it leaves by.
    pub port: PortIndex,
    /// Whose policy it is.
    pub target: ServiceTarget,
    /// The class's place in its policy-map.
    pub class: u8,
    /// Packets that came.
    pub offered_packets: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Packets that left.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that were dropped.
    pub dropped: ClassDrops,
    /// What its policer said: green, yellow, red; none without a policer.
    pub colours: Option<[ColourCount; 3]>,
    /// Packets that got a CE mark.
    pub marked: u64,
    /// Packets that wait.
    pub queued_packets: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Half of the packets waited no longer, in nanoseconds; at most a quarter too much.
    pub delay_p50_ns: Option<u64>,
    /// 99 % waited no longer.
    pub delay_p99_ns: Option<u64>,
    /// Tokens in the shaper of this policy, in bytes, as of the last packet that left.
    pub tokens_bytes: Option<u32>,
    /// Its depth in bytes.
    pub burst_bytes: Option<u32>,
    /// Its rate in bit/s.
    pub rate_bps: Option<u64>,
}
