// SPDX-License-Identifier: Apache-2.0
//! A key schedule: round keys of AES and powers of the hash key H, the same for all forms.
//!
//! ```text
//! block 0        16 17               31
//!       H^17 … H^1  round key 0 … 14      512 octets, 8 cache lines
//! ```
//!
//! Powers fall, so that a vector loaded at H^n has the weights of consecutive blocks. A load near H^1 runs on
//! into the round keys; the lanes that get them hold zeros on the other side of the product.

use core::arch::x86_64::{
    _MM_HINT_T0, _mm_aeskeygenassist_si128, _mm_cvtsi128_si32, _mm_prefetch, _mm_set1_epi32,
    _mm_setzero_si128,
};

use sysmem::{CACHE_LINE_BYTES, Pod};

use super::gcm::Sums;
use super::lanes::{BLOCK_BYTES, Lanes, Wide128};
use crate::parameters::KeySize;

/// The highest power of H: the weight of the AAD in front of 15 blocks of text and the lengths.
pub(super) const POWERS: usize = 17;
const ROUND_KEYS: usize = 15;
const WORD_BYTES: usize = 4;

/// The schedule, to be filled by [`Blocks::expand`].
#[repr(C, align(64))]
pub(super) struct Blocks([[u8; BLOCK_BYTES]; POWERS + ROUND_KEYS]);

// SAFETY: octets: every bit pattern is valid, and there is no pointer.
unsafe impl Pod for Blocks {}

const _: () = assert!(size_of::<Blocks>() == 512);

impl Blocks {
    /// Where H^`power` lies, 1 to [`POWERS`]; lower powers and the round keys follow it.
    #[inline(always)]
    pub(super) fn power(&self, power: usize) -> *const [u8; BLOCK_BYTES] {
        debug_assert!((1..=POWERS).contains(&power));
        self.0.as_ptr().wrapping_add(POWERS - power)
    }

    /// Where the key of round 0 to 14 lies.
    #[inline(always)]
    pub(super) fn round_key(&self, round: usize) -> *const [u8; BLOCK_BYTES] {
        debug_assert!(round < ROUND_KEYS);
        self.0.as_ptr().wrapping_add(POWERS + round)
    }

    /// Asks for the cache lines that a text of so many octets needs: round keys, and powers of H for it, the AAD and the
    /// lengths. Texts of up to six blocks, and they are many, need five of the eight.
    #[inline(always)]
    pub(super) fn prefetch(&self, size: KeySize, text_bytes: usize) {
        for line in 2..7 {
            self.prefetch_line(line);
        }
        if text_bytes > 6 * BLOCK_BYTES {
            self.prefetch_line(0);
            self.prefetch_line(1);
        }
        if size != KeySize::Aes128 {
            self.prefetch_line(7);
        }
    }

    #[inline(always)]
    fn prefetch_line(&self, line: usize) {
        let address = self.0.as_ptr().cast::<i8>().wrapping_add(line * CACHE_LINE_BYTES);
        // SAFETY: SSE is part of x86-64, and a prefetch touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }

    /// Fills an all-zero schedule from `key`, which has the length of `size`.
    ///
    /// # Safety
    /// The CPU has the features of [`Wide128`].
    #[target_feature(enable = "aes,avx,pclmulqdq")]
    pub(super) unsafe fn expand(&mut self, size: KeySize, key: &[u8]) {
        let rounds = size.rounds();
        self.expand_round_keys(key, rounds);
        // SAFETY: the caller's promise.
        unsafe { self.expand_powers(rounds) };
    }

    /// FIPS 197 §5.2, word by word. Words are in the order of memory: `RotWord` turns right.
    #[target_feature(enable = "aes,avx")]
    fn expand_round_keys(&mut self, key: &[u8], rounds: usize) {
        let (first, words) = (POWERS * BLOCK_BYTES, key.len() / WORD_BYTES);
        let (_, schedule) = self.0.as_flattened_mut().split_at_mut(first);
        schedule[..key.len()].copy_from_slice(key);
        let mut round_constant = 1_u32;
        for at in words..4 * (rounds + 1) {
            let mut next = word(schedule, at - 1);
            if at % words == 0 {
                next = sub_word(next).rotate_right(8) ^ round_constant;
                round_constant = (round_constant << 1) ^ if round_constant == 0x80 { 0x11b } else { 0 };
            } else if words > 6 && at % words == 4 {
                next = sub_word(next);
            }
            next ^= word(schedule, at - words);
            schedule[at * WORD_BYTES..][..WORD_BYTES].copy_from_slice(&next.to_le_bytes());
        }
    }

    /// H = AES(0) and its powers, each times x, as [`Sums`] wants its right factors.
    ///
    /// # Safety
    /// The CPU has the features of [`Wide128`].
    #[target_feature(enable = "aes,avx,pclmulqdq")]
    unsafe fn expand_powers(&mut self, rounds: usize) {
        // SAFETY: the caller's promise; addresses are of blocks of this schedule.
        unsafe {
            let mut state = Wide128::first(_mm_setzero_si128()).xor(Wide128::broadcast(self.round_key(0)));
            for round in 1..rounds {
                state = state.aes(Wide128::broadcast(self.round_key(round)));
            }
            let hash_key = state.aes_last(Wide128::broadcast(self.round_key(rounds)));
            let lowest = POWERS - 1;
            hash_key.reverse().store((&raw mut self.0[lowest]).cast());
            self.0[lowest] = times_x(self.0[lowest]);
            for at in (0..lowest).rev() {
                let mut sums = Sums::zero();
                sums.add(Wide128::broadcast(&raw const self.0[at + 1]), Wide128::broadcast(self.power(1)));
                sums.reduce().store((&raw mut self.0[at]).cast());
            }
        }
    }
}

fn word(schedule: &[u8], at: usize) -> u32 {
    let mut octets = [0; WORD_BYTES];
    octets.copy_from_slice(&schedule[at * WORD_BYTES..][..WORD_BYTES]);
    u32::from_le_bytes(octets)
}

/// The S-box on each octet: by the instruction, so that nothing depends on a table.
#[target_feature(enable = "aes")]
fn sub_word(word: u32) -> u32 {
    let four = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(four)).cast_unsigned()
}

/// `element` · x in GHASH's field, whose bits are reflected: the product of two reflected factors lacks one x.
fn times_x(element: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    const POLYNOMIAL: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;
    let value = u128::from_le_bytes(element);
    let carry = (value >> 127).wrapping_neg();
    ((value << 1) ^ (carry & POLYNOMIAL)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_expanded_as_fips_197_shows() {
        if !crate::engine::native::Form::Wide128.runs_here() {
            return;
        }
        // FIPS 197, appendices A.1, A.2 and A.3: key and last word.
        let cases = [
            ("2b7e151628aed2a6abf7158809cf4f3c", 43, "b6630ca6"),
            ("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 51, "01002202"),
            ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 59, "706c631e"),
        ];
        for (key, at, last) in cases {
            let key = hex::decode(key).unwrap();
            let mut blocks = Blocks([[0; 16]; 32]);
            // SAFETY: this CPU has the features: asked above.
            unsafe { blocks.expand(KeySize::from_bytes(key.len()).unwrap(), &key) };
            let round_keys = &blocks.0.as_flattened()[POWERS * BLOCK_BYTES..];
            assert_eq!(hex::encode(&round_keys[at * 4..][..4]), last);
        }
    }
}
