// SPDX-License-Identifier: Apache-2.0
//! The sizes of AES-GCM in ESP and its additional authenticated data (RFC 4106 §4, §5, §6; RFC 8221 §5).

use thiserror::Error;

/// Most jobs that one burst of the packet path carries; [`seal`](crate::seal) and [`open`](crate::open)
/// take any number.
pub const BURST: usize = 64;

/// Octets of a nonce: 4 of salt, 8 of IV (RFC 4106 §4).
pub const NONCE_BYTES: usize = 12;

/// Longest text, in octets, that a job may have: no IP packet carries a longer ESP payload.
///
/// It is far below the bound of AES-GCM itself, 2^36 - 32 octets (NIST SP 800-38D §5.2.1.1).
pub const MAX_TEXT_BYTES: usize = 65_535;

/// Key sizes of AES (RFC 4106 §8.1: 128 is a MUST).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySize {
    /// 128 bits.
    Aes128,
    /// 192 bits.
    Aes192,
    /// 256 bits.
    Aes256,
}

impl KeySize {
    /// The key's octets, its salt not counted.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }

    /// Rounds of AES, the last one included (FIPS 197 §5).
    pub(crate) const fn rounds(self) -> usize {
        self.bytes() / 4 + 6
    }

    /// The size that a key of so many octets has, if AES has such a size.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(Self::Aes128),
            24 => Some(Self::Aes192),
            32 => Some(Self::Aes256),
            _ => None,
        }
    }
}

/// Lengths of the ICV (RFC 4106 §6): a shorter one is the beginning of the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IcvLength {
    /// 8 octets, `ENCR_AES_GCM_8`.
    Eight = 8,
    /// 12 octets, `ENCR_AES_GCM_12`.
    Twelve = 12,
    /// 16 octets, `ENCR_AES_GCM_16`.
    Sixteen = 16,
}

impl IcvLength {
    /// The ICV's octets.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        self as usize
    }
}

/// An ICV length that AES-GCM in ESP does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an ICV of {0} octets: AES-GCM in ESP has 8, 12 or 16")]
pub struct IcvLengthError(pub usize);

impl TryFrom<usize> for IcvLength {
    type Error = IcvLengthError;

    fn try_from(bytes: usize) -> Result<Self, Self::Error> {
        match bytes {
            8 => Ok(Self::Eight),
            12 => Ok(Self::Twelve),
            16 => Ok(Self::Sixteen),
            _ => Err(IcvLengthError(bytes)),
        }
    }
}

/// Additional authenticated data of an ESP packet (RFC 4106 §5).
///
/// ```text
///  short, 8 octets                    extended (ESN), 12 octets
/// +-------------------------------+  +-------------------------------+
/// |              SPI              |  |              SPI              |
/// |    32-bit sequence number     |  |  sequence number, high 32 bit |
/// +-------------------------------+  |  sequence number, low 32 bit  |
///                                    +-------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aad {
    bytes: [u8; 12],
    extended: bool,
}

impl Aad {
    /// The AAD of an SA without ESN, from numbers in host order.
    #[inline]
    pub const fn short(spi: u32, sequence_number: u32) -> Self {
        Self { bytes: Self::words(spi, sequence_number, 0), extended: false }
    }

    /// The AAD of an SA with ESN, from numbers in host order.
    #[inline]
    pub const fn extended(spi: u32, sequence_number_high: u32, sequence_number_low: u32) -> Self {
        Self { bytes: Self::words(spi, sequence_number_high, sequence_number_low), extended: true }
    }

    /// The octets as they are authenticated: 8, or 12 with ESN.
    #[inline]
    pub const fn as_slice(&self) -> &[u8] {
        if self.extended {
            &self.bytes
        } else {
            let [short @ .., _, _, _, _] = &self.bytes;
            short
        }
    }

    const fn words(first: u32, second: u32, third: u32) -> [u8; 12] {
        // The first two together: they are the ESP header's, if there is no ESN.
        let [a, b, c, d, e, f, g, h] = ((first as u64) << 32 | second as u64).to_be_bytes();
        let [i, j, k, l] = third.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_aad_is_the_spi_and_the_sequence_number() {
        assert_eq!(Aad::short(0x0000_4321, 7).as_slice(), [0, 0, 0x43, 0x21, 0, 0, 0, 7]);
    }

    #[test]
    fn extended_aad_has_the_high_word_before_the_low_one() {
        let aad = Aad::extended(0x0102_0304, 0x8765_4321, 0x0000_0009);
        assert_eq!(aad.as_slice(), [1, 2, 3, 4, 0x87, 0x65, 0x43, 0x21, 0, 0, 0, 9]);
    }

    #[test]
    fn lengths_of_icv_and_key_convert_both_ways_and_others_are_refused() {
        for icv in [IcvLength::Eight, IcvLength::Twelve, IcvLength::Sixteen] {
            assert_eq!(IcvLength::try_from(icv.bytes()), Ok(icv));
        }
        for size in [KeySize::Aes128, KeySize::Aes192, KeySize::Aes256] {
            assert_eq!(KeySize::from_bytes(size.bytes()), Some(size));
        }
        for bytes in (0..=33).filter(|bytes| ![8, 12, 16].contains(bytes)) {
            assert_eq!(IcvLength::try_from(bytes), Err(IcvLengthError(bytes)));
        }
        assert!((0..=64).filter(|&bytes| KeySize::from_bytes(bytes).is_some()).eq([16, 24, 32]));
    }
}
