// SPDX-License-Identifier: Apache-2.0
//! How long packets have waited: a histogram with four buckets to each doubling, from 1 µs to 17 s.

const FIRST_BITS: u32 = 10;
const PER_OCTAVE_BITS: u32 = 2;
pub(super) const BUCKETS: usize = 98;

/// A histogram of delays.
#[derive(Clone, Debug)]
pub struct Delays {
    buckets: [u32; BUCKETS],
}

impl Delays {
    pub(super) fn of(buckets: [u32; BUCKETS]) -> Self {
        Self { buckets }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        for (count, other) in self.buckets.iter_mut().zip(other.buckets) {
            *count = count.saturating_add(other);
        }
    }

    /// Packets counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|count| u64::from(*count)).sum()
    }

    /// A delay that `percent` of the packets did not exceed: the upper end of a bucket, at most a quarter too much;
    /// `None` without packets, and for what is longer than 17 s.
    #[must_use]
    pub fn percentile_ns(&self, percent: u8) -> Option<u64> {
        let total = self.count();
        let wanted = (total * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        let within = |count: &u32| {
            seen += u64::from(*count);
            seen >= wanted
        };
        let bucket = self.buckets.iter().position(within)?;
        (bucket + 1 < BUCKETS).then(|| upper_end_ns(bucket))
    }
}

pub(super) fn bucket_of(delay_ns: u64) -> usize {
    let octave = delay_ns.checked_ilog2().unwrap_or(0);
    if octave < FIRST_BITS {
        return 0;
    }
    let within = (delay_ns >> (octave - PER_OCTAVE_BITS)) as usize & ((1 << PER_OCTAVE_BITS) - 1);
    let bucket = (((octave - FIRST_BITS) as usize) << PER_OCTAVE_BITS) + within + 1;
    bucket.min(BUCKETS - 1)
}

fn upper_end_ns(bucket: usize) -> u64 {
    let (octave, within) = (bucket as u32 >> PER_OCTAVE_BITS, bucket as u64 & ((1 << PER_OCTAVE_BITS) - 1));
    ((1 << PER_OCTAVE_BITS) + within) << (FIRST_BITS + octave - PER_OCTAVE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(delays_ns: &[u64]) -> Delays {
        let mut delays = Delays::of([0; BUCKETS]);
        delays_ns.iter().for_each(|delay_ns| delays.buckets[bucket_of(*delay_ns)] += 1);
        delays
    }

    #[test]
    fn a_percentile_is_never_too_low_and_at_most_a_quarter_too_high() {
        for delay_ns in
            (1..34).flat_map(|bits| [1u64 << bits, (1 << bits) + 1, (3 << bits) / 2, (2 << bits) - 1])
        {
            let delays = recorded(&[delay_ns]);
            let said = delays.percentile_ns(99).unwrap();
            assert!(said >= delay_ns, "{delay_ns}: {said}");
            assert!(said <= (delay_ns * 5 / 4 + 1).max(1024), "{delay_ns}: {said}");
        }
    }

    #[test]
    fn those_of_two_workers_are_added_up() {
        let mut delays = recorded(&[2_000; 3]);
        delays.add(&recorded(&[1_000_000; 2]));
        assert_eq!(
            (delays.count(), delays.percentile_ns(60), delays.percentile_ns(61)),
            (5, Some(2048), Some(1 << 20))
        );
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        assert_eq!(recorded(&[]).percentile_ns(50), None);
        let delays = recorded(&[&[2_000; 98][..], &[1_000_000, u64::MAX]].concat());
        assert_eq!(delays.count(), 100);
        assert_eq!(delays.percentile_ns(50), Some(2048));
        assert_eq!(delays.percentile_ns(99), Some(1 << 20));
        assert_eq!(delays.percentile_ns(100), None);
    }
}
