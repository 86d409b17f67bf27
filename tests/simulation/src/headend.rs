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
use wire::VlanId;

/// What a headend is made of.
pub struct HeadendConfig {
    /// Its ports, in order; each must have a queue for each worker.
    pub ports: Vec<Port>,
    /// The VLAN of each port, in order; none, or none left: frames are untagged.
    pub vlans: Vec<Option<VlanId>>,
    /// How many workers.
    pub workers: u16,
    /// Where its sequence store lives. A store that is there is opened, otherwise an empty one is made.
    pub state: PathBuf,
    /// Packets in its pool.
    pub packets: usize,
    /// The engine.
    pub engine: Engine,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As on SIGTERM: what was reserved and not used is given back.
    Clean,
    /// As on SIGKILL: nothing is saved any more, and what waited inside is gone.
    Crash,
}

/// A dataplane without threads: [`turn`](Self::turn) turns every worker once.
pub struct Headend {
    process: Process,
    blueprint: Blueprint,
    transaction: u32,
    // The queues claim their ports, so the ports live as long.
    ports: Vec<Port>,
}

/// What a process is made of, each time it starts.
struct Blueprint {
    vlans: Vec<Option<VlanId>>,
    workers: u16,
    state: PathBuf,
    packets: usize,
    engine: Engine,
}

/// What ends with the process.
struct Process {
    installer: Installer,
    mailboxes: Arc<Mailboxes>,
    workers: Vec<Worker>,
    pool: Pool,
    neighbors: Arc<Neighbors>,
    _counters: CountersMemory,
}

impl Process {
    fn start(blueprint: &Blueprint, ports: &[Port], store: Option<SequenceStore>) -> Self {
        let &Blueprint { workers, packets, engine, .. } = blueprint;
        let pool = Pool::memory(packets, 9_216 + 64).expect("packet memory");
        let neighbors = Arc::new(Neighbors::with_seed(1_024, 7));
        let limits = Limits {
            sas_max: 4_096,
            tunnels_max: 1_024,
            workers,
            ports: port_limits(ports, &blueprint.vlans),
        };
        let installer = Installer::new(engine, limits, Arc::clone(&neighbors), store);
        let mailboxes = Mailboxes::new(workers);
        let layout = CountersLayout { workers, ports: ports.len() as u16 };
        let counters = CountersMemory::create(layout).expect("counters memory");
        let worker = |index| {
            let pipeline = PipelineConfig {
                worker: WorkerId(index),
                workers,
                macs: ports.iter().map(Port::mac).collect(),
                vlans: blueprint.vlans.clone(),
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
        Self { installer, mailboxes, workers, pool, neighbors, _counters: counters }
    }
}

fn port_limits(ports: &[Port], vlans: &[Option<VlanId>]) -> Vec<PortLimits> {
    let vlans = vlans.iter().copied().chain(std::iter::repeat(None));
    let limits =
        |(port, vlan): (&Port, Option<_>)| PortLimits { mtu_max: port.mtu(), is_tagged: vlan.is_some() };
    ports.iter().zip(vlans).map(limits).collect()
}

impl Headend {
    /// A headend with nothing configured.
    ///
    /// # Panics
    /// If memory, a queue or the store cannot be had: a simulation has no use for half a headend.
    #[must_use]
    pub fn new(config: HeadendConfig) -> Self {
        let HeadendConfig { ports, vlans, workers, state, packets, engine } = config;
        let store = open_or_make(&state).expect("sequence store");
        let blueprint = Blueprint { vlans, workers, state, packets, engine };
        let process = Process::start(&blueprint, &ports, Some(store));
        Self { process, blueprint, transaction: 0, ports }
    }

    /// Ends the process and starts another one on the same ports and state directory, with nothing configured. As in
    /// the real one, a store that cannot be read keeps every SA out.
    ///
    /// # Panics
    /// If memory or a queue cannot be had, or a clean ending cannot write the store.
    pub fn restart(&mut self, ending: Ending) {
        self.process.workers.clear();
        if ending == Ending::Clean {
            self.process.installer.close_cleanly().expect("the store can be written");
        }
        let store = SequenceStore::open(&self.blueprint.state).ok();
        self.process = Process::start(&self.blueprint, &self.ports, store);
        self.transaction = 0;
    }

    /// The installer, to do to it what no honest control would.
    pub fn installer(&mut self) -> &mut Installer {
        &mut self.process.installer
    }

    /// The generation that was committed last.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.process.installer.tables().number
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
        self.process.mailboxes.free_retired();
        self.transaction += 1;
        self.process.installer.begin(self.transaction, base);
        deleted.iter().for_each(|id| self.process.installer.delete(*id));
        objects.iter().for_each(|object| self.process.installer.put(object));
        let state = self.process.installer.commit(self.transaction, now_ns)?;
        assert!(self.process.mailboxes.post(&state), "workers take each state before the next");
        Ok(())
    }

    /// One turn of every worker, in order. True if any had something to do.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        let mut busy = false;
        for worker in &mut self.process.workers {
            busy |= worker.turn(now_ns);
        }
        self.process.mailboxes.free_retired();
        busy
    }

