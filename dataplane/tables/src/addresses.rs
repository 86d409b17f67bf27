// SPDX-License-Identifier: Apache-2.0
//! Our own addresses, and the prefixes that they connect.

use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;
use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{Address, IpPrefix, PortIndex};
use wire::address::is_ipv4_host;

use crate::filter::Filter;
use crate::paged::PagedMap;
use crate::regions::Regions;

/// First octets of addresses that hosts do not have: 0/8, 127/8, 169.254/16, and all from 224.0.0.0 on (RFC 6890).
const NO_HOSTS: [RangeInclusive<u8>; 4] = [0..=0, 127..=127, 169..=169, 224..=255];

/// An address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Its port; none for a loopback address.
    pub port: Option<PortIndex>,
}

/// Our addresses.
#[derive(Clone)]
pub struct Addresses {
    local: PagedMap<[u64; 3], LocalAddress>,
    /// Broadcast addresses of connected prefixes.
    broadcast: PagedMap<u32, ()>,
    /// Both of them, IPv4.
    special: Filter,
    /// Where they lie, and addresses that hosts do not have.
    regions: Regions,
    by_port: Arc<[OnPort]>,
}

/// A port's addresses with their prefixes, longest first: a handful.
type OnPort = Box<[(IpPrefix, IpAddr)]>;

impl Addresses {
    /// Whether `address` is ours, on whatever port or none.
    #[inline]
    #[must_use]
    pub fn is_local(&self, address: &IpAddr) -> bool {
        self.local(address).is_some()
    }

    /// Where `address` lives, if it is ours.
    #[inline]
    #[must_use]
    pub fn local(&self, address: &IpAddr) -> Option<LocalAddress> {
        self.local.get(&address_words(address)).copied()
    }

    /// Whether `address` is one of the port's own, for which it answers ARP requests and neighbour solicitations.
    #[inline]
    #[must_use]
    pub fn on_port(&self, port: PortIndex, address: &IpAddr) -> bool {
        self.local(address).is_some_and(|local| local.port == Some(port))
    }

    /// The address of ours to ask for `destination` from: one of the port that shares its prefix, or else one of the
    /// same family.
    #[must_use]
    pub fn source_for(&self, port: PortIndex, destination: &IpAddr) -> Option<IpAddr> {
        let addresses = self.by_port.get(port.index())?;
        let same_prefix = addresses.iter().find(|(prefix, _)| contains(prefix, destination));
        let same_family = || addresses.iter().find(|(_, own)| own.is_ipv4() == destination.is_ipv4());
        same_prefix.or_else(same_family).map(|(_, own)| *own)
    }

    /// Whether `address` is a broadcast address of a connected IPv4 prefix: all host bits one, or, as hosts of old
    /// meant it, zero (RFC 1812 §5.3.5). A /31 and a /32 have none (RFC 3021).
    #[inline]
    #[must_use]
    pub fn is_broadcast(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.broadcast.get(&u32::from(*address)).is_some(),
            IpAddr::V6(_) => false,
        }
    }

    /// Whether an IPv4 address is another host's: not ours, no broadcast address, not link-local, and one that a host may
    /// have (RFC 6890). For most that are, told by one bit.
    #[inline(always)]
    #[must_use]
    pub fn is_foreign_host(&self, address: u32) -> bool {
        !self.regions.contains(address) || self.is_foreign_after_a_look(address)
    }

    /// A neighbour of special addresses mostly, and so not found among them.
    #[inline(never)]
    fn is_foreign_after_a_look(&self, address: u32) -> bool {
        let [first, ..] = address.to_be_bytes();
        let may_be_special = NO_HOSTS.iter().any(|octets| octets.contains(&first));
        !(may_be_special || self.special.may_contain(address)) || self.is_foreign_after_all(address)
    }

    #[cold]
    fn is_foreign_after_all(&self, address: u32) -> bool {
        let address = Ipv4Addr::from_bits(address);
        let is_common = is_ipv4_host(address) && !address.is_link_local();
        let address = IpAddr::V4(address);
        is_common && !self.is_local(&address) && !self.is_broadcast(&address)
    }

    /// Whether a connected prefix of the port contains `address`.
    #[must_use]
    pub(crate) fn is_connected(&self, port: PortIndex, address: &IpAddr) -> bool {
        let addresses = self.by_port.get(port.index());
        addresses.is_some_and(|addresses| addresses.iter().any(|(prefix, _)| contains(prefix, address)))
    }

    /// Whether the port has an address of the family of `address`.
    pub(crate) fn has_family(&self, port: PortIndex, address: &IpAddr) -> bool {
        let addresses = self.by_port.get(port.index());
        addresses.is_some_and(|list| list.iter().any(|(_, own)| own.is_ipv4() == address.is_ipv4()))
    }

    pub(crate) fn build(addresses: &BTreeMap<IpAddr, Address>) -> Addresses {
        let mut local = PagedMap::default();
        let mut broadcast = PagedMap::default();
        let mut special = Filter::for_entries(addresses.len() * 3);
        let mut regions = Regions::new();
        NO_HOSTS.into_iter().flatten().for_each(|octet| regions.insert_first_octet(octet));
        let mut by_port: Vec<Vec<(IpPrefix, IpAddr)>> = Vec::new();
        for own in addresses.values() {
            // Keys are distinct addresses, and a prefix may be connected twice: neither is an error here.
            let _ = local.insert(address_words(&own.address), LocalAddress { port: own.port });
            if let IpAddr::V4(address) = own.address {
                special.insert(address.to_bits());
                regions.insert(address.to_bits());
            }
            let Some(port) = own.port else { continue };
            for address in broadcasts(&own.address, own.length) {
                let _ = broadcast.insert(u32::from(address), ());
                special.insert(address.to_bits());
                regions.insert(address.to_bits());
            }
            by_port.resize_with(by_port.len().max(port.index() + 1), Vec::new);
            by_port[port.index()].push((connected_prefix(own), own.address));
        }
        for list in &mut by_port {
            list.sort_by_key(|(prefix, own)| (core::cmp::Reverse(prefix.length), *own));
        }
        let by_port = by_port.into_iter().map(Into::into).collect();
        Addresses { local, broadcast, special, regions, by_port }
    }
}

