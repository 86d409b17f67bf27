// SPDX-License-Identifier: Apache-2.0
//! A box as trees and tables have it: compared with all lanes of a key at once.

use core::hint::select_unpredictable;

use super::cube::{Cube, Extra};
use super::key::{Key, OTHERS};
use super::lanes::{Eight, LANES as EIGHT};

/// A box in the first `EIGHTS` times eight lanes; an extra says what is asked of the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<const EIGHTS: usize> {
    low: [Eight; EIGHTS],
    /// How far the box goes above `low`.
    length: [Eight; EIGHTS],
    rank: u64,
    /// The line of the next entry, 0 behind the last.
    pub(super) next: u32,
    /// The place in the extras, 0 for none.
    extra: u32,
}

const _: () = assert!(size_of::<Entry<1>>() == 48 && size_of::<Entry<3>>() == 112);

impl<const EIGHTS: usize> Entry<EIGHTS> {
    /// An entry that nothing matches.
    pub(super) fn never() -> Self {
        Self { low: eights(&[]), length: eights(&[]), rank: u64::MAX, next: 0, extra: 0 }
    }

    pub(super) fn new<const LANES: usize>(cube: &Cube<LANES>, next: u32) -> Self {
        let length: [u16; LANES] = core::array::from_fn(|lane| cube.high[lane] - cube.low[lane]);
        let (low, length) = (eights(&cube.low), eights(&length));
        Self { low, length, rank: cube.rank, next, extra: cube.extra }
    }

    /// The lower of `best` and the rank of this entry, if `key` matches it; and whether one behind it may be better still.
    ///
    /// Without `EXTRAS` the entry has none.
    /// Whether it goes on hangs on comparisons, not on the new best: else compilers make a jump of whether it matches,
    /// which no CPU foresees.
    #[inline(always)]
    pub(super) fn ask<const EXTRAS: bool, const LANES: usize>(
        &self,
        key: &Key<LANES>,
        extras: &[Extra],
        best: u64,
    ) -> (u64, bool) {
        let mut matches = self.is_around(key);
        if EXTRAS && self.extra != 0 {
            matches &= has_extra(key, extras.get(self.extra as usize));
        }
        let found = select_unpredictable(matches, self.rank, u64::MAX);
        let goes_on = (self.next != 0) & (self.rank < best) & !matches;
        (found.min(best), goes_on)
    }

    #[inline(always)]
    fn is_around<const LANES: usize>(&self, key: &Key<LANES>) -> bool {
        let (lanes, _) = key.lanes.as_chunks::<EIGHT>();
        let boxes = lanes.iter().zip(&self.low).zip(&self.length);
        let beyond = boxes.map(|((lanes, low), length)| Eight::new(*lanes).beyond(low, length).bits());
        beyond.fold(0, |all, beyond| all | beyond) == 0
    }

    pub(super) fn has_extra(&self) -> bool {
        self.extra != 0
    }
}

/// Whether a key is what an extra asks.
#[inline(always)]
pub(super) fn has_extra<const LANES: usize>(key: &Key<LANES>, extra: Option<&Extra>) -> bool {
    let others: Option<&[u16; OTHERS]> = key.lanes.get(addresses(LANES)..).and_then(<[u16]>::first_chunk);
    extra.zip(others).is_some_and(|(extra, others)| extra.contains(others))
}

/// Lanes of the two addresses.
const fn addresses(lanes: usize) -> usize {
    if lanes == 16 { 4 } else { 16 }
}

/// The first lanes, 0 where there are none.
pub(super) fn eights<const EIGHTS: usize>(lanes: &[u16]) -> [Eight; EIGHTS] {
    core::array::from_fn(|at| {
        Eight::new(core::array::from_fn(|lane| lanes.get(8 * at + lane).copied().unwrap_or(0)))
    })
}
