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
    let packet = ipv4::Packet::parse(l3)?;
    let header = packet.header;
    if checksum == HeaderChecksum::Verify && !packet.checksum_is_valid() {
        return Err(ParseError::BadChecksum);
    }
    let fragment = ipv4_fragment(&packet)?;
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
    let header = packet.header;
    let (source, destination) = (header.source(), header.destination());
    if is_ipv4_mapped(&source) || is_ipv4_mapped(&destination) {
        return Err(ParseError::BadAddress);
    }
    let total_bytes = header.payload_length().checked_add(40).ok_or(ParseError::BadLength)?;
    let upper = ipv6::extension::walk(&packet, false)?;
    let payload =
        packet.payload.get(usize::from(upper.offset) - ipv6::HEADER_BYTES..).ok_or(ParseError::Truncated)?;
    let fragment = match upper.fragment {
        Some(fragment) if !fragment.is_atomic() => fragment_at(fragment.offset, payload.len())?,
        _ => Fragment::None,
    };
    let (source_port, destination_port) = ports(upper.protocol, IpProtocol::ICMPV6, fragment, payload)?;
    Ok(Parsed {
        family: Family::Ipv6,
        protocol: upper.protocol,
        header_bytes: upper.offset,
        total_bytes,
        source: IpAddr::V6(source),
        destination: IpAddr::V6(destination),
        source_port,
        destination_port,
        tos: header.traffic_class(),
        ttl: header.hop_limit(),
        fragment,
        has_options: upper.has_hop_by_hop,
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
