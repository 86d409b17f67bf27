// SPDX-License-Identifier: Apache-2.0
//! The cycle clock: the time stamp counter, calibrated against `CLOCK_MONOTONIC`.
//!
//! Where the counter is not invariant (CPUID 8000_0007h, EDX bit 8 clear) or there is none, the same types count
//! nanoseconds of `CLOCK_MONOTONIC`.
//!
//! Not here: wall clock time, timers.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const NS_PER_SECOND: u64 = 1_000_000_000;
/// How long [`Calibration::measure`] lets pass: with reads good to some 100 ns, about 5 parts in a million.
const BASELINE: Duration = Duration::from_millis(20);
/// Reads of both clocks, of which the closest pair is taken.
const READS: usize = 16;
/// Fraction bits of the two conversion factors.
const FRACTION_BITS: u32 = 32;

/// What a [`Calibration`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockSource {
    /// The invariant time stamp counter.
    Tsc,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    Monotonic,
}

/// A moment, in units of the clock that [`Calibration::now`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cycles(u64);

impl Cycles {
    /// A moment from its raw count, for simulations and tests.
    #[must_use]
    pub const fn from_raw(count: u64) -> Self {
        Self(count)
    }

    /// The raw count.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The time stamp counter (nanoseconds on other machines than x86-64), unserialised: some 20 cycles.
    ///
    /// Only where [`Calibration::source`] says [`ClockSource::Tsc`] is it the same clock as [`Calibration::now`].
    #[inline]
    #[must_use]
    pub fn tsc() -> Self {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has the instruction, and it has no effect but its result.
        return Self(unsafe { core::arch::x86_64::_rdtsc() });
        #[cfg(not(target_arch = "x86_64"))]
        return Self(monotonic_ns());
    }

    /// Cycles from `earlier` to `self`, 0 if that is not in the past (counters of two cores may differ by a little).
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `cycles` later.
    #[inline]
    #[must_use]
    pub const fn plus(self, cycles: u64) -> Self {
        Self(self.0.saturating_add(cycles))
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_SECOND).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The relation of the cycle clock to `CLOCK_MONOTONIC`: which clock, how fast, and one moment seen on both.
#[derive(Debug, Clone, Copy)]
pub struct Calibration {
    source: ClockSource,
    base: Pair,
    hz: u64,
    ns_per_cycle: Factor,
    cycles_per_ns: Factor,
}

impl Calibration {
    /// Chooses the clock and measures its speed; takes 20 ms where that is the time stamp counter.
    #[must_use]
    pub fn measure() -> Self {
        if !has_invariant_tsc() {
            return Self::monotonic();
        }
        let base = Pair::closest();
        std::thread::sleep(BASELINE);
        Self::between(base, Pair::closest()).unwrap_or_else(Self::monotonic)
    }

    /// A clock that counts the nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn monotonic() -> Self {
        let now = monotonic_ns();
        Self {
            source: ClockSource::Monotonic,
            base: Pair { cycles: now, ns: now },
            hz: NS_PER_SECOND,
            ns_per_cycle: Factor::ONE,
            cycles_per_ns: Factor::ONE,
        }
    }

    /// Measures again from the first moment to this one: the longer apart, the more exact.
    ///
    /// Conversions of the result agree with `CLOCK_MONOTONIC` at this moment.
    #[must_use]
    pub fn refined(&self) -> Self {
        match self.source {
            ClockSource::Monotonic => *self,
            ClockSource::Tsc => Self::between(self.base, Pair::closest()).unwrap_or(*self),
        }
    }

    fn between(base: Pair, end: Pair) -> Option<Self> {
        let cycles = end.cycles.checked_sub(base.cycles)?;
        let ns = end.ns.checked_sub(base.ns)?;
        let cycles_per_ns = Factor::ratio(cycles, ns)?;
        let ns_per_cycle = Factor::ratio(ns, cycles)?;
        let hz = u64::try_from(u128::from(cycles) * u128::from(NS_PER_SECOND) / u128::from(ns)).ok()?;
        Some(Self { source: ClockSource::Tsc, base, hz, ns_per_cycle, cycles_per_ns })
    }

