// SPDX-License-Identifier: Apache-2.0
//! Sequence numbers: the outbound counter of an SA, and the IV prefix that stands before it.
//!
//! Here: RFC 4303 §2.1, §2.2 and §3.3.3 (sequence numbers, ESN), RFC 4106 §3.1 (an IV never repeats for a
//! key), RFC 6054 (a sender id in front of the counter). Not here: where limits are persisted and when they
//! are raised (the dataplane's housekeeping), and the receiver's view of numbers (`window`).

use core::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// Room below the ceiling from which a reservation is one `fetch_add` without looking again.
///
/// It covers 1,024 threads that have all looked and not yet added, 64 numbers each.
const FETCH_ADD_ROOM: u64 = 1 << 16;

/// The largest reservation that may take the `fetch_add` path: one burst.
const FETCH_ADD_COUNT: u32 = 64;

/// The longest IV prefix, so that a 32-bit sequence number always fits behind it.
const IV_PREFIX_MAX_BITS: u8 = 32;

/// A whole sequence number: 64 bits with ESN; without ESN the high word is 0 (RFC 4303 §2.2, §2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// The word that travels in the ESP header.
    #[inline]
    pub const fn low(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// The word that ESN authenticates but does not send.
    #[inline]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Why a packet got no sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// The number is at or beyond the persisted limit.
    #[error("sequence number not reserved: the persisted limit must be raised first")]
    NotReserved,
    /// The counter has come to its end and must not cycle (RFC 4303 §3.3.3).
    #[error("sequence numbers exhausted: the SA must be replaced")]
    Exhausted,
}

/// The constant high bits of every IV of an SA: empty, or a sender id (RFC 6054).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IvPrefix {
    value: u32,
    bits: u8,
}

/// An IV prefix that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IvPrefixError {
    /// More than 32 bits.
    #[error("an IV prefix of {0} bits leaves too little counter: at most 32 bits")]
    TooLong(u8),
    /// The value needs more bits than the prefix has.
    #[error("IV prefix {value:#x} does not fit into {bits} bits")]
    ValueTooLarge {
        /// The prefix as given.
        value: u32,
        /// Its length as given.
        bits: u8,
    },
}

impl IvPrefix {
    /// No prefix: the IV is the counter.
    pub const EMPTY: Self = Self { bits: 0, value: 0 };

    /// A prefix of `bits` bits with the given value.
    ///
    /// # Errors
    /// More than 32 bits, or a value that needs more bits than that.
    pub const fn new(bits: u8, value: u32) -> Result<Self, IvPrefixError> {
        if bits > IV_PREFIX_MAX_BITS {
            return Err(IvPrefixError::TooLong(bits));
        }
        if bits < 32 && value >> bits != 0 {
            return Err(IvPrefixError::ValueTooLarge { value, bits });
        }
        Ok(Self { bits, value })
    }

    /// The high word of an IV that the prefix alone makes.
    ///
    /// An IV is this word before 32 zeros, with the sequence number in the bits that the prefix leaves.
    #[inline]
    pub const fn high_word(self) -> u32 {
        if self.bits == 0 { 0 } else { self.value << (IV_PREFIX_MAX_BITS - self.bits) }
    }

    /// The largest counter that fits behind the prefix.
    #[inline]
    pub const fn counter_max(self) -> u64 {
        u64::MAX >> self.bits
    }
}

impl Default for IvPrefix {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What one reservation brought: `count` numbers from `first` on, and why there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    first: u64,
    count: u32,
    shortfall: SequenceError,
}

impl Reserved {
    /// How many numbers are usable.
    #[inline]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The `offset`th number of the reservation, from 0.
    ///
    /// # Errors
    /// From [`count`](Self::count) on: why there is no such number.
    #[inline]
    pub const fn number(&self, offset: u32) -> Result<SequenceNumber, SequenceError> {
        if offset < self.count { Ok(SequenceNumber(self.first + offset as u64)) } else { Err(self.shortfall) }
    }
}

/// The outbound counter of one SA, shared by every worker that sends with it.
///
/// ```text
///   1 ......... next ............. limit ............. past_end
///   given out   |    may be given  |   not on disk yet  |  never
/// ```
///
/// No number is given out twice, and none at or beyond `limit` or `past_end`. `next` cannot wrap: it moves
/// either by an exact compare-and-exchange below the ceiling, or by `fetch_add` with at least
/// [`FETCH_ADD_ROOM`] left.
#[derive(Debug)]
pub struct SequenceCounter {
    next: AtomicU64,
    limit: AtomicU64,
    skipped: AtomicU64,
    past_end: u64,
}

