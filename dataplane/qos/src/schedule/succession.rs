// SPDX-License-Identifier: Apache-2.0
//! From one scheduler to the next: when a port's policies change, what is queued, what was counted and the tokens that
//! are left pass to the scheduler that follows.

use super::fifo::Queued;
use super::shaper::inherit_tokens;
use super::spec::{ClassSlot, TunnelSlot};
use super::{Refusal, Scheduler};
use crate::share::Backlog;

impl<T> Scheduler<T> {
    /// Takes over from `before`: each class goes on as the class that `successor` names, with its items in their order,
    /// and its counters; each tunnel as the one that `heir` names, with its shaper's tokens,
    /// as many as fit. Items without a successor (`NoSuchClass`), longer than
    /// the port now takes (`BadSize`) or without room (`NoRoom`) go to `gone`. Nothing is queued in `before` afterwards.
    ///
    /// It takes as long as there are classes and items: a change of a port's policies, not of every packet.
    pub fn succeed(
        &mut self,
        before: &mut Self,
        now_ns: u64,
        heir: impl Fn(TunnelSlot) -> Option<TunnelSlot>,
        successor: impl Fn(TunnelSlot, ClassSlot) -> Option<(TunnelSlot, ClassSlot)>,
        mut gone: impl FnMut(T, Refusal),
    ) {
        self.shaper.inherit(&mut before.shaper, now_ns);
        for (slot, index) in (0u32..).map(TunnelSlot).zip(0..before.tunnels.len()) {
            let Some(tunnel) = before.tunnels.get_mut(index) else { continue };
            let (first_class, class_count) = (tunnel.first_class, tunnel.class_count);
            let heir = heir(slot).and_then(|heir| self.tunnels.get_mut(heir.0 as usize));
            if let (Some(heir), Some(before)) =
                (heir.and_then(|heir| heir.shaper.as_mut()), tunnel.shaper.as_mut())
            {
                inherit_tokens(heir, before, now_ns);
            }
            for (class, old_index) in (0..class_count).map(ClassSlot).zip(first_class..) {
                let target = successor(slot, class)
                    .and_then(|(tunnel, class)| Some((tunnel, self.class_index(tunnel, class)?)));
                self.take_class(before, old_index, target, &mut gone);
            }
        }
    }

    /// Gives everything that is queued to `gone`.
    pub fn clear(&mut self, mut gone: impl FnMut(T)) {
        self.shaper.rest(Backlog::default());
        let (classes, slab) = (&mut self.classes, &mut self.slab);
        for class in classes.iter_mut() {
            while let Some(queued) = class.fifo.pop(slab) {
                gone(queued.item);
            }
        }
    }

    fn take_class(
        &mut self,
        before: &mut Self,
        old_index: u32,
        target: Option<(TunnelSlot, u32)>,
        gone: &mut impl FnMut(T, Refusal),
    ) {
        if let Some((_, index)) = target {
            self.stats.inherit(index, &before.stats, old_index);
        }
        let Some(old) = before.classes.get_mut(old_index as usize) else { return };
        while let Some(queued) = old.fifo.pop(&mut before.slab) {
            let wire_bytes = queued.wire_bytes;
            if let Err((item, refusal)) = self.take_item(target, queued) {
                if let Some(counters) = target.and_then(|(_, index)| self.stats.at(index)) {
                    counters.drop_for(refusal, wire_bytes);
                }
                gone(item, refusal);
            }
        }
    }

    fn take_item(
        &mut self,
        target: Option<(TunnelSlot, u32)>,
        queued: Queued<T>,
    ) -> Result<(), (T, Refusal)> {
        let Some((tunnel, index)) = target else { return Err((queued.item, Refusal::NoSuchClass)) };
        // Buckets are sure to hold the longest packet only: a longer one would wait for ever.
        if queued.wire_bytes > self.packet_bytes_max {
            return Err((queued.item, Refusal::BadSize));
        }
        let Some(class) = self.classes.get_mut(index as usize) else {
            return Err((queued.item, Refusal::NoSuchClass));
        };
        class.fifo.push(&mut self.slab, queued).map_err(|item| (item, Refusal::NoRoom))?;
        self.activate(tunnel, index);
        Ok(())
    }
}
