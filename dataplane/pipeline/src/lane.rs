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

    /// Appends packets, each with its note, until there is none for the next one or the lane is full; how many.
    #[inline(always)]
    pub(crate) fn extend(
        &mut self,
        packets: &mut impl Iterator<Item = Packet>,
        mut note: impl FnMut() -> Option<N>,
    ) -> usize {
        let before = self.notes.len();
        while !self.notes.is_full()
            && let Some(note) = note()
        {
            self.notes.push(note);
        }
        self.packets.extend(packets.take(self.notes.len() - before));
        // Each note has its packet, even if there were too few.
        self.notes.truncate(self.packets.len());
        self.notes.len() - before
    }

    /// The packets, and their notes.
    pub(crate) fn parts_mut(&mut self) -> (&mut [Packet], &[N]) {
        (&mut self.packets, &self.notes)
    }

    /// Packets in a row that go together, run by run: `length` tells how many do at the front of some, at least one.
    #[inline(always)]
    pub(crate) fn runs_mut(
        &mut self,
        length: impl Fn(&[N]) -> usize,
    ) -> impl Iterator<Item = (&mut [Packet], &[N])> {
        let mut packets = self.packets.as_mut_slice();
        runs(&self.notes, length).map_while(move |notes| {
            let (run, rest) = core::mem::take(&mut packets).split_at_mut_checked(notes.len())?;
            packets = rest;
            Some((run, notes))
        })
    }

    /// Takes all packets out, in order, and leaves their notes to be looked at: to be [`clear`](Self::clear)ed then.
    pub(crate) fn drain_packets(&mut self) -> (impl ExactSizeIterator<Item = Packet>, &[N]) {
        (self.packets.drain(..), &self.notes)
    }

    /// Drops what is left.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.notes.clear();
    }

    /// Takes packets out by their places, which are in order, and gives each to `gone` with what stands beside its place.
    #[cold]
    pub(crate) fn remove<E: Copy>(&mut self, places: &[(usize, E)], mut gone: impl FnMut(Packet, E)) {
        let mut places = places.iter().peekable();
        let mut kept = Self::default();
        for (place, (packet, note)) in self.drain().enumerate() {
            match places.next_if(|(at, _)| *at == place) {
                Some((_, why)) => gone(packet, *why),
                // It has room for all that the other had.
                None => drop(kept.push(packet, note)),
            }
        }
        *self = kept;
    }

    /// Takes everything out, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Packet, N)> {
        self.packets.drain(..).zip(self.notes.drain(..))
    }

    /// Takes everything out, in order: each run of packets, as [`runs_mut`](Self::runs_mut) finds them, with the note of the
    /// first. What `take` leaves of a run is dropped.
    #[inline(always)]
    pub(crate) fn drain_runs<'a>(
        &'a mut self,
        length: impl Fn(&[N]) -> usize,
        mut take: impl FnMut(&N, &mut core::iter::Take<&mut arrayvec::Drain<'a, Packet, BURST>>),
    ) {
        let mut packets = self.packets.drain(..);
        for run in runs(&self.notes, length) {
            if let Some(first) = run.first() {
                let mut run = packets.by_ref().take(run.len());
                take(first, &mut run);
                // What was left of it must not pass for the next one.
                run.for_each(drop);
            }
        }
        drop(packets);
        self.notes.clear();
    }
}

/// How many at the front are the `same` as the first.
#[inline(always)]
pub(crate) fn run_length<N>(notes: &[N], same: impl Fn(&N, &N) -> bool) -> usize {
    let Some(first) = notes.first() else { return 0 };
    notes.iter().position(|note| !same(first, note)).unwrap_or(notes.len())
}

/// What goes together, as [`Lane::runs_mut`] finds it.
#[inline(always)]
pub(crate) fn runs<N>(mut notes: &[N], length: impl Fn(&[N]) -> usize) -> impl Iterator<Item = &[N]> {
    core::iter::from_fn(move || {
        let (run, rest) = notes.split_at_checked(length(notes).max(1))?;
        notes = rest;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use pktbuf::Pool;

    use super::*;

    /// Packets whose first byte says which they are, with the note of their run.
    fn lane(pool: &Pool, notes: &[u8]) -> Lane<u8> {
        let mut lane = Lane::default();
        for (mark, note) in (0..).zip(notes) {
            assert!(lane.push(pool.copy_of(&[mark]).unwrap(), *note).is_ok());
        }
        lane
    }

    #[test]
    fn runs_are_packets_in_a_row_with_their_notes() {
        let pool = Pool::memory(64, 2048).unwrap();
        let mut lane = lane(&pool, &[7, 7, 8, 7]);
        let marks = |packets: &[Packet]| packets.iter().map(|packet| packet.data()[0]).collect::<Vec<_>>();
        let runs = lane.runs_mut(|notes| run_length(notes, u8::eq));
        let runs: Vec<_> = runs.map(|(packets, notes)| (marks(packets), notes.to_vec())).collect();
        assert_eq!(runs, [(vec![0, 1], vec![7, 7]), (vec![2], vec![8]), (vec![3], vec![7])]);
    }

    #[test]
    fn packets_come_in_as_long_as_there_are_notes_for_them_and_room() {
        let pool = Pool::memory(2 * BURST, 2048).unwrap();
        let packets = |count: usize| (0..count).map(|_| pool.copy_of(&[0]).unwrap()).collect::<Vec<_>>();
        let mut lane = Lane::default();
        let (mut three, mut notes) = (packets(3).into_iter(), [1, 2].into_iter());
        assert_eq!(lane.extend(&mut three, || notes.next()), 2);
        assert_eq!(three.len(), 1, "the next one is still there");
        assert_eq!(lane.extend(&mut three, || None), 0);
        assert_eq!(lane.extend(&mut three, || Some(3)), 1, "no packet, no note");
        let mut many = packets(BURST).into_iter();
        assert_eq!(lane.extend(&mut many, || Some(4)), BURST - 3);
        assert_eq!((lane.len(), many.len()), (BURST, 3));
        let (mut drained, notes) = lane.drain_packets();
        assert_eq!(notes.get(..4), Some([1, 2, 3, 4].as_slice()));
        assert_eq!(drained.by_ref().count(), BURST);
        drop(drained);
        lane.clear();
        assert!(lane.is_empty() && lane.drain().next().is_none());
    }

    #[test]
    fn packets_are_removed_by_their_places() {
        let pool = Pool::memory(64, 2048).unwrap();
        let mut lane = lane(&pool, &[5, 6, 7, 8]);
        let mut gone = Vec::new();
        lane.remove(&[(0, 'a'), (2, 'b')], |packet, why| gone.push((packet.data()[0], why)));
        assert_eq!(gone, [(0, 'a'), (2, 'b')]);
        let kept: Vec<_> = lane.drain().map(|(packet, note)| (packet.data()[0], note)).collect();
        assert_eq!(kept, [(1, 6), (3, 8)]);
    }

    #[test]
    fn what_is_left_of_a_run_is_dropped_and_is_not_the_next_ones() {
        let pool = Pool::memory(64, 2048).unwrap();
        let before = pool.available();
        let mut lane = lane(&pool, &[7, 7, 8, 7]);
        let mut taken = Vec::new();
        lane.drain_runs(
            |notes| run_length(notes, u8::eq),
            |note, packets| taken.extend(packets.next().map(|packet| (*note, packet.data()[0]))),
        );
        assert_eq!(taken, [(7, 0), (8, 2), (7, 3)]);
        assert!(lane.is_empty());
        assert_eq!(pool.available(), before);
    }
}