impl SequenceCounter {
    /// A counter that starts at 1 with nothing reserved: [`raise_limit`](Self::raise_limit) opens it.
    ///
    /// The last number is 2^32 − 1 without ESN and 2^64 − 2 with it (the very last one is given up so that
    /// limits can be exclusive), or what fits behind the IV prefix if that is less.
    pub const fn new(esn: bool, prefix: IvPrefix) -> Self {
        let last = if esn { u64::MAX - 1 } else { u32::MAX as u64 };
        let last = if prefix.counter_max() < last { prefix.counter_max() } else { last };
        Self {
            next: AtomicU64::new(1),
            limit: AtomicU64::new(1),
            skipped: AtomicU64::new(0),
            past_end: last + 1,
        }
    }

    /// Takes the next `wanted` numbers, or as many of them as there are.
    #[inline]
    pub fn reserve(&self, wanted: u32) -> Reserved {
        let (limit, seen) = (self.limit.load(Ordering::Acquire), self.next.load(Ordering::Relaxed));
        let ceiling = limit.min(self.past_end);
        let first = if has_room(ceiling, seen, wanted) {
            self.next.fetch_add(u64::from(wanted), Ordering::Relaxed)
        } else {
            self.take_below(ceiling, wanted, seen)
        };
        let usable = ceiling.saturating_sub(first);
        let count = u32::try_from(usable).unwrap_or(u32::MAX).min(wanted);
        let shortfall =
            if limit < self.past_end { SequenceError::NotReserved } else { SequenceError::Exhausted };
        Reserved { first, count, shortfall }
    }

    /// As [`reserve`](Self::reserve), for the one thread that takes any: a load and a store, which lets the CPU go on with
    /// other memory, where a locked instruction would wait for all of it.
    #[inline]
    pub fn reserve_alone(&self, wanted: u32) -> Reserved {
        let (limit, first) = (self.limit.load(Ordering::Acquire), self.next.load(Ordering::Relaxed));
        if !has_room(limit.min(self.past_end), first, wanted) {
            return self.reserve(wanted);
        }
        self.next.store(first + u64::from(wanted), Ordering::Relaxed);
        Reserved { first, count: wanted, shortfall: SequenceError::NotReserved }
    }

    /// The first number not yet given out.
    pub fn position(&self) -> SequenceNumber {
        SequenceNumber(self.next.load(Ordering::Acquire))
    }

    /// The first number that must not be given out yet.
    pub fn limit(&self) -> SequenceNumber {
        SequenceNumber(self.limit.load(Ordering::Acquire))
    }

    /// The last number that this SA can ever give out.
    pub const fn last(&self) -> SequenceNumber {
        SequenceNumber(self.past_end - 1)
    }

    /// How many numbers have been given out; those that [`resume_at`](Self::resume_at) jumped do not count.
    pub fn given_out(&self) -> u64 {
        let skipped = self.skipped.load(Ordering::Acquire);
        self.position().0.saturating_sub(1).saturating_sub(skipped)
    }

    /// Allows numbers below `limit`, once that limit is safely on disk. It never goes back.
    pub fn raise_limit(&self, limit: SequenceNumber) {
        self.limit.fetch_max(limit.0, Ordering::AcqRel);
    }

    /// Goes on at `next`, as after an unclean stop, before anybody takes numbers. It never goes back.
    pub fn resume_at(&self, next: SequenceNumber) {
        let next = next.0.min(self.past_end);
        let before = self.next.fetch_max(next, Ordering::AcqRel);
        self.skipped.fetch_add(next.saturating_sub(before), Ordering::AcqRel);
    }

    /// Takes up to `wanted` numbers below `ceiling` and not one more; returns the first.
    #[cold]
    fn take_below(&self, ceiling: u64, wanted: u32, seen: u64) -> u64 {
        let mut first = seen;
        loop {
            let usable = ceiling.saturating_sub(first).min(u64::from(wanted));
            if usable == 0 {
                return first;
            }
            let taken =
                self.next.compare_exchange_weak(first, first + usable, Ordering::Relaxed, Ordering::Relaxed);
            match taken {
                Ok(_) => return first,
                Err(moved) => first = moved,
            }
        }
    }
}

