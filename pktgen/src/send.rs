// SPDX-License-Identifier: Apache-2.0
//! The send path: what is due, written and handed to a port, turn after turn. No allocation, no lock, no system call of
//! its own.

use std::sync::Arc;

use hdrhistogram::Histogram;
use pktbuf::{Batch, Pool};
use port::Queue;
use sysmem::{Calibration, CounterWord, Cycles};

use crate::generator::{Generator, WriteError};
use crate::schedule::{Picks, Schedule};

/// What a sender has done, for others to read while it runs.
#[derive(Default)]
pub struct Sent {
    /// By stream: packets that the port took.
    pub packets: Box<[CounterWord]>,
    /// By stream: their bytes, FCS included.
    pub bytes: Box<[CounterWord]>,
    /// Times that the port did not take all of a burst.
    pub refused: CounterWord,
    /// Times that there was no packet buffer.
    pub starved: CounterWord,
}

impl Sent {
    /// For so many streams.
    #[must_use]
    pub fn new(streams: usize) -> Arc<Self> {
        let words = || (0..streams).map(|_| CounterWord::default()).collect();
        Arc::new(Self { packets: words(), bytes: words(), ..Self::default() })
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing was due.
    Idle,
    /// Packets were sent, or the port took none.
    Busy,
    /// Everything has been sent.
    Over,
}

/// Sends a generator's packets.
pub struct Sender {
    generator: Generator,
    schedule: Schedule,
    pool: Pool,
    clock: Calibration,
    start: Cycles,
    start_ns: u64,
    /// What is due and not sent yet; the first of them are written and wait in `batch`.
    picks: Picks,
    batch: Batch,
    frame_bytes: Vec<Box<[u64]>>,
    sent: Arc<Sent>,
    late_ns: Histogram<u64>,
}

/// Longest lateness that is told apart: a minute.
const LATEST_NS: u64 = 60_000_000_000;
const FCS_BYTES: u64 = crate::sizes::FCS_BYTES as u64;

impl Sender {
    /// A sender that begins at `start`; `schedule` counts in ticks of `clock`.
    ///
    /// # Errors
    /// Should the histogram not be made.
    pub fn new(
        generator: Generator,
        schedule: Schedule,
        pool: &Pool,
        clock: Calibration,
        start: Cycles,
        sent: Arc<Sent>,
    ) -> anyhow::Result<Self> {
        let frame_bytes =
            generator.wire_bytes().map(|bytes| bytes.map(|bytes| bytes as u64 + FCS_BYTES).collect());
        Ok(Self {
            frame_bytes: frame_bytes.collect(),
            generator,
            schedule,
            pool: pool.clone(),
            clock,
            start,
            start_ns: clock.to_monotonic_ns(start),
            picks: Picks::new(),
            batch: Batch::new(),
            sent,
            late_ns: Histogram::new_with_bounds(1, LATEST_NS, 3)?,
        })
    }

    /// Sends what is due through a queue, at most a burst.
    ///
    /// # Errors
    /// What a packet could not be written for.
    #[inline]
    pub fn turn(&mut self, queue: &mut Queue) -> Result<Turn, WriteError> {
        if self.batch.is_empty() && !self.fill()? {
            return Ok(if self.schedule.is_over() { Turn::Over } else { Turn::Idle });
        }
        let before = self.batch.len();
        let sent = queue.transmit(&mut self.batch);
        if sent < before {
            self.sent.refused.add(1);
        }
        self.count(sent);
        Ok(Turn::Busy)
    }

    /// How late packets were written after they were due, one sample a burst, in nanoseconds.
    #[must_use]
    pub fn late_ns(&self) -> &Histogram<u64> {
        &self.late_ns
    }

    /// As [`Generator::next_sequences`].
    #[must_use]
    pub fn next_sequences(&self) -> Vec<Option<u64>> {
        self.generator.next_sequences()
    }

    /// What it has counted.
    #[must_use]
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    /// Writes a burst of what is due; false if nothing is, or no buffer is free.
    #[inline]
    fn fill(&mut self) -> Result<bool, WriteError> {
        if self.picks.is_empty() {
            let now = self.clock.now().since(self.start);
            self.schedule.take(now, &mut self.picks);
            let Some(first) = self.picks.first() else { return Ok(false) };
            self.late_ns.saturating_record(self.clock.cycles_to_ns(now - first.due.min(now)).max(1));
        }
        let got = self.pool.alloc_into(&mut self.batch, self.picks.len());
        if got < self.picks.len() {
            self.sent.starved.add(1);
        }
        let picks = self.picks.get(..got).unwrap_or_default();
        let (clock, start_ns) = (&self.clock, self.start_ns);
        let mut last = (u64::MAX, 0);
        let sent_ns = |due| {
            // Often a whole burst is due at the same time.
            if due != last.0 {
                last = (due, start_ns + clock.cycles_to_ns(due));
            }
            last.1
        };
        self.generator.write(picks, &mut self.batch, sent_ns)?;
        Ok(got > 0)
    }

    #[inline]
    fn count(&mut self, packets: usize) {
        for run in self.picks.get(..packets).unwrap_or_default().chunk_by(|a, b| a.stream == b.stream) {
            let Some(first) = run.first() else { continue };
            let stream = usize::from(first.stream);
            let Some(sizes) = self.frame_bytes.get(stream) else { continue };
            let bytes = match **sizes {
                [size] => size * run.len() as u64,
                _ => run.iter().filter_map(|pick| sizes.get(usize::from(pick.class))).sum(),
            };
            if let (Some(counter), Some(volume)) =
                (self.sent.packets.get(stream), self.sent.bytes.get(stream))
            {
                counter.add(run.len() as u64);
                volume.add(bytes);
            }
        }
        self.picks.drain(..packets);
    }
}
