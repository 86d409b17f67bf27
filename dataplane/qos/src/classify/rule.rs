// SPDX-License-Identifier: Apache-2.0
//! What a rule asks of a packet, and what it means: the linear scan that a compiled classifier must agree with.

use core::net::IpAddr;

use wire::flow::{Fragment, Parsed};
use wire::{Dscp, Family, IpProtocol};

/// The number of a class: what a classifier answers. What it means is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Class(pub u16);

/// All values from `first` to `last`, both included; none if `last` is below `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span<T> {
    /// The least value.
    pub first: T,
    /// The greatest.
    pub last: T,
}

impl<T: Copy + Ord> Span<T> {
    /// From `first` to `last`.
    pub const fn new(first: T, last: T) -> Self {
        Self { first, last }
    }

    /// One value.
    pub const fn only(value: T) -> Self {
        Self { first: value, last: value }
    }

    /// Whether `value` is one of them.
    pub fn contains(&self, value: T) -> bool {
        self.first <= value && value <= self.last
    }

    /// What both have; `None` if that is nothing.
    pub fn and(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }
}

/// Addresses of one family without a gap: a prefix, or any range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4, as numbers.
    V4(Span<u32>),
    /// IPv6, as numbers.
    V6(Span<u128>),
}

impl Addresses {
    /// All of IPv4.
    pub const ALL_V4: Self = Self::V4(Span::new(0, u32::MAX));
    /// All of IPv6.
    pub const ALL_V6: Self = Self::V6(Span::new(0, u128::MAX));

    /// Those of `address`/`length`, whose host bits do not count; `None` for a length that the family does not have.
    #[must_use]
    pub fn prefix(address: IpAddr, length: u8) -> Option<Self> {
        let host_bits = Family::of(address).address_bits().checked_sub(length)?;
        Some(match address {
            IpAddr::V4(address) => {
                let hosts = u32::MAX.checked_shr(32 - u32::from(host_bits)).unwrap_or(0);
                Self::V4(Span::new(address.to_bits() & !hosts, address.to_bits() | hosts))
            }
            IpAddr::V6(address) => {
                let hosts = u128::MAX.checked_shr(128 - u32::from(host_bits)).unwrap_or(0);
                Self::V6(Span::new(address.to_bits() & !hosts, address.to_bits() | hosts))
            }
        })
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(span), IpAddr::V4(address)) => span.contains(address.to_bits()),
            (Self::V6(span), IpAddr::V6(address)) => span.contains(address.to_bits()),
            _ => false,
        }
    }
}

/// A set of code points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dscps(pub u64);

impl Dscps {
    /// All of them.
    pub const ALL: Self = Self(u64::MAX);

    /// One.
    #[must_use]
    pub const fn only(dscp: Dscp) -> Self {
        Self(1 << dscp.get())
    }

    /// Those with an IP precedence of 0 to 7, the upper three bits (RFC 2474 §4.2.2); none for other values.
    #[must_use]
    pub const fn precedence(precedence: u8) -> Self {
        if precedence < 8 { Self(0xff << (8 * precedence)) } else { Self(0) }
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `dscp` is one of them.
    #[must_use]
    pub const fn contains(self, dscp: Dscp) -> bool {
        self.0 >> dscp.get() & 1 == 1
    }
}

/// A set of VLAN priorities (PCP), and of frames without a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanPriorities(u16);

impl VlanPriorities {
    /// All, with a tag or without.
    pub const ALL: Self = Self(0x1ff);
    /// Frames without a tag.
    pub const UNTAGGED: Self = Self(1 << UNTAGGED);

