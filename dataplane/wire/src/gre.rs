// SPDX-License-Identifier: Apache-2.0
//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |C| |K|S|   Reserved0     | Ver |         Protocol Type         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      Checksum (optional)      |     Reserved1 (optional)      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         Key (optional)                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                 Sequence Number (optional)                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Discard rules on receipt: bit 1 (routing, RFC 1701) and bits 4 and 5 must be zero (RFC 2784 §2.3; bits 2 and 3 are
//! RFC 2890's K and S), the version must be 0 (§2.3.1), a checksum that is present must be right (§2.3). Bits 6 to 12
//! and Reserved1 are ignored. Whether the key is the tunnel's, the protocol type known and the sequence number in order
//! are questions for the tunnel.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum;
use crate::view::{put, put_bytes, split};
use crate::{EmitError, EtherType, ParseError};

/// Length of the header without optional fields, in bytes.
pub const HEADER_BYTES: usize = 4;
/// Length of the header with all optional fields, in bytes.
pub const MAX_HEADER_BYTES: usize = 16;

const CHECKSUM_PRESENT: u16 = 0x8000;
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;
/// Bits 1, 4 and 5.
const MUST_BE_ZERO: u16 = 0x4c00;
const VERSION_MASK: u16 = 0x0007;

/// The first four bytes, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    flags_version: U16,
    protocol_type: U16,
}

impl Header {
    /// The header at the front of `bytes`, and what follows its first four bytes.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(bytes: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(bytes)
    }

    /// Whether checksum and Reserved1 follow.
    #[inline]
    pub const fn checksum_present(&self) -> bool {
        self.flags_version.get() & CHECKSUM_PRESENT != 0
    }

    /// Whether a key follows.
    #[inline]
    pub const fn key_present(&self) -> bool {
        self.flags_version.get() & KEY_PRESENT != 0
    }

    /// Whether a sequence number follows.
    #[inline]
    pub const fn sequence_number_present(&self) -> bool {
        self.flags_version.get() & SEQUENCE_PRESENT != 0
    }

    /// Whether bit 1, 4 or 5 is set, which a receiver must not accept.
    #[inline]
    pub const fn has_reserved_bits(&self) -> bool {
        self.flags_version.get() & MUST_BE_ZERO != 0
    }

    /// The version; 0 is GRE, 1 is PPTP's (RFC 2637).
    #[inline]
    pub const fn version(&self) -> u16 {
        self.flags_version.get() & VERSION_MASK
    }

    /// The type of the payload packet.
    #[inline]
    pub const fn protocol_type(&self) -> EtherType {
        EtherType(self.protocol_type.get())
    }

    /// Length of the header with the optional fields that its flags announce, in bytes: 4 to 16.
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        // C, K and S each bring four bytes.
        let mut bytes = HEADER_BYTES;
        bytes += if self.checksum_present() { 4 } else { 0 };
        bytes += if self.key_present() { 4 } else { 0 };
        bytes += if self.sequence_number_present() { 4 } else { 0 };
        bytes
    }
}

