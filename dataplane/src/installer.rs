// SPDX-License-Identifier: Apache-2.0
//! Transactions: wanted state in, [`State`] out. Key schedules, tables and templates are built here, off the workers.
//!
//! An SA that runs keeps running through any transaction that still wants it: its sequence counter, window and
//! counters are one object, shared by all generations. Sequence numbers are made durable before an SA is given out.
//!
//! Not here: records and rings ([`control_link`](crate::control_link)), handing the state to the workers
//! ([`housekeeping`](crate::housekeeping)).

use std::collections::BTreeMap;
use std::sync::Arc;

use aead::{Engine, IcvLength, Key};
use esp::{
    Bounds, InboundParameters, InboundSa, IvPrefix, Lifetime, OutboundParameters, OutboundSa, Salt,
    SequenceNumber, Spi,
};
use messages::{
    Base, Direction, Field, Fingerprint, InboundState, Object, ObjectId, OutboundState, Refusal, Sa, SaIndex,
    SaState, WorkerId,
};
use pipeline::{InboundEntry, Sad, State};
use tables::{Generation, Limits, Neighbors, SaConfig, Shadow};

use crate::store::{SequenceStore, StoreError};

/// Sequence numbers that are reserved on disk at a time. At 14 million packets a second a chunk lasts 0.3 s, and a
/// crash skips at most this many of 2^32: far below what would mislead a peer that infers the high word of an ESN.
pub const RESERVE: u64 = 1 << 22;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Builds states, and looks after the SAs that run.
pub struct Installer {
    engine: Engine,
    limits: Limits,
    neighbors: Arc<Neighbors>,
    store: Option<SequenceStore>,
    running: Running,
    leaving: Vec<Leaving>,
    staged: Option<Staged>,
}

/// An inbound SA that a commit took away. Workers open with it until they switch, so how far its window came is noted
/// after that: the same key added again must not take a packet twice.
struct Leaving {
    key: Fingerprint,
    entry: Arc<InboundEntry>,
}

impl Leaving {
    fn edge(&self) -> u64 {
        self.entry.sa.window().map_or(0, |window| window.right_edge().0)
    }
}

/// The SAs that run, by index and by key, and the state made of them.
struct Running {
    state: Arc<State>,
    sas: BTreeMap<SaIndex, Installed>,
    by_key: BTreeMap<Fingerprint, SaIndex>,
}

impl Running {
    fn new(state: Arc<State>, sas: BTreeMap<SaIndex, Installed>) -> Self {
        let by_key = sas.iter().map(|(index, installed)| (installed.config.fingerprint, *index)).collect();
        Self { state, sas, by_key }
    }

    fn with_key(&self, key: &Fingerprint) -> Option<&Installed> {
        self.sas.get(self.by_key.get(key)?)
    }
}

/// An SA and what it was made from.
#[derive(Clone)]
struct Installed {
    config: SaConfig,
    since_ns: u64,
    sa: AnySa,
}

#[derive(Clone)]
enum AnySa {
    Inbound(Arc<InboundEntry>),
    Outbound(Arc<OutboundSa>),
}

/// An open transaction.
struct Staged {
    transaction: u32,
    shadow: Shadow,
    keys: BTreeMap<SaIndex, Schedule>,
    refusal: Option<Refusal>,
}

