// SPDX-License-Identifier: Apache-2.0
//! Chance that a seed repeats: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
//! Not for secrets.

/// A generator.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// Begins again.
    #[inline]
    pub const fn restart(&mut self) {
        self.state = self.seed;
    }

    /// The next number.
    #[inline]
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 stands for 2^64.
    #[inline]
    pub const fn below(&mut self, bound: u64) -> u64 {
        let number = self.next_u64();
        if bound == 0 { number } else { ((number as u128 * bound as u128) >> 64) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one_and_begins_again() {
        let mut random = Random::new(1_234_567);
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        for _ in 0..2 {
            assert_eq!([random.next_u64(), random.next_u64(), random.next_u64()], published);
            random.restart();
        }
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::new(9);
        assert!((0..1_000).all(|_| random.below(3) < 3));
        assert!((0..1_000).any(|_| random.below(0) > u64::from(u32::MAX)));
    }
}
