// SPDX-License-Identifier: Apache-2.0
//! The objects that make up the wanted state. Plain data: a value that decodes may still be refused when the
//! transaction is compiled.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    ClassGroups, ClassMap, ClassMapIndex, Criterion, DscpMap, DscpMapIndex, PolicyClass, PolicyIndex,
    PolicyMap, PolicyMapIndex, PortIndex, ProtectionIndex, SaIndex, Secret, ServicePolicy, ServiceTarget,
    TunnelIndex, TunnelMarks, WorkerId,
};

/// A prefix; bits beyond `length` are zero in every valid object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IpPrefix {
    /// The network address.
    pub address: IpAddr,
    /// Prefix length in bits: 0–32 or 0–128.
    pub length: u8,
}

/// Which side of the IPsec boundary a port lies on (RFC 4301 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortSide {
    /// Inside: no SPD applies.
    Protected,
    /// Towards the untrusted network: the port's SPD decides, and what matches no entry is discarded.
    Unprotected,
}

/// What control may set of a port while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSettings {
    /// Which port.
    pub port: PortIndex,
    /// The largest IP packet in bytes, Ethernet header not included: 576–9,216 (1,280 at least for IPv6).
    pub mtu: u16,
    /// Side of the IPsec boundary.
    pub side: PortSide,
    /// Answer ICMP and ICMPv6 echo requests to the port's addresses.
    pub answer_ping: bool,
}

/// An address of ours. With a port it is that port's and brings its connected prefix; without, a loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The port, or none for a loopback address.
    pub port: Option<PortIndex>,
    /// The address itself.
    pub address: IpAddr,
    /// Length of the connected prefix.
    pub length: u8,
}

/// A neighbour that is never resolved nor aged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticNeighbor {
    /// The port it is reached through.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteTarget {
    /// Out of a port, to a next hop or, without one, to the destination itself.
    Port {
        /// The port.
        port: PortIndex,
        /// The next hop.
        next_hop: Option<IpAddr>,
    },
    /// Into a tunnel.
    Tunnel(TunnelIndex),
    /// Nowhere: dropped as `route_discard`.
    Discard,
}

/// A route. The longest prefix wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destinations.
    pub prefix: IpPrefix,
    /// Where they go.
    pub target: RouteTarget,
}

/// ToS byte of a header that we put in front (RFC 4301 §5.1.2; RFC 2983). ECN always follows RFC 6040.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TosPolicy {
    /// The DSCP of the packet inside.
    Copy,
    /// A fixed DSCP, 0–63.
    Dscp(u8),
}

/// DF bit of an IPv4 header that we put in front (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DfPolicy {
    /// As in the packet inside; set for IPv6 inside.
    Copy,
    /// Clear.
    Clear,
    /// Set.
    Set,
}

/// TCP MSS clamping on packets that pass a tunnel, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MssClamp {
    /// Leave TCP alone.
    Off,
    /// To the tunnel's MTU less IP and TCP headers.
    Automatic,
    /// To this many bytes, 216–9,176.
    Fixed(u16),
}

/// Options of the GRE header (RFC 2784, RFC 2890).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GreOptions {
    /// Key: sent, and demanded on receipt.
    pub key: Option<u32>,
    /// Send the checksum; it is verified on receipt whenever present.
    pub checksum: bool,
    /// Send sequence numbers, and drop what arrives out of order.
    pub sequence: bool,
}

/// A point-to-point GRE tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Which tunnel.
    pub tunnel: TunnelIndex,
    /// Our delivery address.
    pub source: IpAddr,
    /// The peer's delivery address.
    pub destination: IpAddr,
    /// GRE header options.
    pub gre: GreOptions,
    /// Tunnel protection. Without it the SPD of the egress port decides.
    pub protection: Option<ProtectionIndex>,
    /// ToS of the delivery header.
    pub tos: TosPolicy,
    /// DF of the delivery header.
    pub df: DfPolicy,
    /// TTL or hop limit of the delivery header, 1–255.
    pub ttl: u8,
    /// Largest payload packet in bytes; by default computed from the egress port's MTU and the overhead.
    pub mtu: Option<u16>,
    /// TCP MSS clamping.
    pub mss: MssClamp,
    /// Drop payload packets whose source is not routed to this tunnel (`strict_source`).
    pub strict_source: bool,
    /// DSCPs at both ends.
    pub marks: TunnelMarks,
}

