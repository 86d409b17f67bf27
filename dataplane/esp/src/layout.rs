// SPDX-License-Identifier: Apache-2.0
//! The octets of an ESP packet as AES-GCM fills them, and the arithmetic of their sizes.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+
//! |                              SPI                              |  RFC 4303 §2.1
//! |                        sequence number                        |  §2.2: the low word
//! +---------------------------------------------------------------+
//! |                              IV                               |  RFC 4106 §3.1
//! |                          (8 octets)                           |
//! +---------------------------------------------------------------+
//! |                        payload packet                         |  ^
//! +               +-----------------------------------------------+  | ciphertext, a multiple
//! |               |  padding 1, 2, 3 |  pad length |  next header |  v of 4 (RFC 4303 §2.4)
//! +---------------------------------------------------------------+
//! |                      ICV (8, 12 or 16)                        |  RFC 4106 §6
//! +---------------------------------------------------------------+
//! ```
//!
//! Not here: any header before ESP, and traffic flow confidentiality padding (RFC 4303 §2.7).

use aead::{Aad, IcvLength};
use wire::{IpProtocol, Spi};
use zeroize::Zeroize;

use crate::sequence::SequenceNumber;

pub use wire::esp::TRAILER_BYTES;

/// Octets from the SPI to the end of the IV: what stands before the payload.
pub const HEADER_BYTES: usize = 16;

/// The ciphertext ends on a multiple of this (RFC 4303 §2.4).
pub const ALIGNMENT_BYTES: usize = 4;

/// Padding, pad length and a zero next header for 0 to 3 octets of padding, first octet lowest.
const TRAILERS: [u64; ALIGNMENT_BYTES] = [0x00, 0x0101, 0x02_0201, 0x0303_0201];

/// The salt of an SA: the end of its keying material (RFC 4106 §8.1). Zeroed when dropped.
pub struct Salt([u8; 4]);

impl Salt {
    /// A salt from the last four octets of the keying material.
    pub const fn new(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// Salt ‖ IV (RFC 4106 §4).
    #[inline]
    pub(crate) const fn nonce(&self, iv: [u8; 8]) -> [u8; 12] {
        let ([s, a, l, t], [i, j, k, m, n, o, p, q]) = (self.0, iv);
        [s, a, l, t, i, j, k, m, n, o, p, q]
    }
}

impl Drop for Salt {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Octets of padding behind so much payload: 0 to 3.
#[inline]
pub const fn padding_bytes(payload_bytes: usize) -> usize {
    wire::esp::pad_length::<ALIGNMENT_BYTES>(payload_bytes) as usize
}

/// Octets of the whole ESP packet, from the SPI to the end of the ICV, around so much payload.
#[inline]
pub const fn sealed_bytes(payload_bytes: usize, icv: IcvLength) -> usize {
    Envelope::new(payload_bytes, icv).bytes()
}

/// How a payload lies in the ESP packet around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload_bytes: usize,
    padding_bytes: usize,
    icv: IcvLength,
}

impl Envelope {
    /// Around so much payload.
    #[inline(always)]
    pub(crate) const fn new(payload_bytes: usize, icv: IcvLength) -> Self {
        Self { payload_bytes, padding_bytes: padding_bytes(payload_bytes), icv }
    }

    /// Octets of the payload.
    #[inline(always)]
    pub(crate) const fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Octets of padding.
    #[inline(always)]
    pub(crate) const fn padding_bytes(&self) -> usize {
        self.padding_bytes
    }

    /// Octets that are encrypted: payload, padding and trailer.
    #[inline(always)]
    pub(crate) const fn text_bytes(&self) -> usize {
        self.payload_bytes.saturating_add(self.padding_bytes + TRAILER_BYTES)
    }

