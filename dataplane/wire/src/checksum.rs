// SPDX-License-Identifier: Apache-2.0
//! The Internet checksum: full (RFC 1071), incremental (RFC 1624), pseudo-headers (RFC 768, RFC 9293, RFC 8200 §8.1).
//!
//! The sum is taken over 32-bit words in the machine's own byte order into 64 bits and swapped once at the end
//! (RFC 1071 §2 B: the sum does not depend on the byte order).

use core::net::IpAddr;

use crate::IpProtocol;

/// A partial ones' complement sum.
///
/// Pieces may be added in any order; every piece but the last must have an even number of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// The sum of `bytes`; a last odd byte is padded with a zero.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        Sum::ZERO.add_bytes(bytes)
    }

    /// Adds `bytes`; a last odd byte is padded with a zero.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        // A slice is shorter than 2^34 bytes on any machine there is, so 64 bits do not overflow.
        for word in words {
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
        let last = match *rest {
            [a] => [a, 0, 0, 0],
            [a, b] => [a, b, 0, 0],
            [a, b, c] => [a, b, c, 0],
            _ => [0; 4],
        };
        Sum(sum.wrapping_add(u64::from(u32::from_ne_bytes(last))))
    }

    /// Adds `N` bytes, `N` even: for headers of fixed length, without a loop.
    #[inline]
    #[must_use]
    pub fn add_array<const N: usize>(self, bytes: &[u8; N]) -> Sum {
        const { assert!(N.is_multiple_of(2), "an odd piece would shift what follows") };
        self.add_bytes(bytes)
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub fn add_u16(self, word: u16) -> Sum {
        Sum(self.0.wrapping_add(u64::from(word.to_be())))
    }

    /// Adds one 32-bit word.
    #[inline]
    #[must_use]
    pub fn add_u32(self, word: u32) -> Sum {
        Sum(self.0.wrapping_add(u64::from(word.to_be())))
    }

    /// Adds another partial sum.
    #[inline]
    #[must_use]
    pub fn add_sum(self, other: Sum) -> Sum {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Sum(sum.wrapping_add(u64::from(carry)))
    }

    /// The pseudo-header: addresses, `protocol`, and the upper layer's length in bytes.
    ///
    /// One function serves both families, because the layouts of RFC 768 and RFC 8200 §8.1 have the same sum.
    #[inline]
    pub fn pseudo_header(
        source: IpAddr,
        destination: IpAddr,
        protocol: IpProtocol,
        upper_layer_bytes: u32,
    ) -> Sum {
        Sum::ZERO
            .add_address(source)
            .add_address(destination)
            .add_u16(u16::from(protocol.0))
            .add_u32(upper_layer_bytes)
    }

    #[inline]
    fn add_address(self, address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(address) => self.add_array(&address.octets()),
            IpAddr::V6(address) => self.add_array(&address.octets()),
        }
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !u16::from_be(self.fold())
    }

    /// Whether the bytes summed, their checksum field included, are intact.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    /// The sum folded to 16 bits, in the machine's byte order: halves added, and their carry brought round, twice.
    #[inline]
    fn fold(self) -> u16 {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        let (sum, carry) = u32::from_le_bytes([a, b, c, d]).overflowing_add(u32::from_le_bytes([e, f, g, h]));
        fold_carries(sum.wrapping_add(u32::from(carry)))
    }
}

/// The checksum of `bytes`, whose checksum field must be zero.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::of(bytes).finish()
}

/// Whether the checksum inside `bytes` is right.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    Sum::of(bytes).is_valid()
}

/// The checksum after a 16-bit word of the data changed from `old` to `new` (RFC 1624 §3, equation 3).
#[inline]
#[must_use]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = widen(!checksum) + widen(!old) + widen(new);
    !fold_u32(sum)
}

