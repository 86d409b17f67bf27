// SPDX-License-Identifier: Apache-2.0
//! What a scheduler tells of itself to other threads: words with one writer, which everybody may read.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::counters::{Counters, Refusal, Volume};
use super::delay::{BUCKETS, Delays, bucket_of};
use super::spec::{ClassSlot, TunnelSlot};

/// The counters of a scheduler's classes and the tokens of its tunnels. One thread writes, any may read.
#[derive(Debug)]
pub struct Stats {
    classes: Box<[ClassStats]>,
    tunnels: Box<[TunnelStats]>,
    delays: Box<[DelayStats]>,
    port_tokens: AtomicU64,
}

/// What can be read of a class.
#[derive(Clone, Debug)]
pub struct ClassState {
    /// Its counters.
    pub counters: Counters,
    /// Delays of what has left, if they are recorded.
    pub delays: Option<Delays>,
}

impl ClassState {
    /// Adds what the same class has done at another worker.
    pub fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        if let (Some(delays), Some(other)) = (&mut self.delays, &other.delays) {
            delays.add(other);
        }
    }
}

/// One class's words.
#[derive(Debug, Default)]
pub(super) struct ClassStats {
    /// What was never queued: offered and sent, and in neither of these.
    passed_packets: AtomicU64,
    passed_bytes: AtomicU64,
    offered_packets: AtomicU64,
    offered_bytes: AtomicU64,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    marked: AtomicU64,
    dropped_bytes: AtomicU64,
    dropped: [AtomicU64; Refusal::ALL.len()],
    /// Place of its delays, if they are recorded.
    delays: u32,
}

#[derive(Debug)]
struct TunnelStats {
    first_class: u32,
    class_count: u8,
    tokens: AtomicU64,
}

#[derive(Debug)]
pub(super) struct DelayStats([AtomicU32; BUCKETS]);

impl Stats {
    /// Zeros for tunnels of so many classes each, and whether each class records delays.
    pub(super) fn new(tunnels: &[(u32, u8)], delays: &[bool]) -> Self {
        let mut recorded = 0u32;
        let class = |records: &bool| {
            let place = if *records { recorded } else { super::NONE };
            recorded += u32::from(*records);
            ClassStats { delays: place, ..ClassStats::default() }
        };
        let classes = delays.iter().map(class).collect();
        let tunnel = |&(first_class, class_count): &(u32, u8)| TunnelStats {
            first_class,
            class_count,
            tokens: AtomicU64::new(0),
        };
        Self {
            classes,
            tunnels: tunnels.iter().map(tunnel).collect(),
            delays: (0..recorded).map(|_| DelayStats(core::array::from_fn(|_| AtomicU32::new(0)))).collect(),
            port_tokens: AtomicU64::new(0),
        }
    }

    /// What a class has done.
    #[must_use]
    pub fn class(&self, tunnel: TunnelSlot, class: ClassSlot) -> Option<ClassState> {
        let class = self.classes.get(self.class_index(tunnel, class)? as usize)?;
        let delays = self.delays.get(class.delays as usize).map(DelayStats::read);
        Some(ClassState { counters: class.read(), delays })
    }

    /// Bytes that a tunnel's shaper held when it was asked last.
    #[must_use]
    pub fn tunnel_tokens(&self, tunnel: TunnelSlot) -> Option<u64> {
        Some(self.tunnels.get(tunnel.0 as usize)?.tokens.load(Relaxed))
    }

    /// Bytes that the port's shaper held when it was asked last.
    #[must_use]
    pub fn port_tokens(&self) -> u64 {
        self.port_tokens.load(Relaxed)
    }

    pub(super) const fn bytes_for_each() -> [usize; 3] {
        [size_of::<TunnelStats>(), size_of::<ClassStats>(), size_of::<DelayStats>()]
    }

    fn class_index(&self, tunnel: TunnelSlot, class: ClassSlot) -> Option<u32> {
        let tunnel = self.tunnels.get(tunnel.0 as usize)?;
        (class.0 < tunnel.class_count).then(|| tunnel.first_class + u32::from(class.0))
    }

    pub(super) fn at(&self, class: u32) -> Option<&ClassStats> {
        self.classes.get(class as usize)
    }

