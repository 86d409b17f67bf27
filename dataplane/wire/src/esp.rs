// SPDX-License-Identifier: Apache-2.0
//! ESP's header and trailer (RFC 4303 §2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
//! |               Security Parameters Index (SPI)                 | ^Int.
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |Cov-
//! |                      Sequence Number                          | |ered
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ | ----
//! |                    Payload Data* (variable)                   | |   ^
//! ~                                                               ~ |   |
//! |                                                               | |Conf.
//! +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |Cov-
//! |               |     Padding (0-255 bytes)                     | |ered*
//! +-+-+-+-+-+-+-+-+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |   |
//! |                               |  Pad Length   | Next Header   | v   v
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ------
//! |         Integrity Check Value-ICV   (variable)                |
//! ~                                                               ~
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Left out: IV, ICV, what sequence numbers mean and the high half of an extended one, which is never on the wire.

use core::fmt;

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::view::{put, put_bytes, split};
use crate::{EmitError, IpProtocol, ParseError};

/// Length of SPI and sequence number, in bytes.
pub const HEADER_BYTES: usize = 8;
/// Length of the pad length and next header fields, in bytes.
pub const TRAILER_BYTES: usize = 2;
/// The most padding, in bytes.
pub const MAX_PAD_BYTES: usize = 255;

/// The padding every sender writes: 1, 2, 3, … (RFC 4303 §2.4).
pub const PADDING: [u8; MAX_PAD_BYTES] = padding();

const fn padding() -> [u8; MAX_PAD_BYTES] {
    let mut bytes = [0; MAX_PAD_BYTES];
    let mut value = 0;
    while value < u8::MAX {
        // An index from a byte: `usize::from` is not const.
        bytes[value as usize] = value + 1;
        value += 1;
    }
    bytes
}

/// A security parameters index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// The least SPI an SA may have: 0 is for local use, 1 to 255 are IANA's (RFC 4303 §2.1).
    pub const MIN: Spi = Spi(256);

    /// Whether no SA may have it.
    #[inline]
    pub const fn is_reserved(self) -> bool {
        self.0 < Spi::MIN.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SPI and sequence number, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    spi: U32,
    sequence_number: U32,
}

impl Header {
    /// The header at the front of `bytes`, and what follows it: IV, ciphertext, ICV.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn split(bytes: &[u8]) -> Result<(&Header, &[u8]), ParseError> {
        split(bytes)
    }

    /// The SPI.
    #[inline]
    pub const fn spi(&self) -> Spi {
        Spi(self.spi.get())
    }

    /// The sequence number; of an extended one the low half.
    #[inline]
    pub const fn sequence_number(&self) -> u32 {
        self.sequence_number.get()
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The SPI.
    pub spi: Spi,
    /// The sequence number; of an extended one the low half.
    pub sequence_number: u32,
}

impl Repr {
    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Repr, ParseError> {
        let (header, _) = Header::split(bytes)?;
        Ok(Repr { spi: header.spi(), sequence_number: header.sequence_number() })
    }

    /// The header as bytes on the wire, for templates.
    #[inline]
    pub fn header(&self) -> Header {
        Header { spi: U32::new(self.spi.0), sequence_number: U32::new(self.sequence_number) }
    }

    /// Writes the header to the front of `buffer`; returns its length, [`HEADER_BYTES`].
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        put(&self.header(), buffer)
    }
}

/// How many bytes of padding bring payload, padding and trailer to a multiple of `alignment`, at least 4 (RFC 4303 §2.4).
///
/// # Panics
/// At compile time, for an alignment that is not a power of two from 4 to 256.
#[inline]
pub const fn pad_length<const ALIGNMENT: usize>(payload_bytes: usize) -> u8 {
    const { assert!(ALIGNMENT.is_power_of_two() && ALIGNMENT >= 4 && ALIGNMENT <= 256) };
    let over = payload_bytes.wrapping_add(TRAILER_BYTES) & (ALIGNMENT - 1);
    let [low, ..] = ((ALIGNMENT - over) & (ALIGNMENT - 1)).to_le_bytes();
    low
}

