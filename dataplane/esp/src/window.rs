// SPDX-License-Identifier: Apache-2.0
//! The anti-replay window of an inbound SA: RFC 4303 §3.4.3 and Appendix A2 (window and ESN high word).
//!
//! The same code serves SAs with and without ESN: without, every number has a high word of 0. Not here: the
//! resynchronisation of Appendix A3; the order check – open – check – mark and the counting of what is
//! refused (`inbound`).
//!
//! The window is a ring of bits, one for each of the `size` numbers up to the right edge; number `n` has bit
//! `n mod size`:
//!
//! ```text
//!     numbers    edge-size   edge-size+1 ........................ edge   edge+1 ......
//!                 too old  | <--------- seen or not seen --------> |  new: moves the edge
//!
//!     ring of 128 bits (two words) with its right edge at 200:
//!       bit     0 ........... 63   64 .... 72 | 73 ........ 127
//!       number  128 ........ 191  192 ... 200 | 73 ........ 127
//!                                         edge^  ^oldest number in the window
//! ```
//!
//! Moving the edge from 200 to 203 clears the bits of 73, 74 and 75: they become those of 201 to 203.
//!
//! **One writer.** Only the worker that owns the SA calls [`Window::check`] and [`Window::accept`]; everybody
//! else only reads. So each word is changed by a plain load and a plain store, without a locked instruction.
//! [`Window::resume`] is called before the SA is handed to its worker.

use core::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::sequence::SequenceNumber;

/// The smallest window, in numbers.
pub const WINDOW_MIN: u32 = 64;
/// The largest window, in numbers.
pub const WINDOW_MAX: u32 = 8192;
/// The window that an SA has if nothing else is asked for.
pub const WINDOW_DEFAULT: u32 = 1024;

const WORDS_IN_LINE: usize = 8;

/// Why a sequence number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// The whole number is 0, which no sender gives out (RFC 4303 §3.3.3).
    #[error("sequence number 0")]
    SequenceZero,
    /// The number was marked before.
    #[error("sequence number seen before")]
    Replayed,
    /// The number lies behind the window.
    #[error("sequence number behind the anti-replay window")]
    TooOld,
}

/// A window size that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an anti-replay window of {0}: a power of two from {WINDOW_MIN} to {WINDOW_MAX} is needed")]
pub struct WindowSizeError(pub u32);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS_IN_LINE]);

/// The anti-replay window of one SA.
#[derive(Debug)]
pub struct Window {
    right_edge: AtomicU64,
    ring: Box<[Line]>,
    size: u32,
    esn: bool,
}

impl Window {
    /// An empty window for a fresh SA, with or without ESN: every number from 1 on is new.
    ///
    /// # Errors
    /// `size` is not a power of two from [`WINDOW_MIN`] to [`WINDOW_MAX`].
    pub fn new(size: u32, esn: bool) -> Result<Self, WindowSizeError> {
        if !size.is_power_of_two() || !(WINDOW_MIN..=WINDOW_MAX).contains(&size) {
            return Err(WindowSizeError(size));
        }
        let lines = (size as usize).div_ceil(64 * WORDS_IN_LINE);
        Ok(Self {
            right_edge: AtomicU64::new(0),
            ring: (0..lines).map(|_| Line::default()).collect(),
            size,
            esn,
        })
    }

    /// How many numbers the window holds.
    #[inline]
    pub const fn size(&self) -> u64 {
        self.size as u64
    }

    /// Whether sequence numbers have 64 bits.
    #[inline]
    pub const fn esn(&self) -> bool {
        self.esn
    }

    /// The highest number marked so far, or where the window was resumed; 0 for a fresh one.
    #[inline]
    pub fn right_edge(&self) -> SequenceNumber {
        SequenceNumber(self.right_edge.load(Ordering::Relaxed))
    }

