// SPDX-License-Identifier: Apache-2.0
//! IP addresses as keys, and what kind of address may stand where (RFC 1812 §5.3.7, RFC 4291, RFC 6890).
//!
//! Views and `Repr`s use the types of `core::net`; [`Address`] is the 16-byte form for tables and records.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4 (RFC 791).
    Ipv4 = 4,
    /// IPv6 (RFC 8200).
    Ipv6 = 6,
}

impl Family {
    /// The family of `address`.
    #[inline]
    pub const fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// The length of an address in bits: 32 or 128.
    pub const fn address_bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

/// An address of either family in 16 bytes: IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
///
/// Usable as a key for both families, because [`crate::flow::parse`] refuses IPv6 packets that carry such addresses.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct Address([u8; 16]);

impl Address {
    /// `::`, no address.
    pub const UNSPECIFIED: Address = Address([0; 16]);

    /// The address in its 16-byte form.
    #[inline]
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }

    /// The address whose 16-byte form is `octets`.
    #[inline]
    pub const fn from_octets(octets: [u8; 16]) -> Address {
        Address(octets)
    }

    /// The family: IPv4 when it has the IPv4-mapped form.
    #[inline]
    pub fn family(self) -> Family {
        Family::of(self.into())
    }
}

impl From<Ipv4Addr> for Address {
    #[inline]
    fn from(address: Ipv4Addr) -> Address {
        Address(address.to_ipv6_mapped().octets())
    }
}

impl From<Ipv6Addr> for Address {
    #[inline]
    fn from(address: Ipv6Addr) -> Address {
        Address(address.octets())
    }
}

impl From<IpAddr> for Address {
    #[inline]
    fn from(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Address> for IpAddr {
    #[inline]
    fn from(address: Address) -> IpAddr {
        Ipv6Addr::from(address.0).to_canonical()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `address` has the IPv4-mapped form, which may not appear in a packet (RFC 6890 §2.2.3).
#[inline]
pub fn is_ipv4_mapped(address: &Ipv6Addr) -> bool {
    address.to_bits() >> 32 == 0xffff
}

/// Whether `address` names one IPv4 host on a network: what a source must be (RFC 1812 §5.3.7).
#[inline]
pub const fn is_ipv4_host(address: Ipv4Addr) -> bool {
    // 0/8, 127/8, class D and class E with the limited broadcast.
    !matches!(address.octets()[0], 0 | 127 | 224..=255)
}

/// Whether `address` names one IPv6 node: neither unspecified, loopback, multicast nor IPv4-mapped.
#[inline]
pub fn is_ipv6_host(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_ipv4_mapped(&address))
}

/// Whether `address` names one host on a network: [`is_ipv4_host`] or [`is_ipv6_host`].
#[inline]
pub fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_ipv4_host(address),
        IpAddr::V6(address) => is_ipv6_host(address),
    }
}

/// The solicited-node multicast address of `target`: `ff02::1:ffXX:XXXX` (RFC 4291 §2.7.1).
pub const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_two_families_share_one_key_space_without_collisions() {
        let v4 = Address::from("192.0.2.1".parse::<Ipv4Addr>().unwrap());
        assert_eq!(v4.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(v4.family(), Family::Ipv4);
        let compatible = Address::from("::192.0.2.1".parse::<Ipv6Addr>().unwrap());
        assert_ne!(v4, compatible);
        assert_eq!(compatible.family(), Family::Ipv6);
        assert_eq!(Family::Ipv4.address_bits(), 32);
        assert_eq!(Family::Ipv6.address_bits(), 128);
    }

    #[test]
    fn an_address_prints_in_the_notation_of_its_family() {
        for text in ["192.0.2.1", "2001:db8::1", "::", "0.0.0.0"] {
            assert_eq!(std::format!("{}", Address::from(text.parse::<IpAddr>().unwrap())), text);
        }
    }

    #[test]
    fn only_addresses_of_one_host_pass_as_hosts() {
        for text in
            ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"]
        {
            assert!(!is_host(text.parse().unwrap()), "{text}");
        }
        for text in ["::", "::1", "ff02::1", "::ffff:192.0.2.1"] {
            assert!(!is_host(text.parse().unwrap()), "{text}");
        }
        for text in ["192.0.2.1", "10.0.0.255", "2001:db8::1", "fe80::1", "fc00::1"] {
            assert!(is_host(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_solicited_node_address_keeps_the_low_24_bits() {
        // The example of RFC 4291 §2.7.1.
        assert_eq!(
            solicited_node("4037::01:800:200e:8c6c".parse().unwrap()),
            "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap()
        );
    }

    proptest! {
        #[test]
        fn an_address_survives_its_key_form(address: IpAddr) {
            let address = match address {
                IpAddr::V6(mapped) if is_ipv4_mapped(&mapped) => Ipv6Addr::from(!mapped.to_bits()).into(),
                other => other,
            };
            prop_assert_eq!(IpAddr::from(Address::from(address)), address);
            prop_assert_eq!(Address::from(address).family(), Family::of(address));
        }
    }
}
