// SPDX-License-Identifier: Apache-2.0
//! A set of IPv4 addresses that may say "perhaps" where the answer is no, but never "no" where it is yes.
//!
//! One bit for each of a power of two of hashes, sixteen times as many as entries: one load, and for a headend with a
//! few addresses half a kilobyte.

use std::sync::Arc;

const BITS_MIN: usize = 1 << 12;
const BITS_PER_ENTRY: usize = 16;
/// Odd, near 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming, vol. 3, §6.4).
const MULTIPLIER: u32 = 0x9e37_79b1;

/// See the module's head.
#[derive(Clone)]
pub(crate) struct Filter {
    words: Arc<[u64]>,
    /// The hash is what is above this many bits of the product.
    shift: u32,
}

impl Filter {
    /// An empty set, for so many addresses.
    pub(crate) fn for_entries(count: usize) -> Self {
        let bits = (count * BITS_PER_ENTRY).next_power_of_two().clamp(BITS_MIN, 1 << 31);
        Self { words: vec![0; bits / 64].into(), shift: 32 - bits.trailing_zeros() }
    }

    pub(crate) fn insert(&mut self, address: u32) {
        let (word, bit) = self.place(address);
        if let Some(word) = Arc::make_mut(&mut self.words).get_mut(word) {
            *word |= bit;
        }
    }

    #[inline]
    pub(crate) fn may_contain(&self, address: u32) -> bool {
        let (word, bit) = self.place(address);
        self.words.get(word).is_none_or(|word| word & bit != 0)
    }

    #[inline]
    fn place(&self, address: u32) -> (usize, u64) {
        let hash = address.wrapping_mul(MULTIPLIER) >> self.shift;
        ((hash / 64) as usize, 1 << (hash % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_inserted_is_always_found(addresses in prop::collection::vec(any::<u32>(), 0..2000)) {
            let mut filter = Filter::for_entries(addresses.len());
            addresses.iter().for_each(|address| filter.insert(*address));
            prop_assert!(addresses.iter().all(|address| filter.may_contain(*address)));
        }
    }

    #[test]
    fn what_was_not_inserted_is_seldom_found() {
        let mut filter = Filter::for_entries(1000);
        (0..1000u32).for_each(|host| filter.insert(0x0a00_0000 + host * 8));
        let found = (0..100_000u32).filter(|host| filter.may_contain(0xac10_0000 + host)).count();
        assert!(found < 10_000, "{found} of 100000");
    }
}