    /// The whole number that `low` stands for: without ESN itself, with ESN by RFC 4303 Appendix A2.2.
    ///
    /// With ESN that is the only number with this low word among the 2^32 from the window's left end on: with the
    /// window inside one subspace (case A) it has the edge's high word or the next, with the window across
    /// two (case B) the one before or the edge's. Before number 1 there is no subspace, so a window that
    /// reaches below 0 ends there.
    #[inline]
    pub fn infer(&self, low: u32) -> SequenceNumber {
        if !self.esn {
            return SequenceNumber(u64::from(low));
        }
        let left_end = SequenceNumber(self.right_edge().0.saturating_sub(self.size() - 1));
        let ahead = low.wrapping_sub(left_end.low());
        SequenceNumber(left_end.0.wrapping_add(u64::from(ahead)))
    }

    /// Whether `sequence` may still come: neither marked nor behind the window.
    ///
    /// # Errors
    /// [`ReplayError`] says why not.
    #[inline]
    pub fn check(&self, sequence: SequenceNumber) -> Result<(), ReplayError> {
        let edge = self.right_edge().0;
        if sequence.0 > edge {
            return Ok(());
        }
        if sequence.0 == 0 {
            return Err(ReplayError::SequenceZero);
        }
        if edge - sequence.0 >= self.size() {
            return Err(ReplayError::TooOld);
        }
        match self.word(sequence.0 / 64) {
            Some(word) if word.load(Ordering::Relaxed) & bit(sequence.0) == 0 => Ok(()),
            _ => Err(ReplayError::Replayed),
        }
    }

    /// Asks the CPU for what the next number will change.
    #[inline]
    pub fn prefetch(&self) {
        if let Some(word) = self.word(self.right_edge().0.wrapping_add(1) / 64) {
            pktbuf::prefetch(word);
        }
    }

    /// [`check`](Self::check)s and [`mark`](Self::mark)s a number whose packet the ICV has proved; whether one with a higher
    /// number has overtaken it.
    ///
    /// # Errors
    /// As of [`check`](Self::check); nothing has changed then.
    #[inline(always)]
    pub fn accept(&self, sequence: SequenceNumber) -> Result<bool, ReplayError> {
        // Mostly the next one: then there is nothing to check, and nothing in between to clear.
        if sequence.0.checked_sub(1) == Some(self.right_edge().0) {
            self.change(sequence.0 / 64, 0, bit(sequence.0));
            self.right_edge.store(sequence.0, Ordering::Relaxed);
            return Ok(false);
        }
        self.accept_other(sequence)
    }

    #[inline(never)]
    fn accept_other(&self, sequence: SequenceNumber) -> Result<bool, ReplayError> {
        self.check(sequence)?;
        let is_overtaken = sequence < self.right_edge();
        self.mark(sequence);
        Ok(is_overtaken)
    }

    /// Marks `sequence` as seen and moves the right edge there if it lies ahead.
    ///
    /// Only for a number that [`check`](Self::check) passed and whose packet the ICV has proved
    /// (RFC 4303 §3.4.3). A number behind the window changes nothing.
    #[inline]
    pub fn mark(&self, sequence: SequenceNumber) {
        let edge = self.right_edge().0;
        if sequence.0 > edge {
            self.advance(edge, sequence.0);
        } else if edge - sequence.0 < self.size() {
            self.change(sequence.0 / 64, 0, bit(sequence.0));
        }
    }