/// A key, expanded, before its SA is made.
struct Schedule {
    key: Key,
    salt: Salt,
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
        let state = State { tables: Arc::new(Generation::empty()), sad: Sad::default() };
        Self {
            engine,
            limits,
            neighbors,
            store,
            running: Running::new(Arc::new(state), BTreeMap::new()),
            leaving: Vec::new(),
            staged: None,
        }
    }

    /// The state that runs.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.running.state
    }

    /// The tables that run.
    #[must_use]
    pub fn tables(&self) -> &Generation {
        &self.running.state.tables
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
            Object::Sa(sa) => expand(self.engine, sa).map(|schedule| {
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
        let number = self.running.state.tables.number + 1;
        staged.shadow.compile(number, &self.limits, Some(&self.running.state.tables), &self.neighbors)?;
        staged.shadow.sas().try_for_each(|config| self.check_sa(config).map(drop))
    }

    /// Commits the open transaction: the new state, durable sequence numbers included.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn commit(&mut self, transaction: u32, now_ns: u64) -> Result<Arc<State>, Refusal> {
        let mut staged = self.close(transaction)?;
        let number = self.running.state.tables.number + 1;
        let previous = Arc::clone(&self.running.state.tables);
        let tables = staged.shadow.compile(number, &self.limits, Some(&previous), &self.neighbors)?;
        let mut sas = BTreeMap::new();
        for config in staged.shadow.sas() {
            let installed = match self.check_sa(config)? {
                Some(running) => Installed { config: *config, ..running },
                None => self.install(config, staged.keys.remove(&config.sa), now_ns)?,
            };
            sas.insert(config.sa, installed);
        }
        self.make_durable(&sas)?;
        self.note_inbound_keys(&sas)?;
        tables.switch_neighbors(Some(&previous), &self.neighbors);
        let state = Arc::new(State { tables: Arc::new(tables), sad: sad(&sas) });
        let before = std::mem::replace(&mut self.running, Running::new(Arc::clone(&state), sas));
        self.see_off(before);
        Ok(state)
    }

    /// Keeps an eye on the inbound SAs that are no longer wanted.
    fn see_off(&mut self, before: Running) {
        for (key, sa) in before.by_key {
            if self.running.by_key.contains_key(&key) {
                continue;
            }
            if let Some(AnySa::Inbound(entry)) = before.sas.get(&sa).map(|installed| &installed.sa) {
                self.leaving.push(Leaving { key, entry: Arc::clone(entry) });
            }
        }
    }

    /// How far the window of a key has come, at least.
    fn edge(&self, store: &SequenceStore, key: &Fingerprint) -> SequenceNumber {
        let leaving = self.leaving.iter().filter(|leaving| leaving.key == *key).map(Leaving::edge);
        SequenceNumber(leaving.fold(store.edge(key), u64::max))
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
            Some(installed) if goes_on(&installed.config, config) => Ok(Some(installed.clone())),
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
        let lifetime = lifetime(config, now_ns);
        let sa = match config.direction {
            Direction::Outbound => {
                let prefix = IvPrefix::new(config.iv_prefix.bits, config.iv_prefix.value)
                    .map_err(|_| Refusal::OutOfRange(id, Field::IvPrefix))?;
                let sa = OutboundSa::new(OutboundParameters {
                    spi: Spi(config.spi),
                    key: schedule.key,
                    salt: schedule.salt,
                    esn: config.esn,
                    iv_prefix: prefix,
                    lifetime,
                });
                let sa = if self.limits.workers == 1 { sa.with_one_sender() } else { sa };
                sa.sequence().resume_at(SequenceNumber(store.limit(&config.fingerprint)));
                AnySa::Outbound(Arc::new(sa))
            }
            Direction::Inbound => {
                let window = (config.replay_window > 0).then_some(u32::from(config.replay_window));
                let sa = InboundSa::new(InboundParameters {
                    spi: Spi(config.spi),
                    key: schedule.key,
                    salt: schedule.salt,
                    esn: config.esn,
                    window,
                    lifetime,
                })
                .map_err(|_| Refusal::OutOfRange(id, Field::ReplayWindow))?;
                if let Some(window) = sa.window() {
                    window.resume(self.edge(store, &config.fingerprint));
                }
                AnySa::Inbound(Arc::new(InboundEntry { sa, owner: self.owner(config) }))
            }
        };
        Ok(Installed { config: *config, since_ns: now_ns, sa })
    }

    /// The worker that owns an inbound SA's window: the one asked for, or spread by SPI.
    fn owner(&self, config: &SaConfig) -> WorkerId {
        let spread = config.spi % u32::from(self.limits.workers.max(1));
        config.owner.unwrap_or(WorkerId(u16::try_from(spread).unwrap_or(0)))
    }

    /// Reserves sequence numbers for outbound SAs that have none, on disk first.
    fn make_durable(&mut self, sas: &BTreeMap<SaIndex, Installed>) -> Result<(), Refusal> {
        let fresh = outbound(sas).filter(|(_, _, sa)| sa.sequence().limit().0 <= 1);
        let fresh: Vec<_> = fresh.map(|(index, key, sa)| (index, key, sa, target(sa))).collect();
        let Some(store) = &mut self.store else { return Ok(()) };
        let before: Vec<_> = fresh.iter().map(|(_, key, ..)| (*key, store.limit(key))).collect();
        for (_, key, _, limit) in &fresh {
            store.set_limit(*key, limit.0);
        }
        if let (Err(error), Some((index, ..))) = (store.save_limits(), fresh.first()) {
            tracing::error!(%error, "sequence limits cannot be written");
            // None of these numbers is given out. If they stayed noted, each attempt would skip a chunk.
            before.into_iter().for_each(|(key, limit)| store.set_limit(key, limit));
            return Err(Refusal::StoreWrite(ObjectId::Sa(*index)));
        }
        fresh.iter().for_each(|(_, _, sa, limit)| sa.sequence().raise_limit(*limit));
        Ok(())
    }

    /// Notes keys that will open, on disk before they do, so that none of them ever seals.
    fn note_inbound_keys(&mut self, sas: &BTreeMap<SaIndex, Installed>) -> Result<(), Refusal> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let inbound = sas.values().map(|installed| installed.config);
        let inbound = inbound.filter(|config| config.direction == Direction::Inbound);
        let fresh: Vec<_> = inbound.filter(|config| !store.has_opened(&config.fingerprint)).collect();
        let Some(first) = fresh.first() else { return Ok(()) };
        fresh.iter().for_each(|config| store.set_edge(config.fingerprint, 0));
        store.save_edges().map_err(|error| {
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
        let low: Vec<_> = outbound(&self.running.sas)
            .filter(|(_, _, sa)| {
                sa.sequence().limit().0 < sa.sequence().position().0.saturating_add(RESERVE / 2)
            })
            .filter(|(_, _, sa)| sa.sequence().limit() < target(sa))
            .map(|(_, key, sa)| (key, sa, target(sa)))
            .collect();
        if low.is_empty() {
            return Ok(());
        }
        for (key, _, limit) in &low {
            store.set_limit(*key, limit.0);
        }
        store.save_limits()?;
        low.iter().for_each(|(_, sa, limit)| sa.sequence().raise_limit(*limit));
        Ok(())
    }

    /// Notes how far every inbound window has come, on disk.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn save_edges(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        self.leaving.retain(|leaving| {
            let in_use = Arc::strong_count(&leaving.entry) > 1;
            store.set_edge(leaving.key, leaving.edge().max(store.edge(&leaving.key)));
            in_use
        });
        for installed in self.running.sas.values() {
            if let AnySa::Inbound(entry) = &installed.sa
                && let Some(window) = entry.sa.window()
            {
                store.set_edge(installed.config.fingerprint, window.right_edge().0);
            }
        }
        store.save_edges()
    }

    /// After the workers have ended: takes back what was reserved and not used, so that a clean stop skips nothing.
    ///
    /// # Errors
    /// The store cannot be written; the SAs will resume at their limits.
    pub fn close_cleanly(&mut self) -> Result<(), StoreError> {
        self.save_edges()?;
        let Some(store) = &mut self.store else { return Ok(()) };
        for (_, key, sa) in outbound(&self.running.sas) {
            store.set_limit(key, sa.sequence().position().0);
        }
        store.save_limits()
    }

    /// SAs that have reached a lifetime limit by `now_ns`.
    pub fn worn(&self, now_ns: u64) -> impl Iterator<Item = Worn> + '_ {
        self.running.sas.iter().filter_map(move |(index, installed)| {
            let state = match &installed.sa {
                AnySa::Inbound(entry) => entry.sa.lifetime_state(now_ns),
                AnySa::Outbound(sa) => sa.lifetime_state(now_ns),
            };
            match state {
                esp::LifetimeState::Live => None,
                esp::LifetimeState::SoftReached => Some(Worn::Soft(*index)),
                esp::LifetimeState::HardReached => Some(Worn::Hard(*index)),
            }
        })
    }

    /// Every SA as it stands.
    pub fn sa_states(&self, now_ns: u64) -> impl Iterator<Item = SaState> + '_ {
        self.running.sas.values().map(move |installed| state_of(installed, now_ns))
    }
}

