// SPDX-License-Identifier: Apache-2.0
//! The fields in which packets of a stream differ: what they hold next, and what that does to checksums.
//!
//! A template has 0 where a field goes, so a checksum over it changes by the sum of the field's new words alone
//! (RFC 1624). Where one checksum covers another, the inner one undoes a change: what a field adds to the UDP
//! pseudo-header it takes away from the UDP segment, and GRE's checksum sees the difference.

use arrayvec::ArrayVec;
use pktbuf::BURST;

use crate::random::Random;
use crate::values::{Sequence, Value, Values};

/// Most checksums of a packet that change.
pub const SLOTS: usize = 5;

/// Sums of 16-bit words: for each checksum, those of the packets of a burst.
pub type Sums = [[u32; BURST]; SLOTS];

/// The frames of a burst.
pub type Frames<'a> = ArrayVec<&'a mut [u8], BURST>;

/// How the field's words count in checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The checksums, and whether the words are subtracted.
    on: ArrayVec<(u8, bool), SLOTS>,
}

impl Effect {
    /// Adds to checksum `slot`.
    #[must_use]
    pub fn adding_to(mut self, slot: u8) -> Self {
        self.on.push((slot, false));
        self
    }

    /// Subtracts from checksum `slot`.
    #[must_use]
    pub fn subtracting_from(mut self, slot: u8) -> Self {
        self.on.push((slot, true));
        self
    }
}

/// Bytes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two.
    Two,
    /// Four.
    Four,
    /// Eight.
    Eight,
}

/// Where a field lies in a frame.
#[derive(Clone, Debug)]
pub struct Place {
    /// Offset from the start of the frame, even.
    pub offset: usize,
    /// Its bytes.
    pub width: Width,
    /// Bits below the value.
    pub shift: u8,
    /// What else stands in these bytes.
    pub around: u64,
    /// What it does to checksums.
    pub effect: Effect,
}

/// A field that changes.
#[derive(Clone, Debug)]
pub struct Field {
    place: Place,
    first: u64,
    count: u64,
    step: u64,
    course: Course,
}

#[derive(Clone, Debug)]
enum Course {
    /// The place in the range that is next.
    Increment(u64),
    Random(Random),
    /// As `Increment`, but no flow begins it again.
    Number(u32),
}

impl Field {
    /// A field that goes through `values`.
    pub fn new<T: Value>(place: Place, values: &Values<T>, seed: u64) -> Self {
        let course = match values.order {
            Sequence::Increment => Course::Increment(0),
            Sequence::Random => Course::Random(Random::new(seed ^ place.offset as u64)),
        };
        // The bits above 64 are the same in the whole range, and in the template.
        Self { place, first: values.first.bits() as u64, count: values.count, step: values.step, course }
    }

    /// A field that numbers packets from 0.
    pub fn number(place: Place) -> Self {
        Self { place, first: 0, count: 0, step: 1, course: Course::Number(0) }
    }

    /// Begins again, for a new round of flows.
    pub fn restart(&mut self) {
        match &mut self.course {
            Course::Increment(next) => *next = 0,
            Course::Random(random) => random.restart(),
            Course::Number(_) => {}
        }
    }

    /// Whether checksum `slot` depends on it.
    #[must_use]
    pub fn touches(&self, slot: u8) -> bool {
        self.place.effect.on.iter().any(|(on, _)| *on == slot)
    }

    /// Renumbers the checksums: the first becomes what was `kept[0]`, and so on. Those that are not kept are no more.
    pub fn keep_slots(&mut self, kept: &[u8]) {
        let on = std::mem::take(&mut self.place.effect.on).into_iter();
        let renumbered = on.filter_map(|(slot, subtracts)| {
            let place = kept.iter().position(|before| *before == slot)?;
            Some((u8::try_from(place).ok()?, subtracts))
        });
        self.place.effect.on = renumbered.collect();
    }

    /// Writes the next values into frames, at most a burst, and adds their words to the checksums' sums; none if a frame is
    /// too short. All packets are taken at once, so that what the field is like is asked once and not for each.
    #[inline]
    pub fn write(&mut self, frames: &mut [&mut [u8]], sums: &mut Sums) -> Option<()> {
        let (mut values, mut words) = ([0; BURST], [0; BURST]);
        let (values, words) = (values.get_mut(..frames.len())?, words.get_mut(..frames.len())?);
        self.next_values(values);
        let (offset, around) = (self.place.offset, self.place.around);
        match self.place.width {
            Width::Two => put(frames, offset, values, |value| ((value | around) as u16).to_be_bytes()),
            Width::Four => put(frames, offset, values, |value| ((value | around) as u32).to_be_bytes()),
            Width::Eight => put(frames, offset, values, |value| (value | around).to_be_bytes()),
        }?;
        for (words, value) in words.iter_mut().zip(&*values) {
            *words = sum_of_words(*value);
        }
        for (slot, subtracts) in &self.place.effect.on {
            let column = sums.get_mut(usize::from(*slot))?.iter_mut().zip(&*words);
            if *subtracts {
                // A multiple of 0xffff above any sum of four words, less this one.
                column.for_each(|(sum, words)| *sum += 4 * 0xffff - words);
            } else {
                column.for_each(|(sum, words)| *sum += words);
            }
        }
        Some(())
    }