    /// The present moment.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Cycles {
        match self.source {
            ClockSource::Tsc => Cycles::tsc(),
            ClockSource::Monotonic => Cycles(monotonic_ns()),
        }
    }

    /// Which clock it is.
    #[must_use]
    pub fn source(&self) -> ClockSource {
        self.source
    }

    /// Cycles in a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// A number of cycles as nanoseconds, at most `u64::MAX`.
    #[inline]
    #[must_use]
    pub fn cycles_to_ns(&self, cycles: u64) -> u64 {
        self.ns_per_cycle.times(cycles)
    }

    /// A number of nanoseconds as cycles, at most `u64::MAX`.
    #[inline]
    #[must_use]
    pub fn ns_to_cycles(&self, ns: u64) -> u64 {
        self.cycles_per_ns.times(ns)
    }

    /// A moment as nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn to_monotonic_ns(&self, moment: Cycles) -> u64 {
        match moment.0.checked_sub(self.base.cycles) {
            Some(after) => self.base.ns.saturating_add(self.cycles_to_ns(after)),
            None => self.base.ns.saturating_sub(self.cycles_to_ns(self.base.cycles - moment.0)),
        }
    }
}

/// A fixed-point factor: `mantissa` / 2^32.
#[derive(Debug, Clone, Copy)]
struct Factor(u64);

impl Factor {
    const ONE: Self = Self(1 << FRACTION_BITS);

    fn ratio(numerator: u64, denominator: u64) -> Option<Self> {
        let scaled = (u128::from(numerator) << FRACTION_BITS).checked_div(u128::from(denominator))?;
        u64::try_from(scaled).ok().filter(|&mantissa| mantissa > 0).map(Self)
    }