/// Whether so many numbers can be taken from `seen` on without a look at what others take meanwhile.
#[inline(always)]
fn has_room(ceiling: u64, seen: u64, wanted: u32) -> bool {
    wanted <= FETCH_ADD_COUNT && ceiling.saturating_sub(seen) >= FETCH_ADD_ROOM
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn open(esn: bool) -> SequenceCounter {
        let counter = SequenceCounter::new(esn, IvPrefix::EMPTY);
        counter.raise_limit(SequenceNumber(u64::MAX));
        counter
    }

    fn take(counter: &SequenceCounter, wanted: u32) -> Vec<Result<u64, SequenceError>> {
        let reserved = counter.reserve(wanted);
        (0..wanted).map(|offset| reserved.number(offset).map(|number| number.0)).collect()
    }

    #[test]
    fn the_first_number_of_an_sa_is_one() {
        assert_eq!(take(&open(false), 2), [Ok(1), Ok(2)]);
        assert_eq!(take(&open(true), 1), [Ok(1)]);
    }

    #[test]
    fn a_new_counter_gives_nothing_before_its_limit_is_raised() {
        let counter = SequenceCounter::new(false, IvPrefix::EMPTY);
        assert_eq!(take(&counter, 2), [Err(SequenceError::NotReserved); 2]);
        counter.raise_limit(SequenceNumber(3));
        assert_eq!(take(&counter, 3), [Ok(1), Ok(2), Err(SequenceError::NotReserved)]);
    }

    #[test]
    fn a_counter_at_its_limit_does_not_run_away() {
        let counter = SequenceCounter::new(true, IvPrefix::EMPTY);
        counter.raise_limit(SequenceNumber(11));
        take(&counter, 10);
        for _ in 0..1000 {
            assert_eq!(counter.reserve(64).count(), 0);
        }
        assert_eq!(counter.position(), SequenceNumber(11));
        counter.raise_limit(SequenceNumber(100));
        assert_eq!(take(&counter, 1), [Ok(11)], "no number is lost at the limit");
    }

    #[test]
    fn a_limit_is_never_lowered_and_a_position_never_taken_back() {
        let counter = SequenceCounter::new(true, IvPrefix::EMPTY);
        counter.raise_limit(SequenceNumber(1000));
        counter.raise_limit(SequenceNumber(10));
        assert_eq!(counter.limit(), SequenceNumber(1000));
        counter.resume_at(SequenceNumber(500));
        counter.resume_at(SequenceNumber(5));
        assert_eq!(take(&counter, 1), [Ok(500)]);
        assert_eq!(counter.given_out(), 1);
    }

    #[test]
    fn without_esn_the_last_number_is_two_to_the_32_minus_one() {
        let counter = open(false);
        counter.resume_at(SequenceNumber(0xffff_fffe));
        let numbers = take(&counter, 4);
        assert_eq!(numbers[..2], [Ok(0xffff_fffe), Ok(0xffff_ffff)]);
        assert_eq!(numbers[2..], [Err(SequenceError::Exhausted); 2]);
        assert_eq!(take(&counter, 1), [Err(SequenceError::Exhausted)]);
    }

    #[test]
    fn with_esn_the_counter_crosses_a_low_word_of_zero() {
        let counter = open(true);
        counter.resume_at(SequenceNumber(0xffff_ffff));
        let crossed = take(&counter, 2);
        assert_eq!(crossed, [Ok(0xffff_ffff), Ok(0x1_0000_0000)]);
        assert_eq!((SequenceNumber(0x1_0000_0000).low(), SequenceNumber(0x1_0000_0000).high()), (0, 1));
    }

    #[test]
    fn with_esn_the_counter_ends_without_wrapping() {
        let counter = open(true);
        counter.resume_at(SequenceNumber(u64::MAX - 2));
        assert_eq!(take(&counter, 3), [Ok(u64::MAX - 2), Ok(u64::MAX - 1), Err(SequenceError::Exhausted)]);
        for _ in 0..100 {
            assert_eq!(counter.reserve(64).count(), 0);
        }
        assert_eq!(counter.position(), SequenceNumber(u64::MAX));
    }

    #[test]
    fn a_shortfall_below_the_end_says_not_reserved_and_at_the_end_exhausted() {
        let counter = SequenceCounter::new(false, IvPrefix::EMPTY);
        counter.resume_at(SequenceNumber(0xffff_fff0));
        counter.raise_limit(SequenceNumber(0xffff_fff1));
        assert_eq!(take(&counter, 2), [Ok(0xffff_fff0), Err(SequenceError::NotReserved)]);
        counter.raise_limit(SequenceNumber(0x1_0000_0000));
        assert_eq!(counter.reserve(64).count(), 15);
        assert_eq!(take(&counter, 1), [Err(SequenceError::Exhausted)]);
    }

    #[test]
    fn an_iv_prefix_stands_in_the_high_bits_and_ends_the_counter_before_itself() {
        let prefix = IvPrefix::new(16, 0xabcd).unwrap();
        assert_eq!(prefix.high_word(), 0xabcd_0000);
        let counter = SequenceCounter::new(true, prefix);
        assert_eq!(counter.last(), SequenceNumber(0x0000_ffff_ffff_ffff));
        assert_eq!(SequenceCounter::new(false, prefix).last(), SequenceNumber(0xffff_ffff));
        let longest = IvPrefix::new(32, u32::MAX).unwrap();
        assert_eq!(longest.high_word(), u32::MAX);
        assert_eq!(SequenceCounter::new(true, longest).last(), SequenceNumber(0xffff_ffff));
        assert_eq!(IvPrefix::EMPTY.high_word(), 0);
    }

    #[test]
    fn an_impossible_iv_prefix_is_refused() {
        assert_eq!(IvPrefix::new(33, 0), Err(IvPrefixError::TooLong(33)));
        assert_eq!(IvPrefix::new(8, 256), Err(IvPrefixError::ValueTooLarge { value: 256, bits: 8 }));
        assert_eq!(IvPrefix::new(0, 1), Err(IvPrefixError::ValueTooLarge { value: 1, bits: 0 }));
        assert_eq!(IvPrefix::new(0, 0), Ok(IvPrefix::EMPTY));
    }

    /// Two workers draw from one counter while its limit is raised in small and large steps.
    #[test]
    fn two_threads_never_draw_the_same_number() {
        let counter = SequenceCounter::new(true, IvPrefix::EMPTY);
        let draw = || {
            let mut drawn = Vec::new();
            for round in 0..4000_u64 {
                let wanted = u32::try_from(round % 64).unwrap() + 1;
                drawn.extend(take(&counter, wanted).into_iter().flatten());
                // Small steps take the exact path, large ones the fetch_add path.
                let step = if round % 16 == 0 { FETCH_ADD_ROOM + 100 } else { 10 };
                counter.raise_limit(SequenceNumber(counter.position().0 + step));
            }
            drawn
        };
        counter.raise_limit(SequenceNumber(2));
        let (one, two) = std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(draw), scope.spawn(draw));
            (one.join().unwrap(), two.join().unwrap())
        });
        let distinct: HashSet<u64> = one.iter().chain(&two).copied().collect();
        assert_eq!(distinct.len(), one.len() + two.len());
        assert!(distinct.len() > 4000, "each round had at least one number to draw");
        assert!(!distinct.contains(&0));
    }

    proptest! {
        /// The one thread that takes any gets what each of many would: before, at and behind the limit and the end.
        #[test]
        fn alone_gives_the_same_numbers(
            esn: bool,
            before_end in 0_u64..3 * FETCH_ADD_ROOM,
            room in 0_u64..2 * FETCH_ADD_ROOM,
            wanted in prop::collection::vec(0_u32..200, 1..20),
        ) {
            let counters = [(); 2].map(|()| {
                let counter = SequenceCounter::new(esn, IvPrefix::EMPTY);
                let next = counter.last().0 - before_end;
                counter.resume_at(SequenceNumber(next));
                counter.raise_limit(SequenceNumber(next.saturating_add(room)));
                counter
            });
            for wanted in wanted {
                let reserved = [counters[0].reserve(wanted), counters[1].reserve_alone(wanted)];
                prop_assert_eq!(reserved[0].count(), reserved[1].count());
                for offset in 0..wanted {
                    prop_assert_eq!(reserved[0].number(offset), reserved[1].number(offset));
                }
                prop_assert_eq!(counters[0].position(), counters[1].position());
            }
        }

        #[test]
        fn numbers_rise_without_gap_and_stay_below_the_limit(
            steps in prop::collection::vec((1_u32..200, 0_u64..200_000), 1..40),
        ) {
            let counter = SequenceCounter::new(true, IvPrefix::EMPTY);
            let (mut expected, mut limit) = (1_u64, 1_u64);
            for (wanted, raise) in steps {
                limit += raise;
                counter.raise_limit(SequenceNumber(limit));
                for number in take(&counter, wanted) {
                    if expected < limit {
                        prop_assert_eq!(number, Ok(expected));
                        expected += 1;
                    } else {
                        prop_assert_eq!(number, Err(SequenceError::NotReserved));
                    }
                }
                prop_assert_eq!(counter.given_out(), expected - 1);
            }
        }
    }
}