/// The checksum after words of the data that were 0 became `new`; all as they lie in memory (RFC 1071 §2 B).
#[inline]
#[must_use]
pub(crate) fn update_zeros<const N: usize>(checksum: [u8; 2], new: [[u8; 2]; N]) -> [u8; 2] {
    const { assert!(N <= 1024, "few enough not to overflow") };
    let added: u32 = new.into_iter().map(|word| widen(u16::from_ne_bytes(word))).sum();
    let sum = added + widen(!u16::from_ne_bytes(checksum));
    (!fold_carries(sum)).to_ne_bytes()
}

/// The same for four words in a row, as they lie in memory read as one little-endian number of less than 2^63.
#[inline]
#[must_use]
pub(crate) fn update_four_zeros(checksum: [u8; 2], new: u64) -> [u8; 2] {
    let sum = Sum(new.wrapping_add(u64::from(!u16::from_le_bytes(checksum))));
    (!sum.fold()).to_le_bytes()
}

/// TTL, protocol and checksum, as they lie in memory, after the TTL became less by one; it was not 0.
///
/// RFC 1624 §3: what comes to the sum, ~m + m', is the same for every word, and the checksum its complement. Both are done by
/// one addition; the carry of the checksum comes round by another.
#[inline]
#[must_use]
pub(crate) fn update_decrement(ttl_and_checksum: [u8; 4]) -> [u8; 4] {
    let word = u32::from_le_bytes(ttl_and_checksum);
    let carry = u32::from(word >= 0xfffe_0000) << 16;
    word.wrapping_add(0xffff).wrapping_add(carry).to_le_bytes()
}

/// The checksum after a 32-bit word of the data changed from `old` to `new`.
#[inline]
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let (old, new) = (old.to_be_bytes(), new.to_be_bytes());
    let high =
        update_u16(checksum, u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]]));
    update_u16(high, u16::from_be_bytes([old[2], old[3]]), u16::from_be_bytes([new[2], new[3]]))
}

/// The checksum after the bytes `old`, at an even offset, were replaced by `new` of the same length.
#[inline]
#[must_use]
pub fn update_bytes<const N: usize>(checksum: u16, old: &[u8; N], new: &[u8; N]) -> u16 {
    const { assert!(N.is_multiple_of(2) && N <= 1024, "whole words, and few enough not to overflow") };
    let (old, _) = old.as_chunks::<2>();
    let (new, _) = new.as_chunks::<2>();
    let mut sum = widen(!checksum);
    for (old, new) in old.iter().zip(new) {
        sum += widen(!u16::from_be_bytes(*old)) + widen(u16::from_be_bytes(*new));
    }
    !fold_u32(sum)
}

