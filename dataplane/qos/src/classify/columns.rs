// SPDX-License-Identifier: Apache-2.0
//! Few boxes: each of them against eight packets at once, from the last to the first, without a jump on what is found.
//!
//! ```text
//! keys, a row each              columns                   one side of a box
//! k0 | source | port | …        source | k0 k1 … k7       beyond |= (source − low) ⊖ length
//! k1 | source | port | …   →    port   | k0 k1 … k7       beyond |= (port − low) ⊖ length
//! …                             …                         answer = the box's where beyond is 0
//! ```
//!
//! A lane in which a box takes every value is no side of it and costs nothing.

use super::cube::{Cube, Extra};
use super::entry::has_extra;
use super::key::Key;
use super::lanes::{Eight, LANES as EIGHT};

/// Eights of keys that go past the boxes together, which are then loaded once for all of them; half of these, and one.
const MANY: usize = 8;
const SOME: usize = MANY / 2;
/// So few keys go one by one: eight places that stay empty cost as much as eight keys.
const ALONE: usize = 2;
/// Boxes ask for no more lanes than that, mostly.
const LANES_MOSTLY: usize = 8;

/// One lane in which a box does not take every value, each value in all lanes of a vector.
struct Side {
    low: Eight,
    /// How far the box goes above `low`.
    length: Eight,
    /// Among the lanes that are asked for.
    column: usize,
}

struct Scanned {
    answer: Eight,
    sides: usize,
    /// The place in the extras, 0 for none.
    extra: usize,
}

const _: () = assert!(size_of::<Side>() == 48 && size_of::<Scanned>() == 32);

/// Boxes with `LANES` lanes, each with an answer.
pub(super) struct Columns<const LANES: usize> {
    /// The last box first.
    boxes: Box<[Scanned]>,
    /// Those of the first box, those of the second, and so on.
    sides: Box<[Side]>,
    /// Lanes in which a box has a side.
    lanes: Box<[u8]>,
    /// Where no box is found.
    otherwise: u16,
}

impl<const LANES: usize> Columns<LANES> {
    /// `boxes` and their answers, in order of their ranks.
    pub(super) fn new<'c>(
        boxes: impl DoubleEndedIterator<Item = (&'c Cube<LANES>, u16)> + Clone,
        otherwise: u16,
    ) -> Self {
        let is_asked = |lane: &u8| boxes.clone().any(|(cube, _)| cube.span(usize::from(*lane)).is_some());
        let lanes: Vec<u8> = (0..LANES as u8).filter(is_asked).collect();
        let (mut scanned, mut sides) = (Vec::new(), Vec::new());
        for (cube, answer) in boxes.rev() {
            let before = sides.len();
            for (column, lane) in lanes.iter().enumerate() {
                if let Some(span) = cube.span(usize::from(*lane)) {
                    let length = Eight::all(span.last - span.first);
                    sides.push(Side { low: Eight::all(span.first), length, column });
                }
            }
            let extra = if cube.is_exact { 0 } else { cube.extra as usize };
            scanned.push(Scanned { answer: Eight::all(answer), sides: sides.len() - before, extra });
        }
        Self { boxes: scanned.into(), sides: sides.into(), lanes: lanes.into(), otherwise }
    }

    /// The answers for `keys`, as far as there are places for them.
    pub(super) fn answers(&self, keys: &[Key<LANES>], extras: &[Extra], answers: &mut [u16]) {
        if keys.len() <= ALONE {
            for (key, answer) in keys.iter().zip(answers) {
                *answer = self.answer(key, extras);
            }
            return;
        }
        for (keys, answers) in keys.chunks(MANY * EIGHT).zip(answers.chunks_mut(MANY * EIGHT)) {
            match keys.len().div_ceil(EIGHT) {
                5.. => self.some::<MANY>(keys, extras, answers),
                3.. => self.some::<SOME>(keys, extras, answers),
                _ => {
                    for (keys, answers) in keys.chunks(EIGHT).zip(answers.chunks_mut(EIGHT)) {
                        self.some::<1>(keys, extras, answers);
                    }
                }
            }
        }
    }