/// Padding, pad length and next header at the end of a decrypted payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The number of bytes of padding.
    pub pad_length: u8,
    /// The protocol of the payload; [`IpProtocol::NO_NEXT_HEADER`] marks a dummy packet (RFC 4303 §2.6).
    pub next_header: IpProtocol,
}

impl Trailer {
    /// Reads the trailer at the end of `plaintext`; returns it and the payload before its padding.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] when not even the trailer is there; [`ParseError::BadLength`] when the padding would
    /// begin before the payload; [`ParseError::BadValue`] when it is not 1, 2, 3, … (RFC 4303 §2.4: a receiver SHOULD
    /// look).
    #[inline]
    pub fn parse(plaintext: &[u8]) -> Result<(Trailer, &[u8]), ParseError> {
        let (rest, &[pad_length, next_header]) = plaintext.split_last_chunk().ok_or(ParseError::Truncated)?;
        let padding = usize::from(pad_length);
        let payload_bytes = rest.len().checked_sub(padding).ok_or(ParseError::BadLength)?;
        let (payload, padding) = rest.split_at_checked(payload_bytes).ok_or(ParseError::BadLength)?;
        if !is_sequential(padding, rest) {
            return Err(ParseError::BadValue);
        }
        Ok((Trailer { pad_length, next_header: IpProtocol(next_header) }, payload))
    }

    /// Length of padding and trailer, in bytes.
    #[inline]
    pub const fn bytes(&self) -> usize {
        self.pad_length as usize + TRAILER_BYTES
    }

    /// Writes padding and trailer to the front of `buffer`, which begins behind the payload; returns their length.
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let padding = PADDING.get(..usize::from(self.pad_length)).ok_or(EmitError::TooLong)?;
        let end = put_bytes(buffer, 0, padding)?;
        put_bytes(buffer, end, &[self.pad_length, self.next_header.0])
    }
}

/// Of the last three bytes in front of the trailer, those that are padding, and what they must be, for 0 to 3 of them.
const SHORT: [(u32, u32); 4] = [(0, 0), (0xff, 0x01), (0xffff, 0x0102), (0x00ff_ffff, 0x01_0203)];

