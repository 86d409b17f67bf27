// SPDX-License-Identifier: Apache-2.0
//! A hierarchical timer wheel: which tunnels may send again, and when.
//!
//! Seven levels of 256 slots, one for each byte of a tick number; a tick is 1,024 ns. A timer stands at the level of the
//! highest byte in which its tick differs from the wheel's, and moves down as the wheel comes near:
//!
//! ```text
//!     wheel at tick   00 00 00 00 00 03 41
//!     timer for tick  00 00 00 00 00 03 9c   level 0, slot 9c: goes off in place
//!     timer for tick  00 00 00 00 07 55 12   level 2, slot 07: moves down at tick 07 00 00
//! ```
//!
//! A timer never goes off early, and late by less than a tick and the time between two calls. To set, to cancel and to
//! go off cost the same with one timer and with 60,000; a timer moves down at most six times.

use super::NONE;

const TICK_BITS: u32 = 10;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 7;

pub(super) struct Wheel {
    tick: u64,
    /// Before this tick none goes off, so that mostly one comparison says so.
    next: u64,
    armed: u32,
    heads: Box<[[u32; SLOTS]; LEVELS]>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
    timers: Box<[Timer]>,
}

#[derive(Clone, Copy)]
struct Timer {
    tick: u64,
    next: u32,
    previous: u32,
    /// Level and slot, if the timer is set.
    place: Option<(u8, u8)>,
}

impl Wheel {
    /// A wheel for timers 0 to `timers` − 1, none of them set.
    pub(super) fn new(timers: usize) -> Self {
        let timer = Timer { tick: 0, next: NONE, previous: NONE, place: None };
        Self {
            tick: 0,
            next: u64::MAX,
            armed: 0,
            heads: Box::new([[NONE; SLOTS]; LEVELS]),
            occupied: [[0; SLOTS / 64]; LEVELS],
            timers: vec![timer; timers].into_boxed_slice(),
        }
    }

    pub(super) const fn bytes_per_timer() -> usize {
        size_of::<Timer>()
    }

    /// Sets or moves the timer.
    pub(super) fn set(&mut self, timer: u32, due_ns: u64) {
        self.cancel(timer);
        let tick = due_ns.div_ceil(1 << TICK_BITS).max(self.tick);
        if let Some(entry) = self.timers.get_mut(timer as usize) {
            entry.tick = tick;
            self.next = self.next.min(tick);
            self.armed += 1;
            self.link(timer, tick);
        }
    }

    pub(super) fn cancel(&mut self, timer: u32) {
        let Some(entry) = self.timers.get_mut(timer as usize) else { return };
        let Some((level, slot)) = entry.place.take() else { return };
        self.armed -= 1;
        let (next, previous) = (entry.next, entry.previous);
        if let Some(after) = self.timers.get_mut(next as usize) {
            after.previous = previous;
        }
        match self.timers.get_mut(previous as usize) {
            Some(before) => before.next = next,
            None => self.set_head(level, slot, next),
        }
    }

    /// A timer that has gone off by `now_ns`; it is no longer set.
    pub(super) fn expire(&mut self, now_ns: u64) -> Option<u32> {
        let target = now_ns >> TICK_BITS;
        if target < self.next { None } else { self.expire_by(target) }
    }

    fn expire_by(&mut self, target: u64) -> Option<u32> {
        while self.tick <= target {
            let first = self.head(0, slot_of(self.tick, 0));
            if first != NONE {
                self.cancel(first);
                return Some(first);
            }
            match self.next_occupied() {
                Some((level, slot, tick)) if tick <= target => {
                    self.tick = tick;
                    self.move_down(level, slot);
                }
                later => {
                    self.next = later.map_or(u64::MAX, |(.., tick)| tick);
                    self.tick = target;
                    return None;
                }
            }
        }
        None
    }

    /// No timer goes off before this moment.
    pub(super) fn next_ns(&self) -> Option<u64> {
        (self.armed > 0).then_some(self.next << TICK_BITS)
    }

    /// The next occupied slot behind the current ones: level, slot, its first tick.
    fn next_occupied(&self) -> Option<(u8, u8, u64)> {
        (0u8..).zip(&self.occupied).find_map(|(level, words)| {
            let slot = first_after(words, slot_of(self.tick, level))?;
            let shift = SLOT_BITS * u32::from(level);
            let above = self.tick.checked_shr(shift + SLOT_BITS).unwrap_or(0) << SLOT_BITS;
            Some((level, slot, (above | u64::from(slot)) << shift))
        })
    }

