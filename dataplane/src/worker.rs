// SPDX-License-Identifier: Apache-2.0
//! One worker: its queues, its pipeline, and the loop that turns them.
//!
//! In the loop nothing blocks, allocates, logs or locks, and there is no system call but the port driver's own and
//! the naps of the adaptive idle policy.

use std::sync::Arc;

use messages::{PortCounter, PortIndex, WorkerCounter, WorkerId};
use pipeline::{HandedOver, Pipeline, PipelineConfig};
use pktbuf::Batch;
use port::Queue;
use sysmem::clock::{Calibration, Cycles};

use crate::counters::WorkerCounters;
use crate::idle::{Idler, Policy};
use crate::mailbox::Mailboxes;

/// How often packets that wait for neighbours are looked after.
const TICK_NS: u64 = 10_000_000;
/// Idle turns between two publications of the counters.
const QUIET_TURNS: u64 = 256;

/// A worker before its thread runs.
pub struct Worker {
    worker: WorkerId,
    pipeline: Pipeline,
    ports: Vec<WorkerPort>,
    mailboxes: Arc<Mailboxes>,
    counters: WorkerCounters,
    batch: Batch,
    next_tick_ns: u64,
    /// Whose packets are taken over first, another worker's each time.
    first_giver: WorkerId,
}

/// A worker's queue of one port, and what it counted there.
struct WorkerPort {
    port: PortIndex,
    queue: Queue,
    counts: [u64; PortCounter::COUNT],
}

impl WorkerPort {
    fn count(&mut self, counter: PortCounter, count: u64) {
        self.counts[counter as usize] += count;
    }
}

impl Worker {
    /// A worker with one queue of each port, in port order.
    #[must_use]
    pub fn new(
        config: PipelineConfig,
        queues: Vec<Queue>,
        mailboxes: Arc<Mailboxes>,
        counters: WorkerCounters,
    ) -> Self {
        let ports = (0..).map(PortIndex).zip(queues);
        let ports =
            ports.map(|(port, queue)| WorkerPort { port, queue, counts: [0; PortCounter::COUNT] }).collect();
        let worker = config.worker;
        Self {
            worker,
            pipeline: Pipeline::new(config),
            ports,
            mailboxes,
            counters,
            batch: Batch::new(),
            next_tick_ns: 0,
            first_giver: WorkerId(0),
        }
    }

    /// One turn: every port's burst in, hand-overs, what is due, frames out. True if there was anything to do.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        self.switch_state(now_ns);
        let mut packets = self.receive(now_ns);
        packets += self.take_over(now_ns);
        if now_ns >= self.next_tick_ns {
            self.pipeline.tick(now_ns);
            self.next_tick_ns = now_ns + TICK_NS;
        }
        packets += self.pipeline.release(now_ns);
        // Also what a switch or the tick left for others.
        hand_over(&mut self.pipeline, &self.mailboxes, self.worker);
        packets += self.transmit();
        packets > 0
    }

    /// Turns until the mailboxes say stop. `clock` must be calibrated on this machine.
    pub fn run(mut self, clock: &Calibration, idle: Policy) {
        let mut idler = Idler::new(idle);
        let start = clock.now();
        let mut before = start;
        while !self.mailboxes.is_stopping() {
            let had_work = self.turn(clock.to_monotonic_ns(before));
            let slept = idler.after_turn(had_work);
            let after = clock.now();
            self.account(had_work, slept, before, after, start);
            before = after;
        }
        self.publish();
    }

    /// The pipeline's counters.
    pub fn counters(&mut self) -> &mut pipeline::Counters {
        self.pipeline.counters()
    }

    /// Writes the counters to where others read them.
    pub fn publish(&mut self) {
        let counters = self.pipeline.counters();
        self.counters.publish_worker(counters.workers(), counters.drops());
        for port in &self.ports {
            self.counters.publish_port(port.port, &port.counts);
        }
    }

    fn switch_state(&mut self, now_ns: u64) {
        while let Some(state) = self.mailboxes.take(self.worker) {
            let generation = state.tables.number;
            let old = self.pipeline.switch(state, now_ns);
            self.mailboxes.acknowledge(self.worker, generation, now_ns, old);
        }
    }

    fn receive(&mut self, now_ns: u64) -> usize {
        let mut packets = 0;
        for port in &mut self.ports {
            let received = port.queue.receive(&mut self.batch);
            if received == 0 {
                continue;
            }
            let bytes: usize = self.batch.iter().map(pktbuf::Packet::len).sum();
            port.count(PortCounter::RxPackets, received as u64);
            port.count(PortCounter::RxBytes, bytes as u64);
            self.pipeline.receive(port.port, &mut self.batch, now_ns);
            hand_over(&mut self.pipeline, &self.mailboxes, self.worker);
            packets += received;
        }
        packets
    }

    /// Takes packets that other workers handed over.
    fn take_over(&mut self, now_ns: u64) -> usize {
        let Self { pipeline, mailboxes, worker, first_giver, .. } = self;
        if !mailboxes.has_handovers(*worker) {
            return 0;
        }
        let mut taken = 0;
        let packets = mailboxes.handed_over(*worker, *first_giver);
        pipeline.take_over(packets.inspect(|_| taken += 1), now_ns);
        let next = first_giver.0 + 1;
        *first_giver = WorkerId(if next < mailboxes.workers() { next } else { 0 });
        hand_over(pipeline, mailboxes, *worker);
        taken
    }

    fn transmit(&mut self) -> usize {
        if self.pipeline.frames_queued() == 0 {
            return 0;
        }
        let mut frames = 0;
        for port in &mut self.ports {
            let WorkerPort { port: index, queue, .. } = port;
            let sent = self.pipeline.transmit(*index, |batch| queue.transmit(batch));
            port.count(PortCounter::TxPackets, sent.frames);
            port.count(PortCounter::TxBytes, sent.bytes);
            frames += sent.frames as usize;
        }
        frames
    }

    fn account(&mut self, had_work: bool, slept: bool, before: Cycles, after: Cycles, start: Cycles) {
        let counters = self.pipeline.counters();
        if had_work {
            counters.add(WorkerCounter::BusyCycles, after.since(before));
        }
        counters.add(WorkerCounter::Sleeps, u64::from(slept));
        counters.add(WorkerCounter::Turns, 1);
        counters.set(WorkerCounter::TotalCycles, after.since(start));
        if had_work || slept || counters.worker(WorkerCounter::Turns).is_multiple_of(QUIET_TURNS) {
            self.publish();
        }
    }
}

/// Gives other workers the packets whose SAs or queues they own.
fn hand_over(pipeline: &mut Pipeline, mailboxes: &Mailboxes, worker: WorkerId) {
    pipeline.hand_over(|owner, packet: HandedOver| mailboxes.hand_over(worker, owner, packet));
}
