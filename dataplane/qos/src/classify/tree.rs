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
use super::rule::Class;

/// Thresholds of a node.
pub(super) const THRESHOLDS: usize = 24;
/// As many keys go down together.
pub(super) const TOGETHER: usize = 64;

/// A node, or an entry of a leaf with `SPANS` lanes in its box.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) enum Line<const SPANS: usize> {
    Node {
        /// The last value of each child but the last; rising, filled up with the greatest value.
        thresholds: [u16; THRESHOLDS],
        /// The first child's line.
        children: u32,
        /// One bit for each child that is a leaf.
        leaves: u32,
        lane: u8,
    },
    Entry {
        low: [u16; SPANS],
        /// How far the box goes above `low`.
        length: [u16; SPANS],
        rank: u64,
        /// The line of the leaf's next entry, 0 behind the last.
        next: u32,
        /// The place in the extras, 0 for none.
        extra: u32,
    },
}

const _: () = assert!(size_of::<Line<8>>() == 64 && size_of::<Line<24>>() == 128);

/// The root is line 0.
pub(super) struct Tree<const SPANS: usize> {
    pub(super) lines: Box<[Line<SPANS>]>,
    pub(super) root_is_leaf: bool,
    /// The least rank in it.
    pub(super) first_rank: u64,
}

/// Keys on their way: the line of each above its place in the burst.
struct Walk {
    items: [u64; TOGETHER],
    count: usize,
}

impl Walk {
    const NONE: Self = Self { items: [0; TOGETHER], count: 0 };

    /// Appends it if it `is_one`, without a jump.
    #[inline(always)]
    fn push(&mut self, line: u32, place: usize, is_one: bool) {
        if let Some(item) = self.items.get_mut(self.count % TOGETHER) {
            *item = u64::from(line) << 8 | place as u64;
        }
        self.count += usize::from(is_one);
    }

    #[inline(always)]
    fn item(&self, at: usize) -> (usize, usize) {
        let item = self.items.get(at % TOGETHER).copied().unwrap_or(0);
        ((item >> 8) as usize, item as usize % TOGETHER)
    }
}

impl<const SPANS: usize> Tree<SPANS> {
    /// Lowers the ranks in `best` to those of the first entries that the keys match here.
    #[inline(always)]
    pub(super) fn lookup<const LANES: usize>(
        &self,
        keys: &[Key<LANES>],
        best: &mut [u64; TOGETHER],
        extras: &[Extra],
    ) {
        let (mut nodes, mut leaves) = (Walk::NONE, Walk::NONE);
        let roots = if self.root_is_leaf { &mut leaves } else { &mut nodes };
        for (place, best) in best.iter().enumerate().take(keys.len()) {
            roots.push(0, place, *best > self.first_rank);
        }
        while nodes.count > 0 {
            self.descend(keys, &mut nodes, &mut leaves);
        }
        while leaves.count > 0 {
            self.compare(keys, best, extras, &mut leaves);
        }
    }

    #[inline(always)]
    fn descend<const LANES: usize>(&self, keys: &[Key<LANES>], nodes: &mut Walk, found: &mut Walk) {
        let count = core::mem::take(&mut nodes.count);
        for at in 0..count {
            let (line, place) = nodes.item(at);
            let (Some(Line::Node { thresholds, children, leaves, lane }), Some(key)) =
                (self.lines.get(line), keys.get(place))
            else {
                continue;
            };
            let value = key.lanes.get(usize::from(*lane) % LANES).copied().unwrap_or(0);
            let child: u16 = thresholds.iter().map(|threshold| u16::from(value > *threshold)).sum();
            let line = children + u32::from(child);
            self.fetch(line);
            let is_leaf = leaves >> child & 1 == 1;
            nodes.push(line, place, !is_leaf);
            found.push(line, place, is_leaf);
        }
    }

    #[inline(always)]
    fn compare<const LANES: usize>(
        &self,
        keys: &[Key<LANES>],
        best: &mut [u64; TOGETHER],
        extras: &[Extra],
        leaves: &mut Walk,
    ) {
        let count = core::mem::take(&mut leaves.count);
        for at in 0..count {
            let (line, place) = leaves.item(at);
            let (Some(Line::Entry { low, length, rank, next, extra }), Some(key), Some(best)) =
                (self.lines.get(line), keys.get(place), best.get_mut(place))
            else {
                continue;
            };
            let lanes = key.lanes.iter().zip(low).zip(length);
            let mut is_inside =
                lanes.fold(true, |all, ((lane, low), length)| all & (lane.wrapping_sub(*low) <= *length));
            if *extra != 0 {
                is_inside &= has_extra(key, extras.get(*extra as usize));
            }
            self.fetch(*next);
            let found = if is_inside { *rank } else { u64::MAX };
            *best = found.min(*best);
            leaves.push(*next, place, *next != 0 && *rank < *best);
        }
    }

    #[inline(always)]
    fn fetch(&self, line: u32) {
        if let Some(line) = self.lines.get(line as usize) {
            prefetch(line);
        }
    }
}

#[inline(always)]
fn has_extra<const LANES: usize>(key: &Key<LANES>, extra: Option<&Extra>) -> bool {
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
