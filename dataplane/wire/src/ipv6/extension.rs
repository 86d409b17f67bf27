// SPDX-License-Identifier: Apache-2.0
//! IPv6 extension headers (RFC 8200 §4, RFC 4302 for AH): a bounded walk to the upper layer.
//!
//! Hop-by-hop, routing and destination options share one layout; its length counts 8-octet units after the first:
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Next Header  |  Hdr Ext Len  |  (routing: type, segments left)
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Fragment, always 8 bytes:
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         Identification                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! AH's length counts 4-octet units, less 2 (RFC 4302 §2.2). What options mean is left out, and so is building these
//! headers: Greyhound sends none.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{HEADER_BYTES, Packet};
use crate::view::split;
use crate::{IpProtocol, ParseError};

/// The most extension headers a packet may have; RFC 8200 §4.1 knows seven places for them.
pub const MAX_EXTENSION_HEADERS: u8 = 8;

/// What the Fragment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// The fragment offset in units of 8 bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// The identification.
    pub identification: u32,
}

impl FragmentHeader {
    /// Whether the packet is whole in spite of the header: an atomic fragment (RFC 6946).
    #[inline]
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Where the walk over the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// The upper layer's protocol. In a later fragment: what the Fragment header names, of which this packet has only
    /// a middle part.
    pub protocol: IpProtocol,
    /// Where the upper layer begins, in bytes from the start of the IPv6 header.
    pub offset: u16,
    /// The Fragment header, if there is one.
    pub fragment: Option<FragmentHeader>,
    /// The number of extension headers passed.
    pub extension_headers: u8,
    /// Whether a Hop-by-Hop Options header, which routers on the way may be asked to look at, is there.
    pub has_hop_by_hop: bool,
    /// Segments left in the last Routing header; unless 0 the destination address is not the final one.
    pub segments_left: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Generic {
    next_header: IpProtocol,
    length: u8,
    kind: u8,
    segments_left: u8,
    rest: [u8; 4],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fragment {
    next_header: IpProtocol,
    reserved: u8,
    offset_flags: U16,
    identification: U32,
}

/// Walks from the IPv6 header at the front of `packet` to the upper layer.
///
/// Passes hop-by-hop options, routing, fragment and destination options headers and stops at all else, so at ESP and
/// AH: both are next layer protocols for selectors (RFC 4301 §4.4.1.1). A later fragment ends the walk, too.
///
/// # Errors
/// [`ParseError::Truncated`] when the packet ends first, [`ParseError::BadVersion`],
/// [`ParseError::TooManyExtensionHeaders`]; [`ParseError::MisplacedExtensionHeader`] for a hop-by-hop header that is not
/// the first or a second fragment header.
#[inline]
pub fn upper_layer(packet: &[u8]) -> Result<UpperLayer, ParseError> {
    let packet = Packet::parse(packet)?;
    walk(&packet, false)
}

/// As [`upper_layer`], but passes AH as well.
///
/// # Errors
/// As [`upper_layer`]; [`ParseError::BadHeaderLength`] for an AH shorter than its fixed part.
pub fn transport(packet: &[u8]) -> Result<UpperLayer, ParseError> {
    let packet = Packet::parse(packet)?;
    walk(&packet, true)
}

/// The walk over a packet whose length has been checked.
#[inline]
pub(crate) fn walk(packet: &Packet<'_>, passes_authentication: bool) -> Result<UpperLayer, ParseError> {
    let mut at = UpperLayer {
        protocol: packet.header.next_header(),
        offset: 40,
        fragment: None,
        extension_headers: 0,
        has_hop_by_hop: false,
        segments_left: 0,
    };
    while is_passed(at.protocol, passes_authentication) {
        if at.extension_headers == MAX_EXTENSION_HEADERS {
            return Err(ParseError::TooManyExtensionHeaders);
        }
        let behind = usize::from(at.offset) - HEADER_BYTES;
        let rest = packet.payload.get(behind..).ok_or(ParseError::Truncated)?;
        step(&mut at, rest)?;
        if at.fragment.is_some_and(|fragment| fragment.offset != 0) {
            break;
        }
    }
    Ok(at)
}

#[inline]
fn is_passed(protocol: IpProtocol, passes_authentication: bool) -> bool {
    match protocol {
        IpProtocol::HOP_BY_HOP
        | IpProtocol::ROUTING
        | IpProtocol::FRAGMENT
        | IpProtocol::DESTINATION_OPTIONS => true,
        IpProtocol::AH => passes_authentication,
        _ => false,
    }
}

/// Passes the extension header at the front of `rest`.
fn step(at: &mut UpperLayer, rest: &[u8]) -> Result<(), ParseError> {
    let (header, _) = split::<Generic>(rest)?;
    let mut bytes = 8 + u16::from(header.length) * 8;
    match at.protocol {
        IpProtocol::HOP_BY_HOP => {
            if at.extension_headers != 0 {
                return Err(ParseError::MisplacedExtensionHeader);
            }
            at.has_hop_by_hop = true;
        }
        IpProtocol::ROUTING => at.segments_left = header.segments_left,
        IpProtocol::FRAGMENT => {
            if at.fragment.is_some() {
                return Err(ParseError::MisplacedExtensionHeader);
            }
            bytes = 8;
            at.fragment = Some(fragment_header(rest)?);
        }
        IpProtocol::AH => {
            // The fixed part of AH is 12 bytes: a length of 1.
            if header.length < 1 {
                return Err(ParseError::BadHeaderLength);
            }
            bytes = 8 + u16::from(header.length) * 4;
        }
        _ => {}
    }
    if rest.len() < usize::from(bytes) {
        return Err(ParseError::Truncated);
    }
    at.protocol = header.next_header;
    at.offset = at.offset.checked_add(bytes).ok_or(ParseError::BadLength)?;
    at.extension_headers += 1;
    Ok(())
}

fn fragment_header(rest: &[u8]) -> Result<FragmentHeader, ParseError> {
    let (header, _) = split::<Fragment>(rest)?;
    let word = header.offset_flags.get();
    Ok(FragmentHeader { offset: word >> 3, more: word & 1 != 0, identification: header.identification.get() })
}
