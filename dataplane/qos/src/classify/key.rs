// SPDX-License-Identifier: Apache-2.0
//! A packet as it is looked up: lanes of 16 bits.
//!
//! ```text
//! lane   IPv4                    lane   IPv6
//! 0-1    source                  0-7    source
//! 2-3    destination             8-15   destination
//! 4, 5   destination port, source port
//! 6      protocol                16-24  the same as 4 to 12
//! 7      DSCP
//! 8      TCP flags
//! 9      VLAN priority
//! 10     ingress port
//! 11-12  tunnel
//! ```
//!
//! Where a value takes several lanes, its least significant 16 bits come first: so an IPv4 key is a few shifts.

use core::net::IpAddr;

use wire::{Dscp, IpProtocol};

use super::rule::{Arrival, Headers, vlan_value};

/// Lanes, counted from behind the addresses.
pub(super) const DESTINATION_PORT: usize = 0;
pub(super) const SOURCE_PORT: usize = 1;
pub(super) const PROTOCOL: usize = 2;
pub(super) const DSCP: usize = 3;
pub(super) const TCP_FLAGS: usize = 4;
pub(super) const VLAN_PRIORITY: usize = 5;
pub(super) const INGRESS_PORT: usize = 6;
pub(super) const TUNNEL: usize = 7;
/// Lanes behind the addresses.
pub(super) const OTHERS: usize = 9;

/// What is looked up. What a packet has no value for is 0 or anything: no rule that matches it looks there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub struct Key<const LANES: usize> {
    pub(super) lanes: [u16; LANES],
}

/// The key of an IPv4 packet.
pub type KeyV4 = Key<16>;
/// The key of an IPv6 packet.
pub type KeyV6 = Key<32>;

const _: () = assert!(size_of::<KeyV4>() == 32 && size_of::<KeyV6>() == 64);

/// A whole IPv4 packet, or the first fragment of one, as the fast path has it at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeV4 {
    /// The source address.
    pub source: u32,
    /// The destination address.
    pub destination: u32,
    /// The first four bytes of the upper layer: source and destination port, if it has ports.
    pub ports: u32,
    /// The upper layer.
    pub protocol: IpProtocol,
    /// The ToS byte.
    pub tos: u8,
    /// TCP's flags; anything without TCP.
    pub tcp_flags: u8,
}

impl KeyV4 {
    /// The key of no packet.
    pub const NONE: Self = Self { lanes: [0; 16] };

    /// The key of a packet.
    #[inline(always)]
    #[must_use]
    pub fn new(packet: &WholeV4, arrival: &Arrival) -> Self {
        let dscp = u64::from(Dscp::of_tos(packet.tos).get());
        let vlan = u64::from(vlan_value(arrival.vlan_priority));
        let (tunnel, port) = (u64::from(arrival.tunnel), u64::from(arrival.port));
        let words: [u64; 4] = [
            u64::from(packet.source) | u64::from(packet.destination) << 32,
            u64::from(packet.ports) | u64::from(packet.protocol.0) << 32 | dscp << 48,
            u64::from(packet.tcp_flags) | vlan << 16 | port << 32 | tunnel << 48,
            tunnel >> 16,
        ];
        Self { lanes: zerocopy::transmute!(words.map(u64::to_le)) }
    }
}

impl<const LANES: usize> Key<LANES> {
    /// The key of `packet` with its addresses as these words.
    fn with_addresses(packet: &Headers, addresses: impl Iterator<Item = u16>) -> Self {
        let [high, low] = halves(packet.arrival.tunnel);
        let others = [
            packet.destination_port,
            packet.source_port,
            u16::from(packet.protocol.0),
            u16::from(Dscp::of_tos(packet.tos).get()),
            u16::from(packet.tcp_flags),
            u16::from(vlan_value(packet.arrival.vlan_priority)),
            packet.arrival.port,
            low,
            high,
        ];
        let mut lanes = [0; LANES];
        for (lane, value) in lanes.iter_mut().zip(addresses.chain(others)) {
            *lane = value;
        }
        Self { lanes }
    }
}

/// A packet's key, by family.
pub(super) enum AnyKey {
    V4(KeyV4),
    V6(KeyV6),
}

impl AnyKey {
    /// `None`: addresses of two families.
    pub(super) fn of(packet: &Headers) -> Option<Self> {
        match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = [source, destination]
                    .into_iter()
                    .flat_map(|address| halves(address.to_bits()).into_iter().rev());
                Some(Self::V4(Key::with_addresses(packet, words)))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let words = [source, destination]
                    .into_iter()
                    .flat_map(|address| address.segments().into_iter().rev());
                Some(Self::V6(Key::with_addresses(packet, words)))
            }
            _ => None,
        }
    }
}

impl KeyV6 {
    /// The key of an IPv6 packet; `None` for another.
    #[must_use]
    pub fn of(packet: &Headers) -> Option<Self> {
        match AnyKey::of(packet)? {
            AnyKey::V6(key) => Some(key),
            AnyKey::V4(_) => None,
        }
    }
}

/// The upper and the lower half.
pub(super) const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}
