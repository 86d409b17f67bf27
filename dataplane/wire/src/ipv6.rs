// SPDX-License-Identifier: Apache-2.0
//! IPv6 (RFC 8200).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Traffic Class |           Flow Label                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Payload Length        |  Next Header  |   Hop Limit   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                         Source Address (128 bits)             +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                      Destination Address (128 bits)           +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! The walk over extension headers is in [`extension`]. Left out: jumbograms (RFC 2675), reassembly.

pub mod extension;

use core::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use crate::ipv4::TimeExceeded;
use crate::view::{put, split, split_mut};
use crate::{EmitError, IpProtocol, ParseError};
pub use extension::{FragmentHeader, MAX_EXTENSION_HEADERS, UpperLayer, transport, upper_layer};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 40;
/// Every link carries packets of this many bytes (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;

const FLOW_LABEL_MASK: u32 = 0x000f_ffff;

/// The header, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_class_flow: U32,
    payload_length: U16,
    next_header: IpProtocol,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Header {
    /// The header at the front of `packet`, and what follows it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(packet: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(packet)
    }

    /// The header at the front of `packet`, mutable, and what follows it.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split_mut(packet: &mut [u8]) -> Result<(&mut Header, &mut [u8]), ParseError> {
        split_mut(packet)
    }

    /// The version, 6 if this is IPv6.
    #[inline]
    pub const fn version(&self) -> u8 {
        self.version_class_flow.to_bytes()[0] >> 4
    }

    /// The traffic class: DSCP and ECN.
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        let [a, b, _, _] = self.version_class_flow.to_bytes();
        a << 4 | b >> 4
    }

    /// The flow label, 20 bits.
    #[inline]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & FLOW_LABEL_MASK
    }

    /// Everything behind this header, in bytes.
    #[inline]
    pub const fn payload_length(&self) -> u16 {
        self.payload_length.get()
    }

    /// What follows: an extension header or the upper layer.
    #[inline]
    pub const fn next_header(&self) -> IpProtocol {
        self.next_header
    }

    /// The hop limit.
    #[inline]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.source)
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.destination)
    }

    /// Sets the traffic class.
    #[inline]
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let others = self.version_class_flow.get() & 0xf00f_ffff;
        self.version_class_flow.set(others | u32::from(traffic_class) << 20);
    }

    /// Sets the payload length.
    #[inline]
    pub fn set_payload_length(&mut self, payload_length: u16) {
        self.payload_length.set(payload_length);
    }

    /// Sets the next header.
    #[inline]
    pub fn set_next_header(&mut self, next_header: IpProtocol) {
        self.next_header = next_header;
    }

    /// Sets the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.hop_limit = hop_limit;
    }

    /// Sets both addresses; checksums of the upper layer are the caller's.
    #[inline]
    pub fn set_addresses(&mut self, source: Ipv6Addr, destination: Ipv6Addr) {
        self.source = source.octets();
        self.destination = destination.octets();
    }

    /// Takes one hop off the hop limit (RFC 8200 §3).
    ///
    /// # Errors
    /// [`TimeExceeded`] when no hop is left; the header is then unchanged.
    #[inline]
    pub fn decrement_hop_limit(&mut self) -> Result<(), TimeExceeded> {
        if self.hop_limit <= 1 {
            return Err(TimeExceeded);
        }
        self.hop_limit -= 1;
        Ok(())
    }
}

/// A packet whose version and length have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The header.
    pub header: &'a Header,
    /// What follows it, cut to the payload length.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the packet at the front of `bytes`; what follows its payload length is Ethernet padding.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadVersion`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (header, rest) = Header::split(bytes)?;
        if header.version() != 6 {
            return Err(ParseError::BadVersion);
        }
        let payload = rest.get(..usize::from(header.payload_length())).ok_or(ParseError::Truncated)?;
        Ok(Packet { header, payload })
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The source address.
    pub source: Ipv6Addr,
    /// The destination address.
    pub destination: Ipv6Addr,
    /// What follows: an extension header or the upper layer.
    pub next_header: IpProtocol,
    /// The traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// The flow label, 20 bits.
    pub flow_label: u32,
    /// The hop limit.
    pub hop_limit: u8,
    /// Length of everything behind this header, in bytes.
    pub payload_bytes: u16,
}