/// Whether `wanted` is the SA that runs, wherever it is put.
fn goes_on(running: &SaConfig, wanted: &SaConfig) -> bool {
    let placed_alike = SaConfig { sa: wanted.sa, protection: wanted.protection, ..*running };
    placed_alike == *wanted
}

fn expand(engine: Engine, sa: &Sa) -> Result<Schedule, Refusal> {
    let id = ObjectId::Sa(sa.sa);
    let icv = IcvLength::try_from(usize::from(sa.key.icv_bytes))
        .map_err(|_| Refusal::OutOfRange(id, Field::IcvBytes))?;
    let key = engine.key(sa.key.secret.key(), icv).map_err(|_| Refusal::KeyRefused(id))?;
    Ok(Schedule { key, salt: Salt::new(*sa.key.secret.salt()) })
}

fn lifetime(config: &SaConfig, now_ns: u64) -> Lifetime {
    let limit = |value: u64| if value == 0 { u64::MAX } else { value };
    let deadline = |seconds: u32| match seconds {
        0 => u64::MAX,
        _ => now_ns.saturating_add(u64::from(seconds) * NS_PER_SECOND),
    };
    let limits = &config.lifetime;
    Lifetime {
        soft: Bounds {
            bytes: limit(limits.soft_bytes),
            packets: limit(limits.soft_packets),
            deadline_ns: deadline(limits.soft_seconds),
        },
        hard: Bounds {
            bytes: limit(limits.hard_bytes),
            packets: limit(limits.hard_packets),
            deadline_ns: deadline(limits.hard_seconds),
        },
    }
}