/// ESP mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EspMode {
    /// The delivery header stays outside.
    Transport,
    /// A header of our own goes outside.
    Tunnel,
}

/// A pair of ESP endpoints: what an SPD entry with PROTECT, or a tunnel's protection, points to. SAs belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Which protection.
    pub protection: ProtectionIndex,
    /// Transport or tunnel mode.
    pub mode: EspMode,
    /// Our ESP endpoint.
    pub local: IpAddr,
    /// The peer's ESP endpoint.
    pub remote: IpAddr,
    /// ToS of the tunnel mode header.
    pub tos: TosPolicy,
    /// DF of the tunnel mode header.
    pub df: DfPolicy,
    /// TTL or hop limit of the tunnel mode header, 1–255.
    pub ttl: u8,
    /// Which packets go under which of its outbound SAs.
    pub class_groups: ClassGroups,
}

/// Ports, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
}

/// Selectors of an SPD entry (RFC 4301 §4.4.1.1). `None` is ANY. Local and remote are as seen from us:
/// outbound packets have local sources, inbound packets local destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// Local addresses.
    pub local: Option<IpPrefix>,
    /// Remote addresses.
    pub remote: Option<IpPrefix>,
    /// IP protocol (IPv6: the upper-layer protocol).
    pub protocol: Option<u8>,
    /// Local TCP, UDP or SCTP ports; an entry with ports matches no later fragment.
    pub local_ports: Option<PortRange>,
    /// Remote ports.
    pub remote_ports: Option<PortRange>,
}

/// What an SPD entry does (RFC 4301 §4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAction {
    /// Under ESP, by this protection.
    Protect(ProtectionIndex),
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
}

/// An entry of a port's ordered SPD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Which entry.
    pub policy: PolicyIndex,
    /// The unprotected port whose SPD it stands in.
    pub port: PortIndex,
    /// Place in the order: lower goes first; equal orders are refused.
    pub order: u32,
    /// Which packets.
    pub selector: Selector,
    /// What becomes of them.
    pub action: PolicyAction,
}

/// Direction of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// We open with it.
    Inbound,
    /// We seal with it.
    Outbound,
}

/// High bits of every IV of an SA: a sender id for group SAs (RFC 6054 §3). Empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IvPrefix {
    /// Number of bits, 0–32.
    pub bits: u8,
    /// Their value, below 2^bits.
    pub value: u32,
}

/// When an SA is worn out (RFC 4301 §4.4.2.1). Zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifetimeLimits {
    /// An event says that it should be replaced, after this many payload bytes.
    pub soft_bytes: u64,
    /// It carries nothing more after this many payload bytes.
    pub hard_bytes: u64,
    /// Event after this many packets.
    pub soft_packets: u64,
    /// End after this many packets.
    pub hard_packets: u64,
    /// Event this many seconds after the SA was installed.
    pub soft_seconds: u32,
    /// End this many seconds after the SA was installed.
    pub hard_seconds: u32,
}

/// Algorithm and key of an SA: `ENCR_AES_GCM_16`, `_12` or `_8` (RFC 4106, RFC 8221).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Key {
    /// AES key and salt.
    pub secret: Secret,
    /// ICV length in bytes: 16, 12 or 8.
    pub icv_bytes: u8,
}

/// A security association.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sa {
    /// Which SA.
    pub sa: SaIndex,
    /// The protection it belongs to. Outbound: at most one SA for each (protection, class group).
    pub protection: ProtectionIndex,
    /// Inbound or outbound.
    pub direction: Direction,
    /// The SPI; 0–255 are reserved (RFC 4303 §2.1).
    pub spi: u32,
    /// Algorithm and key.
    pub key: Key,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Inbound: anti-replay window in packets, a power of two from 64 to 8,192; 0 switches the check off.
    pub replay_window: u16,
    /// Outbound: the class group of its protection that it carries.
    pub class_group: u8,
    /// Inbound: the worker that owns the window; by default the dataplane spreads them by SPI.
    pub owner: Option<WorkerId>,
    /// Outbound: high bits of each IV.
    pub iv_prefix: IvPrefix,
    /// Lifetimes.
    pub lifetime: LifetimeLimits,
}

