// SPDX-License-Identifier: Apache-2.0
//! What arrived of one stream: received, duplicated, reordered (RFC 4737 §3.3: a number below one seen before), and how
//! long it took. Lost is what the sender sent less what arrived once.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

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
    /// Latency in microseconds.
    pub latency_us: Latency,
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
            latency_us: Latency {
                p50: us(0.5),
                p99: us(0.99),
                p999: us(0.999),
                max: self.latency.max() as f64 / 1e3,
            },
        }
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
}