fn outbound(
    sas: &BTreeMap<SaIndex, Installed>,
) -> impl Iterator<Item = (SaIndex, Fingerprint, &Arc<OutboundSa>)> {
    sas.iter().filter_map(|(index, installed)| match &installed.sa {
        AnySa::Outbound(sa) => Some((*index, installed.config.fingerprint, sa)),
        AnySa::Inbound(_) => None,
    })
}

/// The limit that gives an SA a chunk ahead of its position.
fn target(sa: &OutboundSa) -> SequenceNumber {
    let past_end = sa.sequence().last().0.saturating_add(1);
    SequenceNumber(sa.sequence().position().0.saturating_add(RESERVE).min(past_end))
}

fn sad(sas: &BTreeMap<SaIndex, Installed>) -> Sad {
    let length = sas.last_key_value().map_or(0, |(last, _)| last.index() + 1);
    let mut sad = Sad { outbound: vec![None; length], inbound: vec![None; length] };
    for (index, installed) in sas {
        match &installed.sa {
            AnySa::Inbound(entry) => sad.inbound[index.index()] = Some(Arc::clone(entry)),
            AnySa::Outbound(sa) => sad.outbound[index.index()] = Some(Arc::clone(sa)),
        }
    }
    sad
}

fn state_of(installed: &Installed, now_ns: u64) -> SaState {
    let config = &installed.config;
    let (usage, outbound, inbound) = match &installed.sa {
        AnySa::Outbound(sa) => {
            let sequence = sa.sequence();
            let state = OutboundState { next_sequence: sequence.position().0, limit: sequence.limit().0 };
            (sa.usage(), Some(state), None)
        }
        AnySa::Inbound(entry) => {
            let right_edge = entry.sa.window().map_or(0, |window| window.right_edge().0);
            (entry.sa.usage(), None, Some(InboundState { right_edge, owner: entry.owner }))
        }
    };
    SaState {
        sa: config.sa,
        protection: config.protection,
        direction: config.direction,
        spi: config.spi,
        fingerprint: config.fingerprint,
        packets: usage.packets,
        bytes: usage.bytes,
        age_ns: now_ns.saturating_sub(installed.since_ns),
        outbound,
        inbound,
    }
}
