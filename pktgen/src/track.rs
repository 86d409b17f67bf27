// SPDX-License-Identifier: Apache-2.0
//! What arrived of one stream, by sequence numbers: received, lost, reordered (RFC 4737 §3.3: a number below one seen
//! before), duplicated.
//!
//! A ring of bits remembers the last [`WINDOW`] numbers or so, however long a stream is:
//!
//! ```text
//!   0 ................. floor ................................ next ........
//!     counted for good |  bit set: seen, clear: not seen yet   | not sent or not arrived yet
//! ```

/// Numbers that are remembered: at 10 million packets a second 26 ms.
pub const WINDOW: u64 = 1 << 18;

const WORDS: u64 = WINDOW / 64;

/// Keeps account of one stream.
pub struct Track {
    seen: Box<[u64]>,
    next: u64,
    counts: Counts,
}

/// What has been counted, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Arrived, each counted once.
    pub received: u64,
    /// Of them, those that a later one had overtaken.
    pub reordered: u64,
    /// Further copies.
    pub duplicated: u64,
    /// Arrived so late that nobody knows whether they are copies; not in `received`.
    pub too_late: u64,
    /// One more than the highest number that arrived.
    pub highest: u64,
}

impl Track {
    /// Nothing has arrived.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: vec![0; WORDS as usize].into(), next: 0, counts: Counts::default() }
    }

    /// Notes a packet by the low 32 bits of its number; whether it is the first copy.
    #[inline]
    pub fn note(&mut self, low: u32) -> bool {
        // The number next to where the stream stands that has these low bits.
        let ahead = low.wrapping_sub(self.next as u32) as i32;
        let Some(number) = self.next.checked_add_signed(ahead.into()) else {
            self.counts.too_late += 1;
            return false;
        };
        if number >= self.next {
            self.advance_to(number);
        } else if number / 64 + WORDS <= (self.next - 1) / 64 {
            self.counts.too_late += 1;
            return false;
        } else {
            return self.note_behind(number);
        }
        self.counts.received += 1;
        true
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { highest: self.next, ..self.counts }
    }

    #[inline]
    fn advance_to(&mut self, number: u64) {
        // The word that holds the last number is in use; those behind it are left over from a round before.
        let used = self.next.div_ceil(64);
        let end = number / 64 + 1;
        for word in used.max(end.saturating_sub(WORDS))..end {
            self.set_word(word, 0);
        }
        self.mark(number);
        self.next = number + 1;
    }

    #[cold]
    fn note_behind(&mut self, number: u64) -> bool {
        let word = self.seen.get((number / 64 % WORDS) as usize).copied().unwrap_or(0);
        if word >> (number % 64) & 1 == 1 {
            self.counts.duplicated += 1;
            return false;
        }
        self.mark(number);
        self.counts.received += 1;
        self.counts.reordered += 1;
        true
    }

    #[inline]
    fn mark(&mut self, number: u64) {
        if let Some(word) = self.seen.get_mut((number / 64 % WORDS) as usize) {
            *word |= 1 << (number % 64);
        }
    }

    #[inline]
    fn set_word(&mut self, word: u64, value: u64) {
        if let Some(found) = self.seen.get_mut((word % WORDS) as usize) {
            *found = value;
        }
    }
}

impl Default for Track {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn counts(numbers: impl IntoIterator<Item = u64>) -> Counts {
        let mut track = Track::new();
        numbers.into_iter().for_each(|number| {
            track.note(number as u32);
        });
        track.counts()
    }

    #[test]
    fn order_gaps_copies_and_stragglers_are_told_apart() {
        let expected = Counts { received: 6, reordered: 1, duplicated: 1, too_late: 0, highest: 201 };
        assert_eq!(counts([0, 1, 3, 2, 3, 5, 200]), expected);
        assert_eq!(counts([1, 0]), Counts { received: 2, reordered: 1, highest: 2, ..Counts::default() });
    }

    #[test]
    fn what_is_older_than_the_window_is_neither_new_nor_a_copy() {
        let far = 3 * WINDOW;
        let found = counts([0, far, 1, far - WINDOW + 128, far - WINDOW + 128]);
        let expected = Counts { received: 3, reordered: 1, duplicated: 1, too_late: 1, highest: far + 1 };
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_go_on_beyond_32_bits() {
        let mut track = Track::new();
        let step = 1_u64 << 30;
        for turn in 0..20 {
            assert!(track.note((turn * step) as u32));
        }
        assert_eq!(track.counts(), Counts { received: 20, highest: 19 * step + 1, ..Counts::default() });
        assert!(!track.note((19 * step) as u32));
    }

    #[test]
    fn a_jump_over_more_than_the_window_leaves_nothing_of_before() {
        let mut track = Track::new();
        (0..WINDOW).for_each(|number| {
            track.note(number as u32);
        });
        track.note((4 * WINDOW) as u32);
        for number in 4 * WINDOW - WINDOW + 64..4 * WINDOW {
            assert!(track.note(number as u32), "{number}");
        }
    }

    proptest! {
        #[test]
        fn within_the_window_it_agrees_with_a_plain_set(
            steps in proptest::collection::vec(-70_i64..100, 1..600),
        ) {
            let (mut track, mut seen, mut at) = (Track::new(), BTreeSet::new(), 0_i64);
            let mut expected = Counts::default();
            for step in steps {
                at = (at + step).max(0);
                let number = at as u64;
                let is_behind = seen.last().is_some_and(|last| number < *last);
                if seen.insert(number) {
                    expected.received += 1;
                    expected.reordered += u64::from(is_behind);
                } else {
                    expected.duplicated += 1;
                }
                expected.highest = expected.highest.max(number + 1);
                track.note(number as u32);
            }
            prop_assert_eq!(track.counts(), expected);
        }
    }
}
