// SPDX-License-Identifier: Apache-2.0
//! What `config.toml` says, entry by entry. Each field's default is in its comment, and in `docs/configuration.md`.
//!
//! Not here: whether it makes sense ([`Config::check`](Config::check)).

use core::net::IpAddr;

use ipnet::IpNet;
use messages::{
    DfPolicy, Direction, EspMode, IvPrefix, LifetimeLimits, MssClamp, PortRange, PortSide, TosPolicy,
};
use serde::{Deserialize, Serialize};
use wire::{IpProtocol, MacAddr};

use crate::dscp::{DeliveryDscp, DscpMapEntry, InnerDscp};
use crate::groups::GroupEntry;
use crate::quality::{ClassMapEntry, PolicyMapEntry};
use crate::scalar::{self, within};
use crate::values::{self, Action, Algorithm, KeyReference, ManualKeying, SaName};

/// TTL of headers that we put in front (RFC 1700, "recommended default").
const TTL: u8 = 64;
/// Anti-replay window of inbound SAs in packets, unless they say otherwise.
pub(crate) const REPLAY_WINDOW: u16 = 1024;
/// What TOML's integers hold.
const TOML_MAX: i64 = i64::MAX;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Needed as soon as there is an SA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manual_keying: Option<ManualKeying>,
    /// Addresses of ours without a port.
    #[serde(with = "values::singles", skip_serializing_if = "Vec::is_empty")]
    pub loopbacks: Vec<IpAddr>,
    /// Ports that are used.
    #[serde(rename = "port", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortEntry>,
    /// Neighbours that are not asked for their Ethernet address.
    #[serde(rename = "neighbor", skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<NeighborEntry>,
    /// Routes.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteEntry>,
    /// Pairs of ESP endpoints.
    #[serde(rename = "protection", skip_serializing_if = "Vec::is_empty")]
    pub protections: Vec<ProtectionEntry>,
    /// GRE tunnels.
    #[serde(rename = "tunnel", skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<TunnelEntry>,
    /// SPD entries: of each port's the first that matches decides.
    #[serde(rename = "policy", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyEntry>,
    /// Security associations.
    #[serde(rename = "sa", skip_serializing_if = "Vec::is_empty")]
    pub sas: Vec<SaEntry>,
    /// Names for packets.
    #[serde(rename = "class_map", skip_serializing_if = "Vec::is_empty")]
    pub class_maps: Vec<ClassMapEntry>,
    /// Classes, and how they are served.
    #[serde(rename = "policy_map", skip_serializing_if = "Vec::is_empty")]
    pub policy_maps: Vec<PolicyMapEntry>,
    /// DSCPs that become others.
    #[serde(rename = "dscp_map", skip_serializing_if = "Vec::is_empty")]
    pub dscp_maps: Vec<DscpMapEntry>,
}

/// `[[port]]`: a port of `dataplane.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PortEntry {
    /// Its name there.
    pub name: String,
    /// Side of the IPsec boundary (RFC 4301 §3.1).
    #[serde(with = "scalar")]
    pub side: PortSide,
    /// Its addresses; each brings its prefix as a route.
    #[serde(with = "scalar::list", default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// The largest IP packet in bytes; by default what the dataplane opened the port with.
    #[serde(
        deserialize_with = "within::optional::<_, _, 576, 9216>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub mtu: Option<u16>,
    /// Answers ICMP and ICMPv6 echo requests. Default true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub answer_ping: bool,
    /// The policy-map of what leaves by it. Default none: nothing is scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_policy: Option<String>,
}

/// `[[neighbor]]`: a static neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct NeighborEntry {
    /// The port it is on.
    pub port: String,
    /// Its address.
    #[serde(with = "scalar")]
    pub address: IpAddr,
    /// Its Ethernet address.
    #[serde(with = "scalar")]
    pub mac: MacAddr,
}

/// `[[route]]`: exactly one of `tunnel`, `port` and `discard`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RouteEntry {
    /// Destinations.
    #[serde(with = "scalar")]
    pub prefix: IpNet,
    /// Into this tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Out of this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// With a port: to this next hop. Without, the destinations are neighbours themselves.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Dropped. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub discard: bool,
}

/// `[[protection]]`: a pair of ESP endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ProtectionEntry {
    /// Its name.
    pub name: String,
    /// Mode of ESP. Default transport.
    #[serde(with = "scalar", default = "transport")]
    pub mode: EspMode,
    /// Our endpoint.
    #[serde(with = "scalar")]
    pub local: IpAddr,
    /// The peer's endpoint.
    #[serde(with = "scalar")]
    pub remote: IpAddr,
    /// ToS of the header in tunnel mode. Default copy.
    #[serde(with = "scalar", default = "copy_tos", skip_serializing_if = "is_copy_tos")]
    pub tos: TosPolicy,
    /// DF of the header in tunnel mode. Default copy.
    #[serde(with = "scalar", default = "copy_df", skip_serializing_if = "is_copy_df")]
    pub df: DfPolicy,
    /// TTL or hop limit of the header in tunnel mode. Default 64.
    #[serde(
        deserialize_with = "within::number::<_, _, 1, 255>",
        default = "ttl",
        skip_serializing_if = "is_ttl"
    )]
    pub ttl: u8,
    /// Groups of DSCPs that have an outbound SA of their own. Default none: one SA takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupEntry>,
}

