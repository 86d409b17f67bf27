// SPDX-License-Identifier: Apache-2.0
//! Transactions: wanted state in, [`State`] out. Key schedules, tables and templates are built here, off the workers.
//!
//! An SA that runs keeps running through any transaction that still wants it: its sequence counter, window and
//! counters are one object, shared by all generations. Sequence numbers are made durable before an SA is given out.
//!
//! Not here: records and rings ([`control_link`](crate::control_link)), handing the state to the workers
//! ([`housekeeping`](crate::housekeeping)).

mod running;
mod sa;
mod schedulers;

use std::collections::BTreeMap;
use std::sync::Arc;

use aead::Engine;
use esp::{LifetimeState, OutboundSa, SequenceNumber};
use messages::{
    Base, Direction, Fingerprint, Object, ObjectId, QueueState, Refusal, SaIndex, SaState, WorkerId,
};
use pipeline::State;
use running::{Change, Leaving, Running};
use sa::{Installed, Schedule, target};
use schedulers::Schedulers;
use tables::{Generation, Limits, Neighbors, SaConfig, Shadow};

use crate::store::{SequenceStore, StoreError};

/// Sequence numbers that are reserved on disk at a time. At 14 million packets a second a chunk lasts 0.3 s, and a
/// crash skips at most this many of 2^32: far below what would mislead a peer that infers the high word of an ESN.
pub const RESERVE: u64 = 1 << 22;

/// Builds states, and looks after the SAs that run.
pub struct Installer {
    engine: Engine,
    limits: Limits,
    neighbors: Arc<Neighbors>,
    store: Option<SequenceStore>,
    running: Running,
    leaving: Leaving,
    schedulers: Schedulers,
    staged: Option<Staged>,
}

/// An open transaction.
struct Staged {
    transaction: u32,
    shadow: Shadow,
    keys: BTreeMap<SaIndex, Schedule>,
    refusal: Option<Refusal>,
}

/// What an SA's use has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worn {
    /// It should be replaced.
    Soft(SaIndex),
    /// It carries nothing more.
    Hard(SaIndex),
}

impl Installer {
    /// An installer with nothing installed. Without a `store`, every SA is refused.
    #[must_use]
    pub fn new(
        engine: Engine,
        limits: Limits,
        neighbors: Arc<Neighbors>,
        store: Option<SequenceStore>,
    ) -> Self {
        Self {
            engine,
            schedulers: Schedulers::new(limits.workers),
            limits,
            neighbors,
            store,
            running: Running::new(),
            leaving: Leaving::default(),
            staged: None,
        }
    }

    /// Lets the schedulers of each port hold so many packets at most, each worker's an equal part; 8,192 if nothing is said. With
    /// fewer than 64 for each worker every service policy is refused.
    #[must_use]
    pub fn with_room_for(mut self, packets: u32) -> Self {
        self.schedulers = Schedulers::with_room_for(packets, self.limits.workers);
        self
    }