    /// Gives the timers of a slot that the wheel has reached their places further down.
    fn move_down(&mut self, level: u8, slot: u8) {
        if level == 0 {
            return;
        }
        let mut timer = self.head(level, slot);
        self.set_head(level, slot, NONE);
        while let Some(&Timer { tick, next, .. }) = self.timers.get(timer as usize) {
            self.link(timer, tick);
            timer = next;
        }
    }

    fn link(&mut self, timer: u32, tick: u64) {
        let level = ((tick ^ self.tick).checked_ilog2().unwrap_or(0) / SLOT_BITS) as u8;
        let slot = slot_of(tick, level);
        let head = self.head(level, slot);
        if let Some(after) = self.timers.get_mut(head as usize) {
            after.previous = timer;
        }
        if let Some(entry) = self.timers.get_mut(timer as usize) {
            (entry.next, entry.previous, entry.place) = (head, NONE, Some((level, slot)));
        }
        self.set_head(level, slot, timer);
    }

    fn head(&self, level: u8, slot: u8) -> u32 {
        self.heads
            .get(usize::from(level))
            .and_then(|slots| slots.get(usize::from(slot)))
            .copied()
            .unwrap_or(NONE)
    }

    fn set_head(&mut self, level: u8, slot: u8, timer: u32) {
        let (level, bit) = (usize::from(level), 1 << (slot % 64));
        if let Some(head) = self.heads.get_mut(level).and_then(|slots| slots.get_mut(usize::from(slot))) {
            *head = timer;
        }
        if let Some(word) =
            self.occupied.get_mut(level).and_then(|words| words.get_mut(usize::from(slot / 64)))
        {
            *word = if timer == NONE { *word & !bit } else { *word | bit };
        }
    }
}

fn slot_of(tick: u64, level: u8) -> u8 {
    (tick >> (SLOT_BITS * u32::from(level)) & 0xff) as u8
}

/// The first set bit behind `slot`.
fn first_after(words: &[u64; SLOTS / 64], slot: u8) -> Option<u8> {
    let from = u32::from(slot) + 1;
    (0u32..).zip(words).find_map(|(index, word)| {
        let skip = from.saturating_sub(index * 64);
        let word = word & u64::MAX.checked_shl(skip).unwrap_or(0);
        (word != 0).then(|| (index * 64 + word.trailing_zeros()) as u8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_sorted_list_of_ticks(
            steps in prop::collection::vec((0u32..20, prop::option::of(0u32..45), 0u32..44, any::<u64>()), 1..200),
        ) {
            let (mut wheel, mut model, mut now_ns) = (Wheel::new(20), BTreeMap::new(), 0u64);
            for (timer, ahead_bits, step_bits, random) in steps {
                match ahead_bits {
                    Some(bits) => {
                        let due_ns = now_ns + 1 + random % (1 << bits);
                        wheel.set(timer, due_ns);
                        model.insert(timer, due_ns.div_ceil(1024));
                    }
                    None => {
                        wheel.cancel(timer);
                        model.remove(&timer);
                    }
                }
                let first_ns = model.values().min().map(|tick| tick * 1024);
                prop_assert_eq!(wheel.next_ns().is_some(), first_ns.is_some());
                prop_assert!(wheel.next_ns() <= first_ns);
                now_ns += random % (1 << step_bits);
                let mut gone = Vec::new();
                while let Some(timer) = wheel.expire(now_ns) {
                    gone.push(timer);
                }
                gone.sort_unstable();
                let due: Vec<u32> = model.iter().filter(|(_, tick)| **tick <= now_ns >> 10).map(|(timer, _)| *timer).collect();
                model.retain(|_, tick| *tick > now_ns >> 10);
                prop_assert_eq!(gone, due);
            }
        }
    }

    #[test]
    fn a_timer_for_a_later_moment_does_not_go_off_in_the_same_call() {
        let mut wheel = Wheel::new(1);
        for now_ns in [0, 1023, 1024, 1 << 40, u64::MAX >> 1] {
            assert_eq!(wheel.expire(now_ns), None);
            wheel.set(0, now_ns + 1);
            assert_eq!(wheel.expire(now_ns), None);
            assert_eq!(wheel.expire(now_ns + 1024), Some(0));
        }
    }
}