    fn times(self, value: u64) -> u64 {
        // 64 × 64 bits fit 128.
        let product = u128::from(value) * u128::from(self.0);
        u64::try_from(product >> FRACTION_BITS).unwrap_or(u64::MAX)
    }
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
struct Pair {
    cycles: u64,
    ns: u64,
}

impl Pair {
    /// The pair of reads that lay closest together, so that an interruption between them does not count.
    fn closest() -> Self {
        let mut best = Self::read();
        for _ in 1..READS {
            let next = Self::read();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }

    fn read() -> (u64, Self) {
        let before = Cycles::tsc();
        let ns = monotonic_ns();
        let apart = Cycles::tsc().since(before);
        (apart, Self { cycles: before.0 + apart / 2, ns })
    }
}

#[cfg(target_arch = "x86_64")]
fn has_invariant_tsc() -> bool {
    use core::arch::x86_64::__cpuid;
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;
    __cpuid(0x8000_0000).eax >= POWER_MANAGEMENT && __cpuid(POWER_MANAGEMENT).edx & INVARIANT_TSC != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn has_invariant_tsc() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_hz(hz: u64) -> Calibration {
        let base = Pair { cycles: 1_000_000_000_000, ns: 5_000_000_000 };
        let end = Pair { cycles: base.cycles + hz, ns: base.ns + NS_PER_SECOND };
        Calibration::between(base, end).unwrap()
    }

    #[test]
    fn a_known_rate_converts_both_ways() {
        let clock = at_hz(2_600_000_000);
        assert_eq!(clock.hz(), 2_600_000_000);
        assert!(clock.cycles_to_ns(2_600).abs_diff(1_000) <= 1);
        assert!(clock.ns_to_cycles(1_000).abs_diff(2_600) <= 1);
        let day = 86_400 * NS_PER_SECOND;
        let cycles = clock.ns_to_cycles(day);
        assert!(clock.cycles_to_ns(cycles).abs_diff(day) < 100_000, "0.1 ms in a day");
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        for hz in [1, 999_999, 1_000_000_000, 2_600_000_000, 6_000_000_000] {
            let clock = at_hz(hz);
            let expected = u128::from(u64::MAX) * u128::from(NS_PER_SECOND) / u128::from(hz);
            let found = u128::from(clock.cycles_to_ns(u64::MAX));
            let expected = expected.min(u128::from(u64::MAX));
            assert!(
                found.abs_diff(expected) <= expected / 1_000_000_000 + (1 << 32),
                "{hz}: {found} {expected}"
            );
            let _ = clock.ns_to_cycles(u64::MAX);
            let _ = clock.to_monotonic_ns(Cycles::from_raw(u64::MAX));
            assert_eq!(clock.to_monotonic_ns(clock_base(&clock)), 5_000_000_000);
        }
    }

    fn clock_base(clock: &Calibration) -> Cycles {
        Cycles::from_raw(clock.base.cycles)
    }

    #[test]
    fn a_baseline_that_went_nowhere_or_backwards_gives_no_rate() {
        let pair = |cycles, ns| Pair { cycles, ns };
        assert!(Calibration::between(pair(5, 5), pair(5, 6)).is_none());
        assert!(Calibration::between(pair(5, 5), pair(6, 5)).is_none());
        assert!(Calibration::between(pair(5, 5), pair(4, 6)).is_none());
        assert!(Calibration::between(pair(5, 5), pair(6, 4)).is_none());
    }

    #[test]
    fn moments_before_the_base_convert_too() {
        let clock = at_hz(2_000_000_000);
        let before = Cycles::from_raw(clock.base.cycles - 2_000_000_000);
        assert!(clock.to_monotonic_ns(before).abs_diff(4_000_000_000) <= 1);
        assert_eq!(clock.to_monotonic_ns(Cycles::from_raw(0)), 0, "before the clock began");
    }

    #[test]
    fn the_cycle_clock_agrees_with_the_system_clock() {
        let clock = Calibration::measure().refined();
        let before = monotonic_ns();
        let moment = clock.to_monotonic_ns(clock.now());
        let after = monotonic_ns();
        // No bound on speed: only that the moment lies between the reads around it, give or take the drift.
        let slack = 1_000_000;
        assert!(before <= moment + slack && moment <= after + slack, "{before} {moment} {after}");
        assert!(clock.hz() >= 1_000_000);
    }

    #[test]
    fn refining_keeps_the_source_and_the_rate() {
        let clock = Calibration::measure();
        let refined = clock.refined();
        assert_eq!(refined.source(), clock.source());
        assert!(refined.hz().abs_diff(clock.hz()) <= clock.hz() / 500, "{} {}", refined.hz(), clock.hz());
    }

    #[test]
    fn the_fallback_counts_nanoseconds() {
        let clock = Calibration::monotonic();
        assert_eq!((clock.source(), clock.hz()), (ClockSource::Monotonic, NS_PER_SECOND));
        assert_eq!((clock.cycles_to_ns(17), clock.ns_to_cycles(u64::MAX)), (17, u64::MAX));
        let earlier = clock.now();
        let system = monotonic_ns();
        let later = clock.now();
        assert!(earlier.raw() <= system && system <= later.raw());
        assert_eq!(clock.to_monotonic_ns(later), later.raw());
        assert_eq!(clock.refined().source(), ClockSource::Monotonic);
    }

    #[test]
    fn time_never_runs_backwards_between_two_moments() {
        let (early, late) = (Cycles::from_raw(10), Cycles::from_raw(25));
        assert_eq!((late.since(early), early.since(late)), (15, 0));
        assert_eq!((early.plus(15), late.plus(u64::MAX)), (late, Cycles::from_raw(u64::MAX)));
    }

    proptest! {
        #[test]
        fn conversion_is_right_to_a_part_in_a_thousand_million(
            hz in 1_000_000_u64..10_000_000_000, ns in 0_u64..1 << 60,
        ) {
            let clock = at_hz(hz);
            let exact = u128::from(ns) * u128::from(hz) / u128::from(NS_PER_SECOND);
            let found = u128::from(clock.ns_to_cycles(ns));
            let exact = exact.min(u128::from(u64::MAX));
            // 2^-32 of the value, relative to a factor of at least 0.001.
            prop_assert!(found.abs_diff(exact) <= 1 + u128::from(ns >> 32), "{} {}", found, exact);
        }
    }
}