#[inline]
const fn fold_u32(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let [a, b, _, _] = sum.to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[inline]
const fn widen(word: u16) -> u32 {
    let [a, b] = word.to_le_bytes();
    u32::from_le_bytes([a, b, 0, 0])
}

/// Both halves, and their carry brought round.
#[inline]
const fn fold_carries(sum: u32) -> u16 {
    let [a, b, c, d] = sum.to_le_bytes();
    let (sum, carry) = u16::from_le_bytes([a, b]).overflowing_add(u16::from_le_bytes([c, d]));
    sum.wrapping_add(carry as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The definition, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        // RFC 1071 §3: 00 01 f2 03 f4 f5 f6 f7 has the sum ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
        assert_eq!(!reference(&bytes), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        // RFC 1624 §4: HC = dd2f, m = 5555, m' = 3285 gives HC' = 0000 with equation 3.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_decrement_carries_as_equation_3_of_rfc_1624_does() {
        for (old, new) in [(0xfeffu16, 0x0000u16), (0xffff, 0x0100), (0xfefe, 0xfffe), (0xff00, 0x0001)] {
            let ([a, b], [c, d]) = (old.to_be_bytes(), new.to_be_bytes());
            assert_eq!(update_decrement([64, 17, a, b]), [63, 17, c, d], "{old:#06x}");
        }
    }

    #[test]
    fn nothing_and_zeros_sum_to_zero_and_ones_do_not_overflow() {
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&[0; 64]), 0xffff);
        assert_eq!(checksum(&[0xff; 65535]), reference(&[0xff; 65535]));
    }

    #[test]
    fn the_pseudo_header_is_that_of_the_rfcs() {
        let (a, b) = ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
        let layout = [192, 0, 2, 1, 198, 51, 100, 7, 0, 17, 0, 99];
        assert_eq!(Sum::pseudo_header(a, b, IpProtocol::UDP, 99).finish(), reference(&layout));

        let (a, b) = ("2001:db8::1".parse::<core::net::Ipv6Addr>(), "2001:db8::abcd".parse());
        let (a, b) = (a.unwrap(), b.unwrap());
        let mut layout = Vec::new();
        layout.extend_from_slice(&a.octets());
        layout.extend_from_slice(&core::net::Ipv6Addr::octets(&b));
        layout.extend_from_slice(&0x0001_2345_u32.to_be_bytes());
        layout.extend_from_slice(&[0, 0, 0, 58]);
        assert_eq!(
            Sum::pseudo_header(a.into(), b.into(), IpProtocol::ICMPV6, 0x12345).finish(),
            reference(&layout)
        );
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum(&bytes), reference(&bytes));
        }

        #[test]
        fn pieces_of_even_length_add_up(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..150,
        ) {
            let cut = (2 * cut).min(bytes.len() & !1);
            let (front, back) = bytes.split_at(cut);
            prop_assert_eq!(Sum::of(front).add_bytes(back).finish(), reference(&bytes));
            prop_assert_eq!(Sum::of(back).add_sum(Sum::of(front)).finish(), reference(&bytes));
        }

        #[test]
        fn data_with_its_checksum_is_valid_and_with_a_flipped_bit_is_not(
            mut bytes in prop::collection::vec(any::<u8>(), 2..200),
            flip: prop::sample::Index,
            bit in 0u8..8,
        ) {
            bytes[0] = 0;
            bytes[1] = 0;
            let sum = checksum(&bytes);
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            // All zeros sum to 0, whose complement ffff makes the data valid as well.
            prop_assert!(is_valid(&bytes));
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!is_valid(&bytes));
        }

        /// The first word stands for what never changes and is not zero, as the version of an IP header.
        #[test]
        fn incremental_is_full(mut words in prop::collection::vec(any::<u16>(), 4..40),
                               at: prop::sample::Index, new: u16, other: u16) {
            words[0] |= 0x4000;
            let flat = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
            let before = reference(&flat(&words));
            let at = 1 + at.index(words.len() - 2);
            let old = (words[at], words[at + 1]);
            words[at] = new;
            prop_assert_eq!(update_u16(before, old.0, new), reference(&flat(&words)));
            words[at + 1] = other;
            let full = reference(&flat(&words));
            let old = u32::from(old.0) << 16 | u32::from(old.1);
            let new = u32::from(new) << 16 | u32::from(other);
            prop_assert_eq!(update_u32(before, old, new), full);
            prop_assert_eq!(update_bytes(before, &old.to_be_bytes(), &new.to_be_bytes()), full);
        }

        #[test]
        fn incremental_in_the_order_of_memory_is_full(mut words in prop::collection::vec(any::<u16>(), 5..40),
                                                      new: [u16; 4], old in 0x0100u16..) {
            words[0] |= 0x4000;
            let full = |words: &[u16]| {
                reference(&words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>()).to_be_bytes()
            };
            words[1..5].copy_from_slice(&[0; 4]);
            let before = full(&words);
            words[1..5].copy_from_slice(&new);
            prop_assert_eq!(update_zeros(before, new.map(u16::to_be_bytes)), full(&words));

            words[4] &= 0xff7f;
            let [[a, b], [c, d], [e, f], [g, h]] = [words[1], words[2], words[3], words[4]].map(u16::to_be_bytes);
            let octets = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            prop_assert_eq!(update_four_zeros(before, octets), full(&words));

            words[3] = old;
            let ([ttl, protocol], [a, b]) = (old.to_be_bytes(), full(&words));
            words[3] -= 0x0100;
            let [c, d] = full(&words);
            prop_assert_eq!(update_decrement([ttl, protocol, a, b]), [ttl - 1, protocol, c, d]);
        }
    }
}