impl core::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Addresses").field("by_port", &self.by_port).finish_non_exhaustive()
    }
}

/// An address as words of a hash key. The last word keeps the families apart, IPv4-mapped addresses too.
#[inline]
pub(crate) fn address_words(address: &IpAddr) -> [u64; 3] {
    match address {
        IpAddr::V4(address) => [0, u64::from(u32::from(*address)), 4],
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, rest @ ..] = address.octets();
            [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest), 6]
        }
    }
}

/// The address whose bits are `bits`, IPv4 in the lowest 32; and back.
pub(crate) fn address_bits(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(*address)),
        IpAddr::V6(address) => u128::from(*address),
    }
}

/// Length of the family's addresses in bits.
pub(crate) fn family_bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The mask of the host part, in the lowest bits.
pub(crate) fn host_mask(address: &IpAddr, length: u8) -> u128 {
    let host_bits = u32::from(family_bits(address).saturating_sub(length));
    1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1)
}

/// Whether `prefix` contains `address`; never one of the other family.
pub(crate) fn contains(prefix: &IpPrefix, address: &IpAddr) -> bool {
    prefix.address.is_ipv4() == address.is_ipv4()
        && (address_bits(&prefix.address) ^ address_bits(address)) & !host_mask(address, prefix.length) == 0
}

/// The prefix that an address connects.
pub(crate) fn connected_prefix(own: &Address) -> IpPrefix {
    let host = host_mask(&own.address, own.length);
    let address = match own.address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !low_32(host))),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !host).into()),
    };
    IpPrefix { address, length: own.length }
}

/// Both broadcast addresses of the prefix that `address` is in, if it has such.
pub(crate) fn broadcasts(address: &IpAddr, length: u8) -> impl Iterator<Item = Ipv4Addr> {
    let both = match address {
        IpAddr::V4(own) if length <= 30 => {
            let host = low_32(host_mask(address, length));
            Some([own.to_bits() | host, own.to_bits() & !host])
        }
        _ => None,
    };
    both.into_iter().flatten().map(Ipv4Addr::from_bits)
}

