// SPDX-License-Identifier: Apache-2.0
//! IPv4 (RFC 791, RFC 1812 §5.2.2 on what to check, RFC 2474 and 3168 on the ToS byte, RFC 6864 on identification).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version|  IHL  |Type of Service|          Total Length         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Identification        |Flags|      Fragment Offset    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Time to Live |    Protocol   |         Header Checksum       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       Source Address                          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Destination Address                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Options                    |    Padding    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Options are walked in [`options`], fragments are cut in [`fragment`]. Left out: reassembly, and what a router does
//! with options.

pub mod fragment;
pub mod options;

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{self, Sum};
use crate::view::{put, split, split_mut};
use crate::{EmitError, IpProtocol, ParseError};

/// Length of the header without options, in bytes.
pub const HEADER_BYTES: usize = 20;
/// Length of the longest header, in bytes.
pub const MAX_HEADER_BYTES: usize = 60;
/// Every link carries packets of this many bytes (RFC 791 §3.2).
pub const MIN_MTU: u16 = 68;

const VERSION_4_NO_OPTIONS: u8 = 0x45;
const TTL_OFFSET: usize = 8;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The header without options, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_ihl: u8,
    tos: u8,
    total_length: U16,
    identification: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: IpProtocol,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

/// The TTL (or hop limit) allows no further hop: it is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time exceeded")]
pub struct TimeExceeded;

/// The first eight octets of a header as one number: the fields that a template leaves open, and masks for them.
///
/// ```text
///   0         8     16            32              48                      64
///  | version | ToS | total length | identification | flags, fragment offset |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFields(u64);

impl OpenFields {
    const TOS: u64 = 0xff00;

    /// Those of a header that begins with `octets`.
    #[inline(always)]
    #[must_use]
    pub const fn of(octets: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(octets))
    }

    /// ToS and DF, all else 0.
    #[must_use]
    pub const fn new(tos: u8, dont_fragment: bool) -> Self {
        let flags = if dont_fragment { DONT_FRAGMENT } else { 0 };
        let [high, low] = flags.to_be_bytes();
        Self::of([0, tos, 0, 0, 0, 0, high, low])
    }

    /// What `mask` has of them.
    #[inline(always)]
    #[must_use]
    pub const fn only(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    /// With another ToS.
    #[inline(always)]
    #[must_use]
    pub fn map_tos(self, map: impl Fn(u8) -> u8) -> Self {
        let [_, tos, ..] = self.0.to_le_bytes();
        Self(self.0 & !Self::TOS | u64::from(map(tos)) << 8)
    }

    /// With lengths and identification, which were 0.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, total_length: u16, identification: u16) -> Self {
        let [length, identification] = [total_length.swap_bytes(), identification.swap_bytes()];
        Self(self.0 | (length as u64) << 16 | (identification as u64) << 32)
    }

    /// The total length.
    #[inline(always)]
    #[must_use]
    pub const fn total_length(self) -> u16 {
        let [_, _, high, low, ..] = self.0.to_le_bytes();
        u16::from_be_bytes([high, low])
    }
}

