// SPDX-License-Identifier: Apache-2.0
//! A lane: packets on their way from one stage to the next, each with what is known of it.

use arrayvec::ArrayVec;
use pktbuf::{BURST, Packet};

/// Up to a burst of packets with a note of type `N` each.
///
/// Packets and notes lie in arrays of their own: a stage that needs only notes touches no packet.
pub(crate) struct Lane<N> {
    packets: ArrayVec<Packet, BURST>,
    notes: ArrayVec<N, BURST>,
}

impl<N> Default for Lane<N> {
    fn default() -> Self {
        Self { packets: ArrayVec::new(), notes: ArrayVec::new() }
    }
}

impl<N> Lane<N> {
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.packets.is_full()
    }

    /// Appends, or gives the packet back if the lane is full.
    #[inline(always)]
    pub(crate) fn push(&mut self, packet: Packet, note: N) -> Result<(), Packet> {
        if self.is_full() {
            return Err(packet);
        }
        self.packets.push(packet);
        self.notes.push(note);
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Packet, &N)> {
        self.packets.iter().zip(&self.notes)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&mut Packet, &mut N)> {
        self.packets.iter_mut().zip(&mut self.notes)
    }

    /// Takes everything out, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Packet, N)> {
        self.packets.drain(..).zip(self.notes.drain(..))
    }
}
