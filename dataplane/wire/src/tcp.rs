// SPDX-License-Identifier: Apache-2.0
//! TCP's header (RFC 9293 §3.1): ports, flags, a bounded walk over the options, and the MSS that a tunnel lowers.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |          Source Port          |       Destination Port        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                        Sequence Number                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Acknowledgment Number                      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Data |       |C|E|U|A|P|R|S|F|                               |
//! | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//! |       |       |R|E|G|K|H|T|N|N|                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |           Checksum            |         Urgent Pointer        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                           [Options]                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Left out: connections.

use core::net::IpAddr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{self, Sum};
use crate::view::{put, put_bytes, split, split_mut};
use crate::{EmitError, IpProtocol, ParseError};

/// Length of the header without options, in bytes.
pub const HEADER_BYTES: usize = 20;

const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const MSS_OPTION_BYTES: usize = 4;

bitflags::bitflags! {
    /// The control bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Flags: u8 {
        /// The sender is done.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgment number is meant.
        const ACK = 0x10;
        /// The urgent pointer is meant.
        const URG = 0x20;
        /// ECN echo (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// The header without options, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    sequence_number: U32,
    acknowledgment_number: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent_pointer: U16,
}

impl Header {
    /// The header at the front of `bytes`, and what follows its first 20 bytes.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(bytes: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(bytes)
    }

    /// The source port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// The destination port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// The sequence number.
    #[inline]
    pub const fn sequence_number(&self) -> u32 {
        self.sequence_number.get()
    }

    /// The acknowledgment number.
    #[inline]
    pub const fn acknowledgment_number(&self) -> u32 {
        self.acknowledgment_number.get()
    }

    /// The header's length with options, in bytes: 4 × data offset, 0 to 60.
    #[inline]
    pub const fn header_bytes(&self) -> u8 {
        (self.data_offset >> 4) * 4
    }

    /// The control bits.
    #[inline]
    pub const fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.flags)
    }

    /// The window.
    #[inline]
    pub const fn window(&self) -> u16 {
        self.window.get()
    }

    /// The checksum as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// The urgent pointer.
    #[inline]
    pub const fn urgent_pointer(&self) -> u16 {
        self.urgent_pointer.get()
    }
}