impl Header {
    /// The header at the front of `packet`, and what follows its first 20 bytes.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(packet: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(packet)
    }

    /// The header at the front of `packet`, mutable, and what follows its first 20 bytes.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split_mut(packet: &mut [u8]) -> Result<(&mut Header, &mut [u8]), ParseError> {
        split_mut(packet)
    }

    /// The version, 4 if this is IPv4.
    #[inline]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// The header's length with options, in bytes: 4 × IHL, 0 to 60.
    #[inline]
    pub const fn header_bytes(&self) -> u8 {
        (self.version_ihl & 0x0f) * 4
    }

    /// Whether this is version 4 with a header of 20 bytes.
    #[inline]
    pub const fn is_without_options(&self) -> bool {
        self.version_ihl == VERSION_4_NO_OPTIONS
    }

    /// The ToS byte: DSCP and ECN.
    #[inline]
    pub const fn tos(&self) -> u8 {
        self.tos
    }

    /// Header and payload, in bytes.
    #[inline]
    pub const fn total_length(&self) -> u16 {
        self.total_length.get()
    }

    /// The identification, which tells fragments of different packets apart.
    #[inline]
    pub const fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// Whether the packet may not be fragmented.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// Whether more fragments follow.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MORE_FRAGMENTS != 0
    }

    /// The fragment offset in units of 8 bytes.
    #[inline]
    pub const fn fragment_offset(&self) -> u16 {
        self.flags_offset.get() & OFFSET_MASK
    }

    /// Whether this is a fragment, the first or a later one.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.flags_offset.get() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// The time to live.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The protocol of the payload.
    #[inline]
    pub const fn protocol(&self) -> IpProtocol {
        self.protocol
    }

    /// The header checksum as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.source)
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.destination)
    }

    /// The sum over these 20 bytes; options have to be added.
    #[inline]
    pub(crate) fn sum(&self) -> Sum {
        let bytes: &[u8; HEADER_BYTES] = zerocopy::transmute_ref!(self);
        Sum::ZERO.add_array(bytes)
    }

    /// Writes the checksum of these 20 bytes: only for a header without options.
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.checksum.set(0);
        self.checksum.set(self.sum().finish());
    }

    /// Makes a template of this header, which has no options: what [`fill_template`](Self::fill_template) fills in
    /// becomes 0, and the checksum that of what is left.
    pub fn make_template(&mut self) {
        self.tos = 0;
        self.total_length.set(0);
        self.identification.set(0);
        self.flags_offset.set(0);
        self.fill_checksum();
    }

    /// Fills in what a template leaves open. Its checksum is there already: what comes to it is added (RFC 1624).
    #[inline]
    pub fn fill_template(&mut self, tos: u8, total_length: u16, identification: u16, dont_fragment: bool) {
        let flags = if dont_fragment { DONT_FRAGMENT } else { 0 };
        self.tos = tos;
        self.total_length.set(total_length);
        self.identification.set(identification);
        self.flags_offset.set(flags);
        let [length, identification, flags] =
            [self.total_length, self.identification, self.flags_offset].map(U16::to_bytes);
        let added = [[0, tos], length, identification, flags];
        self.checksum = U16::from_bytes(checksum::update_zeros(self.checksum.to_bytes(), added));
    }

    /// Writes a header: `template` with what it leaves open.
    #[inline(always)]
    pub fn emit_template(
        header: &mut [u8; HEADER_BYTES],
        template: &[u8; HEADER_BYTES],
        OpenFields(open): OpenFields,
    ) {
        let [.., i, j, _, _, _, _, _, _, _, _] = *template;
        *header = *template;
        if let (Some(to), Some(from)) = (header.first_chunk_mut(), template.first_chunk()) {
            *to = (u64::from_le_bytes(*from) | open).to_le_bytes();
        }
        [header[10], header[11]] = checksum::update_four_zeros([i, j], open);
    }

    /// Replaces the ToS byte, and updates the checksum.
    #[inline]
    pub fn rewrite_tos(&mut self, tos: u8) {
        let word = |tos| u16::from_be_bytes([self.version_ihl, tos]);
        self.update_checksum(word(self.tos), word(tos));
        self.tos = tos;
    }

    /// Replaces the total length, and updates the checksum.
    #[inline]
    pub fn rewrite_total_length(&mut self, total_length: u16) {
        self.update_checksum(self.total_length.get(), total_length);
        self.total_length.set(total_length);
    }

    /// Replaces the identification, and updates the checksum.
    #[inline]
    pub fn rewrite_identification(&mut self, identification: u16) {
        self.update_checksum(self.identification.get(), identification);
        self.identification.set(identification);
    }

    /// Sets or clears DF, and updates the checksum.
    #[inline]
    pub fn rewrite_dont_fragment(&mut self, dont_fragment: bool) {
        let old = self.flags_offset.get();
        let new = if dont_fragment { old | DONT_FRAGMENT } else { old & !DONT_FRAGMENT };
        self.update_checksum(old, new);
        self.flags_offset.set(new);
    }

    /// Replaces the TTL, and updates the checksum.
    #[inline]
    pub fn rewrite_ttl(&mut self, ttl: u8) {
        let word = |ttl| u16::from_be_bytes([ttl, self.protocol.0]);
        self.update_checksum(word(self.ttl), word(ttl));
        self.ttl = ttl;
    }

    /// Takes one hop off the TTL, and updates the checksum (RFC 1812 §5.3.1).
    ///
    /// # Errors
    /// [`TimeExceeded`] when no hop is left; the header is then unchanged.
    #[inline]
    pub fn decrement_ttl(&mut self) -> Result<(), TimeExceeded> {
        // TTL, protocol and checksum at once.
        let octets = self.as_mut_bytes().get_mut(TTL_OFFSET..).and_then(<[u8]>::first_chunk_mut);
        let octets: &mut [u8; 4] = octets.ok_or(TimeExceeded)?;
        let [ttl, ..] = *octets;
        if ttl <= 1 {
            return Err(TimeExceeded);
        }
        *octets = checksum::update_decrement(*octets);
        Ok(())
    }

    /// Replaces the protocol, and updates the checksum.
    #[inline]
    pub fn rewrite_protocol(&mut self, protocol: IpProtocol) {
        let word = |protocol: IpProtocol| u16::from_be_bytes([self.ttl, protocol.0]);
        self.update_checksum(word(self.protocol), word(protocol));
        self.protocol = protocol;
    }

    /// Replaces both addresses, and updates the checksum.
    #[inline]
    pub fn rewrite_addresses(&mut self, source: Ipv4Addr, destination: Ipv4Addr) {
        let (source, destination) = (source.octets(), destination.octets());
        let sum = checksum::update_bytes(self.checksum.get(), &self.source, &source);
        self.checksum.set(checksum::update_bytes(sum, &self.destination, &destination));
        self.source = source;
        self.destination = destination;
    }

    #[inline]
    fn update_checksum(&mut self, old: u16, new: u16) {
        self.checksum.set(checksum::update_u16(self.checksum.get(), old, new));
    }
}