/// Whether `padding`, at the end of `rest`, is 1, 2, 3, …
#[inline(always)]
fn is_sequential(padding: &[u8], rest: &[u8]) -> bool {
    match (SHORT.get(padding.len()), rest.last_chunk()) {
        // What AES-GCM asks for, without a jump: how much there is of it follows from the packet's length.
        (Some((mask, expected)), Some(&[a, b, c])) => {
            (u32::from_be_bytes([0, a, b, c]) ^ expected) & mask == 0
        }
        _ => PADDING.get(..padding.len()) == Some(padding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// draft-mcgrew-gcm-test-01, case 1: the header with its extended sequence number's low half, and the plaintext.
    const HEADER: &str = "00004321 00000000";
    const PLAINTEXT: &str = "45000048 699a0000 80114db7 c0a80102 c0a80101 0a9bf156 38d30100 00010000
        00000000 045f7369 70045f75 64700373 69700963 79626572 63697479 02646b00 00210001 01020201";

    fn trailer() -> Trailer {
        Trailer { pad_length: 2, next_header: IpProtocol::ICMP }
    }

    #[test]
    fn a_known_header_reads_as_what_it_is() {
        let repr = Repr { spi: Spi(0x4321), sequence_number: 0 };
        assert_eq!(Repr::parse(&hex(HEADER)), Ok(repr));
    }

    #[test]
    fn a_known_trailer_reads_as_what_it_is() {
        let plaintext = hex(PLAINTEXT);
        let (read, payload) = Trailer::parse(&plaintext).unwrap();
        assert_eq!((read, payload), (trailer(), &plaintext[..68]));
        assert_eq!(payload.len() + read.bytes(), plaintext.len());
        assert_eq!(pad_length::<4>(payload.len()), 2);
    }

    #[test]
    fn header_and_trailer_overwrite_a_dirty_buffer_and_nothing_behind_it() {
        let mut buffer = DIRTY;
        let repr = Repr { spi: Spi(0x4321), sequence_number: 0 };
        assert_eq!(repr.emit(&mut buffer), Ok(HEADER_BYTES));
        assert_eq!(buffer[..9], hex("00004321 00000000 a5"));
        let mut buffer = DIRTY;
        assert_eq!(trailer().emit(&mut buffer), Ok(4));
        assert_eq!(buffer[..5], hex("01020201 a5"));
        assert_eq!(repr.emit(&mut buffer[..7]), Err(EmitError::NoSpace));
        assert_eq!(trailer().emit(&mut buffer[..3]), Err(EmitError::NoSpace));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(HEADER), Repr::parse);
        assert_eq!(Trailer::parse(&[]), Err(ParseError::Truncated));
        assert_eq!(Trailer::parse(&[0]), Err(ParseError::Truncated));
        assert!(Trailer::parse(&[0, 59]).is_ok());
        // Nothing but the ICV can tell that a plaintext lost its end; what is left must still add up.
        let plaintext = hex(PLAINTEXT);
        for length in 0..plaintext.len() {
            if let Ok((trailer, payload)) = Trailer::parse(&plaintext[..length]) {
                assert_eq!(payload.len() + trailer.bytes(), length);
            }
        }
    }

    #[test]
    fn padding_longer_than_the_payload_is_refused() {
        for length in 0..=300_usize {
            let mut plaintext: Vec<u8> = std::vec![0; length];
            plaintext.extend_from_slice(&[255, 4]);
            let expected = if length < 255 { ParseError::BadLength } else { ParseError::BadValue };
            assert_eq!(Trailer::parse(&plaintext), Err(expected));
        }
    }

    #[test]
    fn padding_that_does_not_count_up_is_refused() {
        let plaintext = hex(PLAINTEXT);
        for at in 68..70 {
            let mut changed = plaintext.clone();
            changed[at] ^= 0x40;
            assert_eq!(Trailer::parse(&changed), Err(ParseError::BadValue));
        }
    }

    #[test]
    fn reserved_spis_are_known() {
        assert!(Spi(0).is_reserved() && Spi(255).is_reserved() && !Spi(256).is_reserved());
        assert_eq!(std::format!("{}", Spi(0x1001)), "0x00001001");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            spi: u32, sequence_number: u32, pad_length: u8, next_header: u8,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let repr = Repr { spi: Spi(spi), sequence_number };
            let trailer = Trailer { pad_length, next_header: IpProtocol(next_header) };
            let mut buffer = std::vec![0xa5; HEADER_BYTES];
            repr.emit(&mut buffer).unwrap();
            buffer.extend_from_slice(&payload);
            let end = buffer.len();
            buffer.resize(end + trailer.bytes(), 0xa5);
            prop_assert_eq!(trailer.emit(&mut buffer[end..]), Ok(trailer.bytes()));
            prop_assert_eq!(Repr::parse(&buffer), Ok(repr));
            prop_assert_eq!(Trailer::parse(&buffer[HEADER_BYTES..]), Ok((trailer, payload.as_slice())));
        }

        #[test]
        fn padding_aligns_and_is_the_least_that_does(payload_bytes in 0usize..10_000) {
            for (pad, alignment) in [
                (pad_length::<4>(payload_bytes), 4),
                (pad_length::<16>(payload_bytes), 16),
                (pad_length::<256>(payload_bytes), 256),
            ] {
                prop_assert_eq!((payload_bytes + usize::from(pad) + TRAILER_BYTES) % alignment, 0);
                prop_assert!(usize::from(pad) < alignment);
            }
        }
    }
}
