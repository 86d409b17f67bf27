// SPDX-License-Identifier: Apache-2.0
//! What changes about a tunnel with every packet: counters, and the sequence numbers of GRE (RFC 2890 §2.2).
//!
//! It outlives generations: a tunnel keeps it as long as its index, delivery addresses and key stay.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use messages::WorkerId;
use pktbuf::prefetch;

/// Set beside the last sequence number once there is one.
const VALID: u64 = 1 << 32;
/// RFC 2890 §2.2: a number is old if it is the last one or among the 2^31 − 1 before it.
const OLD: u32 = 1 << 31;

/// Payload packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelCounters {
    /// Packets sent into the tunnel.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that came out of it.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
}

/// Whether a GRE sequence number may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceOrder {
    /// Newer than the last one; it is the last one from here on.
    InOrder,
    /// The last one again, or older.
    OutOfOrder,
}

/// Counters with one writer, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Block {
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
}

/// A tunnel's counters: a block for each worker. Clones are handles of the same counters.
#[derive(Clone, Debug)]
pub struct TunnelCounts(Arc<[Block]>);

impl TunnelCounts {
    fn new(workers: u16) -> Self {
        Self(std::iter::repeat_with(Block::default).take(usize::from(workers)).collect())
    }

    /// Counts payload packets that `worker` sends into the tunnel, and their bytes. One thread only calls this for a worker.
    #[inline]
    pub fn count_out(&self, worker: WorkerId, packets: u64, bytes: u64) {
        if let Some(block) = self.0.get(worker.index()) {
            add(&block.packets_out, packets);
            add(&block.bytes_out, bytes);
        }
    }

    /// Counts payload packets that `worker` took out of the tunnel, and their bytes.
    #[inline]
    pub fn count_in(&self, worker: WorkerId, packets: u64, bytes: u64) {
        if let Some(block) = self.0.get(worker.index()) {
            add(&block.packets_in, packets);
            add(&block.bytes_in, bytes);
        }
    }

    /// Asks the CPU for the counters of a worker.
    #[inline]
    pub fn prefetch(&self, worker: WorkerId) {
        if let Some(block) = self.0.get(worker.index()) {
            prefetch(block);
        }
    }

    /// The sum over all workers.
    #[must_use]
    pub fn sum(&self) -> TunnelCounters {
        let sum = |field: fn(&Block) -> &AtomicU64| {
            self.0.iter().fold(0u64, |sum, block| sum.wrapping_add(field(block).load(Relaxed)))
        };
        TunnelCounters {
            packets_out: sum(|block| &block.packets_out),
            bytes_out: sum(|block| &block.bytes_out),
            packets_in: sum(|block| &block.packets_in),
            bytes_in: sum(|block| &block.bytes_in),
        }
    }
}

/// The changing part of a tunnel.
#[derive(Debug)]
pub struct TunnelRuntime {
    counts: TunnelCounts,
    next_sequence: AtomicU32,
    last_accepted: AtomicU64,
}

impl TunnelRuntime {
    /// All zero, for `workers` workers.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        Self {
            counts: TunnelCounts::new(workers),
            next_sequence: AtomicU32::new(0),
            last_accepted: AtomicU64::new(0),
        }
    }

    /// Its counters.
    #[inline]
    #[must_use]
    pub fn counts(&self) -> &TunnelCounts {
        &self.counts
    }

    /// The next sequence number to send; the first is 0, and they wrap (RFC 2890 §2.2). Each is given out once.
    #[inline]
    #[must_use]
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence.fetch_add(1, Relaxed)
    }

    /// Judges a sequence number that arrived; of several workers with the same one, only one hears `InOrder`.
    #[inline]
    #[must_use]
    pub fn accept_sequence(&self, sequence: u32) -> SequenceOrder {
        let newer = |last: u64| {
            let is_old = last & VALID != 0 && low_32(last).wrapping_sub(sequence) < OLD;
            (!is_old).then_some(VALID | u64::from(sequence))
        };
        match self.last_accepted.fetch_update(Relaxed, Relaxed, newer) {
            Ok(_) => SequenceOrder::InOrder,
            Err(_) => SequenceOrder::OutOfOrder,
        }
    }
}

/// One writer: a load and a store, no locked instruction.
#[inline]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

#[inline]
fn low_32(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::SequenceOrder::{InOrder, OutOfOrder};
    use super::*;

    #[test]
    fn workers_count_apart_and_are_summed() {
        let counts = TunnelCounts::new(2);
        counts.count_out(WorkerId(0), 1, 100);
        counts.count_out(WorkerId(1), 1, 50);
        counts.count_in(WorkerId(1), 1, 7);
        counts.count_in(WorkerId(2), 1, 1_000);
        let expected = TunnelCounters { packets_out: 2, bytes_out: 150, packets_in: 1, bytes_in: 7 };
        assert_eq!(counts.sum(), expected);
        assert_eq!((size_of::<Block>(), align_of::<Block>()), (64, 64));
    }

    #[test]
    fn sequence_numbers_start_at_zero_and_wrap() {
        let runtime = TunnelRuntime::new(1);
        assert_eq!([runtime.next_sequence(), runtime.next_sequence()], [0, 1]);
        runtime.next_sequence.store(u32::MAX, Relaxed);
        assert_eq!([runtime.next_sequence(), runtime.next_sequence()], [u32::MAX, 0]);
    }

    #[test]
    fn only_a_newer_sequence_number_is_in_order() {
        let runtime = TunnelRuntime::new(1);
        for (sequence, order) in [
            (5, InOrder),
            (5, OutOfOrder),
            (4, OutOfOrder),
            (6, InOrder),
            (6 + (1 << 31) - 1, InOrder),
            (7, OutOfOrder),
            (u32::MAX, InOrder),
            (0, InOrder),
            (u32::MAX, OutOfOrder),
        ] {
            assert_eq!(runtime.accept_sequence(sequence), order, "{sequence}");
        }
    }

    #[test]
    fn the_oldest_old_number_is_2_to_the_31_less_1_before_the_last() {
        for (distance, order) in [(OLD - 1, OutOfOrder), (OLD, InOrder)] {
            let runtime = TunnelRuntime::new(1);
            assert_eq!(runtime.accept_sequence(17), InOrder);
            assert_eq!(runtime.accept_sequence(17u32.wrapping_sub(distance)), order);
        }
    }

    #[test]
    fn the_first_number_may_be_any() {
        for first in [0, 1, u32::MAX] {
            assert_eq!(TunnelRuntime::new(1).accept_sequence(first), InOrder);
        }
    }
}
