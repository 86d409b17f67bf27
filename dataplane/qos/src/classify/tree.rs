// SPDX-License-Identifier: Apache-2.0
//! One tree, and how a burst of keys goes down it.
//!
//! ```text
//!  node: one lane of the key against 24 thresholds   → one of 25 children, which lie side by side
//!  leaf: the first of its entries, more behind `next` → a box, compared with all lanes of a key at once
//! ```
//!
//! Every line, node or entry, is one cache line for IPv4 and two for IPv6. All keys of a burst go down one level, then all
//! the next: each line is asked for while the others are worked on, and which way a key goes is never a jump.

use pktbuf::prefetch;

use super::cube::Extra;
use super::key::{Key, OTHERS};
use super::lanes::Eight;
use super::rule::Class;

/// Thresholds of a node.
pub(super) const THRESHOLDS: usize = 24;
/// A tree of so few lines stays in the nearest cache: its keys go down one after the other.
const NEAR: usize = 256;
/// As many keys go down together.
pub(super) const TOGETHER: usize = 64;

/// A node, or an entry of a leaf with `EIGHTS` times eight lanes in its box.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) enum Line<const EIGHTS: usize> {
    Node {
        /// The last value of each child but the last; rising, filled up with the greatest value.
        thresholds: [Eight; THRESHOLDS / 8],
        /// The first child's line.
        children: u32,
        /// One bit for each child that is a leaf.
        leaves: u32,
        lane: u8,
    },
    Entry {
        low: [Eight; EIGHTS],
        /// How far the box goes above `low`.
        length: [Eight; EIGHTS],
        rank: u64,
        /// The line of the leaf's next entry, 0 behind the last.
        next: u32,
        /// The place in the extras, 0 for none.
        extra: u32,
    },
}

const _: () = assert!(size_of::<Line<1>>() == 64 && size_of::<Line<3>>() == 128);

/// The root is line 0.
pub(super) struct Tree<const EIGHTS: usize> {
    pub(super) lines: Box<[Line<EIGHTS>]>,
    /// The least rank in it.
    pub(super) first_rank: u64,
}

/// Places in a burst.
struct Places {
    all: [u8; TOGETHER],
    count: usize,
}

impl Places {
    const NONE: Self = Self { all: [0; TOGETHER], count: 0 };
}

impl<const EIGHTS: usize> Tree<EIGHTS> {
    /// Lowers the ranks in `best` to those of the first entries that the keys match here.
    #[inline(always)]
    pub(super) fn lookup<const LANES: usize>(
        &self,
        keys: &[Key<LANES>],
        best: &mut [u64; TOGETHER],
        extras: &[Extra],
    ) {
        if self.lines.len() <= NEAR {
            for (key, best) in keys.iter().zip(best) {
                if *best > self.first_rank {
                    self.look_up_one(key, best, extras);
                }
            }
            return;
        }
        let mut open = Places::NONE;
        for (place, best) in best.iter().enumerate().take(keys.len()) {
            open.all[open.count % TOGETHER] = place as u8;
            open.count += usize::from(*best > self.first_rank);
        }
        let mut lines = [0; TOGETHER];
        if matches!(self.lines.first(), Some(Line::Node { .. })) {
            self.descend(keys, &open, &mut lines);
        }
        self.compare(keys, best, extras, &mut open, &mut lines);
    }

    /// One key, all the way.
    #[inline(always)]
    fn look_up_one<const LANES: usize>(&self, key: &Key<LANES>, best: &mut u64, extras: &[Extra]) {
        let mut at = 0;
        while let Some(line) = self.lines.get(at as usize) {
            match line {
                Line::Node { thresholds, children, lane, .. } => {
                    at = children + Eight::below(thresholds, key.lanes[usize::from(*lane) % LANES]);
                }
                Line::Entry { rank, next, .. } => {
                    let found = if line.contains(key, extras) { *rank } else { u64::MAX };
                    *best = found.min(*best);
                    if *next == 0 || *rank >= *best {
                        return;
                    }
                    at = *next;
                }
            }
        }
    }

