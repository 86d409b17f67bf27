// SPDX-License-Identifier: Apache-2.0
//! One dataplane, turned by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aead::Engine;
use dataplane::counters::CountersMemory;
use dataplane::installer::Installer;
use dataplane::mailbox::Mailboxes;
use dataplane::store::{SequenceStore, StoreError};
use dataplane::worker::Worker;
use messages::{
    Base, CountersLayout, DropReason, Object, ObjectId, Refusal, SaState, WorkerCounter, WorkerId,
};
use pipeline::PipelineConfig;
use pktbuf::Pool;
use port::Port;
use tables::{Limits, Neighbors, PortLimits};

/// What a headend is made of.
pub struct HeadendConfig {
    /// Its ports, in order; each must have a queue for each worker.
    pub ports: Vec<Port>,
    /// How many workers.
    pub workers: u16,
    /// Where its sequence store lives. A store that is there is opened, otherwise an empty one is made.
    pub state: PathBuf,
    /// Packets in its pool.
    pub packets: usize,
    /// The engine.
    pub engine: Engine,
}

/// A dataplane without threads: [`turn`](Self::turn) turns every worker once.
pub struct Headend {
    installer: Installer,
    mailboxes: Arc<Mailboxes>,
    workers: Vec<Worker>,
    pool: Pool,
    transaction: u32,
    // The queues claim their ports, so the ports live as long.
    _ports: Vec<Port>,
    _counters: CountersMemory,
}

impl Headend {
    /// A headend with nothing configured.
    ///
    /// # Panics
    /// If memory, a queue or the store cannot be had: a simulation has no use for half a headend.
    #[must_use]
    pub fn new(config: HeadendConfig) -> Self {
        let HeadendConfig { ports, workers, state, packets, engine } = config;
        let pool = Pool::memory(packets, 9_216 + 64).expect("packet memory");
        let neighbors = Arc::new(Neighbors::with_seed(1_024, 7));
        let limits = Limits {
            sas_max: 4_096,
            tunnels_max: 1_024,
            workers,
            ports: ports.iter().map(|port| PortLimits { mtu_max: port.mtu() }).collect(),
        };
        let store = open_or_make(&state).expect("sequence store");
        let installer = Installer::new(engine, limits, Arc::clone(&neighbors), Some(store));
        let mailboxes = Mailboxes::new(workers);
        let layout = CountersLayout { workers, ports: ports.len() as u16 };
        let counters = CountersMemory::create(layout).expect("counters memory");
        let worker = |index| {
            let pipeline = PipelineConfig {
                worker: WorkerId(index),
                workers,
                macs: ports.iter().map(Port::mac).collect(),
                pool: pool.clone(),
                neighbors: Arc::clone(&neighbors),
                state: Arc::clone(installer.state()),
            };
            let queues =
                ports.iter().map(|port| port.queue(index).expect("a queue for each worker")).collect();
            let writer = counters.writer(WorkerId(index)).expect("counters of the worker");
            Worker::new(pipeline, queues, Arc::clone(&mailboxes), writer)
        };
        let workers = (0..workers).map(worker).collect();
        Self { installer, mailboxes, workers, pool, transaction: 0, _ports: ports, _counters: counters }
    }

    /// Commits objects onto `base`; workers switch in their next turn.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn put(&mut self, base: Base, objects: &[Object], now_ns: u64) -> Result<(), Refusal> {
        self.change(base, &[], objects, now_ns)
    }

    /// Commits a transaction of deletions and then objects.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn change(
        &mut self,
        base: Base,
        deleted: &[ObjectId],
        objects: &[Object],
        now_ns: u64,
    ) -> Result<(), Refusal> {
        self.transaction += 1;
        self.installer.begin(self.transaction, base);
        deleted.iter().for_each(|id| self.installer.delete(*id));
        objects.iter().for_each(|object| self.installer.put(object));
        let state = self.installer.commit(self.transaction, now_ns)?;
        assert!(self.mailboxes.post(&state), "workers take each state before the next");
        Ok(())
    }

    /// One turn of every worker, in order. True if any had something to do.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        let mut busy = false;
        for worker in &mut self.workers {
            busy |= worker.turn(now_ns);
        }
        self.mailboxes.free_retired();
        busy
    }

    /// One turn of one worker.
    pub fn turn_worker(&mut self, worker: u16, now_ns: u64) -> bool {
        self.workers[usize::from(worker)].turn(now_ns)
    }

    /// What housekeeping does for sequence numbers.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn housekeep(&mut self) -> Result<(), StoreError> {
        self.installer.extend_limits()?;
        self.installer.save_edges()
    }

    /// Ends as on SIGTERM: what was reserved and not used is given back.
    pub fn stop(mut self) {
        self.installer.close_cleanly().expect("the store can be written");
    }

    /// A counter, over all workers.
    pub fn counter(&mut self, counter: WorkerCounter) -> u64 {
        self.workers.iter_mut().map(|worker| worker.counters().worker(counter)).sum()
    }

    /// Packets dropped for a reason, over all workers.
    pub fn dropped(&mut self, reason: DropReason) -> u64 {
        self.workers.iter_mut().map(|worker| worker.counters().dropped(reason)).sum()
    }

    /// Every reason with packets, over all workers.
    pub fn drops(&mut self) -> Vec<(DropReason, u64)> {
        let of = |reason: &DropReason| (*reason, self.dropped(*reason));
        DropReason::ALL.iter().map(of).filter(|(_, count)| *count > 0).collect()
    }

    /// Packets that no worker can account for: always 0 between turns.
    pub fn unaccounted(&mut self) -> i128 {
        self.workers.iter_mut().map(|worker| worker.counters().unaccounted()).sum()
    }

    /// Every SA.
    #[must_use]
    pub fn sas(&self, now_ns: u64) -> Vec<SaState> {
        self.installer.sa_states(now_ns).collect()
    }

    /// Buffers that are out of the pool.
    #[must_use]
    pub fn buffers_out(&self) -> usize {
        self.pool.capacity() - self.pool.available()
    }
}

fn open_or_make(state: &Path) -> Result<SequenceStore, StoreError> {
    match SequenceStore::open(state) {
        Err(StoreError::Missing(_)) => SequenceStore::init(state, false),
        opened => opened,
    }
}
