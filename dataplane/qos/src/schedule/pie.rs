// SPDX-License-Identifier: Apache-2.0
//! PIE (RFC 8033): a probability of dropping on arrival that follows how long packets wait, and how that changes.
//!
//! The delay is that of the head, by its time stamp (RFC 8033 §4.2). There is no timer: before a packet comes or leaves, the
//! updates that have become due since are made up for, each with the delay that there was. De-randomisation (§5.4), the ECN
//! threshold (§5.1) and the cap on steps (§5.5) are those of the RFC. Fixed point with 60 binary places.

/// The period of updates, T_UPDATE (RFC 8033 §4.2); ALPHA and BETA belong to it.
const UPDATE_NS: u64 = 15_000_000;
/// Updates that are made up for at once; so long a silence of an empty queue forgets everything.
const UPDATES_MAX: u64 = 64;
/// Probability 1.
const ONE: u64 = 1 << 60;
/// Up to here packets are marked if they can be, mark_ecnth (RFC 8033 §5.1).
const MARK_MOST: u64 = ONE / 10;
/// Sums of probabilities below which nothing is dropped, and from which on everything is (RFC 8033 §5.4).
const SUM_LEAST: u64 = ONE / 100 * 85;
const SUM_MOST: u64 = ONE / 10 * 85;
/// Steps of at most 2 % from a probability of 10 % on (RFC 8033 §5.5).
const STEP_MOST: i128 = ONE as i128 / 50;
/// Below such a probability, in millionths, a step is divided by that much (RFC 8033 §4.2).
const TUNING: [(u64, i128); 6] = [(1, 2_048), (10, 512), (100, 128), (1_000, 32), (10_000, 8), (100_000, 2)];

/// Parameters of PIE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pie {
    /// The delay that it aims at, QDELAY_REF, in nanoseconds.
    pub target_ns: u32,
    /// How long a burst may be without a drop, MAX_BURST, in nanoseconds.
    pub burst_ns: u32,
}

impl Default for Pie {
    /// 15 ms and 150 ms (RFC 8033 §4.2, §4.4).
    fn default() -> Self {
        Self { target_ns: 15_000_000, burst_ns: 150_000_000 }
    }
}

/// What PIE wants for a packet that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Congestion: mark the packet if it can be marked.
    Signal,
    /// Marking is no longer enough.
    Refuse,
}

/// What a packet that arrives finds in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) bytes: u64,
    /// When the head came.
    pub(super) head_since_ns: Option<u64>,
    pub(super) packet_bytes_max: u32,
}

/// What PIE remembers of one queue; the names are those of RFC 8033 §4 and §5.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    drop_prob: u64,
    accu_prob: u64,
    /// 0: not yet.
    next_update_ns: u64,
    current_qdelay_ns: u32,
    qdelay_old_ns: u32,
    burst_allowance_ns: u32,
}

impl State {
    /// A packet arrives; `random` is uniform.
    pub(super) fn arrival(&mut self, pie: Pie, found: Found, now_ns: u64, random: u32) -> Verdict {
        self.catch_up(pie, found.head_since_ns, now_ns);
        let half = pie.target_ns / 2;
        if self.drop_prob == 0 && self.current_qdelay_ns < half && self.qdelay_old_ns < half {
            self.burst_allowance_ns = pie.burst_ns;
        }
        if self.burst_allowance_ns > 0 || !self.drop_early(half, found, random) {
            return Verdict::Pass;
        }
        self.accu_prob = 0;
        if self.drop_prob <= MARK_MOST { Verdict::Signal } else { Verdict::Refuse }
    }

    /// Makes the updates that are due; to be called before the queue changes.
    pub(super) fn catch_up(&mut self, pie: Pie, head_since_ns: Option<u64>, now_ns: u64) {
        if self.next_update_ns == 0 {
            self.next_update_ns = now_ns.saturating_add(UPDATE_NS);
        }
        let mut due = 0;
        while self.next_update_ns <= now_ns && due < UPDATES_MAX {
            let waited_ns = head_since_ns.map_or(0, |since_ns| self.next_update_ns.saturating_sub(since_ns));
            self.update(pie, u32::try_from(waited_ns).unwrap_or(u32::MAX));
            self.next_update_ns = self.next_update_ns.saturating_add(UPDATE_NS);
            due += 1;
        }
        if self.next_update_ns <= now_ns {
            let next_update_ns = now_ns.saturating_add(UPDATE_NS);
            let before = if head_since_ns.is_some() { *self } else { Self::default() };
            *self = Self { next_update_ns, ..before };
        }
    }

