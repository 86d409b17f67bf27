// SPDX-License-Identifier: Apache-2.0
//! Packets on their way to other workers: those of an SA to the owner of its window, unopened, and those of a tunnel with a
//! service policy to the owner of its queues, before they are queued.

use messages::{PortIndex, TunnelIndex, WorkerId};
use pktbuf::{BURST, Packet};

use crate::queues::Item;

/// Packets that wait for their turn to be given at most: a burst, every packet of it cut into several.
const PACKETS: usize = 16 * BURST;

/// A packet on its way to another worker, its IP header in front.
pub struct HandedOver {
    item: Item,
    port: PortIndex,
}

impl HandedOver {
    /// An ESP packet for us that came in by `port`.
    pub(crate) fn esp(packet: Packet, port: PortIndex) -> Self {
        Self { item: Item::new(packet, 0, None), port }
    }

    /// A packet that came in by `port` and waits for its turn to go into the tunnel of `item`.
    pub(crate) fn queued(item: Item, port: PortIndex) -> Self {
        Self { item, port }
    }

    /// The tunnel whose queues it is for; none: it is ESP.
    pub(crate) fn tunnel(&self) -> Option<TunnelIndex> {
        self.item.tunnel()
    }

    /// The packet, and the port it came in by.
    pub(crate) fn into_parts(self) -> (Item, PortIndex) {
        (self.item, self.port)
    }

    /// Whether it was routed into its tunnel by later tables than these.
    pub(crate) fn is_early(&self, generation: u64) -> bool {
        self.tunnel().is_some() && self.item.is_newer_than(generation)
    }
}

/// What a worker has for others.
pub(crate) struct Handovers {
    packets: Vec<(WorkerId, HandedOver)>,
}

impl Default for Handovers {
    fn default() -> Self {
        Self { packets: Vec::with_capacity(PACKETS) }
    }
}

impl Handovers {
    /// Adds one, or gives its packet back if there are too many.
    #[inline]
    pub(crate) fn push(&mut self, owner: WorkerId, handed: HandedOver) -> Result<(), Packet> {
        if self.packets.len() == PACKETS {
            return Err(handed.item.into_packet());
        }
        self.packets.push((owner, handed));
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Takes everything out, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (WorkerId, HandedOver)> {
        self.packets.drain(..)
    }
}