    /// Takes the open keys from the root to their leaves, whose first entries are then in `lines`.
    #[inline(always)]
    fn descend<const LANES: usize>(&self, keys: &[Key<LANES>], open: &Places, lines: &mut [u32; TOGETHER]) {
        let (mut places, mut count) = (open.all, open.count);
        while count > 0 {
            let before = core::mem::take(&mut count);
            for at in 0..before {
                let place = usize::from(places[at % TOGETHER]) % TOGETHER;
                let (Some(Line::Node { thresholds, children, leaves, lane }), Some(key)) =
                    (self.lines.get(lines[place] as usize), keys.get(place))
                else {
                    continue;
                };
                let child = Eight::below(thresholds, key.lanes[usize::from(*lane) % LANES]);
                lines[place] = children + child;
                self.fetch(lines[place]);
                places[count % TOGETHER] = place as u8;
                count += usize::from(leaves >> child & 1 == 0);
            }
        }
    }

    /// Compares the open keys with the entries in `lines` and all behind.
    #[inline(always)]
    fn compare<const LANES: usize>(
        &self,
        keys: &[Key<LANES>],
        best: &mut [u64; TOGETHER],
        extras: &[Extra],
        open: &mut Places,
        lines: &mut [u32; TOGETHER],
    ) {
        while open.count > 0 {
            let before = core::mem::take(&mut open.count);
            let mut count = 0;
            for at in 0..before {
                let place = usize::from(open.all[at % TOGETHER]) % TOGETHER;
                let (Some(line @ Line::Entry { rank, next, .. }), Some(key)) =
                    (self.lines.get(lines[place] as usize), keys.get(place))
                else {
                    continue;
                };
                let found = if line.contains(key, extras) { *rank } else { u64::MAX };
                best[place] = found.min(best[place]);
                lines[place] = *next;
                self.fetch(*next);
                open.all[count % TOGETHER] = place as u8;
                count += usize::from((*next != 0) & (*rank < best[place]));
            }
            open.count = count;
        }
    }

    #[inline(always)]
    fn fetch(&self, line: u32) {
        if let Some(line) = self.lines.get(line as usize) {
            prefetch(line);
        }
    }
}

impl<const EIGHTS: usize> Line<EIGHTS> {
    /// Whether this is an entry, and a key is such.
    #[inline(always)]
    fn contains<const LANES: usize>(&self, key: &Key<LANES>, extras: &[Extra]) -> bool {
        let Self::Entry { low, length, extra, .. } = self else { return false };
        let (lanes, _) = key.lanes.as_chunks::<8>();
        let boxes = lanes.iter().zip(low).zip(length);
        let is_inside =
            boxes.fold(true, |all, ((lanes, low), length)| all & Eight::new(*lanes).is_within(low, length));
        // No jump on whether it is inside, which no CPU foresees.
        if *extra == 0 { is_inside } else { is_inside & has_extra(key, extras.get(*extra as usize)) }
    }
}

/// Whether a key is what an extra asks.
#[inline(always)]
pub(super) fn has_extra<const LANES: usize>(key: &Key<LANES>, extra: Option<&Extra>) -> bool {
    let others: Option<&[u16; OTHERS]> = key.lanes.get(addresses(LANES)..).and_then(<[u16]>::first_chunk);
    extra.zip(others).is_some_and(|(extra, others)| extra.contains(others))
}

/// The class in a rank.
#[inline(always)]
pub(super) fn class(rank: u64) -> Class {
    let [low, high, ..] = rank.to_le_bytes();
    Class(u16::from_le_bytes([low, high]))
}

/// Lanes of the two addresses.
const fn addresses(lanes: usize) -> usize {
    if lanes == 16 { 4 } else { 16 }
}