    /// The state that runs.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        self.running.state()
    }

    /// The tables that run.
    #[must_use]
    pub fn tables(&self) -> &Generation {
        &self.state().tables
    }

    /// What this dataplane was sized for.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The engine that keys are made for.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Opens a transaction; one that was open is forgotten.
    pub fn begin(&mut self, transaction: u32, base: Base) {
        let shadow = match base {
            Base::Running => self.tables().wanted().clone(),
            Base::Empty => Shadow::default(),
        };
        self.staged = Some(Staged { transaction, shadow, keys: BTreeMap::new(), refusal: None });
    }

    /// The number of the open transaction.
    #[must_use]
    pub fn open_transaction(&self) -> Option<u32> {
        self.staged.as_ref().map(|staged| staged.transaction)
    }

    /// Forgets the open transaction.
    pub fn abort(&mut self) {
        self.staged = None;
    }

    /// Marks the open transaction as one that cannot be committed.
    pub fn spoil(&mut self, refusal: Refusal) {
        if let Some(staged) = &mut self.staged {
            staged.refusal.get_or_insert(refusal);
        }
    }

    /// Stages an object. What is wrong with it is said at commit.
    pub fn put(&mut self, object: &Object) {
        let Some(staged) = &mut self.staged else { return };
        let result = staged.shadow.put(object, &self.limits).and_then(|()| match object {
            Object::Sa(sa) => Schedule::of(self.engine, sa).map(|schedule| {
                staged.keys.insert(sa.sa, schedule);
            }),
            _ => Ok(()),
        });
        if let Err(refusal) = result {
            staged.refusal.get_or_insert(refusal);
        }
    }

    /// Stages a removal.
    pub fn delete(&mut self, id: ObjectId) {
        let Some(staged) = &mut self.staged else { return };
        if let ObjectId::Sa(sa) = id {
            staged.keys.remove(&sa);
        }
        if let Err(refusal) = staged.shadow.delete(id) {
            staged.refusal.get_or_insert(refusal);
        }
    }

    /// Whether the open transaction would be committed; it is closed either way.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&mut self, transaction: u32) -> Result<(), Refusal> {
        let staged = self.close(transaction)?;
        self.compile(&staged.shadow)?;
        let changed = staged.shadow.changed_sas(self.tables().wanted());
        let mut wanted = changed.into_iter().filter_map(|sa| staged.shadow.sa(sa));
        wanted.try_for_each(|config| self.check_sa(config).map(drop))
    }

    /// Commits the open transaction: the new state, durable sequence numbers included.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn commit(&mut self, transaction: u32, now_ns: u64) -> Result<Arc<State>, Refusal> {
        let mut staged = self.close(transaction)?;
        let tables = self.compile(&staged.shadow)?;
        let changes = self.changes(&mut staged, now_ns)?;
        self.make_durable(&changes)?;
        self.note_inbound_keys(&changes)?;
        let handoff = self.schedulers.switch(&tables)?;
        tables.switch_neighbors(Some(self.tables()), &self.neighbors);
        for gone in self.running.switch(tables, changes, handoff) {
            self.leaving.see_off(gone);
        }
        Ok(Arc::clone(self.state()))
    }

    fn compile(&self, wanted: &Shadow) -> Result<Generation, Refusal> {
        let number = self.tables().number + 1;
        wanted.compile(number, &self.limits, Some(self.tables()), &self.neighbors)
    }

    /// What becomes of the SAs that are not what they were. The others need no look: they run.
    fn changes(&self, staged: &mut Staged, now_ns: u64) -> Result<Vec<Change>, Refusal> {
        let change = |sa| {
            let Some(config) = staged.shadow.sa(sa) else { return Ok(Change { sa, after: None }) };
            let installed = match self.check_sa(config)? {
                Some(running) => Installed { config: *config, ..running },
                None => self.install(config, staged.keys.remove(&sa), now_ns)?,
            };
            Ok(Change { sa, after: Some(installed) })
        };
        staged.shadow.changed_sas(self.tables().wanted()).into_iter().map(change).collect()
    }

    /// How far the window of a key has come, at least.
    fn edge(&self, store: &SequenceStore, key: &Fingerprint) -> SequenceNumber {
        SequenceNumber(store.edge(key).max(self.leaving.edge(key)))
    }

    fn close(&mut self, transaction: u32) -> Result<Staged, Refusal> {
        match self.staged.take() {
            Some(staged) if staged.transaction == transaction => match staged.refusal {
                Some(refusal) => Err(refusal),
                None => Ok(staged),
            },
            _ => Err(Refusal::NoTransaction),
        }
    }

    /// The SA that already runs with this key, if it is the same SA. The same key under anything else is refused: a
    /// counter of its own would repeat IVs.
    fn check_sa(&self, config: &SaConfig) -> Result<Option<Installed>, Refusal> {
        let Some(store) = &self.store else {
            return Err(Refusal::NoSequenceStore(ObjectId::Sa(config.sa)));
        };
        let turned = match config.direction {
            Direction::Outbound => store.has_opened(&config.fingerprint),
            Direction::Inbound => store.has_sealed(&config.fingerprint),
        };
        match self.running.with_key(&config.fingerprint) {
            Some(installed) if installed.goes_on_as(config) => Ok(Some(installed.clone())),
            Some(installed) => {
                Err(Refusal::KeyReused(ObjectId::Sa(config.sa), ObjectId::Sa(installed.config.sa)))
            }
            None if turned => Err(Refusal::KeyTurned(ObjectId::Sa(config.sa))),
            None => Ok(None),
        }
    }

    fn install(
        &self,
        config: &SaConfig,
        schedule: Option<Schedule>,
        now_ns: u64,
    ) -> Result<Installed, Refusal> {
        let id = ObjectId::Sa(config.sa);
        let store = self.store.as_ref().ok_or(Refusal::NoSequenceStore(id))?;
        let schedule = schedule.ok_or(Refusal::Unknown(id))?;
        match config.direction {
            Direction::Outbound => {
                let first = SequenceNumber(store.limit(&config.fingerprint));
                Installed::new_outbound(config, schedule, first, self.limits.workers, now_ns)
            }
            Direction::Inbound => {
                let edge = self.edge(store, &config.fingerprint);
                Installed::new_inbound(config, schedule, edge, self.owner(config), now_ns)
            }
        }
    }

    /// The worker that owns an inbound SA's window: the one asked for, or spread by SPI.
    fn owner(&self, config: &SaConfig) -> WorkerId {
        let spread = config.spi % u32::from(self.limits.workers.max(1));
        config.owner.unwrap_or(WorkerId(u16::try_from(spread).unwrap_or(0)))
    }

    /// Reserves sequence numbers for outbound SAs that have none, on disk first.
    fn make_durable(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        let outbound = changes.iter().filter_map(Change::installed).filter_map(Installed::outbound);
        let fresh: Vec<_> = outbound.filter(|(_, sa)| sa.sequence().limit().0 <= 1).collect();
        let (Some(store), Some((first, _))) = (&mut self.store, fresh.first()) else { return Ok(()) };
        let limits = fresh.iter().map(|(config, sa)| (config.fingerprint, target(sa).0));
        store.write_limits(limits).map_err(|error| {
            tracing::error!(%error, "sequence limits cannot be written");
            Refusal::StoreWrite(ObjectId::Sa(first.sa))
        })?;
        fresh.iter().for_each(|(_, sa)| sa.sequence().raise_limit(target(sa)));
        Ok(())
    }

    /// Notes keys that will open, on disk before they do, so that none of them ever seals.
    fn note_inbound_keys(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let inbound = changes.iter().filter_map(Change::installed).filter_map(Installed::inbound);
        let inbound = inbound.map(|(config, _)| config);
        let fresh: Vec<_> = inbound.filter(|config| !store.has_opened(&config.fingerprint)).collect();
        let Some(first) = fresh.first() else { return Ok(()) };
        store.write_edges(fresh.iter().map(|config| (config.fingerprint, 0))).map_err(|error| {
            tracing::error!(%error, "keys of inbound SAs cannot be noted");
            Refusal::StoreWrite(ObjectId::Sa(first.sa))
        })
    }

    /// Reserves more sequence numbers for every outbound SA that has used half of its chunk.
    ///
    /// # Errors
    /// The store cannot be written; SAs stop at the limits they have.
    pub fn extend_limits(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let is_low = |sa: &OutboundSa| {
            let (limit, position) = (sa.sequence().limit(), sa.sequence().position());
            limit.0 < position.0.saturating_add(RESERVE / 2) && limit < target(sa)
        };
        let low: Vec<_> = self.running.outbound().filter(|(_, sa)| is_low(sa)).collect();
        if low.is_empty() {
            return Ok(());
        }
        let limits: Vec<_> = low.iter().map(|(_, sa)| target(sa)).collect();
        let keys = low.iter().map(|(config, _)| config.fingerprint);
        store.write_limits(keys.zip(limits.iter().map(|limit| limit.0)))?;
        low.iter().zip(limits).for_each(|((_, sa), limit)| sa.sequence().raise_limit(limit));
        Ok(())
    }

    /// Notes how far every inbound window has come, on disk.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn save_edges(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let gone = self.leaving.gone();
        let left = self.leaving.edges().map(|(key, edge)| (key, edge.max(store.edge(&key))));
        let running = self
            .running
            .inbound()
            .filter_map(|(config, sa)| Some((config.fingerprint, sa.window()?.right_edge().0)));
        let edges: Vec<_> = left.chain(running).collect();
        store.write_edges(edges)?;
        self.leaving.forget(&gone);
        Ok(())
    }

    /// After the workers have ended: takes back what was reserved and not used, so that a clean stop skips nothing.
    ///
    /// # Errors
    /// The store cannot be written; the SAs will resume at their limits.
    pub fn close_cleanly(&mut self) -> Result<(), StoreError> {
        self.save_edges()?;
        let Some(store) = &mut self.store else { return Ok(()) };
        let position =
            |(config, sa): (&SaConfig, &Arc<OutboundSa>)| (config.fingerprint, sa.sequence().position().0);
        store.write_limits(self.running.outbound().map(position))
    }

    /// SAs that have reached a lifetime limit by `now_ns`.
    pub fn worn(&self, now_ns: u64) -> impl Iterator<Item = Worn> + '_ {
        self.running.sas().filter_map(move |installed| match installed.lifetime_state(now_ns) {
            LifetimeState::Live => None,
            LifetimeState::SoftReached => Some(Worn::Soft(installed.config.sa)),
            LifetimeState::HardReached => Some(Worn::Hard(installed.config.sa)),
        })
    }

    /// Every class of every port and tunnel with a service policy.
    pub fn queue_states(&self) -> impl Iterator<Item = QueueState> + '_ {
        self.schedulers.states(&self.tables().quality)
    }

    /// Every SA as it stands.
    pub fn sa_states(&self, now_ns: u64) -> impl Iterator<Item = SaState> + '_ {
        self.running.sas().map(move |installed| installed.state(now_ns))
    }
}
