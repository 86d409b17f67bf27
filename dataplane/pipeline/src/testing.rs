// SPDX-License-Identifier: Apache-2.0
//! A worker's fixtures for the unit tests of stages.

use std::sync::Arc;

use messages::{PortIndex, WorkerId};
use pktbuf::{Packet, Pool};
use qos::classify::FlowCache;
use tables::{Generation, Neighbors};
use wire::{MacAddr, flow};

use crate::context::{Context, Note, Origin};
use crate::counters::Counters;
use crate::handovers::Handovers;
use crate::identification::Identification;
use crate::lane::Lane;
use crate::limiter::Limiter;
use crate::outgoing::Transmission;
use crate::queues::Queues;
use crate::sad::Sad;
use crate::stopwatch::Stopwatch;
use crate::waiting::Waiting;

/// Everything that a [`Context`] borrows, with empty tables.
pub(crate) struct Fixture {
    pub counters: Counters,
    tables: Arc<Generation>,
    sad: Sad,
    neighbors: Neighbors,
    pool: Pool,
    macs: Vec<MacAddr>,
    transmission: Transmission,
    waiting: Waiting,
    flows: FlowCache,
    queues: Queues,
    limiter: Limiter,
    identification: Identification,
    handovers: Handovers,
    originated: Lane<Note>,
    stopwatch: Stopwatch,
}

impl Fixture {
    /// With so many buffers.
    pub(crate) fn new(packets: usize) -> Self {
        Self {
            counters: Counters::default(),
            tables: Arc::new(Generation::empty()),
            sad: Sad::default(),
            neighbors: Neighbors::with_seed(16, 1),
            pool: Pool::memory(packets, 2_048).unwrap(),
            macs: vec![MacAddr([2, 0, 0, 0, 0, 1])],
            transmission: Transmission::new(&[None]),
            waiting: Waiting::default(),
            flows: FlowCache::new(2),
            queues: Queues::new(WorkerId(0), 1, &crate::queues::Handoff::default()),
            limiter: Limiter::default(),
            identification: Identification::new(WorkerId(0), 1),
            handovers: Handovers::default(),
            originated: Lane::default(),
            stopwatch: Stopwatch::default(),
        }
    }

    /// An IP packet in one of the buffers, as it would come in by port 0.
    pub(crate) fn packet(&self, bytes: &[u8]) -> (Packet, Note) {
        let parsed = flow::parse(bytes).unwrap();
        let note = Note { parsed, port: PortIndex(0), origin: Origin::Port };
        (self.pool.copy_of(bytes).unwrap(), note)
    }

    pub(crate) fn context(&mut self) -> Context<'_> {
        Context {
            tables: &self.tables,
            sad: &self.sad,
            neighbors: &self.neighbors,
            pool: &self.pool,
            macs: &self.macs,
            worker: WorkerId(0),
            now_ns: 1_000_000_000,
            counters: &mut self.counters,
            transmission: &mut self.transmission,
            waiting: &mut self.waiting,
            flows: &mut self.flows,
            queues: &mut self.queues,
            limiter: &mut self.limiter,
            identification: &mut self.identification,
            handovers: &mut self.handovers,
            originated: &mut self.originated,
            stopwatch: &mut self.stopwatch,
        }
    }
}
