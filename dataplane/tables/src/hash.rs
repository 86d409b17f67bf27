// SPDX-License-Identifier: Apache-2.0
//! Hashing of fixed-size keys: a multiplication a word, no state.
//!
//! Not for keys that an attacker chooses without a secret seed: the neighbour table has one.

/// Odd, and dense in bits (the fractional part of π).
const MULTIPLIER: u64 = 0x243f_6a88_85a3_08d3;

/// A key of a [`crate::paged::PagedMap`].
pub(crate) trait Key: Copy + Eq {
    /// Its hash; the lowest and the highest bits depend on every bit of the key.
    fn hash(&self) -> u64;
}

impl<const WORDS: usize> Key for [u64; WORDS] {
    #[inline]
    fn hash(&self) -> u64 {
        words(MULTIPLIER, self)
    }
}

impl Key for u32 {
    #[inline]
    fn hash(&self) -> u64 {
        // One word is mixed well enough by one multiplication.
        fold(u64::from(*self) ^ MULTIPLIER.rotate_left(17), MULTIPLIER)
    }
}

/// The hash of `words` under `seed`.
#[inline]
pub(crate) fn words<const WORDS: usize>(seed: u64, words: &[u64; WORDS]) -> u64 {
    let mixed = words.iter().fold(seed, |state, word| fold((state ^ word).rotate_left(29), MULTIPLIER));
    fold(mixed ^ MULTIPLIER.rotate_left(17), MULTIPLIER)
}

/// Both halves of a 128-bit product, each of which alone loses part of the factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = (u128::from(a) * u128::from(b)).to_le_bytes();
    let (low, high) = product.split_at(8);
    half(low) ^ half(high)
}

#[inline]
fn half(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(shift: u32, hash: impl Fn(u32) -> u64) {
        let mut filled = [0u32; 1024];
        for key in 0..64 * 1024 {
            filled[(hash(key) >> shift) as usize & 1023] += 1;
        }
        let (least, most) = (filled.iter().min().unwrap(), filled.iter().max().unwrap());
        assert!(*least > 24 && *most < 128, "bits from {shift}: {least} to {most} of 64 expected");
    }

    #[test]
    fn neighbouring_keys_spread_over_both_ends_of_the_hash() {
        for shift in [0, 54] {
            spread(shift, |key| [0, u64::from(0x0a00_0000 + key), 0].hash());
            for step in [1, 2, 256, 4096] {
                spread(shift, |key| (0x1000 + key * step).hash());
            }
        }
    }

    #[test]
    fn each_word_and_its_place_counts() {
        assert_ne!([1u64, 2].hash(), [2u64, 1].hash());
        assert_ne!([0u64, 0].hash(), [0u64, 0, 0].hash());
        assert_ne!(words(1, &[7]), words(2, &[7]));
        assert_ne!(1u32.hash(), 2u32.hash());
    }
}
