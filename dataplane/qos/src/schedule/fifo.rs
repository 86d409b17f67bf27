// SPDX-License-Identifier: Apache-2.0
//! The queued items of all classes in one slab, and the FIFO of each class through it.

use wire::Ecn;

use super::NONE;

/// A queued item and what the scheduler has to know of it.
pub(super) struct Queued<T> {
    pub(super) item: T,
    pub(super) wire_bytes: u32,
    pub(super) ecn: Ecn,
    /// Whether it has been marked since it came.
    pub(super) marked: bool,
    pub(super) since_ns: u64,
}

struct Place<T> {
    queued: Option<Queued<T>>,
    next: u32,
}

/// Room for a fixed number of items.
pub(super) struct Slab<T> {
    places: Box<[Place<T>]>,
    free: u32,
    free_count: u32,
}

/// The queue of one class.
#[derive(Clone, Copy)]
pub(super) struct Fifo {
    head: u32,
    tail: u32,
    pub(super) packets: u32,
    pub(super) bytes: u64,
}

impl<T> Slab<T> {
    pub(super) fn new(items: u32) -> Self {
        let next = |index| if index + 1 < items { index + 1 } else { NONE };
        let places = (0..items).map(|index| Place { queued: None, next: next(index) }).collect();
        Self { places, free: if items == 0 { NONE } else { 0 }, free_count: items }
    }

    pub(super) fn free_count(&self) -> u32 {
        self.free_count
    }

    /// How many are queued.
    pub(super) fn used(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX) - self.free_count
    }

    pub(super) const fn bytes_per_item() -> usize {
        size_of::<Place<T>>()
    }
}

impl Fifo {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE, packets: 0, bytes: 0 };

    pub(super) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    pub(super) fn head<'s, T>(&self, slab: &'s Slab<T>) -> Option<&'s Queued<T>> {
        slab.places.get(self.head as usize)?.queued.as_ref()
    }

    /// Appends; gives the item back if the slab is full.
    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, queued: Queued<T>) -> Result<(), T> {
        let index = slab.free;
        let Some(place) = slab.places.get_mut(index as usize) else { return Err(queued.item) };
        slab.free = place.next;
        slab.free_count -= 1;
        self.packets += 1;
        self.bytes += u64::from(queued.wire_bytes);
        place.next = NONE;
        place.queued = Some(queued);
        match slab.places.get_mut(self.tail as usize) {
            Some(tail) => tail.next = index,
            None => self.head = index,
        }
        self.tail = index;
        Ok(())
    }

    pub(super) fn pop<T>(&mut self, slab: &mut Slab<T>) -> Option<Queued<T>> {
        let index = self.head;
        let place = slab.places.get_mut(index as usize)?;
        let queued = place.queued.take()?;
        self.head = place.next;
        place.next = slab.free;
        slab.free = index;
        slab.free_count += 1;
        self.packets -= 1;
        self.bytes -= u64::from(queued.wire_bytes);
        if self.head == NONE {
            self.tail = NONE;
        }
        Some(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn fifos_that_share_a_slab_are_queues_and_lose_nothing(
            steps in prop::collection::vec((0usize..3, any::<bool>(), 1u32..2000), 0..200),
        ) {
            let mut slab = Slab::new(16);
            let mut fifos = [Fifo::EMPTY; 3];
            let mut models: [VecDeque<u32>; 3] = Default::default();
            for (which, push, wire_bytes) in steps {
                let (fifo, model) = (&mut fifos[which], &mut models[which]);
                if push {
                    let queued = Queued { item: wire_bytes, wire_bytes, ecn: Ecn::NotEct, marked: false, since_ns: 0 };
                    match fifo.push(&mut slab, queued) {
                        Ok(()) => model.push_back(wire_bytes),
                        Err(item) => prop_assert_eq!((slab.free_count(), item), (0, wire_bytes)),
                    }
                } else {
                    prop_assert_eq!(fifo.pop(&mut slab).map(|queued| queued.item), model.pop_front());
                }
                let (fifo, model) = (&fifos[which], &models[which]);
                prop_assert_eq!(fifo.bytes, model.iter().map(|bytes| u64::from(*bytes)).sum::<u64>());
                prop_assert_eq!(fifo.packets as usize, model.len());
                prop_assert_eq!(fifo.head(&slab).map(|queued| queued.item), model.front().copied());
            }
        }
    }
}