    /// Begins again at a persisted right edge: every number up to it is refused.
    pub fn resume(&self, right_edge: SequenceNumber) {
        self.right_edge.store(right_edge.0, Ordering::Relaxed);
        for word in self.ring.iter().flat_map(|line| &line.0) {
            word.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Moves the edge from `edge` up to `sequence`: clears the bits of all numbers in between, marks the last.
    #[inline(never)]
    fn advance(&self, edge: u64, sequence: u64) {
        let (first, last) = ((edge + 1) / 64, sequence / 64);
        let from = u64::MAX << ((edge + 1) % 64);
        let to = u64::MAX >> (63 - sequence % 64);
        if first == last {
            self.change(last, from & to, bit(sequence));
        } else if sequence - edge >= self.size() {
            self.clear();
            self.change(last, 0, bit(sequence));
        } else {
            self.change(first, from, 0);
            (first + 1..last).for_each(|number| self.change(number, u64::MAX, 0));
            self.change(last, to, bit(sequence));
        }
        self.right_edge.store(sequence, Ordering::Relaxed);
    }

    /// Clears and then sets bits of the ring's word for the 64 numbers from `64 * number` on.
    #[inline]
    fn change(&self, number: u64, cleared: u64, set: u64) {
        if let Some(word) = self.word(number) {
            word.store(word.load(Ordering::Relaxed) & !cleared | set, Ordering::Relaxed);
        }
    }

    #[cold]
    fn clear(&self) {
        for word in self.ring.iter().flat_map(|line| &line.0) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The ring's word for the 64 numbers from `64 * number` on; always there, as the mask says.
    #[inline]
    fn word(&self, number: u64) -> Option<&AtomicU64> {
        let index = (number & (self.size() / 64 - 1)) as usize;
        self.ring.get(index / WORDS_IN_LINE)?.0.get(index % WORDS_IN_LINE)
    }
}

#[inline]
const fn bit(sequence: u64) -> u64 {
    1 << (sequence % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SIZES: [u32; 8] = [64, 128, 256, 512, 1024, 2048, 4096, 8192];

    fn window(size: u32) -> Window {
        Window::new(size, true).unwrap()
    }

    /// As packets are: and they are told to be late just when a higher number came before.
    fn accept(window: &Window, sequence: u64) -> Result<(), ReplayError> {
        let edge = window.right_edge();
        let is_overtaken = window.accept(SequenceNumber(sequence))?;
        assert_eq!(is_overtaken, SequenceNumber(sequence) < edge);
        Ok(())
    }

    /// What RFC 4303 §3.4.3 says, with a set and no ring.
    struct Model {
        size: u64,
        edge: u64,
        floor: u64,
        seen: HashSet<u64>,
    }

    impl Model {
        fn new(size: u32, edge: u64) -> Self {
            Self { size: u64::from(size), edge, floor: edge, seen: HashSet::new() }
        }

        fn accept(&mut self, sequence: u64) -> Result<(), ReplayError> {
            if sequence == 0 {
                return Err(ReplayError::SequenceZero);
            }
            if sequence <= self.edge && self.edge - sequence >= self.size {
                return Err(ReplayError::TooOld);
            }
            if sequence <= self.floor || !self.seen.insert(sequence) {
                return Err(ReplayError::Replayed);
            }
            self.edge = self.edge.max(sequence);
            Ok(())
        }
    }

    /// RFC 4303 Appendix A2.2 word by word: Tl and Th are the edge's words, W the size.
    fn infer_by_the_rfc(edge: u64, size: u64, low: u32) -> u64 {
        let (th, tl) = (edge >> 32, edge & 0xffff_ffff);
        let seql = u64::from(low);
        let seqh = if tl >= size - 1 {
            if seql >= tl - (size - 1) { th } else { th + 1 }
        } else if seql >= (1 << 32) + tl - (size - 1) {
            th.saturating_sub(1)
        } else {
            th
        };
        seqh << 32 | seql
    }

    #[test]
    fn only_powers_of_two_from_64_to_8192_are_window_sizes() {
        for size in SIZES {
            assert_eq!(window(size).size(), u64::from(size));
        }
        for size in [0, 1, 32, 63, 65, 1000, 8191, 16384, u32::MAX] {
            assert_eq!(Window::new(size, true).unwrap_err(), WindowSizeError(size));
        }
    }

    #[test]
    fn every_number_passes_once_and_only_once() {
        for size in SIZES {
            let window = window(size);
            for sequence in 1..=3 * u64::from(size) {
                assert_eq!(accept(&window, sequence), Ok(()));
                assert_eq!(accept(&window, sequence), Err(ReplayError::Replayed));
            }
        }
    }

    #[test]
    fn the_window_ends_exactly_at_its_size() {
        for size in SIZES {
            let window = window(size);
            let edge = 10 * u64::from(size) + 17;
            accept(&window, edge).unwrap();
            let oldest = edge - u64::from(size) + 1;
            assert_eq!(accept(&window, oldest - 1), Err(ReplayError::TooOld));
            assert_eq!(accept(&window, oldest), Ok(()));
            assert_eq!(accept(&window, oldest), Err(ReplayError::Replayed));
        }
    }

    #[test]
    fn number_zero_never_passes() {
        let window = window(64);
        assert_eq!(accept(&window, 0), Err(ReplayError::SequenceZero));
        accept(&window, 5).unwrap();
        assert_eq!(accept(&window, 0), Err(ReplayError::SequenceZero));
        accept(&window, 5000).unwrap();
        assert_eq!(accept(&window, 0), Err(ReplayError::SequenceZero));
    }

    #[test]
    fn a_check_alone_changes_nothing() {
        let window = window(64);
        for _ in 0..3 {
            assert_eq!(window.check(SequenceNumber(1 << 40)), Ok(()));
        }
        assert_eq!(window.right_edge(), SequenceNumber(0));
    }

    #[test]
    fn marking_a_number_behind_the_window_changes_nothing() {
        let window = window(64);
        accept(&window, 1000).unwrap();
        window.mark(SequenceNumber(1000 - 64));
        assert_eq!(window.check(SequenceNumber(1000 - 63)), Ok(()));
        for sequence in 1001..1000 + 64 {
            assert_eq!(window.check(SequenceNumber(sequence)), Ok(()));
        }
    }

    #[test]
    fn after_resuming_all_up_to_the_edge_is_refused_and_all_beyond_passes() {
        for size in SIZES {
            let window = window(size);
            window.resume(SequenceNumber(70_000));
            assert_eq!(accept(&window, 70_000), Err(ReplayError::Replayed));
            assert_eq!(accept(&window, 70_000 - u64::from(size) + 1), Err(ReplayError::Replayed));
            assert_eq!(accept(&window, 70_000 - u64::from(size)), Err(ReplayError::TooOld));
            assert_eq!(accept(&window, 70_003), Ok(()));
            assert_eq!(accept(&window, 70_001), Ok(()));
            assert_eq!(accept(&window, 70_000), Err(ReplayError::Replayed));
        }
    }

    #[test]
    fn the_high_word_is_inferred_in_case_a() {
        let window = window(64);
        window.resume(SequenceNumber(0x5_0000_1000));
        assert_eq!(window.infer(0x1001), SequenceNumber(0x5_0000_1001));
        assert_eq!(window.infer(0x1000 - 63), SequenceNumber(0x5_0000_1000 - 63));
        assert_eq!(window.infer(0x1000 - 64), SequenceNumber(0x6_0000_1000 - 64));
        assert_eq!(window.infer(0), SequenceNumber(0x6_0000_0000));
    }

    #[test]
    fn the_high_word_is_inferred_in_case_b() {
        let window = window(64);
        window.resume(SequenceNumber(0x5_0000_0010));
        assert_eq!(window.infer(0x11), SequenceNumber(0x5_0000_0011));
        assert_eq!(window.infer(0), SequenceNumber(0x5_0000_0000));
        assert_eq!(window.infer(0xffff_ffff), SequenceNumber(0x4_ffff_ffff));
        assert_eq!(window.infer(0xffff_ffd1), SequenceNumber(0x4_ffff_ffd1));
        assert_eq!(window.infer(0xffff_ffd0), SequenceNumber(0x5_ffff_ffd0));
    }

    #[test]
    fn inference_follows_the_pseudocode_where_the_cases_meet() {
        for size in SIZES {
            let window = window(size);
            for edge_low in [size - 2, size - 1, size] {
                let edge = 0x5_0000_0000 | u64::from(edge_low);
                window.resume(SequenceNumber(edge));
                for low in [0, 1, edge_low, edge_low + 1, u32::MAX - 1, u32::MAX] {
                    assert_eq!(window.infer(low).0, infer_by_the_rfc(edge, u64::from(size), low));
                }
            }
        }
    }

    #[test]
    fn a_fresh_window_infers_high_word_zero_for_every_low_word() {
        let window = window(1024);
        for low in [0, 1, 1022, 1023, 1024, 0x8000_0000, u32::MAX - 1022, u32::MAX] {
            assert_eq!(window.infer(low), SequenceNumber(u64::from(low)));
        }
    }

    #[test]
    fn without_esn_every_number_has_a_high_word_of_zero() {
        let window = Window::new(64, false).unwrap();
        window.resume(SequenceNumber(0xffff_fff0));
        for low in [0, 1, 0xffff_ffef, 0xffff_fff1, u32::MAX] {
            assert_eq!(window.infer(low), SequenceNumber(u64::from(low)));
        }
        assert_eq!(accept(&window, 5), Err(ReplayError::TooOld), "the number does not cycle");
    }

    #[test]
    fn a_number_past_the_end_of_esn_is_refused() {
        let window = window(64);
        window.resume(SequenceNumber(u64::MAX - 5));
        assert!(window.check(window.infer(0)).is_err());
        assert!(window.check(window.infer(100)).is_err());
        assert_eq!(accept(&window, u64::MAX), Ok(()));
        assert_eq!(accept(&window, u64::MAX), Err(ReplayError::Replayed));
    }

    /// Numbers near each other and near 2^32, out of order, with jumps and duplicates.
    fn walk(base: u64, moves: &[(bool, u64)]) -> Vec<u64> {
        let mut top = base;
        let mut numbers = Vec::new();
        for &(ahead, distance) in moves {
            if ahead {
                top += distance;
                numbers.push(top);
            } else {
                numbers.push(top.saturating_sub(distance));
            }
        }
        numbers
    }

    fn moves() -> impl Strategy<Value = Vec<(bool, u64)>> {
        let distance =
            prop_oneof![6 => 0_u64..5, 4 => 0_u64..200, 2 => 0_u64..20_000, 1 => Just(64), 1 => Just(1024)];
        prop::collection::vec((any::<bool>(), distance), 1..400)
    }

    proptest! {
        #[test]
        fn the_ring_agrees_with_a_plain_set(
            size in prop::sample::select(&SIZES[..]),
            base in prop_oneof![Just(0_u64), 0_u64..10_000, (1_u64 << 32) - 3000..(1 << 32) + 3000],
            moves in moves(),
        ) {
            let window = window(size);
            if base > 0 {
                window.resume(SequenceNumber(base));
            }
            let mut model = Model::new(size, base);
            for number in walk(base, &moves) {
                prop_assert_eq!(accept(&window, number), model.accept(number), "number {}", number);
                prop_assert_eq!(window.right_edge().0, model.edge);
            }
        }

        #[test]
        fn esn_inference_finds_the_number_that_was_sent(
            size in prop::sample::select(&SIZES[..]),
            base in (1_u64 << 33) - 30_000..(1 << 33) + 30_000,
            moves in moves(),
        ) {
            let window = window(size);
            window.resume(SequenceNumber(base));
            let mut model = Model::new(size, base);
            for number in walk(base, &moves) {
                let inferred = window.infer(SequenceNumber(number).low());
                let outcome = model.accept(number);
                if outcome == Err(ReplayError::TooOld) {
                    prop_assert_eq!(inferred.0, number + (1 << 32), "taken for the next subspace's");
                } else {
                    prop_assert_eq!(inferred.0, number);
                    prop_assert_eq!(accept(&window, inferred.0), outcome);
                }
            }
        }

        #[test]
        fn inference_follows_the_pseudocode_of_appendix_a2(
            size in prop::sample::select(&SIZES[..]),
            high in 1_u64..5,
            edge_low in prop_oneof![any::<u32>(), 0_u32..10_000, u32::MAX - 10_000..=u32::MAX],
            low in prop_oneof![any::<u32>(), 0_u32..10_000, u32::MAX - 10_000..=u32::MAX],
        ) {
            let edge = high << 32 | u64::from(edge_low);
            let window = window(size);
            window.resume(SequenceNumber(edge));
            prop_assert_eq!(window.infer(low).0, infer_by_the_rfc(edge, u64::from(size), low));
        }
    }
}