    /// RFC 8033 §4.2.
    fn update(&mut self, pie: Pie, current_qdelay_ns: u32) {
        let [current, old, target] = [current_qdelay_ns, self.qdelay_old_ns, pie.target_ns].map(i128::from);
        // ALPHA is 1/8 Hz, BETA 5/4 Hz.
        let eighths = (current - target) + 10 * (current - old);
        let mut step = eighths * i128::from(ONE) / 8_000_000_000;
        let in_range = |(most, _): &&(u64, i128)| self.drop_prob < ONE / 1_000_000 * most;
        if let Some((_, divisor)) = TUNING.iter().find(in_range) {
            step /= divisor;
        } else {
            step = step.min(STEP_MOST);
        }
        let mut drop_prob = i128::from(self.drop_prob) + step;
        if current == 0 && old == 0 {
            drop_prob = drop_prob * 98 / 100;
        }
        self.drop_prob = u64::try_from(drop_prob.max(0)).unwrap_or(ONE).min(ONE);
        (self.qdelay_old_ns, self.current_qdelay_ns) = (current_qdelay_ns, current_qdelay_ns);
        self.burst_allowance_ns = self.burst_allowance_ns.saturating_sub(UPDATE_NS as u32);
    }

    /// RFC 8033 §4.1 and §5.4; the queue is not kept from being used up.
    fn drop_early(&mut self, half_target_ns: u32, found: Found, random: u32) -> bool {
        if self.drop_prob == 0 {
            self.accu_prob = 0;
        }
        let is_short = found.bytes <= 2 * u64::from(found.packet_bytes_max);
        if is_short || self.qdelay_old_ns < half_target_ns && self.drop_prob < ONE / 5 {
            return false;
        }
        self.accu_prob = self.accu_prob.saturating_add(self.drop_prob);
        if self.accu_prob < SUM_LEAST {
            return false;
        }
        self.accu_prob >= SUM_MOST || u64::from(random) << 28 < self.drop_prob
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// RFC 8033 §4.2 and §5.5, word by word, in floating point and seconds.
    struct Rfc {
        drop_prob: f64,
        qdelay_old: f64,
    }

    impl Rfc {
        fn update(&mut self, qdelay_ref: f64, current_qdelay: f64) {
            let mut p = 0.125 * (current_qdelay - qdelay_ref) + 1.25 * (current_qdelay - self.qdelay_old);
            if self.drop_prob < 0.000001 {
                p /= 2048.0;
            } else if self.drop_prob < 0.00001 {
                p /= 512.0;
            } else if self.drop_prob < 0.0001 {
                p /= 128.0;
            } else if self.drop_prob < 0.001 {
                p /= 32.0;
            } else if self.drop_prob < 0.01 {
                p /= 8.0;
            } else if self.drop_prob < 0.1 {
                p /= 2.0;
            }
            if self.drop_prob >= 0.1 && p > 0.02 {
                p = 0.02;
            }
            self.drop_prob += p;
            if current_qdelay == 0.0 && self.qdelay_old == 0.0 {
                self.drop_prob *= 0.98;
            }
            self.drop_prob = self.drop_prob.clamp(0.0, 1.0);
            self.qdelay_old = current_qdelay;
        }
    }

    fn probability(state: &State) -> f64 {
        state.drop_prob as f64 / ONE as f64
    }

    proptest! {
        #[test]
        fn the_probability_is_what_the_rfcs_formulas_give(
            delays_us in proptest::collection::vec(prop_oneof![Just(0u32), 0..40_000u32, 0..2_000_000u32], 1..400),
            target_us in 1_000..100_000u32,
        ) {
            let pie = Pie { target_ns: target_us * 1_000, ..Pie::default() };
            let mut state = State::default();
            let mut rfc = Rfc { drop_prob: 0.0, qdelay_old: 0.0 };
            for delay_us in delays_us {
                let before = rfc.drop_prob;
                state.update(pie, delay_us * 1_000);
                rfc.update(f64::from(target_us) * 1e-6, f64::from(delay_us) * 1e-6);
                let (found, expected) = (probability(&state), rfc.drop_prob);
                // Both may stand on two sides of one of the RFC's thresholds: then they go on from the same.
                let at_edge = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1].iter().any(|edge| (before - edge).abs() < 1e-12);
                if !at_edge {
                    prop_assert!((found - expected).abs() < 1e-9, "{found} {expected} after {delay_us} µs");
                }
                rfc.drop_prob = found;
            }
        }

        #[test]
        fn a_queue_of_two_packets_is_never_dropped_from(
            drop_prob in 0..=ONE, accu_prob in any::<u64>(), random: u32, bytes in 0..=3_000u64,
        ) {
            let mut state = State { drop_prob, accu_prob, qdelay_old_ns: 1 << 30, next_update_ns: 1, ..State::default() };
            let found = Found { bytes, head_since_ns: Some(0), packet_bytes_max: 1_500 };
            prop_assert_eq!(state.arrival(Pie::default(), found, 0, random), Verdict::Pass);
        }
    }