/// `[[tunnel]]`: a point-to-point GRE tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TunnelEntry {
    /// Its name.
    pub name: String,
    /// Our delivery address.
    #[serde(with = "scalar")]
    pub source: IpAddr,
    /// The peer's delivery address.
    #[serde(with = "scalar")]
    pub destination: IpAddr,
    /// GRE key. Default none.
    #[serde(
        deserialize_with = "within::optional::<_, _, 0, 4294967295>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub key: Option<u32>,
    /// Send the GRE checksum. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checksum: bool,
    /// Send GRE sequence numbers and drop what arrives out of order. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sequence: bool,
    /// Tunnel protection. Without it, the SPD of the egress port decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
    /// DSCP of the delivery header. Default copy.
    #[serde(with = "scalar", default, skip_serializing_if = "is_default")]
    pub tos: DeliveryDscp,
    /// DSCP of what comes out of it. Default keep.
    #[serde(with = "scalar", default, skip_serializing_if = "is_default")]
    pub inner_tos: InnerDscp,
    /// DF of the delivery header. Default copy.
    #[serde(with = "scalar", default = "copy_df", skip_serializing_if = "is_copy_df")]
    pub df: DfPolicy,
    /// TTL or hop limit of the delivery header. Default 64.
    #[serde(
        deserialize_with = "within::number::<_, _, 1, 255>",
        default = "ttl",
        skip_serializing_if = "is_ttl"
    )]
    pub ttl: u8,
    /// Largest payload packet in bytes. Default: what the encapsulation leaves of the egress port's MTU.
    #[serde(
        deserialize_with = "within::optional::<_, _, 68, 9216>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub mtu: Option<u16>,
    /// TCP MSS clamping. Default automatic.
    #[serde(with = "scalar", default = "automatic", skip_serializing_if = "is_automatic")]
    pub mss: MssClamp,
    /// Drop payload packets whose source is not routed to this tunnel. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict_source: bool,
    /// The policy-map of what goes into it. Default that of the port it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_policy: Option<String>,
    /// Classes look at the original packet; otherwise at the delivery header. Default true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub pre_classify: bool,
}

/// `[[policy]]`: an entry of a port's SPD. A selector that is absent is ANY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct PolicyEntry {
    /// Its name.
    pub name: String,
    /// The unprotected port in whose SPD it stands.
    pub port: String,
    /// Local addresses: sources of what we send, destinations of what we receive.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpNet>,
    /// Remote addresses.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpNet>,
    /// IP protocol, or IPv6 upper-layer protocol.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<IpProtocol>,
    /// Local ports of TCP, UDP or SCTP.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub local_ports: Option<PortRange>,
    /// Remote ports.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub remote_ports: Option<PortRange>,
    /// What becomes of packets that match.
    pub action: Action,
    /// By which protection, if they are protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
}

/// `[[sa]]`: a security association.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SaEntry {
    /// The protection it belongs to.
    pub protection: String,
    /// Inbound: we open with it. Outbound: we seal with it.
    #[serde(with = "scalar")]
    pub direction: Direction,
    /// The SPI, at least 0x100.
    #[serde(with = "values::spi")]
    pub spi: u32,
    /// Outbound: the class group of its protection that it carries; inbound: the one that it takes turns with when it is
    /// replaced. Default the default group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Algorithm. Default `ENCR_AES_GCM_16`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// File with the key, or else `key_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Name of a key in control's own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Extended sequence numbers. Default false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub esn: bool,
    /// Inbound: anti-replay window in packets, 0 for none. Default 1024.
    #[serde(
        deserialize_with = "within::optional::<_, _, 0, 8192>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub replay_window: Option<u16>,
    /// Inbound: the worker that owns the window. By default the dataplane chooses.
    #[serde(
        deserialize_with = "within::optional::<_, _, 0, 65535>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub owner: Option<u16>,
    /// Outbound: high bits of each IV. Default none.
    #[serde(with = "IvPrefixForm", default, skip_serializing_if = "is_default")]
    pub iv_prefix: IvPrefix,
    /// When it is worn out. Default never.
    #[serde(with = "LifetimeForm", default, skip_serializing_if = "is_default")]
    pub lifetime: LifetimeLimits,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "IvPrefix", deny_unknown_fields, expecting = "a table, as in { bits = 8, value = 3 }")]
