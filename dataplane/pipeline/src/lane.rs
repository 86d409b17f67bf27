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

    /// Neighbours of which `same` holds, run by run.
    #[inline(always)]
    pub(crate) fn runs_mut(
        &mut self,
        same: impl Fn(&N, &N) -> bool,
    ) -> impl Iterator<Item = (&mut [Packet], &[N])> {
        let mut packets = self.packets.as_mut_slice();
        self.notes.chunk_by(same).map_while(move |notes| {
            let (run, rest) = core::mem::take(&mut packets).split_at_mut_checked(notes.len())?;
            packets = rest;
            Some((run, notes))
        })
    }

    /// Takes everything out, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Packet, N)> {
        self.packets.drain(..).zip(self.notes.drain(..))
    }

    /// Takes everything out, in order: neighbours of which `same` holds together, with the note of the first.
    #[inline(always)]
    pub(crate) fn drain_runs<'a>(
        &'a mut self,
        same: impl Fn(&N, &N) -> bool,
        mut take: impl FnMut(&N, core::iter::Take<&mut arrayvec::Drain<'a, Packet, BURST>>),
    ) {
        let mut packets = self.packets.drain(..);
        for run in self.notes.chunk_by(same) {
            if let Some(first) = run.first() {
                take(first, packets.by_ref().take(run.len()));
            }
        }
        drop(packets);
        self.notes.clear();
    }
}
