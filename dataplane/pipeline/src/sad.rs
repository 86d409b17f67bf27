// SPDX-License-Identifier: Apache-2.0
//! The SAD as workers see it: SAs by index, and with the tables of the same generation the state they run on.

use std::sync::Arc;

use esp::{InboundSa, OutboundSa};
use messages::{SaIndex, WorkerId};
use pktbuf::prefetch;
use tables::Generation;

/// An inbound SA and the worker that owns its anti-replay window.
pub struct InboundEntry {
    /// The SA. Only its owner opens with it.
    pub sa: InboundSa,
    /// The owner.
    pub owner: WorkerId,
}

/// SAs by index; outbound ones are shared by all workers, inbound ones belong to one.
#[derive(Clone, Default)]
pub struct Sad {
    /// Outbound SAs.
    pub outbound: Vec<Option<Arc<OutboundSa>>>,
    /// Inbound SAs.
    pub inbound: Vec<Option<Arc<InboundEntry>>>,
}

impl Sad {
    #[inline]
    pub(crate) fn outbound(&self, sa: SaIndex) -> Option<&OutboundSa> {
        self.outbound.get(sa.index())?.as_deref()
    }

    /// Asks the CPU for an inbound SA that will be needed soon.
    #[inline]
    pub(crate) fn prefetch_inbound(&self, sa: SaIndex) {
        if let Some(entry) = self.inbound(sa) {
            entry.sa.prefetch();
            prefetch(&entry.owner);
        }
    }

    #[inline]
    pub(crate) fn inbound(&self, sa: SaIndex) -> Option<&InboundEntry> {
        self.inbound.get(sa.index())?.as_deref()
    }
}

/// Everything that a commit switches at once: immutable, but for the atomics inside.
pub struct State {
    /// The tables.
    pub tables: Arc<Generation>,
    /// The SAs that the tables refer to.
    pub sad: Sad,
}