    /// The answer for one key: that of the first box that it is in.
    fn answer(&self, key: &Key<LANES>, extras: &[Extra]) -> u16 {
        let lanes = &key.lanes;
        let is_in = |side: &Side| {
            let value = self.lanes.get(side.column).map_or(0, |lane| lanes[usize::from(*lane) % LANES]);
            let ([low, ..], [length, ..]) = (side.low.lanes(), side.length.lanes());
            value.wrapping_sub(*low) <= *length
        };
        let mut sides = &*self.sides;
        for scanned in self.boxes.iter().rev() {
            let before = sides.len().saturating_sub(scanned.sides);
            let (others, own) = sides.split_at_checked(before).unwrap_or_default();
            sides = others;
            let has_extra = || scanned.extra == 0 || has_extra(key, extras.get(scanned.extra));
            if own.iter().all(is_in) && has_extra() {
                let [answer, ..] = scanned.answer.lanes();
                return *answer;
            }
        }
        self.otherwise
    }

    /// The answers for at most `EIGHTS` times eight keys.
    #[inline(always)]
    fn some<const EIGHTS: usize>(&self, keys: &[Key<LANES>], extras: &[Extra], answers: &mut [u16]) {
        let mut found = [Eight::all(0); EIGHTS];
        if let (eights, []) = keys.as_chunks()
            && let Ok(eights) = eights.try_into()
        {
            self.scan(eights, extras, &mut found);
        } else {
            let mut padded = [[Key { lanes: [0; LANES] }; EIGHT]; EIGHTS];
            padded.as_flattened_mut().iter_mut().zip(keys).for_each(|(place, key)| *place = *key);
            self.scan(&padded, extras, &mut found);
        }
        for (answers, found) in answers.chunks_mut(EIGHT).zip(&found) {
            answers.iter_mut().zip(found.lanes()).for_each(|(answer, found)| *answer = *found);
        }
    }

    #[inline(always)]
    fn scan<const EIGHTS: usize>(
        &self,
        keys: &[[Key<LANES>; EIGHT]; EIGHTS],
        extras: &[Extra],
        found: &mut [Eight; EIGHTS],
    ) {
        if self.lanes.len() <= LANES_MOSTLY {
            self.scan_lanes::<EIGHTS, LANES_MOSTLY>(keys, extras, found);
        } else {
            self.scan_lanes::<EIGHTS, LANES>(keys, extras, found);
        }
    }

    /// Not inlined: among other code it becomes something else than vector instructions.
    #[inline(never)]
    fn scan_lanes<const EIGHTS: usize, const COLUMNS: usize>(
        &self,
        keys: &[[Key<LANES>; EIGHT]; EIGHTS],
        extras: &[Extra],
        found: &mut [Eight; EIGHTS],
    ) {
        let columns: [[Eight; EIGHTS]; COLUMNS] = self.columns(keys);
        let mut answers = [Eight::all(self.otherwise); EIGHTS];
        let mut sides = &*self.sides;
        for scanned in &self.boxes {
            let mut beyond = [Eight::all(0); EIGHTS];
            let (own, others) = sides.split_at_checked(scanned.sides).unwrap_or_default();
            sides = others;
            for side in own {
                for (beyond, column) in beyond.iter_mut().zip(&columns[side.column % COLUMNS]) {
                    *beyond = beyond.or(&column.beyond(&side.low, &side.length));
                }
            }
            if scanned.extra != 0 {
                let without = without_extra(keys, extras.get(scanned.extra));
                for (beyond, without) in beyond.iter_mut().zip(&without) {
                    *beyond = beyond.or(without);
                }
            }
            for (answer, beyond) in answers.iter_mut().zip(&beyond) {
                *answer = beyond.choose(&scanned.answer, answer);
            }
        }
        *found = answers;
    }

    /// The lanes that boxes ask for, each of all keys.
    #[inline(always)]
    fn columns<const EIGHTS: usize, const COLUMNS: usize>(
        &self,
        keys: &[[Key<LANES>; EIGHT]; EIGHTS],
    ) -> [[Eight; EIGHTS]; COLUMNS] {
        let mut columns = [[Eight::all(0); EIGHTS]; COLUMNS];
        for (column, lane) in columns.iter_mut().zip(&self.lanes) {
            for (eight, keys) in column.iter_mut().zip(keys) {
                *eight = Eight::new(keys.each_ref().map(|key| key.lanes[usize::from(*lane) % LANES]));
            }
        }
        columns
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.boxes) + size_of_val(&*self.sides) + size_of_val(&*self.lanes)
    }
}

/// 0 for each key that is what an extra asks.
#[inline(never)]
fn without_extra<const LANES: usize, const EIGHTS: usize>(
    keys: &[[Key<LANES>; EIGHT]; EIGHTS],
    extra: Option<&Extra>,
) -> [Eight; EIGHTS] {
    keys.each_ref().map(|keys| Eight::new(keys.each_ref().map(|key| u16::from(!has_extra(key, extra)))))
}
