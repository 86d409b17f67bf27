// SPDX-License-Identifier: Apache-2.0
//! What a packet's selectors are (RFC 4301 §4.4.1.1): one pass over the IP header, and the ports behind it.
//!
//! This is the parse that every packet goes through; it checks what a router must check before it looks at anything
//! else (RFC 1812 §5.2.2). Left out: reassembly, options, whether an address may be routed.

use core::net::IpAddr;

pub use crate::Family;
use crate::address::is_ipv4_mapped;
use crate::view::u16_at;
use crate::{IpProtocol, ParseError, ipv4, ipv6};

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// Not a fragment; an IPv6 packet with an atomic Fragment header (RFC 6946) is none either.
    None,
    /// The first fragment: with an upper-layer header.
    First,
    /// A later fragment: without.
    Later,
}

/// Whether the IPv4 header checksum is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderChecksum {
    /// Verify it.
    Verify,
    /// A NIC has verified it.
    Verified,
}

/// What the packet path wants to know of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The version of IP.
    pub family: Family,
    /// The upper layer's protocol; see [`ipv6::upper_layer`] for what is passed on the way to it.
    pub protocol: IpProtocol,
    /// Where the upper layer begins, in bytes: the IP header with options or extension headers.
    pub header_bytes: u16,
    /// Length of the packet by its own length field, in bytes; what follows is padding for the caller to cut.
    pub total_bytes: u16,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The source port; for ICMP type × 256 + code (RFC 4301 §4.4.1.1); 0 without ports and in a later fragment.
    pub source_port: u16,
    /// The destination port; for ICMP as [`Parsed::source_port`], so that a selector matches in either direction.
    pub destination_port: u16,
    /// The ToS byte or traffic class.
    pub tos: u8,
    /// The TTL or hop limit.
    pub ttl: u8,
    /// Which part of a packet this is.
    pub fragment: Fragment,
    /// Whether there are options for routers: any IPv4 option, or an IPv6 Hop-by-Hop Options header.
    pub has_options: bool,
    /// Whether a router may not fragment it: IPv4's DF, and any IPv6 packet.
    pub dont_fragment: bool,
}

const _: () = assert!(size_of::<Parsed>() <= 64, "one cache line");

/// Addresses, protocol and ports: a key for flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The source port, as [`Parsed::source_port`].
    pub source_port: u16,
    /// The destination port, as [`Parsed::destination_port`].
    pub destination_port: u16,
    /// The upper layer's protocol.
    pub protocol: IpProtocol,
}

impl Parsed {
    /// The flow's key.
    #[inline]
    pub const fn five_tuple(&self) -> FiveTuple {
        FiveTuple {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
        }
    }

    /// Whether the packet is part of a larger one.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        !matches!(self.fragment, Fragment::None)
    }

    /// The packet without the padding behind it; `l3` must be what was parsed.
    #[inline]
    pub fn packet<'a>(&self, l3: &'a [u8]) -> &'a [u8] {
        l3.get(..usize::from(self.total_bytes)).unwrap_or(&[])
    }

    /// The upper layer's bytes; `l3` must be what was parsed.
    #[inline]
    pub fn upper_layer<'a>(&self, l3: &'a [u8]) -> &'a [u8] {
        l3.get(usize::from(self.header_bytes)..usize::from(self.total_bytes)).unwrap_or(&[])
    }

    /// The upper layer's bytes, mutable; `l3` must be what was parsed.
    #[inline]
    pub fn upper_layer_mut<'a>(&self, l3: &'a mut [u8]) -> &'a mut [u8] {
        l3.get_mut(usize::from(self.header_bytes)..usize::from(self.total_bytes)).unwrap_or(&mut [])
    }
}

