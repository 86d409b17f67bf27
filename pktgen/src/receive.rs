// SPDX-License-Identifier: Apache-2.0
//! The receive path: what arrived of each stream, and how long after it was due.
//!
//! Latency runs from the moment at which the schedule had a packet, not from when a sender that was held up got to it:
//! so what a device holds up counts in full (no coordinated omission). The sender's own lateness is reported beside.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use hdrhistogram::Histogram;
use pktbuf::Batch;
use port::Queue;
use sysmem::{Calibration, CounterWord};

use crate::answer::Answerer;
use crate::locate::{self, Inside};
use crate::open::Opener;
use crate::stamp::{Stamp, StampError};
use crate::track::Track;

/// Longest latency that is told apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// How often histograms are handed over.
const HAND_OVER_NS: u64 = 250_000_000;

/// One histogram of latencies a stream, in nanoseconds.
pub type Latencies = Box<[Histogram<u64>]>;

/// Empty histograms for so many streams.
///
/// # Errors
/// Should they not be made.
pub fn latencies(streams: usize) -> anyhow::Result<Latencies> {
    let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, 3);
    Ok((0..streams).map(|_| histogram()).collect::<Result<_, _>>()?)
}

/// What arrived of one stream, for others to read while it goes on.
#[derive(Default)]
pub struct Arrived {
    /// Packets, each counted once.
    pub received: CounterWord,
    /// Of them, those that a later one had overtaken.
    pub reordered: CounterWord,
    /// Further copies.
    pub duplicated: CounterWord,
    /// Too late to be told from copies.
    pub too_late: CounterWord,
    /// Damaged packets that name this stream.
    pub corrupt: CounterWord,
    /// One more than the highest number that arrived.
    pub highest: CounterWord,
    /// When the first arrived, on `CLOCK_MONOTONIC`.
    pub first_ns: CounterWord,
    /// When the last arrived.
    pub last_ns: CounterWord,
    /// The longest time between two.
    pub pause_ns: CounterWord,
}

/// What a receiver shares with others.
pub struct Shared {
    /// By stream.
    pub streams: Box<[Arrived]>,
    /// Frames that carry none of our packets.
    pub foreign: CounterWord,
    /// Of them, questions for an address of ours that were answered.
    pub answered: CounterWord,
    filled: ArrayQueue<Latencies>,
    spare: ArrayQueue<Latencies>,
}

impl Shared {
    /// For so many streams.
    ///
    /// # Errors
    /// Should histograms not be made.
    pub fn new(streams: usize) -> anyhow::Result<Arc<Self>> {
        let (filled, spare) = (ArrayQueue::new(3), ArrayQueue::new(3));
        for _ in 0..2 {
            // There is room for three.
            let _ = spare.push(latencies(streams)?);
        }
        let streams = (0..streams).map(|_| Arrived::default()).collect();
        let (foreign, answered) = (CounterWord::default(), CounterWord::default());
        Ok(Arc::new(Self { streams, foreign, answered, filled, spare }))
    }

    /// Adds the latencies that have been handed over to `total`.
    pub fn collect(&self, total: &mut Latencies) {
        while let Some(mut filled) = self.filled.pop() {
            for (total, part) in total.iter_mut().zip(&mut filled) {
                // Both have the same bounds.
                let _ = total.add(&*part);
                part.reset();
            }
            let _ = self.spare.push(filled);
        }
    }
}

/// Receives test packets.
pub struct Receiver {
    batch: Batch,
    opener: Option<Opener>,
    answerer: Option<Answerer>,
    tracks: Box<[Track]>,
    latencies: Latencies,
    clock: Calibration,
    next_hand_over_ns: u64,
    shared: Arc<Shared>,
}

impl Receiver {
    /// A receiver that opens what `opener` has SAs for, and answers who asks for an address of `answerer`.
    ///
    /// # Errors
    /// Should histograms not be made.
    pub fn new(
        opener: Option<Opener>,
        answerer: Option<Answerer>,
        clock: Calibration,
        shared: Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let streams = shared.streams.len();
        Ok(Self {
            batch: Batch::new(),
            opener,
            answerer,
            tracks: (0..streams).map(|_| Track::new()).collect(),
            latencies: latencies(streams)?,
            clock,
            next_hand_over_ns: 0,
            shared,
        })
    }