    /// The next values, where they stand in their bytes.
    #[inline]
    fn next_values(&mut self, values: &mut [u64]) {
        match &mut self.course {
            Course::Increment(next) => {
                for value in &mut *values {
                    *value = *next;
                    *next = if *next + 1 == self.count { 0 } else { *next + 1 };
                }
            }
            Course::Random(random) => values.iter_mut().for_each(|value| *value = random.below(self.count)),
            Course::Number(next) => {
                for value in &mut *values {
                    *value = u64::from(*next);
                    *next = next.wrapping_add(1);
                }
            }
        }
        let shift = self.place.shift;
        for value in values {
            *value = self.first.wrapping_add(value.wrapping_mul(self.step)) << shift;
        }
    }
}

#[inline(always)]
fn put<const N: usize>(
    frames: &mut [&mut [u8]],
    offset: usize,
    values: &[u64],
    bytes: impl Fn(u64) -> [u8; N],
) -> Option<()> {
    for (frame, value) in frames.iter_mut().zip(values) {
        *frame.get_mut(offset..)?.first_chunk_mut()? = bytes(*value);
    }
    Some(())
}

/// The sum of a value's 16-bit words.
#[inline(always)]
fn sum_of_words(value: u64) -> u32 {
    const EVEN: u64 = 0xffff_0000_ffff;
    let pairs = (value & EVEN) + (value >> 16 & EVEN);
    (pairs >> 32) as u32 + pairs as u32
}

/// The checksum that a sum of words makes: that of both halves, with the carry that comes back in.
#[inline]
#[must_use]
pub fn checksum(sum: u32) -> u16 {
    !((sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Sums = [[0; BURST]; SLOTS];

    fn place(width: Width, effect: Effect) -> Place {
        Place { offset: 2, width, shift: 0, around: 0, effect }
    }

    fn taken(values: &Values<u16>, count: usize) -> Vec<u16> {
        let mut field = Field::new(place(Width::Two, Effect::default()), values, 5);
        let mut frames = vec![[0; 8]; count];
        for burst in frames.chunks_mut(BURST) {
            let mut burst: Frames<'_> = burst.iter_mut().map(|frame| &mut frame[..]).collect();
            field.write(&mut burst, &mut NOTHING.clone()).unwrap();
        }
        frames.iter().map(|frame| u16::from_be_bytes([frame[2], frame[3]])).collect()
    }

    #[test]
    fn a_range_is_gone_through_in_turn_or_by_chance() {
        let values = Values { first: 10_u16, count: 3, step: 2, order: Sequence::Increment };
        assert_eq!(taken(&values, 7), [10, 12, 14, 10, 12, 14, 10]);
        let random = taken(&Values { order: Sequence::Random, ..values }, 300);
        assert!(random.iter().all(|value| [10, 12, 14].contains(value)));
        assert!([10, 12, 14].iter().all(|value| random.iter().filter(|found| *found == value).count() > 60));
    }

    #[test]
    fn a_new_round_begins_again_but_numbers_go_on() {
        let mut frame = [0; 8];
        let mut number = Field::number(place(Width::Four, Effect::default()));
        let values = Values { first: 1_u32, count: 9, step: 1, order: Sequence::Increment };
        let mut range = Field::new(place(Width::Four, Effect::default()), &values, 0);
        for expected in [(0, 1), (1, 1), (2, 1)] {
            let mut value = |field: &mut Field| {
                field.restart();
                field.write(&mut [&mut frame], &mut NOTHING.clone()).unwrap();
                u32::from_be_bytes([frame[2], frame[3], frame[4], frame[5]])
            };
            assert_eq!((value(&mut number), value(&mut range)), expected);
        }
    }

    #[test]
    fn what_is_added_to_one_checksum_and_taken_from_another_cancels() {
        let effect = Effect::default().adding_to(0).subtracting_from(1);
        for width in [Width::Two, Width::Four, Width::Eight] {
            let values = Values { first: 0xfff0_u32, count: 16, step: 1, order: Sequence::Increment };
            let mut field = Field::new(place(width, effect.clone()), &values, 0);
            let (mut frames, mut sums) = ([[0; 16]; 16], NOTHING);
            let mut frames: Frames<'_> = frames.iter_mut().map(|frame| &mut frame[..]).collect();
            field.write(&mut frames, &mut sums).unwrap();
            for packet in 0..16 {
                assert_eq!(checksum(sums[0][packet] + sums[1][packet]), 0, "{sums:x?}");
                assert_ne!(sums[0][packet], 0);
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_short_is_refused() {
        let mut field = Field::number(place(Width::Four, Effect::default()));
        assert_eq!(field.write(&mut [&mut [0; 6], &mut [0; 5]], &mut NOTHING.clone()), None);
    }
}
