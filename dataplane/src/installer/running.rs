// SPDX-License-Identifier: Apache-2.0
//! The SAs that run, by index and by key, and those that leave. A commit costs what it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use esp::{InboundSa, OutboundSa};
use messages::{Fingerprint, SaIndex};
use pipeline::{Handoff, Sad, State};
use tables::{Generation, SaConfig};

use super::sa::{AnySa, Installed};

/// What a commit does to the SA of an index.
pub(super) struct Change {
    pub(super) sa: SaIndex,
    pub(super) after: Option<Installed>,
}

impl Change {
    pub(super) fn installed(&self) -> Option<&Installed> {
        self.after.as_ref()
    }
}

/// The SAs that run, and the state made of them.
pub(super) struct Running {
    state: Arc<State>,
    sas: BTreeMap<SaIndex, Installed>,
    by_key: BTreeMap<Fingerprint, SaIndex>,
}

impl Running {
    pub(super) fn new() -> Self {
        let state =
            State { tables: Arc::new(Generation::empty()), sad: Sad::default(), handoff: Handoff::default() };
        Self { state: Arc::new(state), sas: BTreeMap::new(), by_key: BTreeMap::new() }
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// All by index.
    pub(super) fn sas(&self) -> impl Iterator<Item = &Installed> {
        self.sas.values()
    }

    pub(super) fn with_key(&self, key: &Fingerprint) -> Option<&Installed> {
        self.sas.get(self.by_key.get(key)?)
    }

    pub(super) fn outbound(&self) -> impl Iterator<Item = (&SaConfig, &Arc<OutboundSa>)> {
        self.sas().filter_map(Installed::outbound)
    }

    pub(super) fn inbound(&self) -> impl Iterator<Item = (&SaConfig, &Arc<InboundSa>)> {
        self.sas().filter_map(Installed::inbound)
    }

    /// Takes the changes over into a new state, and returns the SAs whose keys are no longer wanted.
    ///
    /// What was there leaves before anything enters: a key may pass from one index to another.
    pub(super) fn switch(
        &mut self,
        tables: Generation,
        changes: Vec<Change>,
        handoff: Handoff,
    ) -> Vec<Installed> {
        let mut sad = self.state.sad.clone();
        let mut before: Vec<_> = changes.iter().filter_map(|change| self.sas.remove(&change.sa)).collect();
        for Installed { config, sa, .. } in &before {
            self.by_key.remove(&config.fingerprint);
            match sa {
                AnySa::Inbound(_) => sad.set_inbound(config.sa, None),
                AnySa::Outbound(_) => sad.set_outbound(config.sa, None),
            }
        }
        for installed in changes.into_iter().filter_map(|change| change.after) {
            let config = installed.config;
            match &installed.sa {
                AnySa::Inbound(entry) => sad.set_inbound(config.sa, Some(entry.clone())),
                AnySa::Outbound(sa) => sad.set_outbound(config.sa, Some(Arc::clone(sa))),
            }
            self.by_key.insert(config.fingerprint, config.sa);
            self.sas.insert(config.sa, installed);
        }
        self.state = Arc::new(State { tables: Arc::new(tables), sad, handoff });
        before.retain(|installed| !self.by_key.contains_key(&installed.config.fingerprint));
        before
    }
}

/// Inbound SAs that a commit took away. Workers open with them until they switch, so how far their windows came is
/// noted after that: the same key added again must not take a packet twice.
#[derive(Default)]
pub(super) struct Leaving(BTreeMap<Fingerprint, Vec<Arc<InboundSa>>>);

impl Leaving {
    /// Keeps an eye on an SA, if it is an inbound one.
    pub(super) fn see_off(&mut self, installed: Installed) {
        if let AnySa::Inbound(entry) = installed.sa {
            self.0.entry(installed.config.fingerprint).or_default().push(entry.sa);
        }
    }

    /// How far windows of a key came; 0 if none leaves.
    pub(super) fn edge(&self, key: &Fingerprint) -> u64 {
        self.0.get(key).map_or(0, |sas| edge(sas))
    }

    pub(super) fn edges(&self) -> impl Iterator<Item = (Fingerprint, u64)> {
        self.0.iter().map(|(key, sas)| (*key, edge(sas)))
    }

    /// Keys that no worker opens with any more: the edges asked for after this are the last.
    pub(super) fn gone(&self) -> Vec<Fingerprint> {
        let is_gone = |sas: &[Arc<InboundSa>]| sas.iter().all(|sa| Arc::strong_count(sa) == 1);
        self.0.iter().filter(|(_, sas)| is_gone(sas)).map(|(key, _)| *key).collect()
    }

    pub(super) fn forget(&mut self, gone: &[Fingerprint]) {
        for key in gone {
            self.0.remove(key);
        }
    }
}

fn edge(sas: &[Arc<InboundSa>]) -> u64 {
    let edges = sas.iter().filter_map(|sa| Some(sa.window()?.right_edge().0));
    edges.max().unwrap_or(0)
}