    /// Receives at most a burst from a queue; returns the number of packets.
    #[inline]
    pub fn turn(&mut self, queue: &mut Queue) -> usize {
        let received = queue.receive(&mut self.batch);
        if received == 0 {
            return 0;
        }
        let now_ns = self.clock.to_monotonic_ns(self.clock.now());
        let foreign_before = self.shared.foreign.read();
        let mut account = Account {
            tracks: &mut self.tracks,
            latencies: &mut self.latencies,
            shared: &self.shared,
            now_ns,
        };
        match &self.opener {
            None => {
                for packet in &self.batch {
                    let payload = match locate::in_frame(packet.data()) {
                        Some(Inside::Payload(range)) => packet.data().get(range),
                        _ => None,
                    };
                    account.note(payload);
                }
            }
            Some(opener) => {
                let located = opener.locate(&mut self.batch);
                for (packet, range) in self.batch.iter().zip(located) {
                    account.note(range.and_then(|range| packet.data().get(range)));
                }
            }
        }
        if self.shared.foreign.read() != foreign_before {
            self.answer(queue);
        }
        self.batch.clear();
        if now_ns >= self.next_hand_over_ns {
            self.hand_over(now_ns);
        }
        received
    }

    /// Answers what of the burst asks for an address of ours. What the port does not take, who asks will ask for again.
    #[cold]
    fn answer(&mut self, queue: &mut Queue) {
        let Some(answerer) = &self.answerer else { return };
        let mut answers: Batch = self
            .batch
            .drain(..)
            .filter_map(|mut packet| answerer.answer(&mut packet).then_some(packet))
            .collect();
        self.shared.answered.add(queue.transmit(&mut answers) as u64);
    }

    /// Gives the latencies so far to whoever collects them, if he has given back what he had before.
    pub fn hand_over(&mut self, now_ns: u64) {
        self.next_hand_over_ns = now_ns + HAND_OVER_NS;
        if let Some(spare) = self.shared.spare.pop() {
            let filled = std::mem::replace(&mut self.latencies, spare);
            // There are three, one of them here.
            let _ = self.shared.filled.push(filled);
        }
    }
}

/// Where packets of one burst are noted.
struct Account<'a> {
    tracks: &'a mut [Track],
    latencies: &'a mut [Histogram<u64>],
    shared: &'a Shared,
    now_ns: u64,
}

impl Account<'_> {
    #[inline]
    fn note(&mut self, payload: Option<&[u8]>) {
        match payload.map_or(Err(StampError::Foreign), Stamp::parse) {
            Ok(stamp) => self.note_stamp(stamp),
            Err(StampError::Corrupt(stream)) => match self.shared.streams.get(usize::from(stream)) {
                Some(arrived) => arrived.corrupt.add(1),
                None => self.shared.foreign.add(1),
            },
            Err(StampError::Foreign) => self.shared.foreign.add(1),
        }
    }

    #[inline]
    fn note_stamp(&mut self, stamp: Stamp) {
        let stream = usize::from(stamp.stream);
        let (Some(track), Some(latencies), Some(arrived)) =
            (self.tracks.get_mut(stream), self.latencies.get_mut(stream), self.shared.streams.get(stream))
        else {
            return self.shared.foreign.add(1);
        };
        let is_first_copy = track.note(stamp.sequence);
        let counts = track.counts();
        arrived.received.set(counts.received);
        arrived.highest.set(counts.highest);
        if is_first_copy {
            latencies.saturating_record(self.now_ns.saturating_sub(stamp.sent_ns).max(1));
            let pause_ns = self.now_ns.saturating_sub(arrived.last_ns.read());
            if arrived.first_ns.read() == 0 {
                arrived.first_ns.set(self.now_ns);
            } else if pause_ns > arrived.pause_ns.read() {
                arrived.pause_ns.set(pause_ns);
            }
            arrived.last_ns.set(self.now_ns);
            arrived.reordered.set(counts.reordered);
        } else {
            arrived.duplicated.set(counts.duplicated);
            arrived.too_late.set(counts.too_late);
        }
    }
}