/// Parses the IP packet at the front of `l3`, with its IPv4 header checksum; what follows its length is padding.
///
/// # Errors
/// Any [`ParseError`] of [`ipv4::Packet::parse`], [`ipv6::Packet::parse`] and [`ipv6::upper_layer`];
/// [`ParseError::BadChecksum`]; [`ParseError::Truncated`] for an unfragmented packet or first fragment that ends before
/// its ports; [`ParseError::BadLength`] for a fragment that reaches beyond 65,535 bytes; [`ParseError::BadAddress`] for
/// an IPv4-mapped address in an IPv6 packet.
#[inline]
pub fn parse(l3: &[u8]) -> Result<Parsed, ParseError> {
    parse_with(l3, HeaderChecksum::Verify)
}

/// As [`parse`]; the IPv4 header checksum only when `checksum` says so.
///
/// # Errors
/// As [`parse`].
#[inline]
pub fn parse_with(l3: &[u8], checksum: HeaderChecksum) -> Result<Parsed, ParseError> {
    match l3.first().ok_or(ParseError::Truncated)? >> 4 {
        4 => parse_ipv4(l3, checksum),
        6 => parse_ipv6(l3),
        _ => Err(ParseError::BadVersion),
    }
}

#[inline]
fn parse_ipv4(l3: &[u8], checksum: HeaderChecksum) -> Result<Parsed, ParseError> {
    let (header, _) = ipv4::Header::split(l3)?;
    if !header.is_without_options() {
        return parse_ipv4_with_options(l3, checksum);
    }
    let total_bytes = usize::from(header.total_length());
    if total_bytes < ipv4::HEADER_BYTES {
        return Err(ParseError::BadLength);
    }
    let payload = l3.get(ipv4::HEADER_BYTES..total_bytes).ok_or(ParseError::Truncated)?;
    ipv4_parsed(&ipv4::Packet { header, options: &[], payload }, checksum)
}

#[cold]
fn parse_ipv4_with_options(l3: &[u8], checksum: HeaderChecksum) -> Result<Parsed, ParseError> {
    ipv4_parsed(&ipv4::Packet::parse(l3)?, checksum)
}

#[inline]
fn ipv4_parsed(packet: &ipv4::Packet<'_>, checksum: HeaderChecksum) -> Result<Parsed, ParseError> {
    let header = packet.header;
    if checksum == HeaderChecksum::Verify && !packet.checksum_is_valid() {
        return Err(ParseError::BadChecksum);
    }
    let fragment = ipv4_fragment(packet)?;
    let protocol = header.protocol();
    let (source_port, destination_port) = ports(protocol, IpProtocol::ICMP, fragment, packet.payload)?;
    Ok(Parsed {
        family: Family::Ipv4,
        protocol,
        header_bytes: u16::from(header.header_bytes()),
        total_bytes: header.total_length(),
        source: IpAddr::V4(header.source()),
        destination: IpAddr::V4(header.destination()),
        source_port,
        destination_port,
        tos: header.tos(),
        ttl: header.ttl(),
        fragment,
        has_options: !packet.options.is_empty(),
        dont_fragment: header.dont_fragment(),
    })
}

#[inline]
fn ipv4_fragment(packet: &ipv4::Packet<'_>) -> Result<Fragment, ParseError> {
    if !packet.header.is_fragment() {
        return Ok(Fragment::None);
    }
    fragment_at(packet.header.fragment_offset(), packet.payload.len())
}

/// Which fragment begins at `offset` units of 8 bytes, with `bytes` of payload.
fn fragment_at(offset: u16, bytes: usize) -> Result<Fragment, ParseError> {
    if usize::from(offset) * 8 + bytes > usize::from(u16::MAX) {
        return Err(ParseError::BadLength);
    }
    Ok(if offset == 0 { Fragment::First } else { Fragment::Later })
}

#[inline]
fn parse_ipv6(l3: &[u8]) -> Result<Parsed, ParseError> {
    let packet = ipv6::Packet::parse(l3)?;
    let next_header = packet.header.next_header();
    if ipv6::extension::is_passed(next_header, false) {
        return parse_ipv6_with_extensions(&packet);
    }
    ipv6_parsed(&packet, (next_header, 40), packet.payload, Fragment::None, false)
}