/// A packet whose version and lengths have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The first 20 bytes.
    pub header: &'a Header,
    /// The options with their padding: 0 to 40 bytes.
    pub options: &'a [u8],
    /// The payload, cut to the total length.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the packet at the front of `bytes`; what follows its total length is Ethernet padding.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::BadVersion`], [`ParseError::BadHeaderLength`],
    /// [`ParseError::BadLength`]. The checksum is not looked at: see [`Packet::checksum_is_valid`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (header, _) = Header::split(bytes)?;
        if header.version() != 4 {
            return Err(ParseError::BadVersion);
        }
        let header_bytes = usize::from(header.header_bytes());
        let total_bytes = usize::from(header.total_length());
        if header_bytes < HEADER_BYTES {
            return Err(ParseError::BadHeaderLength);
        }
        if total_bytes < header_bytes {
            return Err(ParseError::BadLength);
        }
        let packet = bytes.get(..total_bytes).ok_or(ParseError::Truncated)?;
        let options = packet.get(HEADER_BYTES..header_bytes).ok_or(ParseError::Truncated)?;
        let payload = packet.get(header_bytes..).ok_or(ParseError::Truncated)?;
        Ok(Packet { header, options, payload })
    }

    /// Whether the header checksum is right.
    #[inline]
    pub fn checksum_is_valid(&self) -> bool {
        self.header.sum().add_bytes(self.options).is_valid()
    }
}

/// What the header says; options are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The protocol of the payload.
    pub protocol: IpProtocol,
    /// The ToS byte: DSCP and ECN.
    pub tos: u8,
    /// The identification.
    pub identification: u16,
    /// Whether the packet may not be fragmented.
    pub dont_fragment: bool,
    /// Whether more fragments follow.
    pub more_fragments: bool,
    /// The fragment offset in units of 8 bytes, below 8192.
    pub fragment_offset: u16,
    /// The time to live.
    pub ttl: u8,
    /// Length of the payload in bytes, at most 65515.
    pub payload_bytes: u16,
}