    /// One turn of one worker.
    pub fn turn_worker(&mut self, worker: u16, now_ns: u64) -> bool {
        self.process.workers[usize::from(worker)].turn(now_ns)
    }

    /// Writes every worker's counters to where others read them, as its loop does.
    pub fn publish(&mut self) {
        self.process.workers.iter_mut().for_each(Worker::publish);
    }

    /// What housekeeping does for sequence numbers.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn housekeep(&mut self) -> Result<(), StoreError> {
        self.process.installer.extend_limits()?;
        self.process.installer.save_edges()
    }

    /// What housekeeping does for neighbours, once a second.
    pub fn age_neighbors(&self, now_ns: u64) {
        self.process.neighbors.age(now_ns);
    }

    /// What is known of neighbours.
    #[must_use]
    pub fn neighbors(&self) -> Vec<messages::Neighbor> {
        self.process.neighbors.iter().collect()
    }

    /// Ends as on SIGTERM: what was reserved and not used is given back.
    pub fn stop(mut self) {
        self.process.installer.close_cleanly().expect("the store can be written");
    }

    /// A counter, over all workers.
    pub fn counter(&mut self, counter: WorkerCounter) -> u64 {
        self.process.workers.iter_mut().map(|worker| worker.counters().worker(counter)).sum()
    }

    /// A counter of one worker.
    pub fn counter_of(&mut self, worker: u16, counter: WorkerCounter) -> u64 {
        self.process.workers[usize::from(worker)].counters().worker(counter)
    }

    /// Packets that one worker dropped for a reason.
    pub fn dropped_by(&mut self, worker: u16, reason: DropReason) -> u64 {
        self.process.workers[usize::from(worker)].counters().dropped(reason)
    }

    /// Packets dropped for a reason, over all workers.
    pub fn dropped(&mut self, reason: DropReason) -> u64 {
        self.process.workers.iter_mut().map(|worker| worker.counters().dropped(reason)).sum()
    }

    /// Every reason with packets, over all workers.
    pub fn drops(&mut self) -> Vec<(DropReason, u64)> {
        let of = |reason: &DropReason| (*reason, self.dropped(*reason));
        DropReason::ALL.iter().map(of).filter(|(_, count)| *count > 0).collect()
    }

    /// Packets that a worker cannot account for, or has too many of: always 0 between turns.
    pub fn unaccounted(&mut self) -> i128 {
        self.process.workers.iter_mut().map(|worker| worker.counters().unaccounted().abs()).sum()
    }

    /// Every SA.
    #[must_use]
    pub fn sas(&self, now_ns: u64) -> Vec<SaState> {
        self.process.installer.sa_states(now_ns).collect()
    }

    /// Buffers that are out of the pool.
    #[must_use]
    pub fn buffers_out(&self) -> usize {
        self.process.pool.capacity() - self.process.pool.available()
    }
}

fn open_or_make(state: &Path) -> Result<SequenceStore, StoreError> {
    match SequenceStore::open(state) {
        Err(StoreError::Missing(_)) => SequenceStore::init(state, false),
        opened => opened,
    }
}