    /// One bit for each priority; frames without a tag are not among them.
    #[must_use]
    pub const fn of_bits(bits: u8) -> Self {
        Self(bits as u16)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// All others.
    #[must_use]
    pub const fn not(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }

    /// Whether a frame with this priority is one of them; `None`: a frame without a tag.
    #[must_use]
    pub fn contains(self, priority: Option<u8>) -> bool {
        self.0 >> vlan_value(priority) & 1 == 1
    }

    pub(super) const fn bits(self) -> u16 {
        self.0
    }
}

/// Stands for a frame without a tag, above all priorities.
const UNTAGGED: u8 = 8;

/// A priority as a number from 0 to 8.
pub(super) const fn vlan_value(priority: Option<u8>) -> u8 {
    match priority {
        Some(priority) => priority & 7,
        None => UNTAGGED,
    }
}

/// TCP's flags that are looked at, and what they must be (RFC 9293 §3.1, the byte from CWR to FIN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// What they must be, in the bits of `mask`.
    pub value: u8,
    /// Which are looked at.
    pub mask: u8,
}

impl TcpFlags {
    /// Whether these flags are such.
    #[must_use]
    pub const fn contains(self, flags: u8) -> bool {
        (flags ^ self.value) & self.mask == 0
    }
}

/// The tunnel of a packet that has not come from one.
pub const NO_TUNNEL: u32 = u32::MAX;

/// What a packet must be to be of a class. All of it must hold.
///
/// A rule that names ports is for TCP, UDP, UDP-Lite, DCCP and SCTP, one that names flags for TCP; a later fragment has
/// neither, and [`Fragments`] says what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it comes from; `None`: anywhere, in both families.
    pub source: Option<Addresses>,
    /// Where it goes.
    pub destination: Option<Addresses>,
    /// The upper-layer protocol.
    pub protocols: Span<u8>,
    /// The source port; `None`: any, or none at all.
    pub source_ports: Option<Span<u16>>,
    /// The destination port.
    pub destination_ports: Option<Span<u16>>,
    /// TCP's flags.
    pub tcp_flags: Option<TcpFlags>,
    /// The code point; IP precedence is a set of them.
    pub dscps: Dscps,
    /// The VLAN priority with which it came.
    pub vlan_priorities: VlanPriorities,
    /// The tunnels it may come from; [`NO_TUNNEL`] stands for none.
    pub tunnels: Span<u32>,
    /// The port it came in on.
    pub ingress_ports: Span<u16>,
    /// Whether it must be a later fragment, or must not.
    pub later_fragment: Option<bool>,
    /// Its class then.
    pub class: Class,
}

impl Rule {
    /// Every packet.
    #[must_use]
    pub const fn any(class: Class) -> Self {
        Self {
            source: None,
            destination: None,
            protocols: Span::new(0, u8::MAX),
            source_ports: None,
            destination_ports: None,
            tcp_flags: None,
            dscps: Dscps::ALL,
            vlan_priorities: VlanPriorities::ALL,
            tunnels: Span::new(0, u32::MAX),
            ingress_ports: Span::new(0, u16::MAX),
            later_fragment: None,
            class,
        }
    }

    /// Whether it asks for an upper-layer header, which a later fragment does not have.
    pub(super) const fn wants_upper_layer(&self) -> bool {
        self.source_ports.is_some() || self.destination_ports.is_some() || self.tcp_flags.is_some()
    }

    /// The protocols for which it can hold: each for itself if it asks for an upper-layer header.
    pub(super) fn protocols_it_can_hold_for(&self) -> Vec<Span<u8>> {
        if !self.wants_upper_layer() {
            return vec![self.protocols];
        }
        let can_hold = |protocol: &IpProtocol| {
            self.protocols.contains(protocol.0)
                && (!self.wants_ports() || protocol.has_ports())
                && (self.tcp_flags.is_none() || *protocol == IpProtocol::TCP)
        };
        (0..=u8::MAX).map(IpProtocol).filter(can_hold).map(|protocol| Span::only(protocol.0)).collect()
    }

