// SPDX-License-Identifier: Apache-2.0
//! What arrived of one stream: received, duplicated, reordered (RFC 4737 §3.3: a number below one seen before), where
//! the gaps are, and how long it took. Lost is what the sender sent less what arrived once.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// Gaps that are listed; beyond this the numbers alone tell.
const GAPS_LISTED: usize = 256;

/// Accounts for the packets of one stream.
pub struct Ledger {
    seen: Vec<u64>,
    highest: Option<u64>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    latency: Histogram<u64>,
}

/// A ledger's totals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Further copies.
    pub duplicated: u64,
    /// Packets that a later one had overtaken.
    pub reordered: u64,
    /// One more than the highest sequence number seen.
    pub highest: u64,
    /// The first sequence numbers that are missing below `highest`, as runs; at most 256.
    pub gaps: Vec<Gap>,
    /// Latency in microseconds.
    pub latency_us: Latency,
}

/// Sequence numbers in a row that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The first.
    pub first: u64,
    /// How many.
    pub packets: u64,
}

/// Quantiles of the latency in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// Should the histogram not be made.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, 3)?;
        Ok(Self { seen: Vec::new(), highest: None, received: 0, duplicated: 0, reordered: 0, latency })
    }

    /// Notes a packet that took `latency_ns`.
    pub fn note(&mut self, sequence: u64, latency_ns: u64) {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if self.highest.is_some_and(|highest| sequence < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(sequence));
        self.latency.saturating_record(latency_ns.max(1));
    }

    /// The totals so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let us = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        Totals {
            received: self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
            highest: self.highest.map_or(0, |highest| highest + 1),
            gaps: self.gaps(),
            latency_us: Latency {
                p50: us(0.5),
                p99: us(0.99),
                p999: us(0.999),
                max: self.latency.max() as f64 / 1e3,
            },
        }
    }

    fn gaps(&self) -> Vec<Gap> {
        let end = self.highest.map_or(0, |highest| highest + 1);
        let is_missing = |sequence: &u64| self.seen[(sequence / 64) as usize] & 1 << (sequence % 64) == 0;
        let mut gaps: Vec<Gap> = Vec::new();
        for sequence in (0..end).filter(is_missing) {
            let is_full = gaps.len() == GAPS_LISTED;
            match gaps.last_mut() {
                Some(gap) if gap.first + gap.packets == sequence => gap.packets += 1,
                _ if is_full => break,
                _ => gaps.push(Gap { first: sequence, packets: 1 }),
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_overtaken_packets_are_told_apart() {
        let mut ledger = Ledger::new().unwrap();
        for sequence in [0, 1, 3, 2, 3, 5, 200] {
            ledger.note(sequence, 1_000);
        }
        let totals = ledger.totals();
        assert_eq!((totals.received, totals.duplicated, totals.reordered, totals.highest), (6, 1, 1, 201));
        assert!((0.9..1.1).contains(&totals.latency_us.p50));
    }

    #[test]
    fn gaps_are_runs_of_what_is_missing_below_the_highest() {
        let mut ledger = Ledger::new().unwrap();
        assert_eq!(ledger.totals().gaps, []);
        for sequence in [2, 3, 64, 65, 67] {
            ledger.note(sequence, 1);
        }
        let gaps = ledger.totals().gaps;
        let expected = [(0, 2), (4, 60), (66, 1)].map(|(first, packets)| Gap { first, packets });
        assert_eq!(gaps, expected);
        let missing: u64 = gaps.iter().map(|gap| gap.packets).sum();
        assert_eq!(missing, 68 - 5);
    }

    #[test]
    fn of_very_many_gaps_the_first_are_listed() {
        let mut ledger = Ledger::new().unwrap();
        (0..2_000).step_by(2).for_each(|sequence| ledger.note(sequence, 1));
        let gaps = ledger.totals().gaps;
        assert_eq!((gaps.len(), gaps[0], gaps[255].first), (256, Gap { first: 1, packets: 1 }, 511));
    }
}
