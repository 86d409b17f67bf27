// SPDX-License-Identifier: Apache-2.0
//! A worker's own counters: plain words, published by the process at each turn's end.

use messages::{DropReason, WorkerCounter};

/// Counts of one worker since it started. One writer, so plain additions.
#[derive(Clone, Debug)]
pub struct Counters {
    worker: [u64; WorkerCounter::COUNT],
    drops: [u64; DropReason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self { worker: [0; WorkerCounter::COUNT], drops: [0; DropReason::COUNT] }
    }
}

impl Counters {
    /// Adds to a counter.
    #[inline(always)]
    pub fn add(&mut self, counter: WorkerCounter, count: u64) {
        self.worker[counter as usize] += count;
    }

    /// Sets a gauge.
    #[inline(always)]
    pub fn set(&mut self, gauge: WorkerCounter, value: u64) {
        self.worker[gauge as usize] = value;
    }

    /// Counts `count` packets dropped for one reason.
    #[inline(always)]
    pub fn drop_packets(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
        self.add(WorkerCounter::Dropped, count);
    }

    /// Value of a counter.
    #[must_use]
    pub fn worker(&self, counter: WorkerCounter) -> u64 {
        self.worker[counter as usize]
    }

    /// Packets dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every counter, in memory order.
    #[must_use]
    pub fn workers(&self) -> &[u64; WorkerCounter::COUNT] {
        &self.worker
    }

    /// Every drop counter, in memory order.
    #[must_use]
    pub fn drops(&self) -> &[u64; DropReason::COUNT] {
        &self.drops
    }

    /// What came in and was made here, less where it went: zero if every packet is accounted for.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        use WorkerCounter::{
            Consumed, Dropped, FragmentsMade, HandedIn, HandedOut, Held, Originated, Received, Transmitted,
        };
        let sum =
            |counters: &[WorkerCounter]| counters.iter().map(|c| i128::from(self.worker(*c))).sum::<i128>();
        sum(&[Received, Originated, FragmentsMade, HandedIn])
            - sum(&[Transmitted, Consumed, Dropped, HandedOut, Held])
    }
}