fn low_32(bits: u128) -> u32 {
    u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(port: Option<u16>, address: &str, length: u8) -> (IpAddr, Address) {
        let address = address.parse().unwrap();
        (address, Address { port: port.map(PortIndex), address, length })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn example() -> Addresses {
        Addresses::build(&BTreeMap::from([
            own(Some(0), "192.0.2.1", 24),
            own(Some(0), "192.0.2.129", 25),
            own(Some(0), "2001:db8::1", 64),
            own(Some(0), "fe80::1", 64),
            own(Some(2), "198.51.100.0", 31),
            own(None, "203.0.113.7", 24),
        ]))
    }

    #[test]
    fn ours_is_what_was_configured_and_the_families_are_apart() {
        let addresses = example();
        assert_eq!(addresses.local(&ip("192.0.2.1")), Some(LocalAddress { port: Some(PortIndex(0)) }));
        assert_eq!(addresses.local(&ip("203.0.113.7")), Some(LocalAddress { port: None }));
        assert!(addresses.is_local(&ip("2001:db8::1")));
        for other in ["192.0.2.2", "::ffff:192.0.2.1", "::192.0.2.1", "2001:db8::2"] {
            assert!(!addresses.is_local(&ip(other)), "{other}");
        }
        assert!(addresses.on_port(PortIndex(0), &ip("192.0.2.129")));
        assert!(!addresses.on_port(PortIndex(2), &ip("192.0.2.1")));
        assert!(!addresses.on_port(PortIndex(0), &ip("203.0.113.7")), "a loopback address is on no port");
    }

    #[test]
    fn we_ask_from_the_longest_prefix_that_the_neighbour_is_on() {
        let addresses = example();
        let from = |port, destination| addresses.source_for(PortIndex(port), &ip(destination));
        assert_eq!(from(0, "192.0.2.200"), Some(ip("192.0.2.129")));
        assert_eq!(from(0, "192.0.2.100"), Some(ip("192.0.2.1")));
        assert_eq!(from(0, "fe80::99"), Some(ip("fe80::1")));
        assert_eq!(from(0, "2001:db8::99"), Some(ip("2001:db8::1")));
        assert_eq!(from(2, "198.51.100.1"), Some(ip("198.51.100.0")));
        assert_eq!(from(2, "203.0.113.9"), Some(ip("198.51.100.0")), "another prefix, the same family");
        assert_eq!(from(2, "2001:db8::1"), None);
        assert_eq!(from(1, "192.0.2.1"), None);
        assert_eq!(from(9, "192.0.2.1"), None);
    }

    #[test]
    fn broadcasts_are_those_of_connected_prefixes_longer_than_a_host_route() {
        let addresses = example();
        for broadcast in ["192.0.2.255", "192.0.2.0", "192.0.2.128"] {
            assert!(addresses.is_broadcast(&ip(broadcast)), "{broadcast}");
        }
        for host in ["192.0.2.1", "198.51.100.0", "198.51.100.1", "203.0.113.255", "2001:db8::"] {
            assert!(!addresses.is_broadcast(&ip(host)), "{host}");
        }
    }

    #[test]
    fn a_prefix_of_any_length_contains_what_shares_its_bits() {
        for (address, length, inside, outside) in [
            ("10.0.0.0", 8, "10.255.255.255", "11.0.0.0"),
            ("192.0.2.1", 32, "192.0.2.1", "192.0.2.0"),
            ("2001:db8::", 33, "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::1", 128, "::1", "::"),
            ("0.0.0.0", 0, "255.255.255.255", "::"),
            ("::", 0, "ffff::", "0.0.0.0"),
        ] {
            let prefix = IpPrefix { address: ip(address), length };
            assert!(contains(&prefix, &ip(inside)), "{prefix} {inside}");
            assert!(!contains(&prefix, &ip(outside)), "{prefix} {outside}");
        }
    }

    #[test]
    fn a_special_address_is_no_foreign_host() {
        let addresses = example();
        let is_foreign_host =
            |text: &str| addresses.is_foreign_host(text.parse::<Ipv4Addr>().unwrap().to_bits());
        for special in ["0.1.2.3", "127.0.0.1", "169.254.1.2", "224.0.0.5", "240.0.0.1", "255.255.255.255"] {
            assert!(!is_foreign_host(special), "{special}");
        }
        for ours in ["192.0.2.1", "192.0.2.0", "192.0.2.255", "203.0.113.7", "198.51.100.0"] {
            assert!(!is_foreign_host(ours), "{ours}");
        }
        for foreign in
            ["192.0.2.2", "169.253.1.2", "169.255.0.1", "10.0.0.0", "223.255.255.255", "198.51.100.1"]
        {
            assert!(is_foreign_host(foreign), "{foreign}");
        }
    }

    proptest! {
        /// The one bit says the same as a close look at every address, near special ones too.
        #[test]
        fn what_deserves_no_look_would_pass_it(address: u32, near in 0..8usize) {
            let addresses = example();
            let near = ["192.0.2.1", "203.0.113.7", "198.51.100.0", "127.0.0.1", "169.254.1.2", "224.0.0.5"].get(near);
            let near = near.map(|near| near.parse::<Ipv4Addr>().unwrap().to_bits());
            let address = near.map_or(address, |near| near ^ address >> (8 + address % 24));
            prop_assert_eq!(addresses.is_foreign_host(address), addresses.is_foreign_after_all(address));
        }
    }
}