#[inline(never)]
fn parse_ipv6_with_extensions(packet: &ipv6::Packet<'_>) -> Result<Parsed, ParseError> {
    let upper = ipv6::extension::walk(packet, false)?;
    let behind = usize::from(upper.offset) - ipv6::HEADER_BYTES;
    let payload = packet.payload.get(behind..).ok_or(ParseError::Truncated)?;
    let fragment = match upper.fragment {
        Some(fragment) if !fragment.is_atomic() => fragment_at(fragment.offset, payload.len())?,
        _ => Fragment::None,
    };
    ipv6_parsed(packet, (upper.protocol, upper.offset), payload, fragment, upper.has_hop_by_hop)
}

/// `upper` is the upper layer's protocol and where it begins.
#[inline]
fn ipv6_parsed(
    packet: &ipv6::Packet<'_>,
    upper: (IpProtocol, u16),
    payload: &[u8],
    fragment: Fragment,
    has_options: bool,
) -> Result<Parsed, ParseError> {
    let header = packet.header;
    let (protocol, header_bytes) = upper;
    let (source, destination) = (header.source(), header.destination());
    if is_ipv4_mapped(&source) || is_ipv4_mapped(&destination) {
        return Err(ParseError::BadAddress);
    }
    let total_bytes = header.payload_length().checked_add(40).ok_or(ParseError::BadLength)?;
    let (source_port, destination_port) = ports(protocol, IpProtocol::ICMPV6, fragment, payload)?;
    Ok(Parsed {
        family: Family::Ipv6,
        protocol,
        header_bytes,
        total_bytes,
        source: IpAddr::V6(source),
        destination: IpAddr::V6(destination),
        source_port,
        destination_port,
        tos: header.traffic_class(),
        ttl: header.hop_limit(),
        fragment,
        has_options,
        dont_fragment: true,
    })
}