    /// Items of a class are offered and sent in the same moment.
    #[inline(always)]
    pub(super) fn pass(&self, class: u32, items: Volume) {
        let Some(counters) = self.at(class) else { return };
        add(&counters.passed_packets, items.packets);
        add(&counters.passed_bytes, items.bytes);
        let packets = u32::try_from(items.packets).unwrap_or(u32::MAX);
        self.record_delays(counters, 0, packets);
    }

    pub(super) fn note_tokens(&self, tunnel: u32, tokens: Option<u64>, port_tokens: Option<u64>) {
        if let (Some(tokens), Some(tunnel)) = (tokens, self.tunnels.get(tunnel as usize)) {
            tunnel.tokens.store(tokens, Relaxed);
        }
        if let Some(tokens) = port_tokens {
            self.port_tokens.store(tokens, Relaxed);
        }
    }

    pub(super) fn record_delay(&self, class: u32, delay_ns: u64) {
        if let Some(class) = self.at(class) {
            self.record_delays(class, delay_ns, 1);
        }
    }

    #[inline(always)]
    fn record_delays(&self, class: &ClassStats, delay_ns: u64, items: u32) {
        let delays = self.delays.get(class.delays as usize);
        if let Some(bucket) = delays.and_then(|delays| delays.0.get(bucket_of(delay_ns))) {
            bucket.store(bucket.load(Relaxed).saturating_add(items), Relaxed);
        }
    }

    /// Goes on where a class of another scheduler has come to.
    pub(super) fn inherit(&self, class: u32, before: &Self, class_before: u32) {
        let (Some(own), Some(old)) = (self.at(class), before.at(class_before)) else { return };
        for (word, old) in own.words().zip(old.words()) {
            word.store(old.load(Relaxed), Relaxed);
        }
        let delays = self.delays.get(own.delays as usize).zip(before.delays.get(old.delays as usize));
        for (bucket, old) in delays.into_iter().flat_map(|(own, old)| own.0.iter().zip(&old.0)) {
            bucket.store(old.load(Relaxed), Relaxed);
        }
    }
}

impl ClassStats {
    #[inline]
    pub(super) fn offer(&self, wire_bytes: u32) {
        add(&self.offered_packets, 1);
        add(&self.offered_bytes, u64::from(wire_bytes));
    }

    #[inline]
    pub(super) fn send(&self, wire_bytes: u32, marked: bool) {
        add(&self.sent_packets, 1);
        add(&self.sent_bytes, u64::from(wire_bytes));
        if marked {
            add(&self.marked, 1);
        }
    }

    pub(super) fn drop_for(&self, refusal: Refusal, wire_bytes: u32) {
        add(&self.dropped_bytes, u64::from(wire_bytes));
        if let Some(count) = self.dropped.get(refusal as usize) {
            add(count, 1);
        }
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        [
            &self.passed_packets,
            &self.passed_bytes,
            &self.offered_packets,
            &self.offered_bytes,
            &self.sent_packets,
            &self.sent_bytes,
            &self.marked,
            &self.dropped_bytes,
        ]
        .into_iter()
        .chain(&self.dropped)
    }

    fn read(&self) -> Counters {
        let passed = (self.passed_packets.load(Relaxed), self.passed_bytes.load(Relaxed));
        let volume = |packets: &AtomicU64, bytes: &AtomicU64| Volume {
            packets: packets.load(Relaxed).wrapping_add(passed.0),
            bytes: bytes.load(Relaxed).wrapping_add(passed.1),
        };
        Counters {
            offered: volume(&self.offered_packets, &self.offered_bytes),
            sent: volume(&self.sent_packets, &self.sent_bytes),
            marked: self.marked.load(Relaxed),
            dropped_bytes: self.dropped_bytes.load(Relaxed),
            dropped: core::array::from_fn(|reason| {
                self.dropped.get(reason).map_or(0, |count| count.load(Relaxed))
            }),
        }
    }
}

impl DelayStats {
    fn read(&self) -> Delays {
        Delays::of(core::array::from_fn(|bucket| self.0.get(bucket).map_or(0, |count| count.load(Relaxed))))
    }
}

/// One writer: a load and a store, no locked instruction.
#[inline]
fn add(word: &AtomicU64, amount: u64) {
    word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
}
