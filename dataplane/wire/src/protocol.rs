// SPDX-License-Identifier: Apache-2.0
//! IP protocol numbers, which are IPv6 next header values too (IANA "Assigned Internet Protocol Numbers").

use core::fmt;
use core::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IP protocol number or IPv6 next header value; any byte is one.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// IPv6 Hop-by-Hop Options (RFC 8200 §4.3).
    pub const HOP_BY_HOP: IpProtocol = IpProtocol(0);
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: IpProtocol = IpProtocol(1);
    /// IGMP (RFC 3376).
    pub const IGMP: IpProtocol = IpProtocol(2);
    /// IPv4 in IP (RFC 2003); the next header of a tunnel-mode SA that carries IPv4.
    pub const IPV4: IpProtocol = IpProtocol(4);
    /// TCP (RFC 9293).
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP (RFC 768).
    pub const UDP: IpProtocol = IpProtocol(17);
    /// DCCP (RFC 4340).
    pub const DCCP: IpProtocol = IpProtocol(33);
    /// IPv6 in IP (RFC 2473); the next header of a tunnel-mode SA that carries IPv6.
    pub const IPV6: IpProtocol = IpProtocol(41);
    /// IPv6 Routing header (RFC 8200 §4.4).
    pub const ROUTING: IpProtocol = IpProtocol(43);
    /// IPv6 Fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: IpProtocol = IpProtocol(44);
    /// GRE (RFC 2784).
    pub const GRE: IpProtocol = IpProtocol(47);
    /// ESP (RFC 4303).
    pub const ESP: IpProtocol = IpProtocol(50);
    /// AH (RFC 4302).
    pub const AH: IpProtocol = IpProtocol(51);
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: IpProtocol = IpProtocol(58);
    /// No Next Header (RFC 8200 §4.7); in ESP a dummy packet (RFC 4303 §2.6).
    pub const NO_NEXT_HEADER: IpProtocol = IpProtocol(59);
    /// IPv6 Destination Options (RFC 8200 §4.6).
    pub const DESTINATION_OPTIONS: IpProtocol = IpProtocol(60);
    /// EIGRP (RFC 7868).
    pub const EIGRP: IpProtocol = IpProtocol(88);
    /// OSPF (RFC 2328).
    pub const OSPF: IpProtocol = IpProtocol(89);
    /// PIM (RFC 7761).
    pub const PIM: IpProtocol = IpProtocol(103);
    /// VRRP (RFC 9568).
    pub const VRRP: IpProtocol = IpProtocol(112);
    /// L2TP (RFC 3931).
    pub const L2TP: IpProtocol = IpProtocol(115);
    /// SCTP (RFC 9260).
    pub const SCTP: IpProtocol = IpProtocol(132);
    /// UDP-Lite (RFC 3828).
    pub const UDP_LITE: IpProtocol = IpProtocol(136);

    const NAMES: [(IpProtocol, &'static str); 23] = [
        (Self::HOP_BY_HOP, "hop-by-hop"),
        (Self::ICMP, "icmp"),
        (Self::IGMP, "igmp"),
        (Self::IPV4, "ipv4"),
        (Self::TCP, "tcp"),
        (Self::UDP, "udp"),
        (Self::DCCP, "dccp"),
        (Self::IPV6, "ipv6"),
        (Self::ROUTING, "routing"),
        (Self::FRAGMENT, "fragment"),
        (Self::GRE, "gre"),
        (Self::ESP, "esp"),
        (Self::AH, "ah"),
        (Self::ICMPV6, "icmpv6"),
        (Self::NO_NEXT_HEADER, "no-next-header"),
        (Self::DESTINATION_OPTIONS, "destination-options"),
        (Self::EIGRP, "eigrp"),
        (Self::OSPF, "ospf"),
        (Self::PIM, "pim"),
        (Self::VRRP, "vrrp"),
        (Self::L2TP, "l2tp"),
        (Self::SCTP, "sctp"),
        (Self::UDP_LITE, "udp-lite"),
    ];

    /// The protocol's short name in lower case, if it has one here.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(protocol, _)| *protocol == self).map(|(_, name)| *name)
    }

    /// Whether the upper-layer header begins with a source and a destination port of 16 bits each.
    #[inline]
    pub const fn has_ports(self) -> bool {
        // Two bit masks and no jump table: every packet asks.
        const BELOW_64: u64 = 1 << IpProtocol::TCP.0 | 1 << IpProtocol::UDP.0 | 1 << IpProtocol::DCCP.0;
        const FROM_128: u64 = 1 << (IpProtocol::SCTP.0 - 128) | 1 << (IpProtocol::UDP_LITE.0 - 128);
        let mask = match self.0 >> 6 {
            0 => BELOW_64,
            2 => FROM_128,
            _ => 0,
        };
        mask >> (self.0 & 63) & 1 != 0
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Debug for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Neither the name of a known protocol nor a number from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP protocol: give a name such as \"tcp\" or a number from 0 to 255")]
pub struct UnknownProtocol;

impl FromStr for IpProtocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<IpProtocol, UnknownProtocol> {
        if let Some((protocol, _)) = Self::NAMES.iter().find(|(_, name)| text.eq_ignore_ascii_case(name)) {
            return Ok(*protocol);
        }
        text.parse().map(IpProtocol).map_err(|_| UnknownProtocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_number_survives_its_text() {
        for number in 0..=255 {
            assert_eq!(IpProtocol(number).to_string().parse(), Ok(IpProtocol(number)));
        }
    }

    #[test]
    fn exactly_five_protocols_have_ports() {
        let with_ports: std::vec::Vec<_> = (0..=255).map(IpProtocol).filter(|p| p.has_ports()).collect();
        assert_eq!(
            with_ports,
            [IpProtocol::TCP, IpProtocol::UDP, IpProtocol::DCCP, IpProtocol::SCTP, IpProtocol::UDP_LITE]
        );
    }

    #[test]
    fn numbers_and_names_mean_the_same() {
        assert_eq!("50".parse(), Ok(IpProtocol::ESP));
        assert_eq!("GRE".parse(), Ok(IpProtocol::GRE));
        assert_eq!(IpProtocol(50).name(), Some("esp"));
        assert_eq!(IpProtocol(200).name(), None);
        assert_eq!("256".parse::<IpProtocol>(), Err(UnknownProtocol));
        assert_eq!("".parse::<IpProtocol>(), Err(UnknownProtocol));
        assert_eq!("espresso".parse::<IpProtocol>(), Err(UnknownProtocol));
    }
}
