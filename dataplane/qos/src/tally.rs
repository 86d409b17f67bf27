// SPDX-License-Identifier: Apache-2.0
//! What the packets of a burst come to, class by class: to count one is one addition.

use crate::schedule::{CLASSES_MAX, ClassSlot, Volume};

/// Places for classes, and for what does not count; a power of two, so that no place is outside.
const PLACES: usize = 32;
const _: () = assert!(PLACES.is_power_of_two() && CLASSES_MAX < PLACES);
/// A packet stands above the bytes: those of a burst are far below 4 GiB.
const PACKET: u64 = 1 << u32::BITS;

/// Packets and bytes of a burst by class.
#[derive(Clone, Debug, Default)]
pub struct Tally([u64; PLACES]);

/// Where a packet is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u8);

impl Place {
    /// Where nothing counts.
    pub const NOWHERE: Self = Self(CLASSES_MAX as u8);

    /// With a class; nowhere if no policy has such a one.
    #[inline(always)]
    #[must_use]
    pub fn of(class: ClassSlot) -> Self {
        Self(class.0.min(Self::NOWHERE.0))
    }
}

impl Tally {
    /// Counts a packet of `bytes`.
    #[inline(always)]
    pub fn count(&mut self, place: Place, bytes: u32) {
        let word = &mut self.0[usize::from(place.0) % PLACES];
        *word = word.wrapping_add(PACKET + u64::from(bytes));
    }

    /// Adds another.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word = word.wrapping_add(other));
    }

    /// What each class comes to; of those that have packets.
    pub fn classes(&self) -> impl Iterator<Item = (ClassSlot, Volume)> {
        let classes = (0..).map(ClassSlot).zip(self.0.iter().take(CLASSES_MAX));
        classes.filter(|(_, word)| **word != 0).map(|(class, word)| (class, volume(*word)))
    }

    /// What all classes come to.
    #[must_use]
    pub fn total(&self) -> Volume {
        volume(self.0.iter().take(CLASSES_MAX).fold(0, |sum, word| sum.wrapping_add(*word)))
    }
}

fn volume(word: u64) -> Volume {
    Volume { packets: word / PACKET, bytes: word % PACKET }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_apart_and_what_counts_nowhere_is_not() {
        let mut tally = Tally::default();
        assert_eq!((tally.classes().count(), tally.total()), (0, Volume::default()));
        for (class, bytes) in [(0, 100), (15, 9_216), (0, 60), (16, 7), (255, 7)] {
            tally.count(Place::of(ClassSlot(class)), bytes);
        }
        tally.count(Place::NOWHERE, 1_000);
        let expected = [(0, Volume { packets: 2, bytes: 160 }), (15, Volume { packets: 1, bytes: 9_216 })];
        assert!(tally.classes().eq(expected.map(|(class, volume)| (ClassSlot(class), volume))));
        assert_eq!(tally.total(), Volume { packets: 3, bytes: 9_376 });
    }
}