    /// A queue in which the head has waited for so long.
    fn late(now_ns: u64, waited_ns: u64) -> Found {
        Found { bytes: 100_000, head_since_ns: Some(now_ns - waited_ns), packet_bytes_max: 1_500 }
    }

    #[test]
    fn a_burst_passes_and_what_goes_on_longer_is_signalled_and_then_refused() {
        let (mut state, pie) = (State::default(), Pie::default());
        let mut verdicts = Vec::new();
        for ms in 1_000..4_000 {
            let now_ns = ms * MS;
            let random = (ms as u32).wrapping_mul(0x9e37_79b9);
            verdicts.push((ms, state.arrival(pie, late(now_ns, 50 * MS.min(now_ns)), now_ns, random)));
        }
        let first = |wanted| verdicts.iter().find(|(_, verdict)| *verdict == wanted).map(|(ms, _)| *ms);
        assert!(first(Verdict::Signal).is_some_and(|ms| ms >= 1_150), "{:?}", first(Verdict::Signal));
        assert!(first(Verdict::Refuse) > first(Verdict::Signal), "above 10 % marking is not enough");
        assert!(probability(&state) > 0.1);
    }

    #[test]
    fn what_is_dropped_comes_neither_too_close_nor_too_far_apart() {
        let mut state = State { drop_prob: ONE / 10, next_update_ns: u64::MAX, ..State::default() };
        let mut arrivals = |random| {
            (1..=200)
                .find(|_| state.arrival(Pie::default(), Found { ..late(MS, 0) }, MS, random) != Verdict::Pass)
        };
        // 0.85 / 0.1 and 8.5 / 0.1 (RFC 8033 §5.4), whatever chance wants.
        assert_eq!([arrivals(0), arrivals(u32::MAX)], [None, None], "below half the target");
        let mut state = State {
            qdelay_old_ns: 20_000_000,
            drop_prob: ONE / 10,
            next_update_ns: u64::MAX,
            ..State::default()
        };
        let mut arrivals = |random| {
            (1..=200).find(|_| state.arrival(Pie::default(), late(MS, 0), MS, random) != Verdict::Pass)
        };
        assert_eq!([arrivals(0), arrivals(u32::MAX)], [Some(9), Some(85)]);
    }

    #[test]
    fn updates_come_as_they_were_due_however_late_they_are_made() {
        let (pie, mut often, mut seldom) = (Pie::default(), State::default(), State::default());
        for ms in 1_000..1_600 {
            often.catch_up(pie, Some(950 * MS), ms * MS);
        }
        seldom.catch_up(pie, Some(950 * MS), 1_000 * MS);
        seldom.catch_up(pie, Some(950 * MS), 1_599 * MS);
        assert_eq!(format!("{often:?}"), format!("{seldom:?}"));
        assert!(often.drop_prob > 0);
        seldom.catch_up(pie, None, 10_000 * MS);
        assert_eq!((seldom.drop_prob, seldom.qdelay_old_ns), (0, 0), "a long silence forgets");
    }

    #[test]
    fn a_state_is_no_larger_than_codels() {
        assert_eq!(size_of::<State>(), 40);
    }
}