/// Any object of the wanted state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "a message is decoded in place and consumed at once")]
pub enum Object {
    /// A port's settings.
    Port(PortSettings),
    /// An address of ours.
    Address(Address),
    /// A static neighbour.
    Neighbor(StaticNeighbor),
    /// A route.
    Route(Route),
    /// A GRE tunnel.
    Tunnel(Tunnel),
    /// An ESP endpoint pair.
    Protection(Protection),
    /// An SPD entry.
    Policy(Policy),
    /// A security association.
    Sa(Sa),
    /// A class-map.
    ClassMap(ClassMap),
    /// A criterion of a class-map.
    Criterion(Criterion),
    /// A policy-map.
    PolicyMap(PolicyMap),
    /// A class of a policy-map.
    PolicyClass(PolicyClass),
    /// A policy-map at work.
    ServicePolicy(ServicePolicy),
    /// A map of DSCPs.
    DscpMap(DscpMap),
}

/// What names an object; putting another object under the same id replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectId {
    /// A port's settings.
    Port(PortIndex),
    /// An address of ours.
    Address(IpAddr),
    /// A static neighbour.
    Neighbor(PortIndex, IpAddr),
    /// A route.
    Route(IpPrefix),
    /// A GRE tunnel.
    Tunnel(TunnelIndex),
    /// An ESP endpoint pair.
    Protection(ProtectionIndex),
    /// An SPD entry.
    Policy(PolicyIndex),
    /// A security association.
    Sa(SaIndex),
    /// A class-map.
    ClassMap(ClassMapIndex),
    /// A criterion of a class-map, by its place.
    Criterion(ClassMapIndex, u16),
    /// A policy-map.
    PolicyMap(PolicyMapIndex),
    /// A class of a policy-map, by its place.
    PolicyClass(PolicyMapIndex, u8),
    /// The policy-map of a port or tunnel.
    ServicePolicy(ServiceTarget),
    /// A map of DSCPs.
    DscpMap(DscpMapIndex),
}

impl Object {
    /// The object's id.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Port(x) => ObjectId::Port(x.port),
            Self::Address(x) => ObjectId::Address(x.address),
            Self::Neighbor(x) => ObjectId::Neighbor(x.port, x.address),
            Self::Route(x) => ObjectId::Route(x.prefix),
            Self::Tunnel(x) => ObjectId::Tunnel(x.tunnel),
            Self::Protection(x) => ObjectId::Protection(x.protection),
            Self::Policy(x) => ObjectId::Policy(x.policy),
            Self::Sa(x) => ObjectId::Sa(x.sa),
            Self::ClassMap(x) => ObjectId::ClassMap(x.class_map),
            Self::Criterion(x) => ObjectId::Criterion(x.class_map, x.place),
            Self::PolicyMap(x) => ObjectId::PolicyMap(x.policy_map),
            Self::PolicyClass(x) => ObjectId::PolicyClass(x.policy_map, x.place),
            Self::ServicePolicy(x) => ObjectId::ServicePolicy(x.target),
            Self::DscpMap(x) => ObjectId::DscpMap(x.dscp_map),
        }
    }
}

impl core::fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl core::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Neighbor(port, address) => write!(f, "neighbor {address} on port {port}"),
            Self::Route(prefix) => write!(f, "route {prefix}"),
            Self::Tunnel(tunnel) => write!(f, "tunnel {tunnel}"),
            Self::Protection(protection) => write!(f, "protection {protection}"),
            Self::Policy(policy) => write!(f, "policy {policy}"),
            Self::Sa(sa) => write!(f, "SA {sa}"),
            Self::ClassMap(map) => write!(f, "class-map {map}"),
            Self::Criterion(map, place) => write!(f, "criterion {place} of class-map {map}"),
            Self::PolicyMap(map) => write!(f, "policy-map {map}"),
            Self::PolicyClass(map, place) => write!(f, "class {place} of policy-map {map}"),
            Self::DscpMap(map) => write!(f, "dscp-map {map}"),
            Self::ServicePolicy(ServiceTarget::Port(port)) => write!(f, "service-policy of port {port}"),
            Self::ServicePolicy(ServiceTarget::Tunnel(tunnel)) => {
                write!(f, "service-policy of tunnel {tunnel}")
            }
        }
    }
}
