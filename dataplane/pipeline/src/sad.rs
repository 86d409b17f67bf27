// SPDX-License-Identifier: Apache-2.0
//! The SAD as workers see it: SAs by index, and with the tables of the same generation the state they run on.

use std::sync::Arc;

use esp::{InboundSa, OutboundSa};
use messages::{SaIndex, WorkerId};
use tables::{Chunked, Generation};

use crate::queues::Handoff;

/// An inbound SA and the worker that owns its anti-replay window: whose packet it is, is known before the SA is read.
#[derive(Clone)]
pub struct InboundEntry {
    /// The SA. Only its owner opens with it.
    pub sa: Arc<InboundSa>,
    /// The owner.
    pub owner: WorkerId,
}

/// SAs by index; outbound ones are shared by all workers, inbound ones belong to one. A clone shares what does not
/// change.
#[derive(Clone, Default)]
pub struct Sad {
    outbound: Chunked<Arc<OutboundSa>>,
    inbound: Chunked<InboundEntry>,
}

impl Sad {
    /// Puts an outbound SA at an index, or takes the one there away.
    pub fn set_outbound(&mut self, index: SaIndex, sa: Option<Arc<OutboundSa>>) {
        self.outbound.set(index.index(), sa);
    }

    /// Puts an inbound SA at an index, or takes the one there away.
    pub fn set_inbound(&mut self, index: SaIndex, entry: Option<InboundEntry>) {
        self.inbound.set(index.index(), entry);
    }

    /// All outbound SAs by index.
    pub fn all_outbound(&self) -> impl Iterator<Item = (usize, &Arc<OutboundSa>)> {
        self.outbound.iter()
    }

    /// All inbound SAs by index.
    pub fn all_inbound(&self) -> impl Iterator<Item = (usize, &InboundEntry)> {
        self.inbound.iter()
    }

    #[inline]
    pub(crate) fn outbound(&self, sa: SaIndex) -> Option<&OutboundSa> {
        self.outbound.get(sa.index()).map(Arc::as_ref)
    }

    /// Asks the CPU for where an outbound SA lies.
    #[inline]
    pub(crate) fn prefetch_outbound(&self, sa: SaIndex) {
        self.outbound.prefetch(sa.index());
    }

    /// Asks the CPU for where an inbound SA lies, and who owns it.
    #[inline]
    pub(crate) fn prefetch_inbound(&self, sa: SaIndex) {
        self.inbound.prefetch(sa.index());
    }

    #[inline]
    pub(crate) fn inbound(&self, sa: SaIndex) -> Option<&InboundEntry> {
        self.inbound.get(sa.index())
    }
}

/// Everything that a commit switches at once: immutable, but for the atomics inside.
pub struct State {
    /// The tables.
    pub tables: Arc<Generation>,
    /// The SAs that the tables refer to.
    pub sad: Sad,
    /// Schedulers of ports whose plan is another one than before.
    pub handoff: Handoff,
}