/// A packet whose header is whole and acceptable, its checksum verified when present.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The first four bytes.
    pub header: &'a Header,
    /// The optional fields: 0 to 12 bytes.
    optional: &'a [u8],
    /// The payload packet.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the packet that `bytes` are, to their end.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadVersion`]; [`ParseError::ReservedBits`];
    /// [`ParseError::BadChecksum`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let (header, rest) = Header::split(bytes)?;
        // One test for the packets that nearly all are.
        if header.flags_version.get() & (MUST_BE_ZERO | VERSION_MASK | CHECKSUM_PRESENT) != 0 {
            check(header, bytes)?;
        }
        let optional_bytes = header.header_bytes() - HEADER_BYTES;
        let (optional, payload) = rest.split_at_checked(optional_bytes).ok_or(ParseError::Truncated)?;
        Ok(Packet { header, optional, payload })
    }

    /// The key, if present.
    #[inline]
    pub fn key(&self) -> Option<u32> {
        let before = if self.header.checksum_present() { 4 } else { 0 };
        if self.header.key_present() { self.word_at(before) } else { None }
    }

    /// The sequence number, if present.
    #[inline]
    pub fn sequence_number(&self) -> Option<u32> {
        if self.header.sequence_number_present() {
            self.optional.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))
        } else {
            None
        }
    }

    fn word_at(&self, offset: usize) -> Option<u32> {
        self.optional.get(offset..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// What must be refused, and the checksum if present.
#[cold]
fn check(header: &Header, bytes: &[u8]) -> Result<(), ParseError> {
    if header.version() != 0 {
        return Err(ParseError::BadVersion);
    }
    if header.has_reserved_bits() {
        return Err(ParseError::ReservedBits);
    }
    if bytes.len() < header.header_bytes() {
        return Err(ParseError::Truncated);
    }
    if header.checksum_present() && !checksum::is_valid(bytes) {
        return Err(ParseError::BadChecksum);
    }
    Ok(())
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The type of the payload packet.
    pub protocol_type: EtherType,
    /// Whether a checksum over header and payload packet is there.
    pub checksum_present: bool,
    /// The key, if present.
    pub key: Option<u32>,
    /// The sequence number, if present.
    pub sequence_number: Option<u32>,
}

impl Repr {
    /// A header without optional fields.
    pub const fn new(protocol_type: EtherType) -> Repr {
        Repr { protocol_type, checksum_present: false, key: None, sequence_number: None }
    }

    /// Reads the header of `packet`.
    #[inline]
    pub fn parse(packet: &Packet<'_>) -> Repr {
        Repr {
            protocol_type: packet.header.protocol_type(),
            checksum_present: packet.header.checksum_present(),
            key: packet.key(),
            sequence_number: packet.sequence_number(),
        }
    }

    /// Length of the header in bytes: 4 to 16.
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        let mut bytes = HEADER_BYTES;
        if self.checksum_present {
            bytes += 4;
        }
        if self.key.is_some() {
            bytes += 4;
        }
        if self.sequence_number.is_some() {
            bytes += 4;
        }
        bytes
    }

    /// Writes the header to the front of `packet`, behind which the payload packet already stands; returns the header's
    /// length. With a checksum, it covers all of `packet`, so `packet` must end where the payload packet ends; without
    /// one, `packet` may be the header's room alone.
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    pub fn emit(&self, packet: &mut [u8]) -> Result<usize, EmitError> {
        let mut flags = 0;
        let mut end = HEADER_BYTES;
        if self.checksum_present {
            flags |= CHECKSUM_PRESENT;
            end = put_bytes(packet, end, &[0; 4])?;
        }
        if let Some(key) = self.key {
            flags |= KEY_PRESENT;
            end = put_bytes(packet, end, &key.to_be_bytes())?;
        }
        if let Some(sequence_number) = self.sequence_number {
            flags |= SEQUENCE_PRESENT;
            end = put_bytes(packet, end, &sequence_number.to_be_bytes())?;
        }
        let header = Header { flags_version: U16::new(flags), protocol_type: U16::new(self.protocol_type.0) };
        put(&header, packet)?;
        if self.checksum_present {
            fill_checksum(packet)?;
        }
        Ok(end)
    }
}

/// Writes the checksum of `packet`, GRE header and payload packet, into its checksum field, which the header has.
///
/// # Errors
/// [`EmitError::NoSpace`]; [`EmitError::NotAllowed`] when the header has no checksum field.
pub fn fill_checksum(packet: &mut [u8]) -> Result<(), EmitError> {
    let (header, _) = Header::split(packet).map_err(|_| EmitError::NoSpace)?;
    if !header.checksum_present() {
        return Err(EmitError::NotAllowed);
    }
    put_bytes(packet, HEADER_BYTES, &[0; 4])?;
    let sum = checksum::checksum(packet);
    put_bytes(packet, HEADER_BYTES, &sum.to_be_bytes())?;
    Ok(())
}

/// Writes `sequence_number` into a header that was emitted with one: for templates.
///
/// The checksum, if present, has to be filled afterwards.
///
/// # Errors
/// [`EmitError::NoSpace`]; [`EmitError::NotAllowed`] when the header has no such field.
#[inline]
pub fn set_sequence_number(packet: &mut [u8], sequence_number: u32) -> Result<(), EmitError> {
    let (header, _) = Header::split(packet).map_err(|_| EmitError::NoSpace)?;
    if !header.sequence_number_present() {
        return Err(EmitError::NotAllowed);
    }
    let offset = header.header_bytes() - 4;
    put(&U32::new(sequence_number), packet.get_mut(offset..).ok_or(EmitError::NoSpace)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, dirty, hex, refuses_every_truncation};
    use proptest::prelude::*;

    // Both made with Scapy.
    const PLAIN: &str = "00000800 45000021 00070000 401166bf 0a010002 0a020002 00010002 000dfe36 67726521 21";
    const FULL: &str = "b0000800 be5c0000 deadbeef 0000002a 45000021 00070000 401166bf 0a010002 0a020002
        00010002 000dfe36 67726521 21";

    fn full() -> Repr {
        Repr {
            protocol_type: EtherType::IPV4,
            checksum_present: true,
            key: Some(0xdead_beef),
            sequence_number: Some(42),
        }
    }

    fn read(bytes: &[u8]) -> Result<Repr, ParseError> {
        Packet::parse(bytes).map(|packet| Repr::parse(&packet))
    }

    #[test]
    fn known_packets_read_as_what_they_are() {
        let (plain, with_all) = (hex(PLAIN), hex(FULL));
        assert_eq!(read(&plain), Ok(Repr::new(EtherType::IPV4)));
        assert_eq!(Packet::parse(&plain).unwrap().payload, &plain[4..]);
        assert_eq!(read(&with_all), Ok(full()));
        assert_eq!(Packet::parse(&with_all).unwrap().payload, &plain[4..]);
    }

    #[test]
    fn a_header_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let bytes = hex(FULL);
        let mut buffer = DIRTY;
        buffer[16..bytes.len()].copy_from_slice(&bytes[16..]);
        assert_eq!(full().emit(&mut buffer[..bytes.len()]), Ok(16));
        assert_eq!(buffer[..bytes.len()], bytes);
        assert!(buffer[bytes.len()..].iter().all(|byte| *byte == 0xa5));
        for length in 0..16 {
            assert_eq!(full().emit(&mut dirty()[..length]), Err(EmitError::NoSpace));
        }
    }

    #[test]
    fn every_truncation_of_a_header_is_refused() {
        let bytes = hex(FULL);
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}: short, or a checksum that misses bytes");
        }
        let mut header = [0; 12];
        Repr { checksum_present: false, ..full() }.emit(&mut header).unwrap();
        refuses_every_truncation(&header, Packet::parse);
    }

    #[test]
    fn reserved_bits_and_other_versions_are_discarded_and_bits_6_to_12_ignored() {
        for bit in 0..16_u8 {
            let mut bytes = hex(PLAIN);
            bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
            let expected = match bit {
                // RFC 1701 routing, and two bits of no RFC.
                1 | 4 | 5 => Err(ParseError::ReservedBits),
                6..=12 => Ok(()),
                13..=15 => Err(ParseError::BadVersion),
                // C, K and S move the payload; here C finds no checksum that is right.
                0 => Err(ParseError::BadChecksum),
                _ => Ok(()),
            };
            assert_eq!(read(&bytes).map(|_| ()), expected, "bit {bit}");
        }
    }

    #[test]
    fn a_version_1_header_is_a_version_error_whatever_else_it_has() {
        // PPTP (RFC 2637): K, S, A and version 1.
        assert_eq!(read(&hex("3081880b 00040001 00000000 00000000")), Err(ParseError::BadVersion));
    }

    #[test]
    fn every_flipped_bit_under_a_checksum_is_noticed() {
        let bytes = hex(FULL);
        for bit in 0..bytes.len() * 8 {
            // Without C there is no checksum to notice anything.
            if bit == 7 {
                continue;
            }
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_template_takes_a_new_sequence_number_and_checksum() {
        let mut bytes = hex(FULL);
        assert_eq!(set_sequence_number(&mut bytes, 43), Ok(()));
        assert_eq!(read(&bytes), Err(ParseError::BadChecksum));
        assert_eq!(fill_checksum(&mut bytes), Ok(()));
        assert_eq!(read(&bytes), Ok(Repr { sequence_number: Some(43), ..full() }));
        let mut plain = hex(PLAIN);
        assert_eq!(set_sequence_number(&mut plain, 1), Err(EmitError::NotAllowed));
        assert_eq!(fill_checksum(&mut plain), Err(EmitError::NotAllowed));
        assert_eq!(plain, hex(PLAIN));
        assert_eq!(set_sequence_number(&mut bytes[..15], 1), Err(EmitError::NoSpace));
        assert_eq!(set_sequence_number(&mut bytes[..3], 1), Err(EmitError::NoSpace));
        assert_eq!(fill_checksum(&mut bytes[..7]), Err(EmitError::NoSpace));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            protocol_type: u16, checksum_present: bool, key: Option<u32>, sequence_number: Option<u32>,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let repr = Repr { protocol_type: EtherType(protocol_type), checksum_present, key, sequence_number };
            let mut buffer = std::vec![0xa5; repr.header_bytes()];
            buffer.extend_from_slice(&payload);
            prop_assert_eq!(repr.emit(&mut buffer), Ok(repr.header_bytes()));
            let packet = Packet::parse(&buffer).unwrap();
            prop_assert_eq!(Repr::parse(&packet), repr);
            prop_assert_eq!(packet.payload, payload);
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let repr = Repr::parse(&packet);
                prop_assert_eq!(repr.key.is_some(), packet.header.key_present());
                prop_assert_eq!(repr.sequence_number.is_some(), packet.header.sequence_number_present());
                prop_assert_eq!(repr.header_bytes() + packet.payload.len(), bytes.len());
            }
        }
    }
}
