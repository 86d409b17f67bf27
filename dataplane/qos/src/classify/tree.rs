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
use super::entry::Entry;
use super::key::Key;
use super::lanes::Eight;
use super::places::{Places, TOGETHER};

/// Thresholds of a node.
pub(super) const THRESHOLDS: usize = 24;
/// A tree of so few lines stays in the nearest cache: its keys go down one after the other.
const NEAR: usize = 256;

/// A node, or an entry of a leaf.
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
    Entry(Entry<EIGHTS>),
}

const _: () = assert!(size_of::<Line<1>>() == 64 && size_of::<Line<3>>() == 128);

/// The root is line 0.
pub(super) struct Tree<const EIGHTS: usize> {
    pub(super) lines: Box<[Line<EIGHTS>]>,
    /// The least rank in it.
    pub(super) first_rank: u64,
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
            open.push_if(place, *best > self.first_rank);
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
                Line::Entry(entry) => {
                    let (lower, goes_on) = entry.ask::<true, _>(key, extras, *best);
                    *best = lower;
                    if !goes_on {
                        return;
                    }
                    at = entry.next;
                }
            }
        }
    }

    /// Takes the open keys from the root to their leaves, whose first entries are then in `lines`.
    #[inline(always)]
    fn descend<const LANES: usize>(&self, keys: &[Key<LANES>], open: &Places, lines: &mut [u32; TOGETHER]) {
        let mut open = *open;
        while open.count > 0 {
            let before = core::mem::take(&mut open.count);
            for at in 0..before {
                let place = open.at(at);
                let (Some(Line::Node { thresholds, children, leaves, lane }), Some(key)) =
                    (self.lines.get(lines[place] as usize), keys.get(place))
                else {
                    continue;
                };
                let child = Eight::below(thresholds, key.lanes[usize::from(*lane) % LANES]);
                lines[place] = children + child;
                self.fetch(lines[place]);
                open.push_if(place, leaves >> child & 1 == 0);
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
            for at in 0..before {
                let place = open.at(at);
                let (Some(Line::Entry(entry)), Some(key)) =
                    (self.lines.get(lines[place] as usize), keys.get(place))
                else {
                    continue;
                };
                let (lower, goes_on) = entry.ask::<true, _>(key, extras, best[place]);
                best[place] = lower;
                lines[place] = entry.next;
                self.fetch(entry.next);
                open.push_if(place, goes_on);
            }
        }
    }

    #[inline(always)]
    fn fetch(&self, line: u32) {
        if let Some(line) = self.lines.get(line as usize) {
            prefetch(line);
        }
    }
}
