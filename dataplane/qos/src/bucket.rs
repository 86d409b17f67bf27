// SPDX-License-Identifier: Apache-2.0
//! The token bucket under every meter and shaper, in exact arithmetic.
//!
//! Tokens are counted in billionths of a bit. A rate of `r` bit/s then adds `r` tokens a nanosecond and a byte costs
//! 8 × 10^9 of them: both are whole numbers, so nothing is ever rounded, however often or seldom the bucket is asked.
//! A bucket of [`BURST_BYTES_MAX`] fits in 63 bits; a refill that would overflow 64 bits is more than any bucket holds,
//! so that saturation is exact too.

use core::num::NonZeroU64;

/// The deepest bucket: 1 GiB.
pub const BURST_BYTES_MAX: u32 = 1 << 30;

const TOKENS_PER_BYTE: u64 = 8_000_000_000;

/// A rate in bit/s, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// `bps` bit/s; `None` for 0.
    #[must_use]
    pub const fn from_bps(bps: u64) -> Option<Self> {
        match NonZeroU64::new(bps) {
            Some(bps) => Some(Self(bps)),
            None => None,
        }
    }

    /// The rate in bit/s.
    #[must_use]
    pub const fn bps(self) -> u64 {
        self.0.get()
    }
}

/// A traffic profile (RFC 2475 §2.3.2): what a token bucket lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficProfile {
    /// The rate at which tokens come in.
    pub rate: Rate,
    /// The depth of the bucket in bytes, at most [`BURST_BYTES_MAX`]; what is more is taken as that.
    pub burst_bytes: u32,
}

/// A token bucket. It starts full.
///
/// Time is in nanoseconds of any clock; a moment before the last one counts as the last one.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    depth: u64,
    level: u64,
    updated_ns: u64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(profile: TrafficProfile) -> Self {
        let depth = depth(profile.burst_bytes);
        Self { rate: profile.rate, depth, level: depth, updated_ns: 0 }
    }

    /// A bucket as [`state`](Self::state) told it, of a profile that may have changed: it holds no more than that allows.
    pub(crate) const fn resume(profile: TrafficProfile, level: u64, updated_ns: u64) -> Self {
        let full = Self::new(profile);
        let level = if level < full.depth { level } else { full.depth };
        Self { level, updated_ns, ..full }
    }

    /// Tokens, and the moment as of which there are so many.
    pub(crate) const fn state(&self) -> (u64, u64) {
        (self.level, self.updated_ns)
    }

    /// Takes so many tokens, which must be there.
    pub(crate) const fn spend(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(tokens);
    }

    /// Lets time pass; returns the tokens that found no room.
    #[inline]
    pub(crate) const fn refill(&mut self, now_ns: u64) -> u64 {
        let elapsed_ns = now_ns.saturating_sub(self.updated_ns);
        self.updated_ns = self.updated_ns.saturating_add(elapsed_ns);
        self.fill(self.rate.bps().saturating_mul(elapsed_ns))
    }

    /// Adds tokens from elsewhere; returns those that found no room.
    #[inline]
    pub(crate) const fn fill(&mut self, tokens: u64) -> u64 {
        let room = self.depth - self.level;
        if tokens > room {
            self.level = self.depth;
            return tokens - room;
        }
        self.level += tokens;
        0
    }

    /// Whether there are tokens for `bytes`, as of the last refill.
    #[inline]
    #[must_use]
    pub(crate) const fn holds(&self, bytes: u32) -> bool {
        self.level >= tokens(bytes)
    }

    /// Takes the tokens of `bytes` if there are so many, as of the last refill.
    #[inline]
    pub(crate) const fn take_now(&mut self, bytes: u32) -> bool {
        if !self.holds(bytes) {
            return false;
        }
        self.level -= tokens(bytes);
        true
    }

    /// Takes the tokens of `bytes` if there are so many at `now_ns`.
    #[inline]
    pub const fn take(&mut self, bytes: u32, now_ns: u64) -> bool {
        self.refill(now_ns);
        self.take_now(bytes)
    }

    /// The first moment at which there will be tokens for `bytes` if none are taken before; `None` if they never fit.
    #[inline]
    #[must_use]
    pub const fn ready_at(&self, bytes: u32) -> Option<u64> {
        let wanted = tokens(bytes);
        if wanted > self.depth {
            return None;
        }
        let missing = wanted.saturating_sub(self.level);
        Some(self.updated_ns.saturating_add(missing.div_ceil(self.rate.bps())))
    }

    /// Goes on from `bytes`, as far as they fit, at `now_ns`.
    pub(crate) const fn start_with(&mut self, bytes: u64, now_ns: u64) {
        let level = bytes.saturating_mul(TOKENS_PER_BYTE);
        self.level = if level < self.depth { level } else { self.depth };
        self.updated_ns = now_ns;
    }

    /// Whole bytes that may pass, as of the last refill.
    #[must_use]
    pub const fn level_bytes(&self) -> u64 {
        self.level / TOKENS_PER_BYTE
    }
}