/// A segment whose header is whole.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The first 20 bytes.
    pub header: &'a Header,
    /// The options with their padding: 0 to 40 bytes.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
    segment: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the segment that `bytes` are, to their end.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadHeaderLength`] for a data offset below 5.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (header, rest) = Header::split(bytes)?;
        let options_bytes = usize::from(header.header_bytes())
            .checked_sub(HEADER_BYTES)
            .ok_or(ParseError::BadHeaderLength)?;
        let (options, payload) = rest.split_at_checked(options_bytes).ok_or(ParseError::Truncated)?;
        Ok(Packet { header, options, payload, segment: bytes })
    }

    /// Whether the checksum is right for a segment between these addresses.
    pub fn checksum_is_valid(&self, source: IpAddr, destination: IpAddr) -> bool {
        let Ok(length) = u32::try_from(self.segment.len()) else { return false };
        Sum::pseudo_header(source, destination, IpProtocol::TCP, length).add_bytes(self.segment).is_valid()
    }
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption<'a> {
    /// The kind.
    pub kind: u8,
    /// Where the option begins, in bytes from the start of the options.
    pub offset: usize,
    /// What follows kind and length.
    pub data: &'a [u8],
}

/// The options of a header, one by one, without padding; ends after the first bad one.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    options: &'a [u8],
    offset: usize,
}

impl<'a> Options<'a> {
    /// A walk over `options`, the bytes between the fixed header and the data.
    pub const fn new(options: &'a [u8]) -> Options<'a> {
        Options { options, offset: 0 }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<TcpOption<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.options.get(self.offset) == Some(&NO_OPERATION) {
            self.offset += 1;
        }
        let offset = self.offset;
        let rest = self.options.get(offset..)?;
        let (&kind, _) = rest.split_first()?;
        if kind == END_OF_LIST {
            return None;
        }
        let length = rest.get(1).map_or(0, |length| usize::from(*length));
        let Some(data) = rest.get(2..length) else {
            self.offset = self.options.len();
            return Some(Err(ParseError::BadOption));
        };
        self.offset += length;
        Some(Ok(TcpOption { kind, offset, data }))
    }
}

/// The MSS option of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mss {
    /// Where its 16-bit value stands, in bytes from the start of the TCP header; may be odd.
    pub offset: usize,
    /// The value.
    pub value: u16,
}

/// Finds the first MSS option of the segment `segment`, SYN or not.
///
/// # Errors
/// Those of [`Packet::parse`]; [`ParseError::BadOption`] for an option of impossible length before it.
#[inline]
pub fn find_mss(segment: &[u8]) -> Result<Option<Mss>, ParseError> {
    let packet = Packet::parse(segment)?;
    for option in Options::new(packet.options) {
        let option = option?;
        if option.kind == MAXIMUM_SEGMENT_SIZE {
            let value = u16::from_be_bytes(*option.data.as_array().ok_or(ParseError::BadOption)?);
            return Ok(Some(Mss { offset: HEADER_BYTES + option.offset + 2, value }));
        }
    }
    Ok(None)
}

/// Lowers the MSS option of a SYN segment to `limit` in place, and updates the checksum; returns the old value if it was
/// lowered.
///
/// Only the header has to be in `segment`: it works on a first fragment, too. All but SYN segments are left alone, and so
/// are those without the option or with a smaller value.
///
/// # Errors
/// As [`find_mss`]; the segment is then unchanged.
#[inline]
pub fn clamp_mss(segment: &mut [u8], limit: u16) -> Result<Option<u16>, ParseError> {
    let (header, _) = Header::split(segment)?;
    if !header.flags().contains(Flags::SYN) {
        return Ok(None);
    }
    match find_mss(segment)? {
        Some(mss) if mss.value > limit => {
            rewrite_mss(segment, mss, limit)?;
            Ok(Some(mss.value))
        }
        _ => Ok(None),
    }
}

fn rewrite_mss(segment: &mut [u8], mss: Mss, new: u16) -> Result<(), ParseError> {
    let value: &mut [u8; 2] =
        segment.get_mut(mss.offset..).and_then(|at| at.first_chunk_mut()).ok_or(ParseError::Truncated)?;
    *value = new.to_be_bytes();
    // Behind an odd number of bytes the value lies across two words of the sum: swapped in each (RFC 1071 §2 B).
    let (old, new) = if mss.offset.is_multiple_of(2) {
        (mss.value, new)
    } else {
        (mss.value.swap_bytes(), new.swap_bytes())
    };
    let (header, _) = split_mut::<Header>(segment)?;
    header.checksum.set(checksum::update_u16(header.checksum.get(), old, new));
    Ok(())
}

/// What the header says; of the options only the MSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The sequence number.
    pub sequence_number: u32,
    /// The acknowledgment number.
    pub acknowledgment_number: u32,
    /// The control bits.
    pub flags: Flags,
    /// The window.
    pub window: u16,
    /// The urgent pointer.
    pub urgent_pointer: u16,
    /// The MSS option, if there is one.
    pub mss: Option<u16>,
}

impl Repr {
    /// Reads the header of `packet`; for its checksum see [`Packet::checksum_is_valid`].
    ///
    /// # Errors
    /// [`ParseError::BadOption`].
    pub fn parse(packet: &Packet<'_>) -> Result<Repr, ParseError> {
        let header = packet.header;
        Ok(Repr {
            source_port: header.source_port(),
            destination_port: header.destination_port(),
            sequence_number: header.sequence_number(),
            acknowledgment_number: header.acknowledgment_number(),
            flags: header.flags(),
            window: header.window(),
            urgent_pointer: header.urgent_pointer(),
            mss: find_mss(packet.segment)?.map(|mss| mss.value),
        })
    }

    /// Length of the header in bytes: 20, or 24 with an MSS.
    pub const fn header_bytes(&self) -> usize {
        if self.mss.is_some() { HEADER_BYTES + MSS_OPTION_BYTES } else { HEADER_BYTES }
    }

    /// Writes the header to the front of `segment`, behind which the data already stands to the end, with the checksum
    /// for these addresses; returns the header's length.
    ///
    /// # Errors
    /// [`EmitError::NoSpace`]; [`EmitError::TooLong`] for a segment beyond 32 bits.
    pub fn emit(&self, segment: &mut [u8], source: IpAddr, destination: IpAddr) -> Result<usize, EmitError> {
        let length = u32::try_from(segment.len()).map_err(|_| EmitError::TooLong)?;
        let mut header = self.header();
        let mut end = put(&header, segment)?;
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            end = put_bytes(segment, end, &[MAXIMUM_SEGMENT_SIZE, 4, high, low])?;
        }
        let sum = Sum::pseudo_header(source, destination, IpProtocol::TCP, length);
        header.checksum.set(sum.add_bytes(segment).finish());
        put(&header, segment)?;
        Ok(end)
    }

    fn header(&self) -> Header {
        let words = if self.mss.is_some() { 6 } else { 5 };
        Header {
            source_port: U16::new(self.source_port),
            destination_port: U16::new(self.destination_port),
            sequence_number: U32::new(self.sequence_number),
            acknowledgment_number: U32::new(self.acknowledgment_number),
            data_offset: words << 4,
            flags: self.flags.bits(),
            window: U16::new(self.window),
            checksum: U16::ZERO,
            urgent_pointer: U16::new(self.urgent_pointer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, dirty, hex, refuses_every_truncation};
    use proptest::prelude::*;
    use std::vec::Vec;

    // All made with Scapy, between the addresses below: MSS 1460 behind a no-operation (its value at an odd offset);
    // MSS 1440 behind a window scale (odd, too); MSS 1460 alone, with one byte of data.
    const SYN: &str =
        "9c4001bb 11223344 00000000 a0c2faf0 cc610000 01020405 b4040208 0a000000 01000000 00030307";
    const SYN_ACK_OVER_IPV6: &str = "9c4001bb 00000001 00000005 70122000 c8430000 03030702 0405a000";
    const SYN_ACK: &str = "9c4001bb 11223344 55667788 60120200 82880000 020405b4 78";

    fn ipv4() -> (IpAddr, IpAddr) {
        ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap())
    }

    fn ipv6() -> (IpAddr, IpAddr) {
        ("2001:db8::1".parse().unwrap(), "2001:db8:1::7".parse().unwrap())
    }

    fn syn_ack() -> Repr {
        Repr {
            source_port: 40000,
            destination_port: 443,
            sequence_number: 0x1122_3344,
            acknowledgment_number: 0x5566_7788,
            flags: Flags::SYN | Flags::ACK,
            window: 512,
            urgent_pointer: 0,
            mss: Some(1460),
        }
    }

    fn read(bytes: &[u8]) -> Result<Repr, ParseError> {
        Repr::parse(&Packet::parse(bytes)?)
    }

    #[test]
    fn known_segments_read_as_what_they_are() {
        let bytes = hex(SYN_ACK);
        assert_eq!(read(&bytes), Ok(syn_ack()));
        assert_eq!(Packet::parse(&bytes).unwrap().payload, b"x");
        let syn = read(&hex(SYN)).unwrap();
        assert_eq!((syn.flags, syn.mss), (Flags::SYN | Flags::ECE | Flags::CWR, Some(1460)));
        assert_eq!(find_mss(&hex(SYN_ACK_OVER_IPV6)), Ok(Some(Mss { offset: 25, value: 1440 })));
        for (text, (source, destination)) in [(SYN, ipv4()), (SYN_ACK, ipv4()), (SYN_ACK_OVER_IPV6, ipv6())] {
            assert!(Packet::parse(&hex(text)).unwrap().checksum_is_valid(source, destination));
        }
    }

    #[test]
    fn a_header_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let (source, destination) = ipv4();
        let mut buffer = DIRTY;
        buffer[24] = b'x';
        assert_eq!(syn_ack().emit(&mut buffer[..25], source, destination), Ok(24));
        assert_eq!(buffer[..25], hex(SYN_ACK));
        assert!(buffer[25..].iter().all(|byte| *byte == 0xa5));
        for length in 0..24 {
            let emitted = syn_ack().emit(&mut dirty()[..length], source, destination);
            assert_eq!(emitted, Err(EmitError::NoSpace));
        }
    }

    #[test]
    fn every_truncation_of_a_header_is_refused() {
        refuses_every_truncation(&hex(SYN), Packet::parse);
        refuses_every_truncation(&hex(SYN), find_mss);
        for length in 0..40 {
            let mut cut = hex(SYN)[..length].to_vec();
            assert!(clamp_mss(&mut cut, 1).is_err());
            assert_eq!(cut, hex(SYN)[..length]);
        }
    }

    #[test]
    fn impossible_header_lengths_are_refused() {
        let mut bytes = hex(SYN_ACK);
        for offset in 0..5 {
            bytes[12] = offset << 4;
            assert_eq!(Packet::parse(&bytes).err(), Some(ParseError::BadHeaderLength));
        }
        bytes[12] = 0xf0;
        assert_eq!(Packet::parse(&bytes).err(), Some(ParseError::Truncated));
    }

    #[test]
    fn impossible_option_lengths_are_refused_and_leave_the_segment_alone() {
        for options in
            ["02000000", "02010000", "02030500", "02050000", "01010102", "00020300", "08ff0000", "01010103"]
        {
            let mut bytes = hex(SYN_ACK);
            bytes[20..24].copy_from_slice(&hex(options));
            let before = bytes.clone();
            let expected = if options.starts_with("00") { Ok(None) } else { Err(ParseError::BadOption) };
            assert_eq!(clamp_mss(&mut bytes, 1000), expected, "{options}");
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn the_mss_is_lowered_wherever_it_stands_and_the_checksum_stays_right() {
        for (text, old, (source, destination)) in
            [(SYN, 1460, ipv4()), (SYN_ACK, 1460, ipv4()), (SYN_ACK_OVER_IPV6, 1440, ipv6())]
        {
            let mut bytes = hex(text);
            assert_eq!(clamp_mss(&mut bytes, 1360), Ok(Some(old)));
            assert_eq!(read(&bytes).unwrap(), Repr { mss: Some(1360), ..read(&hex(text)).unwrap() });
            assert!(Packet::parse(&bytes).unwrap().checksum_is_valid(source, destination));
        }
    }

    #[test]
    fn a_smaller_mss_no_syn_and_no_option_are_left_alone() {
        for limit in [1460, 1461, u16::MAX] {
            let mut bytes = hex(SYN_ACK);
            assert_eq!(clamp_mss(&mut bytes, limit), Ok(None));
            assert_eq!(bytes, hex(SYN_ACK));
        }
        let mut no_syn = hex(SYN_ACK);
        no_syn[13] = 0x10;
        let before = no_syn.clone();
        assert_eq!(clamp_mss(&mut no_syn, 536), Ok(None));
        assert_eq!(no_syn, before);
        let mut no_option = [0; 20];
        Repr { mss: None, ..syn_ack() }.emit(&mut no_option, ipv4().0, ipv4().1).unwrap();
        assert_eq!(clamp_mss(&mut no_option, 536), Ok(None));
    }

    #[test]
    fn the_header_of_a_first_fragment_is_enough() {
        let mut bytes = hex(SYN_ACK);
        assert_eq!(clamp_mss(&mut bytes[..24], 536), Ok(Some(1460)));
        assert!(Packet::parse(&bytes).unwrap().checksum_is_valid(ipv4().0, ipv4().1));
    }

    prop_compose! {
        fn any_repr()(
            ports: (u16, u16), numbers: (u32, u32), flags: u8, window: u16, urgent_pointer: u16, mss: Option<u16>,
        ) -> Repr {
            Repr {
                source_port: ports.0,
                destination_port: ports.1,
                sequence_number: numbers.0,
                acknowledgment_number: numbers.1,
                flags: Flags::from_bits_retain(flags),
                window, urgent_pointer, mss,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(repr in any_repr(), data in prop::collection::vec(any::<u8>(), 0..60)) {
            let (source, destination) = ipv6();
            let mut buffer = std::vec![0xa5; repr.header_bytes()];
            buffer.extend_from_slice(&data);
            prop_assert_eq!(repr.emit(&mut buffer, source, destination), Ok(repr.header_bytes()));
            let packet = Packet::parse(&buffer).unwrap();
            prop_assert_eq!(Repr::parse(&packet), Ok(repr));
            prop_assert_eq!(packet.payload, data);
            prop_assert!(packet.checksum_is_valid(source, destination));
        }

        #[test]
        fn clamping_keeps_the_checksum_right(
            repr in any_repr(), old: u16, limit: u16, before in 0usize..12, data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            // `before` no-operations shift the option to any alignment.
            let (source, destination) = ipv4();
            let repr = Repr { flags: repr.flags | Flags::SYN, mss: None, ..repr };
            let mut options = std::vec![NO_OPERATION; before];
            options.extend_from_slice(&[MAXIMUM_SEGMENT_SIZE, 4]);
            options.extend_from_slice(&old.to_be_bytes());
            options.resize(options.len().next_multiple_of(4), 0);
            let mut header = repr.header();
            header.data_offset += u8::try_from(options.len() / 4).unwrap() << 4;
            let mut bytes = zerocopy::IntoBytes::as_bytes(&header).to_vec();
            bytes.extend_from_slice(&options);
            bytes.extend_from_slice(&data);
            let length = u32::try_from(bytes.len()).unwrap();
            let sum = Sum::pseudo_header(source, destination, IpProtocol::TCP, length).add_bytes(&bytes);
            bytes[16..18].copy_from_slice(&sum.finish().to_be_bytes());

            let clamped = clamp_mss(&mut bytes, limit);
            prop_assert_eq!(clamped, Ok(if old > limit { Some(old) } else { None }));
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert!(packet.checksum_is_valid(source, destination));
            prop_assert_eq!(find_mss(&bytes).unwrap().unwrap().value, old.min(limit));
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(offset) = bytes.get_mut(12) {
                *offset |= 0x50;
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                let walked: Vec<_> = Options::new(packet.options).collect();
                prop_assert!(walked.len() <= 20);
            }
            let _ = clamp_mss(&mut bytes, 536);
        }
    }
}
