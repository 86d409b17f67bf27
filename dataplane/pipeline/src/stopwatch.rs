// SPDX-License-Identifier: Apache-2.0
//! Where a burst's time goes: cycles by stage, on request. The clock comes from outside.

/// A stage of the fast path; everything else is the whole way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Ethernet and IP headers are read.
    Parse,
    /// Routes, or SAs by SPI, are looked up.
    Lookup,
    /// Tunnel, SA and next hop are found.
    Adjacency,
    /// Outbound: sequence numbers, delivery headers, ESP header and trailer.
    Headers,
    /// Inbound: lifetime, length, anti-replay window.
    Check,
    /// The cipher; inbound also window, padding and trailer behind it.
    Cipher,
    /// GRE and the packet inside it are read.
    Decapsulate,
    /// The link header, where it is not written before, and the port's queue.
    Transmit,
    /// What has no fast path.
    WholeWay,
}

impl Stage {
    /// All stages, in the order of a packet's way.
    pub const ALL: [Self; 9] = [
        Self::Parse,
        Self::Lookup,
        Self::Adjacency,
        Self::Headers,
        Self::Check,
        Self::Cipher,
        Self::Decapsulate,
        Self::Transmit,
        Self::WholeWay,
    ];

    /// As it stands in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Lookup => "lookup",
            Self::Adjacency => "adjacency",
            Self::Headers => "headers",
            Self::Check => "check",
            Self::Cipher => "cipher",
            Self::Decapsulate => "decapsulate",
            Self::Transmit => "transmit",
            Self::WholeWay => "whole-way",
        }
    }
}

/// Adds up what each stage took; without a clock it does nothing.
#[derive(Default)]
pub(crate) struct Stopwatch {
    clock: Option<fn() -> u64>,
    since: u64,
    spent: [u64; Stage::ALL.len()],
}

impl Stopwatch {
    /// A stopwatch that reads `clock`.
    pub(crate) fn with(clock: fn() -> u64) -> Self {
        Self { clock: Some(clock), ..Self::default() }
    }

    /// A burst begins.
    #[inline(always)]
    pub(crate) fn start(&mut self) {
        if let Some(clock) = self.clock {
            self.since = clock();
        }
    }

    /// A stage ends, and the next one begins.
    #[inline(always)]
    pub(crate) fn lap(&mut self, stage: Stage) {
        if let Some(clock) = self.clock {
            let now = clock();
            self.spent[stage as usize] += now.wrapping_sub(self.since);
            self.since = now;
        }
    }

    /// Each stage and what it took so far.
    pub(crate) fn spent(&self) -> impl Iterator<Item = (Stage, u64)> {
        Stage::ALL.into_iter().zip(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    static NOW: AtomicU64 = AtomicU64::new(100);

    #[test]
    fn laps_add_up_by_stage_and_time_between_bursts_belongs_to_none() {
        let mut watch = Stopwatch::with(|| NOW.fetch_add(10, Relaxed));
        for _ in 0..2 {
            watch.start();
            watch.lap(Stage::Parse);
            watch.lap(Stage::Cipher);
            watch.lap(Stage::Parse);
        }
        let spent: Vec<_> = watch.spent().filter(|(_, spent)| *spent > 0).collect();
        assert_eq!(spent, [(Stage::Parse, 40), (Stage::Cipher, 20)]);
        assert!(Stage::ALL.iter().enumerate().all(|(place, stage)| *stage as usize == place));
    }
}