impl Repr {
    /// The start of a packet: traffic class 0, flow label 0, hop limit 64, no payload.
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr, next_header: IpProtocol) -> Repr {
        Repr {
            source,
            destination,
            next_header,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            payload_bytes: 0,
        }
    }

    /// Reads the header of `packet`.
    pub const fn parse(packet: &Packet<'_>) -> Repr {
        let header = packet.header;
        Repr {
            source: header.source(),
            destination: header.destination(),
            next_header: header.next_header(),
            traffic_class: header.traffic_class(),
            flow_label: header.flow_label(),
            hop_limit: header.hop_limit(),
            payload_bytes: header.payload_length(),
        }
    }

    /// The header as bytes on the wire, for templates.
    ///
    /// # Errors
    /// [`EmitError::TooLong`] when the flow label needs more than 20 bits.
    pub fn header(&self) -> Result<Header, EmitError> {
        if self.flow_label > FLOW_LABEL_MASK {
            return Err(EmitError::TooLong);
        }
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        Ok(Header {
            version_class_flow: U32::new(word),
            payload_length: U16::new(self.payload_bytes),
            next_header: self.next_header,
            hop_limit: self.hop_limit,
            source: self.source.octets(),
            destination: self.destination.octets(),
        })
    }

    /// Writes the header to the front of `buffer`; returns its length, [`HEADER_BYTES`].
    ///
    /// # Errors
    /// As [`Repr::header`]; [`EmitError::NoSpace`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        put(&self.header()?, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use proptest::prelude::*;

    /// Made with Scapy.
    const PACKET: &str = "6b912345 000f113f 20010db8 00000000 00000000 00000001
        20010db8 00010000 00000000 00000007 0fa01388 000fc3fd 7061796c 6f6164";

    fn repr() -> Repr {
        let (source, destination) = ("2001:db8::1".parse().unwrap(), "2001:db8:1::7".parse().unwrap());
        Repr {
            traffic_class: 0xb9,
            flow_label: 0x12345,
            hop_limit: 63,
            payload_bytes: 15,
            ..Repr::new(source, destination, IpProtocol::UDP)
        }
    }

    fn read(bytes: &[u8]) -> Result<Repr, ParseError> {
        Packet::parse(bytes).map(|packet| Repr::parse(&packet))
    }

    #[test]
    fn a_known_packet_reads_as_what_it_is() {
        let mut bytes = hex(PACKET);
        assert_eq!(read(&bytes), Ok(repr()));
        bytes.resize(60, 0);
        assert_eq!(read(&bytes), Ok(repr()));
        assert_eq!(Packet::parse(&bytes).unwrap().payload, &bytes[40..55]);
    }

    #[test]
    fn a_header_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let mut buffer = DIRTY;
        assert_eq!(repr().emit(&mut buffer), Ok(HEADER_BYTES));
        assert_eq!(buffer[..HEADER_BYTES], hex(PACKET)[..HEADER_BYTES]);
        assert!(buffer[HEADER_BYTES..].iter().all(|byte| *byte == 0xa5));
        assert_eq!(repr().emit(&mut buffer[..39]), Err(EmitError::NoSpace));
        assert_eq!(Repr { flow_label: 1 << 20, ..repr() }.header(), Err(EmitError::TooLong));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(PACKET), Packet::parse);
    }

    #[test]
    fn impossible_versions_and_lengths_are_refused() {
        let mut bytes = hex(PACKET);
        for version in (0..16).filter(|version| *version != 6) {
            bytes[0] = version << 4 | 0xb;
            assert_eq!(read(&bytes), Err(ParseError::BadVersion));
        }
        bytes = hex(PACKET);
        bytes[5] = 16;
        assert_eq!(read(&bytes), Err(ParseError::Truncated));
        bytes[4] = 0xff;
        assert_eq!(read(&bytes), Err(ParseError::Truncated));
    }

    #[test]
    fn the_last_hop_is_not_taken_off() {
        for (hop_limit, expected) in
            [(0, Err(TimeExceeded)), (1, Err(TimeExceeded)), (2, Ok(())), (255, Ok(()))]
        {
            let mut header = Repr { hop_limit, ..repr() }.header().unwrap();
            assert_eq!(header.decrement_hop_limit(), expected);
            assert_eq!(header.hop_limit(), if expected.is_ok() { hop_limit - 1 } else { hop_limit });
        }
    }

    prop_compose! {
        fn any_repr()(
            source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, traffic_class: u8,
            flow_label in 0u32..1 << 20, hop_limit: u8, payload_bytes in 0u16..2000,
        ) -> Repr {
            Repr {
                source, destination, traffic_class, flow_label, hop_limit, payload_bytes,
                next_header: IpProtocol(next_header),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(repr in any_repr()) {
            let mut buffer = DIRTY;
            repr.emit(&mut buffer).unwrap();
            prop_assert_eq!(read(&buffer), Ok(repr));
        }

        #[test]
        fn setting_in_place_is_writing_anew(old in any_repr(), new in any_repr()) {
            let mut header = old.header().unwrap();
            header.set_traffic_class(new.traffic_class);
            prop_assert_eq!(header, Repr { traffic_class: new.traffic_class, ..old }.header().unwrap());
            header.set_payload_length(new.payload_bytes);
            header.set_next_header(new.next_header);
            header.set_hop_limit(new.hop_limit);
            header.set_addresses(new.source, new.destination);
            prop_assert_eq!(header, Repr { flow_label: old.flow_label, ..new }.header().unwrap());
        }
    }
}