/// Source and destination port of the upper layer, or ICMP type and code in both; 0 where there is neither.
#[inline]
fn ports(
    protocol: IpProtocol,
    icmp: IpProtocol,
    fragment: Fragment,
    upper_layer: &[u8],
) -> Result<(u16, u16), ParseError> {
    if fragment == Fragment::Later {
        return Ok((0, 0));
    }
    if protocol.has_ports() {
        let [a, b, c, d] = *upper_layer.first_chunk().ok_or(ParseError::Truncated)?;
        return Ok((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
    }
    if protocol == icmp {
        let type_code = u16_at(upper_layer, 0).ok_or(ParseError::Truncated)?;
        return Ok((type_code, type_code));
    }
    Ok((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    // All made with Scapy.
    const UDP: &str = "45b90023 12344000 3f113ca1 c0000201 c6336407 0fa01388 000f333c 7061796c 6f6164";
    const UDP_WITH_OPTIONS: &str = "4800002c 00090000 4011ef6c c0000201 c6336407 94040000 01070704 00000000
        00010002 000c4ed0 61626364";
    const ICMP: &str =
        "45000027 00034000 11017d97 c0000201 c6336407 080002fa 12340007 70696e67 20646174 612121";
    const UDP_OVER_IPV6: &str =
        "6b912345 000f113f 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        0fa01388 000fc3fd 7061796c 6f6164";
    const ICMP_OVER_IPV6: &str =
        "60000000 00133a11 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        80002f31 12340007 70696e67 20646174 612121";
    const CHAIN: &str =
        "60000000 00480040 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        3c000104 00000000 2b000104 00000000 2c020001 00000000 20010db8 00000000 00000000 00000009
        3c000001 deadbeef 11000104 00000000 00070008 0010d36e 31323334 35363738";
    const LATER_FRAGMENT: &str =
        "60000000 00182c40 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        110005c9 deadbeef 7a7a7a7a 7a7a7a7a 7a7a7a7a 7a7a7a7a";
    const LINUX_IP6GRE: &str =
        "60000000 00203c40 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        32000401 04010100 00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617";

    fn udp() -> Parsed {
        Parsed {
            family: Family::Ipv4,
            protocol: IpProtocol::UDP,
            header_bytes: 20,
            total_bytes: 35,
            source: "192.0.2.1".parse().unwrap(),
            destination: "198.51.100.7".parse().unwrap(),
            source_port: 4000,
            destination_port: 5000,
            tos: 0xb9,
            ttl: 63,
            fragment: Fragment::None,
            has_options: false,
            dont_fragment: true,
        }
    }

    fn udp_over_ipv6() -> Parsed {
        Parsed {
            family: Family::Ipv6,
            header_bytes: 40,
            total_bytes: 55,
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8:1::7".parse().unwrap(),
            ..udp()
        }
    }

    #[test]
    fn known_packets_parse_as_what_they_are() {
        assert_eq!(parse(&hex(UDP)), Ok(udp()));
        assert_eq!(parse(&hex(UDP_OVER_IPV6)), Ok(udp_over_ipv6()));
        assert_eq!(
            parse(&hex(UDP_WITH_OPTIONS)),
            Ok(Parsed {
                header_bytes: 32,
                total_bytes: 44,
                source_port: 1,
                destination_port: 2,
                tos: 0,
                ttl: 64,
                has_options: true,
                dont_fragment: false,
                ..udp()
            })
        );
        assert_eq!(
            parse(&hex(CHAIN)),
            Ok(Parsed {
                header_bytes: 96,
                total_bytes: 112,
                source_port: 7,
                destination_port: 8,
                tos: 0,
                ttl: 64,
                fragment: Fragment::First,
                has_options: true,
                ..udp_over_ipv6()
            })
        );
    }

    #[test]
    fn icmp_has_type_and_code_in_both_ports() {
        let v4 = parse(&hex(ICMP)).unwrap();
        assert_eq!((v4.source_port, v4.destination_port), (0x0800, 0x0800));
        let v6 = parse(&hex(ICMP_OVER_IPV6)).unwrap();
        assert_eq!((v6.source_port, v6.destination_port), (0x8000, 0x8000));
    }

    #[test]
    fn esp_behind_destination_options_is_found() {
        let bytes = hex(LINUX_IP6GRE);
        let parsed = parse(&bytes).unwrap();
        assert_eq!((parsed.protocol, parsed.header_bytes, parsed.has_options), (IpProtocol::ESP, 48, false));
        assert_eq!((parsed.source_port, parsed.destination_port), (0, 0));
        assert_eq!(parsed.upper_layer(&bytes), &bytes[48..]);
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let parsed = parse(&hex(LATER_FRAGMENT)).unwrap();
        assert_eq!((parsed.fragment, parsed.source_port, parsed.destination_port), (Fragment::Later, 0, 0));
        let mut bytes = hex(UDP);
        for (offset, more, expected) in
            [(0, true, Fragment::First), (1, true, Fragment::Later), (1, false, Fragment::Later)]
        {
            let repr = ipv4::Repr::parse(&ipv4::Packet::parse(&bytes).unwrap()).unwrap();
            let repr = ipv4::Repr { fragment_offset: offset, more_fragments: more, ..repr };
            repr.emit(&mut bytes).unwrap();
            let parsed = parse(&bytes).unwrap();
            assert_eq!((parsed.fragment, parsed.is_fragment()), (expected, true));
            assert_eq!(parsed.source_port, if expected == Fragment::First { 4000 } else { 0 });
        }
    }

    #[test]
    fn an_atomic_fragment_is_no_fragment() {
        let mut bytes = hex(CHAIN);
        bytes[83] = 0;
        let parsed = parse(&bytes).unwrap();
        assert_eq!((parsed.fragment, parsed.header_bytes), (Fragment::None, 96));
    }

    #[test]
    fn every_truncation_is_refused() {
        for text in
            [UDP, UDP_WITH_OPTIONS, ICMP, UDP_OVER_IPV6, ICMP_OVER_IPV6, CHAIN, LATER_FRAGMENT, LINUX_IP6GRE]
        {
            refuses_every_truncation(&hex(text), parse);
        }
    }

    #[test]
    fn a_packet_that_ends_before_its_ports_is_refused() {
        for (text, needed) in [(UDP, 4), (ICMP, 2)] {
            for payload in 0..8 {
                let mut bytes = hex(text);
                let (header, _) = ipv4::Header::split_mut(&mut bytes).unwrap();
                header.rewrite_total_length(20 + payload);
                assert_eq!(parse(&bytes).is_ok(), payload >= needed, "{payload} bytes");
            }
        }
        for (text, needed) in [(UDP_OVER_IPV6, 4), (ICMP_OVER_IPV6, 2)] {
            for payload in 0..8 {
                let mut bytes = hex(text);
                ipv6::Header::split_mut(&mut bytes).unwrap().0.set_payload_length(payload);
                assert_eq!(parse(&bytes).is_ok(), payload >= needed, "{payload} bytes");
            }
        }
    }

    #[test]
    fn what_is_no_ip_packet_is_refused() {
        assert_eq!(parse(&[]), Err(ParseError::Truncated));
        for version in (0..16).filter(|version| !matches!(version, 4 | 6)) {
            assert_eq!(parse(&[version << 4 | 5; 64]), Err(ParseError::BadVersion));
        }
    }

    #[test]
    fn impossible_ipv4_lengths_are_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = hex(UDP);
            bytes[at] = value;
            parse_with(&bytes, HeaderChecksum::Verified).map(|parsed| parsed.header_bytes)
        };
        for ihl in 0..5 {
            assert_eq!(with(0, 0x40 | ihl), Err(ParseError::BadHeaderLength));
        }
        assert_eq!(with(0, 0x46), Ok(24));
        assert_eq!(with(0, 0x49), Err(ParseError::BadLength));
        for total in 0..20 {
            assert_eq!(with(3, total), Err(ParseError::BadLength));
        }
        assert_eq!(with(3, 36), Err(ParseError::Truncated));
    }

    #[test]
    fn the_header_checksum_is_verified_unless_a_nic_did() {
        for text in [UDP, UDP_WITH_OPTIONS] {
            let mut bytes = hex(text);
            let parsed = parse(&bytes);
            bytes[10] ^= 1;
            assert_eq!(parse(&bytes), Err(ParseError::BadChecksum));
            assert_eq!(parse_with(&bytes, HeaderChecksum::Verified), parsed);
        }
    }

    #[test]
    fn a_fragment_beyond_the_longest_packet_is_refused() {
        let mut bytes = hex(UDP);
        let repr = ipv4::Repr::parse(&ipv4::Packet::parse(&bytes).unwrap()).unwrap();
        // 8,190 × 8 + 15 = 65,535.
        ipv4::Repr { fragment_offset: 8190, ..repr }.emit(&mut bytes).unwrap();
        assert!(parse(&bytes).is_ok());
        ipv4::Repr { fragment_offset: 8191, ..repr }.emit(&mut bytes).unwrap();
        assert_eq!(parse(&bytes), Err(ParseError::BadLength));
    }

    #[test]
    fn ipv4_mapped_addresses_do_not_come_from_a_wire() {
        for at in [8, 24] {
            let mut bytes = hex(UDP_OVER_IPV6);
            bytes[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            assert_eq!(parse(&bytes), Err(ParseError::BadAddress));
        }
    }

    #[test]
    fn padding_is_not_part_of_packet_or_upper_layer() {
        let mut bytes = hex(UDP);
        bytes.resize(46, 0xee);
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed, udp());
        assert_eq!(parsed.packet(&bytes), hex(UDP));
        assert_eq!(parsed.upper_layer(&bytes), &hex(UDP)[20..]);
        assert_eq!(parsed.upper_layer_mut(&mut bytes), &hex(UDP)[20..]);
        // Bytes that were not parsed give nothing, and no panic.
        assert_eq!(parsed.packet(&bytes[..34]), []);
        assert_eq!(parsed.upper_layer(&bytes[..34]), []);
    }

    #[test]
    fn the_five_tuple_is_the_flow_s_own() {
        let tuple = udp().five_tuple();
        assert_eq!((tuple.source, tuple.destination), (udp().source, udp().destination));
        assert_eq!(
            (tuple.source_port, tuple.destination_port, tuple.protocol),
            (4000, 5000, IpProtocol::UDP)
        );
        assert_ne!(tuple, udp_over_ipv6().five_tuple());
    }

    fn any_ipv6() -> impl Strategy<Value = Ipv6Addr> {
        // Mapped addresses, which no wire carries, become others.
        any::<Ipv6Addr>().prop_map(|a| if is_ipv4_mapped(&a) { Ipv6Addr::from(!a.to_bits()) } else { a })
    }

    proptest! {
        #[test]
        fn what_is_written_parses_back(
            v4: (Ipv4Addr, Ipv4Addr), v6 in (any_ipv6(), any_ipv6()),
            ports: (u16, u16), tos: u8, ttl: u8, dont_fragment: bool,
            protocol in prop_oneof![Just(IpProtocol::TCP), Just(IpProtocol::UDP), Just(IpProtocol::SCTP)],
            payload_bytes in 4u16..1000,
        ) {
            let upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
            let expected = Parsed {
                protocol, tos, ttl, dont_fragment,
                source: v4.0.into(),
                destination: v4.1.into(),
                total_bytes: 20 + payload_bytes,
                source_port: ports.0,
                destination_port: ports.1,
                ..udp()
            };
            let mut buffer = DIRTY;
            let repr = ipv4::Repr { tos, ttl, dont_fragment, payload_bytes, ..ipv4::Repr::new(v4.0, v4.1, protocol) };
            repr.emit(&mut buffer).unwrap();
            buffer[20..24].copy_from_slice(&upper);
            prop_assert_eq!(parse(&buffer), Ok(expected));

            let expected = Parsed {
                family: Family::Ipv6,
                header_bytes: 40,
                total_bytes: 40 + payload_bytes,
                source: v6.0.into(),
                destination: v6.1.into(),
                dont_fragment: true,
                ..expected
            };
            let repr = ipv6::Repr {
                traffic_class: tos, hop_limit: ttl, payload_bytes, ..ipv6::Repr::new(v6.0, v6.1, protocol)
            };
            repr.emit(&mut buffer).unwrap();
            buffer[40..44].copy_from_slice(&upper);
            prop_assert_eq!(parse(&buffer), Ok(expected));
        }

        /// The path without options is its own code: it must refuse what the view refuses.
        #[test]
        fn the_view_and_the_one_pass_agree(mut bytes in prop::collection::vec(any::<u8>(), 1..60), ihl in 3u8..8, total in 0u16..70) {
            bytes[0] = 0x40 | ihl;
            if bytes.len() > 10 {
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                // A protocol without ports, not a fragment: nothing else to refuse.
                (bytes[6], bytes[7], bytes[9]) = (0, 0, IpProtocol::GRE.0);
            }
            let view = ipv4::Packet::parse(&bytes);
            let one_pass = parse_with(&bytes, HeaderChecksum::Verified);
            prop_assert_eq!(view.err(), one_pass.err());
            if let (Ok(view), Ok(one_pass)) = (view, one_pass) {
                prop_assert_eq!(view.payload, one_pass.upper_layer(&bytes));
                prop_assert_eq!(view.checksum_is_valid(), parse(&bytes).is_ok());
            }
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic_and_what_parses_lies_inside(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120), version in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            if bytes.len() > 40 {
                let length = u16::try_from(bytes.len()).unwrap();
                let (at, length) = if version >> 4 == 4 { (2, length) } else { (4, length - 40) };
                bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            if let Ok(parsed) = parse_with(&bytes, HeaderChecksum::Verified) {
                prop_assert!(parsed.header_bytes <= parsed.total_bytes);
                prop_assert!(usize::from(parsed.total_bytes) <= bytes.len());
                prop_assert_eq!(parsed.packet(&bytes).len(), usize::from(parsed.total_bytes));
            }
        }
    }
}
