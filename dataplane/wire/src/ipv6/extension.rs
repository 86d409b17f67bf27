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

/// Whether the walk goes on behind a header of this type.
#[inline]
pub(crate) fn is_passed(protocol: IpProtocol, passes_authentication: bool) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, refuses_every_truncation};
    use proptest::prelude::*;
    use std::vec::Vec;

    // All made with Scapy. The first has the encapsulation limit option that Linux' ip6gre writes (RFC 2473 §4.1.1).
    const LINUX_IP6GRE: &str =
        "60000000 00203c40 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        32000401 04010100 00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617";
    const CHAIN: &str =
        "60000000 00480040 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        3c000104 00000000 2b000104 00000000 2c020001 00000000 20010db8 00000000 00000000 00000009
        3c000001 deadbeef 11000104 00000000 00070008 0010d36e 31323334 35363738";
    const LATER: &str =
        "60000000 00182c40 20010db8 00000000 00000000 00000001 20010db8 00010000 00000000 00000007
        110005c9 deadbeef 7a7a7a7a 7a7a7a7a 7a7a7a7a 7a7a7a7a";

    /// A packet whose next headers are `chain`, each extension header 8 bytes long, with `rest` behind them.
    fn packet(chain: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut bytes = hex(LATER)[..40].to_vec();
        bytes[6] = chain[0];
        for next in &chain[1..] {
            bytes.extend_from_slice(&[*next, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes.extend_from_slice(rest);
        let payload = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&payload.to_be_bytes());
        bytes
    }

    #[test]
    fn destination_options_before_esp_are_passed() {
        let upper = upper_layer(&hex(LINUX_IP6GRE)).unwrap();
        assert_eq!((upper.protocol, upper.offset, upper.extension_headers), (IpProtocol::ESP, 48, 1));
        assert!(upper.fragment.is_none() && !upper.has_hop_by_hop);
    }

    #[test]
    fn a_long_chain_is_walked_to_its_end() {
        let upper = upper_layer(&hex(CHAIN)).unwrap();
        assert_eq!(
            upper,
            UpperLayer {
                protocol: IpProtocol::UDP,
                offset: 40 + 8 + 8 + 24 + 8 + 8,
                fragment: Some(FragmentHeader { offset: 0, more: true, identification: 0xdead_beef }),
                extension_headers: 5,
                has_hop_by_hop: true,
                segments_left: 1,
            }
        );
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        let mut bytes = hex(LATER);
        let upper = upper_layer(&bytes).unwrap();
        let fragment = FragmentHeader { offset: 185, more: true, identification: 0xdead_beef };
        assert_eq!((upper.protocol, upper.offset, upper.fragment), (IpProtocol::UDP, 48, Some(fragment)));
        // What looks like a next header is in the middle of something.
        bytes[40] = IpProtocol::DESTINATION_OPTIONS.0;
        let upper = upper_layer(&bytes).unwrap();
        assert_eq!((upper.protocol, upper.offset), (IpProtocol::DESTINATION_OPTIONS, 48));
    }

    #[test]
    fn an_atomic_fragment_is_whole() {
        let bytes = packet(&[44, 17], &[0; 8]);
        let upper = upper_layer(&bytes).unwrap();
        assert_eq!((upper.protocol, upper.offset), (IpProtocol::UDP, 48));
        assert!(upper.fragment.unwrap().is_atomic());
    }

    #[test]
    fn ah_is_an_upper_layer_for_selectors_and_passed_for_the_transport() {
        // AH of 24 bytes: a length of 4.
        let mut authentication = [0; 24 + 8];
        (authentication[0], authentication[1]) = (6, 4);
        let bytes = packet(&[60, 51], &authentication);
        let upper = upper_layer(&bytes).unwrap();
        assert_eq!((upper.protocol, upper.offset), (IpProtocol::AH, 48));
        let transport_layer = transport(&bytes).unwrap();
        assert_eq!((transport_layer.protocol, transport_layer.offset), (IpProtocol::TCP, 72));
        authentication[1] = 0;
        assert_eq!(transport(&packet(&[51], &authentication)), Err(ParseError::BadHeaderLength));
    }

    #[test]
    fn every_truncation_is_refused() {
        for text in [LINUX_IP6GRE, CHAIN, LATER] {
            let bytes = hex(text);
            refuses_every_truncation(&bytes, upper_layer);
            // Cut before the upper layer, with a length that says so: the chain ends too early.
            let upper = usize::from(upper_layer(&bytes).unwrap().offset);
            for length in 40..upper {
                let mut cut = bytes[..length].to_vec();
                cut[4..6].copy_from_slice(&u16::try_from(length - 40).unwrap().to_be_bytes());
                assert_eq!(upper_layer(&cut), Err(ParseError::Truncated), "{length}");
            }
        }
    }

    #[test]
    fn a_length_beyond_the_packet_is_refused() {
        let mut bytes = hex(LINUX_IP6GRE);
        bytes[41] = 3;
        assert_eq!(upper_layer(&bytes).unwrap().offset, 72);
        bytes[41] = 4;
        assert_eq!(upper_layer(&bytes), Err(ParseError::Truncated));
        bytes[41] = 255;
        assert_eq!(upper_layer(&bytes), Err(ParseError::Truncated));
    }

    #[test]
    fn the_number_of_headers_is_bounded() {
        let mut chain = [60; 9];
        chain[8] = 17;
        let upper = upper_layer(&packet(&chain, &[0; 8])).unwrap();
        assert_eq!((upper.extension_headers, upper.offset), (MAX_EXTENSION_HEADERS, 40 + 64));
        let mut chain = [60; 10];
        chain[9] = 17;
        assert_eq!(upper_layer(&packet(&chain, &[0; 8])), Err(ParseError::TooManyExtensionHeaders));
    }

    #[test]
    fn misplaced_headers_are_refused() {
        assert!(upper_layer(&packet(&[0, 60, 59], &[])).is_ok());
        assert_eq!(upper_layer(&packet(&[60, 0, 59], &[])), Err(ParseError::MisplacedExtensionHeader));
        assert_eq!(upper_layer(&packet(&[0, 0, 59], &[])), Err(ParseError::MisplacedExtensionHeader));
        assert_eq!(upper_layer(&packet(&[44, 44, 59], &[])), Err(ParseError::MisplacedExtensionHeader));
    }

    #[test]
    fn no_next_header_is_an_end() {
        let upper = upper_layer(&packet(&[60, 59], &[])).unwrap();
        assert_eq!((upper.protocol, upper.offset), (IpProtocol::NO_NEXT_HEADER, 48));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_not_panic_and_no_walk_leaves_the_packet(
            chain in prop::collection::vec(prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60), any::<u8>()], 1..12),
            mut noise in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = packet(&chain, &[]);
            let upto = noise.len().min(bytes.len() - 40);
            // Lengths and flags at random, the next headers mostly kept.
            for (at, byte) in noise.drain(..upto).enumerate() {
                if at % 8 != 0 {
                    bytes[40 + at] = byte & 3;
                }
            }
            for walk in [upper_layer, transport] {
                if let Ok(upper) = walk(&bytes) {
                    prop_assert!(usize::from(upper.offset) <= bytes.len());
                    prop_assert!(upper.extension_headers <= MAX_EXTENSION_HEADERS);
                }
            }
        }
    }
}