/// The tokens of a full bucket.
pub(crate) const fn depth(burst_bytes: u32) -> u64 {
    tokens(if burst_bytes < BURST_BYTES_MAX { burst_bytes } else { BURST_BYTES_MAX })
}

/// Saturates above 2 GiB, which no bucket holds.
#[inline]
pub(crate) const fn tokens(bytes: u32) -> u64 {
    (bytes as u64).saturating_mul(TOKENS_PER_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(bps: u64, burst_bytes: u32) -> Bucket {
        Bucket::new(TrafficProfile { rate: Rate::from_bps(bps).unwrap(), burst_bytes })
    }

    #[test]
    fn a_bucket_asked_each_nanosecond_gives_as_much_as_one_asked_once() {
        let (mut often, mut once) = (bucket(333_333_333, 1500), bucket(333_333_333, 1500));
        assert!(often.take(1500, 0) && once.take(1500, 0));
        for now_ns in 0..=30_000 {
            often.refill(now_ns);
        }
        once.refill(30_000);
        assert_eq!(often.level, once.level);
    }

    #[test]
    fn the_moment_it_names_is_the_first_at_which_it_gives() {
        let mut bucket = bucket(7, 100);
        assert!(bucket.take(100, 5));
        let at = bucket.ready_at(1).unwrap();
        assert_eq!(at, 5 + 8_000_000_000_u64.div_ceil(7));
        assert!(!bucket.take(1, at - 1));
        assert!(bucket.take(1, at));
        assert_eq!(bucket.ready_at(101), None);
    }

    #[test]
    fn neither_ages_nor_clocks_that_run_back_overflow_it() {
        let mut bucket = bucket(u64::MAX, u32::MAX);
        assert!(bucket.take(BURST_BYTES_MAX, 10));
        assert!(!bucket.take(BURST_BYTES_MAX, 3));
        assert!(bucket.take(BURST_BYTES_MAX, u64::MAX));
        assert!(!bucket.take(u32::MAX, u64::MAX));
    }

    proptest! {
        /// What passes in any interval is at most the burst and the rate over the interval.
        #[test]
        fn no_interval_passes_more_than_burst_and_rate(
            bps in 1u64..100_000_000_000, burst in 1u32..100_000, steps in prop::collection::vec((0u64..100_000, 1u32..9_000), 1..60),
        ) {
            let mut bucket = bucket(bps, burst);
            let mut now_ns = 0;
            let mut passed = Vec::new();
            for (gap_ns, bytes) in steps {
                now_ns += gap_ns;
                if bucket.take(bytes, now_ns) {
                    passed.push((now_ns, u128::from(bytes)));
                }
            }
            for (first, &(start_ns, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for &(end_ns, bytes) in &passed[first..] {
                    sum += bytes;
                    let allowed = u128::from(burst) * 8_000_000_000 + u128::from(bps) * u128::from(end_ns - start_ns);
                    prop_assert!(sum * 8_000_000_000 <= allowed);
                }
            }
        }
    }
}