    /// Octets of the whole ESP packet, from the SPI to the end of the ICV.
    #[inline(always)]
    pub const fn bytes(&self) -> usize {
        self.text_bytes().saturating_add(HEADER_BYTES + self.icv.bytes())
    }
}

/// Octets that ESP adds to so much payload: header, IV, padding, trailer and ICV.
#[inline]
pub const fn overhead(payload_bytes: usize, icv: IcvLength) -> usize {
    HEADER_BYTES + padding_bytes(payload_bytes) + TRAILER_BYTES + icv.bytes()
}

/// The longest payload whose whole ESP packet fits into `available_bytes`; `None` if not even an empty one.
#[inline]
pub const fn payload_room(available_bytes: usize, icv: IcvLength) -> Option<usize> {
    let Some(ciphertext) = available_bytes.checked_sub(HEADER_BYTES + icv.bytes()) else {
        return None;
    };
    (ciphertext - ciphertext % ALIGNMENT_BYTES).checked_sub(TRAILER_BYTES)
}

/// SPI, low word of the sequence number, and IV, as they travel.
#[inline]
pub(crate) const fn header(spi: Spi, sequence: SequenceNumber, iv: u64) -> [u8; HEADER_BYTES] {
    let first = (spi.0 as u64) << 32 | sequence.low() as u64;
    ((first as u128) << 64 | iv as u128).to_be_bytes()
}

/// Low word of the sequence number and IV of a header that came in.
#[inline]
pub(crate) const fn parse_header(header: &[u8; HEADER_BYTES]) -> (u32, [u8; 8]) {
    let [_, _, _, _, a, b, c, d, iv @ ..] = *header;
    (u32::from_be_bytes([a, b, c, d]), iv)
}

/// The additional authenticated data (RFC 4106 §5): with ESN both words of the sequence number.
#[inline]
pub(crate) const fn aad(spi: Spi, sequence: SequenceNumber, esn: bool) -> Aad {
    if esn {
        Aad::extended(spi.0, sequence.high(), sequence.low())
    } else {
        Aad::short(spi.0, sequence.low())
    }
}

/// The eight octets from the padding on: padding 1, 2, 3, pad length, next header, and zeros.
///
/// A trailer has at most five octets and an ICV of at least eight follows, so all eight are one store that
/// never reaches beyond the ICV.
#[inline]
pub(crate) const fn trailer(padding_bytes: usize, next_header: IpProtocol) -> [u8; 8] {
    let padding = padding_bytes % ALIGNMENT_BYTES;
    (TRAILERS[padding] | (next_header.0 as u64) << (8 * (padding + 1))).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICVS: [IcvLength; 3] = [IcvLength::Eight, IcvLength::Twelve, IcvLength::Sixteen];

    #[test]
    fn overhead_is_the_least_that_aligns_the_ciphertext() {
        for icv in ICVS {
            for payload in 0..4000 {
                let padding = (0..).find(|padding| (payload + padding + 2) % 4 == 0).unwrap();
                assert_eq!(padding_bytes(payload), padding);
                assert_eq!(overhead(payload, icv), 8 + 8 + padding + 2 + icv.bytes());
                assert_eq!(sealed_bytes(payload, icv), payload + overhead(payload, icv));
            }
        }
    }

    #[test]
    fn payload_room_is_the_longest_payload_that_fits() {
        for icv in ICVS {
            for available in 0..2500 {
                let longest = (0..=available).rev().find(|&payload| sealed_bytes(payload, icv) <= available);
                assert_eq!(payload_room(available, icv), longest);
            }
        }
    }

    #[test]
    fn absurd_lengths_do_not_overflow() {
        for icv in ICVS {
            assert_eq!(sealed_bytes(usize::MAX, icv), usize::MAX);
            assert!(payload_room(usize::MAX, icv).is_some());
        }
    }

    #[test]
    fn the_header_is_spi_low_sequence_word_and_iv() {
        let bytes = header(Spi(0x0102_0304), SequenceNumber(0xaaaa_bbbb_0506_0708), 0x090a_0b0c_0d0e_0f10);
        assert_eq!(bytes, core::array::from_fn(|i| u8::try_from(i + 1).unwrap()));
        assert_eq!(parse_header(&bytes), (0x0506_0708, [9, 10, 11, 12, 13, 14, 15, 16]));
    }

    #[test]
    fn the_nonce_is_the_salt_and_the_iv() {
        let nonce = Salt::new([1, 2, 3, 4]).nonce([5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(nonce, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn only_esn_authenticates_the_high_word() {
        let sequence = SequenceNumber(0x0000_0005_0000_0006);
        assert_eq!(aad(Spi(7), sequence, false).as_slice(), [0, 0, 0, 7, 0, 0, 0, 6]);
        assert_eq!(aad(Spi(7), sequence, true).as_slice(), [0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 6]);
    }

    #[test]
    fn the_header_is_the_one_that_wire_reads() {
        let bytes = header(Spi(0xdead_beef), SequenceNumber(0x1_0000_0002), 3);
        let repr = wire::esp::Repr::parse(&bytes).unwrap();
        assert_eq!((repr.spi, repr.sequence_number), (Spi(0xdead_beef), 2));
    }

    #[test]
    fn padding_counts_from_one() {
        assert_eq!(trailer(0, IpProtocol(47)), [0, 47, 0, 0, 0, 0, 0, 0]);
        assert_eq!(trailer(1, IpProtocol(47)), [1, 1, 47, 0, 0, 0, 0, 0]);
        assert_eq!(trailer(2, IpProtocol(47)), [1, 2, 2, 47, 0, 0, 0, 0]);
        assert_eq!(trailer(3, IpProtocol(255)), [1, 2, 3, 3, 255, 0, 0, 0]);
    }

    #[test]
    fn the_trailer_is_the_one_that_wire_writes() {
        for padding in 0..ALIGNMENT_BYTES {
            for next_header in (0..=u8::MAX).map(IpProtocol) {
                let mut expected = [0; 8];
                let pad_length = u8::try_from(padding).unwrap();
                wire::esp::Trailer { pad_length, next_header }.emit(&mut expected).unwrap();
                assert_eq!(trailer(padding, next_header), expected);
            }
        }
    }
}
