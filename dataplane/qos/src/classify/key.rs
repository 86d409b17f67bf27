// SPDX-License-Identifier: Apache-2.0
//! A packet as the trees see it: lanes of 16 bits.
//!
//! ```text
//! lane   IPv4                    lane   IPv6
//! 0-1    source                  0-7    source
//! 2-3    destination             8-15   destination
//! 4, 5   ports                   16-17  ports
//! 6      protocol                18     protocol
//! 7      DSCP                    19     DSCP
//! 8      TCP flags               20     TCP flags
//! 9      VLAN priority           21     VLAN priority
//! 10     ingress port            22     ingress port
//! 11-12  tunnel                  23-24  tunnel
//! ```

use core::net::IpAddr;

use wire::{Dscp, IpProtocol};

use super::rule::{Arrival, Headers, vlan_value};

/// Behind the addresses: where a key has the source port; the other lanes follow in the order above.
pub(super) const SOURCE_PORT: usize = 0;
pub(super) const DESTINATION_PORT: usize = 1;
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
    pub const fn new(packet: &WholeV4, arrival: &Arrival) -> Self {
        let [s, d, p] = [halves(packet.source), halves(packet.destination), halves(packet.ports)];
        let t = halves(arrival.tunnel);
        let dscp = Dscp::of_tos(packet.tos).get() as u16;
        let vlan = vlan_value(arrival.vlan_priority) as u16;
        let (protocol, flags) = (packet.protocol.0 as u16, packet.tcp_flags as u16);
        Self {
            lanes: [
                s[0],
                s[1],
                d[0],
                d[1],
                p[0],
                p[1],
                protocol,
                dscp,
                flags,
                vlan,
                arrival.port,
                t[0],
                t[1],
                0,
                0,
                0,
            ],
        }
    }
}

impl<const LANES: usize> Key<LANES> {
    /// The key of `packet` with its addresses as these words.
    fn with_addresses(packet: &Headers, addresses: impl Iterator<Item = u16>) -> Self {
        let tunnel = halves(packet.arrival.tunnel);
        let others = [
            packet.source_port,
            packet.destination_port,
            u16::from(packet.protocol.0),
            u16::from(Dscp::of_tos(packet.tos).get()),
            u16::from(packet.tcp_flags),
            u16::from(vlan_value(packet.arrival.vlan_priority)),
            packet.arrival.port,
            tunnel[0],
            tunnel[1],
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
                let words = [source, destination].into_iter().flat_map(|address| halves(address.to_bits()));
                Some(Self::V4(Key::with_addresses(packet, words)))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let words = [source, destination].into_iter().flat_map(|address| address.segments());
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

#[inline(always)]
pub(super) const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}