impl Repr {
    /// The start of a whole packet: ToS 0, identification 0, DF clear, TTL 64, no payload.
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol) -> Repr {
        Repr {
            source,
            destination,
            protocol,
            tos: 0,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            payload_bytes: 0,
        }
    }

    /// Reads the header of `packet` and checks its checksum.
    ///
    /// # Errors
    /// [`ParseError::BadChecksum`]; [`ParseError::BadLength`] when the payload is longer than the field can say.
    pub fn parse(packet: &Packet<'_>) -> Result<Repr, ParseError> {
        if !packet.checksum_is_valid() {
            return Err(ParseError::BadChecksum);
        }
        let header = packet.header;
        Ok(Repr {
            source: header.source(),
            destination: header.destination(),
            protocol: header.protocol(),
            tos: header.tos(),
            identification: header.identification(),
            dont_fragment: header.dont_fragment(),
            more_fragments: header.more_fragments(),
            fragment_offset: header.fragment_offset(),
            ttl: header.ttl(),
            payload_bytes: u16::try_from(packet.payload.len()).map_err(|_| ParseError::BadLength)?,
        })
    }

    /// The header as bytes on the wire with its checksum, for templates.
    ///
    /// # Errors
    /// [`EmitError::TooLong`] when the payload's length or the fragment offset does not fit its field.
    pub fn header(&self) -> Result<Header, EmitError> {
        let total_length = self.payload_bytes.checked_add(20).ok_or(EmitError::TooLong)?;
        if self.fragment_offset > OFFSET_MASK {
            return Err(EmitError::TooLong);
        }
        let mut flags_offset = self.fragment_offset;
        if self.dont_fragment {
            flags_offset |= DONT_FRAGMENT;
        }
        if self.more_fragments {
            flags_offset |= MORE_FRAGMENTS;
        }
        let mut header = Header {
            version_ihl: VERSION_4_NO_OPTIONS,
            tos: self.tos,
            total_length: U16::new(total_length),
            identification: U16::new(self.identification),
            flags_offset: U16::new(flags_offset),
            ttl: self.ttl,
            protocol: self.protocol,
            checksum: U16::ZERO,
            source: self.source.octets(),
            destination: self.destination.octets(),
        };
        header.fill_checksum();
        Ok(header)
    }

    /// Writes the header with its checksum to the front of `buffer`; returns its length, [`HEADER_BYTES`].
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
    use std::vec::Vec;

    // Both made with Scapy.
    const PACKET: &str = "45b90023 12344000 3f113ca1 c0000201 c6336407 0fa01388 000f333c 7061796c 6f6164";
    const WITH_OPTIONS: &str = "4800002c 00090000 4011ef6c c0000201 c6336407 94040000 01070704 00000000
        00010002 000c4ed0 61626364";

    fn repr() -> Repr {
        Repr {
            tos: 0xb9,
            identification: 0x1234,
            dont_fragment: true,
            ttl: 63,
            payload_bytes: 15,
            ..Repr::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7), IpProtocol::UDP)
        }
    }

    fn read(bytes: &[u8]) -> Result<Repr, ParseError> {
        Repr::parse(&Packet::parse(bytes)?)
    }

    #[test]
    fn a_known_packet_reads_as_what_it_is() {
        let bytes = hex(PACKET);
        assert_eq!(read(&bytes), Ok(repr()));
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.header.is_without_options() && packet.options.is_empty());
        assert_eq!(packet.payload, &bytes[20..]);
    }

    #[test]
    fn options_are_between_header_and_payload_and_in_the_checksum() {
        let mut bytes = hex(WITH_OPTIONS);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.options, packet.payload), (&bytes[20..32], &bytes[32..]));
        assert!(packet.checksum_is_valid() && !packet.header.is_without_options());
        bytes[25] ^= 1;
        assert_eq!(read(&bytes), Err(ParseError::BadChecksum));
    }

    #[test]
    fn padding_behind_the_total_length_is_cut_off() {
        let mut bytes = hex(PACKET);
        bytes.resize(46, 0);
        assert_eq!(read(&bytes), Ok(repr()));
        assert_eq!(Packet::parse(&bytes).unwrap().payload.len(), 15);
    }

    #[test]
    fn a_header_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let mut buffer = DIRTY;
        assert_eq!(repr().emit(&mut buffer), Ok(HEADER_BYTES));
        assert_eq!(buffer[..HEADER_BYTES], hex(PACKET)[..HEADER_BYTES]);
        assert!(buffer[HEADER_BYTES..].iter().all(|byte| *byte == 0xa5));
        assert_eq!(repr().emit(&mut buffer[..19]), Err(EmitError::NoSpace));
    }

    #[test]
    fn what_does_not_fit_its_field_is_not_written() {
        assert_eq!(Repr { payload_bytes: 65516, ..repr() }.header(), Err(EmitError::TooLong));
        assert!(Repr { payload_bytes: 65515, ..repr() }.header().is_ok());
        assert_eq!(Repr { fragment_offset: 8192, ..repr() }.header(), Err(EmitError::TooLong));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(PACKET), Packet::parse);
        refuses_every_truncation(&hex(WITH_OPTIONS), Packet::parse);
    }

    #[test]
    fn impossible_versions_and_lengths_are_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = hex(PACKET);
            bytes[at] = value;
            Packet::parse(&bytes).map(|packet| packet.payload.len())
        };
        for version in (0..16).filter(|version| *version != 4) {
            assert_eq!(with(0, version << 4 | 5), Err(ParseError::BadVersion));
        }
        for ihl in 0..5 {
            assert_eq!(with(0, 0x40 | ihl), Err(ParseError::BadHeaderLength));
        }
        assert_eq!(with(0, 0x4f), Err(ParseError::BadLength));
        for total in 0..20 {
            assert_eq!(with(3, total), Err(ParseError::BadLength));
        }
        assert_eq!(with(3, 20), Ok(0));
        assert_eq!(with(3, 36), Err(ParseError::Truncated));
        assert_eq!(with(2, 0xff), Err(ParseError::Truncated));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let bytes = hex(PACKET);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_last_hop_is_not_taken_off() {
        for (ttl, expected) in [(0, Err(TimeExceeded)), (1, Err(TimeExceeded)), (2, Ok(())), (255, Ok(()))] {
            let mut header = Repr { ttl, ..repr() }.header().unwrap();
            let before = header;
            assert_eq!(header.decrement_ttl(), expected);
            match expected {
                Ok(()) => assert_eq!(header, Repr { ttl: ttl - 1, ..repr() }.header().unwrap()),
                Err(TimeExceeded) => assert_eq!(header, before),
            }
        }
    }

    prop_compose! {
        fn any_repr()(
            addresses: (Ipv4Addr, Ipv4Addr), protocol: u8, tos: u8, identification: u16,
            flags: (bool, bool), fragment_offset in 0u16..8192, ttl: u8, payload_bytes in 0u16..200,
        ) -> Repr {
            Repr {
                tos, identification, ttl, payload_bytes, fragment_offset,
                dont_fragment: flags.0,
                more_fragments: flags.1,
                ..Repr::new(addresses.0, addresses.1, IpProtocol(protocol))
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
        fn bytes_of_any_kind_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = Repr::parse(&packet);
                let options: Vec<_> = options::Options::new(packet.options).collect();
                prop_assert!(options.len() <= options::MAX_BYTES);
            }
        }

        /// Each rewrite gives the header that is written from the changed `Repr`.
        #[test]
        fn rewriting_in_place_is_writing_anew(old in any_repr(), new in any_repr()) {
            let mut header = old.header().unwrap();
            let mut expected = old;
            header.rewrite_tos(new.tos);
            expected.tos = new.tos;
            prop_assert_eq!(header, expected.header().unwrap());
            header.rewrite_total_length(new.payload_bytes + 20);
            expected.payload_bytes = new.payload_bytes;
            prop_assert_eq!(header, expected.header().unwrap());
            header.rewrite_identification(new.identification);
            expected.identification = new.identification;
            prop_assert_eq!(header, expected.header().unwrap());
            header.rewrite_dont_fragment(new.dont_fragment);
            expected.dont_fragment = new.dont_fragment;
            prop_assert_eq!(header, expected.header().unwrap());
            header.rewrite_ttl(new.ttl);
            expected.ttl = new.ttl;
            prop_assert_eq!(header, expected.header().unwrap());
            header.rewrite_protocol(new.protocol);
            expected.protocol = new.protocol;
            prop_assert_eq!(header, expected.header().unwrap());
            header.rewrite_addresses(new.source, new.destination);
            (expected.source, expected.destination) = (new.source, new.destination);
            prop_assert_eq!(header, expected.header().unwrap());
            if new.ttl > 1 {
                prop_assert_eq!(header.decrement_ttl(), Ok(()));
                expected.ttl -= 1;
                prop_assert_eq!(header, expected.header().unwrap());
            }
        }
    }
}