struct IvPrefixForm {
    #[serde(deserialize_with = "within::number::<_, _, 0, 32>")]
    bits: u8,
    #[serde(deserialize_with = "within::number::<_, _, 0, 4294967295>")]
    value: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "LifetimeLimits",
    deny_unknown_fields,
    expecting = "a table, as in { soft_seconds = 3000, hard_seconds = 3600 }"
)]
struct LifetimeForm {
    #[serde(
        deserialize_with = "within::number::<_, _, 0, TOML_MAX>",
        default,
        skip_serializing_if = "is_default"
    )]
    soft_bytes: u64,
    #[serde(
        deserialize_with = "within::number::<_, _, 0, TOML_MAX>",
        default,
        skip_serializing_if = "is_default"
    )]
    hard_bytes: u64,
    #[serde(
        deserialize_with = "within::number::<_, _, 0, TOML_MAX>",
        default,
        skip_serializing_if = "is_default"
    )]
    soft_packets: u64,
    #[serde(
        deserialize_with = "within::number::<_, _, 0, TOML_MAX>",
        default,
        skip_serializing_if = "is_default"
    )]
    hard_packets: u64,
    #[serde(
        deserialize_with = "within::number::<_, _, 0, 4294967295>",
        default,
        skip_serializing_if = "is_default"
    )]
    soft_seconds: u32,
    #[serde(
        deserialize_with = "within::number::<_, _, 0, 4294967295>",
        default,
        skip_serializing_if = "is_default"
    )]
    hard_seconds: u32,
}

impl SaEntry {
    /// What names it.
    #[must_use]
    pub fn name(&self) -> SaName {
        SaName { direction: self.direction, spi: self.spi }
    }

    /// Whose place it takes when it is replaced: that of an SA of the same protection, direction and group.
    #[must_use]
    pub fn place(&self) -> (&str, Direction, Option<&str>) {
        (&self.protection, self.direction, self.group.as_deref())
    }

    /// Where its key is; none if it says both or neither, which [`Config::check`] refuses.
    #[must_use]
    pub fn key(&self) -> Option<KeyReference<'_>> {
        match (&self.key_file, &self.key_id) {
            (Some(file), None) => Some(KeyReference::File(file)),
            (None, Some(id)) => Some(KeyReference::Id(id)),
            _ => None,
        }
    }
}

impl Config {
    /// The port of this name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&PortEntry> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The tunnel of this name.
    #[must_use]
    pub fn tunnel(&self, name: &str) -> Option<&TunnelEntry> {
        self.tunnels.iter().find(|tunnel| tunnel.name == name)
    }

    /// The protection of this name.
    #[must_use]
    pub fn protection(&self, name: &str) -> Option<&ProtectionEntry> {
        self.protections.iter().find(|protection| protection.name == name)
    }

    /// The SA of this name.
    #[must_use]
    pub fn sa(&self, name: SaName) -> Option<&SaEntry> {
        self.sas.iter().find(|sa| sa.name() == name)
    }

    /// Without the order of entries where order means nothing: all but the policies of one port.
    #[must_use]
    pub fn normalized(&self) -> Config {
        let mut config = self.clone();
        config.loopbacks.sort();
        config.ports.sort_by(|a, b| a.name.cmp(&b.name));
        config.ports.iter_mut().for_each(|port| port.addresses.sort());
        config.neighbors.sort_by(|a, b| (&a.port, a.address).cmp(&(&b.port, b.address)));
        config.routes.sort_by_key(|route| route.prefix);
        config.protections.sort_by(|a, b| a.name.cmp(&b.name));
        config.tunnels.sort_by(|a, b| a.name.cmp(&b.name));
        config.policies.sort_by(|a, b| a.port.cmp(&b.port));
        config.sas.sort_by_key(SaEntry::name);
        config.class_maps.sort_by(|a, b| a.name.cmp(&b.name));
        config.policy_maps.sort_by(|a, b| a.name.cmp(&b.name));
        config.dscp_maps.sort_by(|a, b| a.name.cmp(&b.name));
        config
    }
}

const fn yes() -> bool {
    true
}

const fn is_yes(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn transport() -> EspMode {
    EspMode::Transport
}

const fn copy_tos() -> TosPolicy {
    TosPolicy::Copy
}

fn is_copy_tos(tos: &TosPolicy) -> bool {
    *tos == TosPolicy::Copy
}

const fn copy_df() -> DfPolicy {
    DfPolicy::Copy
}

fn is_copy_df(df: &DfPolicy) -> bool {
    *df == DfPolicy::Copy
}

const fn automatic() -> MssClamp {
    MssClamp::Automatic
}

fn is_automatic(mss: &MssClamp) -> bool {
    *mss == MssClamp::Automatic
}

const fn ttl() -> u8 {
    TTL
}

const fn is_ttl(value: &u8) -> bool {
    *value == TTL
}