    /// Whether `packet` is such, under `fragments`.
    #[must_use]
    pub fn matches(&self, packet: &Headers, fragments: Fragments) -> bool {
        self.matches_layer_3(packet) && self.matches_arrival(&packet.arrival) && {
            if packet.later_fragment {
                !self.wants_upper_layer() || self.is_named_by_layer_3(fragments)
            } else {
                self.matches_upper_layer(packet)
            }
        }
    }

    /// A later fragment's ports would be those of a protocol that has some.
    fn is_named_by_layer_3(&self, fragments: Fragments) -> bool {
        fragments == Fragments::Layer3
    }

    fn matches_layer_3(&self, packet: &Headers) -> bool {
        let among = |addresses: Option<Addresses>, address| addresses.is_none_or(|a| a.contains(address));
        Family::of(packet.source) == Family::of(packet.destination)
            && among(self.source, packet.source)
            && among(self.destination, packet.destination)
            && self.protocols.contains(packet.protocol.0)
            && self.dscps.contains(Dscp::of_tos(packet.tos))
            && self.later_fragment.is_none_or(|later| later == packet.later_fragment)
            && (!self.wants_ports() || packet.protocol.has_ports())
            && (self.tcp_flags.is_none() || packet.protocol == IpProtocol::TCP)
    }

    pub(super) const fn wants_ports(&self) -> bool {
        self.source_ports.is_some() || self.destination_ports.is_some()
    }

    fn matches_arrival(&self, arrival: &Arrival) -> bool {
        self.vlan_priorities.contains(arrival.vlan_priority)
            && self.tunnels.contains(arrival.tunnel)
            && self.ingress_ports.contains(arrival.port)
    }

    fn matches_upper_layer(&self, packet: &Headers) -> bool {
        let within = |ports: Option<Span<u16>>, port| ports.is_none_or(|ports| ports.contains(port));
        within(self.source_ports, packet.source_port)
            && within(self.destination_ports, packet.destination_port)
            && self.tcp_flags.is_none_or(|flags| flags.contains(packet.tcp_flags))
    }
}

/// What becomes of a later fragment, which has no ports and no flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fragments {
    /// It matches no rule that names ports or flags.
    #[default]
    WithoutPorts,
    /// It matches a rule by everything but ports and flags, so that it goes with its first fragment if no other rule
    /// for the same hosts stands before.
    Layer3,
    /// It is of this class, whatever the rules say.
    Class(Class),
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The port's number.
    pub port: u16,
    /// The priority in its 802.1Q tag; `None` without a tag.
    pub vlan_priority: Option<u8>,
    /// The tunnel's number, or [`NO_TUNNEL`].
    pub tunnel: u32,
}

/// What rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The upper layer.
    pub protocol: IpProtocol,
    /// The source port; anything where there is none.
    pub source_port: u16,
    /// The destination port; anything where there is none.
    pub destination_port: u16,
    /// TCP's flags; anything where there are none.
    pub tcp_flags: u8,
    /// The ToS byte or traffic class.
    pub tos: u8,
    /// Whether it is a fragment without upper-layer header.
    pub later_fragment: bool,
    /// How it came.
    pub arrival: Arrival,
}

impl Headers {
    /// Those of a parsed packet; `tcp_flags` counts for TCP only.
    #[must_use]
    pub fn of(parsed: &Parsed, tcp_flags: u8, arrival: Arrival) -> Self {
        Self {
            source: parsed.source,
            destination: parsed.destination,
            protocol: parsed.protocol,
            source_port: parsed.source_port,
            destination_port: parsed.destination_port,
            tcp_flags,
            tos: parsed.tos,
            later_fragment: parsed.fragment == Fragment::Later,
            arrival,
        }
    }
}

/// The place of the first rule that matches: what a classifier answers, slowly. For explanations and as a judge.
#[must_use]
pub fn first_match(rules: &[Rule], packet: &Headers, fragments: Fragments) -> Option<usize> {
    rules.iter().position(|rule| rule.matches(packet, fragments))
}
