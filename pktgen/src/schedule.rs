// SPDX-License-Identifier: Apache-2.0
//! When which packet is due: by the rates alone, from the start, so that the rate asked is the rate sent.
//!
//! Moments are ticks since the start, of whatever clock; a stream's position has 64 bits of fraction. Who comes late
//! catches up: what is due is never dropped and never moved.

use arrayvec::ArrayVec;
use pktbuf::BURST;

use crate::rate::Rate;
use crate::sizes::Order;

/// Longest time between two packets, in ticks with 64 bits of fraction: added to any moment before an end, it overflows nothing.
const STEP_MAX: u128 = 1 << 127;

/// One packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The place of its stream.
    pub stream: u16,
    /// The class of its size.
    pub class: u16,
    /// When it is due, in ticks since the start.
    pub due: u64,
}

/// The packets of one burst.
pub type Picks = ArrayVec<Pick, BURST>;

/// What a stream asks for.
pub struct Plan<'a> {
    /// How fast.
    pub rate: Rate,
    /// Of what line.
    pub line_bps: u64,
    /// Bytes of its frames on the wire without FCS, class by class.
    pub wire_bytes: &'a [usize],
    /// In which order.
    pub order: Order,
    /// Packets that are due together.
    pub burst: u32,
    /// After how many packets it ends.
    pub packets: Option<u64>,
}

/// One stream's place in time.
struct Course {
    due: u128,
    steps: Box<[u128]>,
    order: Order,
    burst: u32,
    left_of_burst: u32,
    held_back: u128,
    left: u64,
    is_paced: bool,
}

impl Course {
    fn new(plan: Plan<'_>, ticks_per_second: f64) -> Self {
        let step = |bytes: &usize| {
            let ticks = plan.rate.seconds(*bytes, plan.line_bps) * ticks_per_second;
            // Rounded up, so that a second never has one packet more than the rate says; beyond any end, all is as late.
            ((ticks * (1.0 + 2.0 * f64::EPSILON) * 2_f64.powi(64)) as u128).min(STEP_MAX)
        };
        Self {
            due: 0,
            steps: plan.wire_bytes.iter().map(step).collect(),
            order: plan.order,
            burst: plan.burst,
            left_of_burst: plan.burst,
            held_back: 0,
            left: plan.packets.unwrap_or(u64::MAX),
            is_paced: plan.rate != Rate::Max,
        }
    }

    #[inline]
    fn due(&self) -> u64 {
        (self.due >> 64) as u64
    }

    /// Adds what is due until `until` of what is due by `now`, as far as there is room; whether the stream goes on.
    #[inline]
    fn take(&mut self, stream: u16, now: u64, until: u64, end: u64, picks: &mut Picks) -> bool {
        let room = u64::try_from(picks.remaining_capacity()).unwrap_or(0).min(self.left);
        if !self.is_paced {
            // One at a time where others are to have their turn.
            let count = if until < u64::MAX { room.min(1) } else { room };
            return now < end && self.take_unpaced(stream, now, count, picks);
        }
        let limit = until.min(now).min(end.saturating_sub(1));
        match (&*self.steps, self.burst) {
            ([step], 1) => {
                for _ in 0..room {
                    let due = self.due();
                    if due > limit {
                        break;
                    }
                    picks.push(Pick { stream, class: 0, due });
                    self.due += step;
                    self.left -= 1;
                }
            }
            _ => {
                for _ in 0..room {
                    let due = self.due();
                    if due > limit {
                        break;
                    }
                    picks.push(Pick { stream, class: self.step(), due });
                }
            }
        }
        self.left > 0 && self.due() < end
    }

    #[inline]
    fn take_unpaced(&mut self, stream: u16, now: u64, count: u64, picks: &mut Picks) -> bool {
        if self.steps.len() == 1 {
            picks.extend((0..count).map(|_| Pick { stream, class: 0, due: now }));
        } else {
            picks.extend((0..count).map(|_| Pick { stream, class: self.order.next_class(), due: now }));
        }
        self.due = u128::from(now) << 64;
        self.left -= count;
        self.left > 0
    }

    /// Goes on to the next packet, and says the class of the one before.
    #[inline]
    fn step(&mut self) -> u16 {
        let class = self.order.next_class();
        let step = self.steps.get(usize::from(class)).copied().unwrap_or(0);
        self.held_back = self.held_back.saturating_add(step);
        self.left_of_burst -= 1;
        if self.left_of_burst == 0 {
            self.left_of_burst = self.burst;
            self.due = self.due.saturating_add(self.held_back);
            self.held_back = 0;
        }
        self.left -= 1;
        class
    }
}

/// All streams of a profile.
pub struct Schedule {
    courses: Vec<Course>,
    /// Those that go on, by their place.
    live: Vec<u16>,
    end: u64,
}

impl Schedule {
    /// Plans in ticks of which there are so many in a second, until tick `end` (not included).
    #[must_use]
    pub fn new<'a>(plans: impl IntoIterator<Item = Plan<'a>>, ticks_per_second: f64, end: u64) -> Self {
        let courses: Vec<Course> =
            plans.into_iter().map(|plan| Course::new(plan, ticks_per_second)).collect();
        let live = (0..courses.len()).filter_map(|place| u16::try_from(place).ok()).collect();
        Self { courses, live, end }
    }

    /// Whether nothing more will be due.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.live.is_empty()
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.live.iter().filter_map(|place| self.courses.get(usize::from(*place))).map(Course::due).min()
    }

    /// Adds what is due by `now`, earliest first, as far as `picks` has room.
    #[inline]
    pub fn take(&mut self, now: u64, picks: &mut Picks) {
        while let Some((stream, until)) = self.first() {
            let Some(course) = self.courses.get_mut(usize::from(stream)) else { return };
            if course.due() > now {
                return;
            }
            if !course.take(stream, now, until, self.end, picks) {
                self.live.retain(|live| *live != stream);
            }
            if picks.is_full() {
                return;
            }
        }
    }

    /// The stream that comes first, and until when no other comes before it.
    #[inline]
    fn first(&self) -> Option<(u16, u64)> {
        if let [only] = self.live[..] {
            return Some((only, u64::MAX));
        }
        let mut first = None;
        let mut until = u64::MAX;
        for place in &self.live {
            let due = self.courses.get(usize::from(*place))?.due();
            match first {
                Some((_, best)) if due >= best => until = until.min(due),
                Some((_, best)) => {
                    until = best;
                    first = Some((*place, due));
                }
                None => first = Some((*place, due)),
            }
        }
        first.map(|(place, _)| (place, until))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sizes::Sizes;

    const NS: f64 = 1e9;

    fn plan(rate: Rate) -> Plan<'static> {
        Plan {
            rate,
            line_bps: 10_000_000_000,
            wire_bytes: &[60],
            order: Sizes::Sequence(vec![64]).order(1),
            burst: 1,
            packets: None,
        }
    }

    fn all(mut schedule: Schedule) -> Vec<Pick> {
        let mut taken = Vec::new();
        while !schedule.is_over() {
            let mut picks = Picks::new();
            schedule.take(u64::MAX - 1, &mut picks);
            taken.extend(picks);
        }
        taken
    }

    #[test]
    fn a_second_of_any_rate_has_as_many_packets_as_the_rate_says() {
        for pps in [1.0, 3.0, 999.0, 1e6, 14_880_952.0] {
            let taken = all(Schedule::new([plan(Rate::Pps(pps))], NS, 1_000_000_000));
            assert_eq!(taken.len() as f64, pps);
            let last = taken.last().unwrap().due as f64;
            assert!((last - 1e9 * (pps - 1.0) / pps).abs() < 1.0, "{pps}: {last}");
        }
    }

    #[test]
    fn what_is_asked_for_at_odd_moments_is_the_same() {
        let mut schedule = Schedule::new([plan(Rate::Pps(1e6)), plan(Rate::Pps(3e5))], NS, 10_000_000);
        let (mut now, mut taken) = (0, Vec::new());
        while !schedule.is_over() {
            let mut picks = Picks::new();
            schedule.take(now, &mut picks);
            assert!(picks.iter().all(|pick| pick.due <= now));
            taken.extend(picks);
            now += 777;
        }
        assert_eq!(taken, all(Schedule::new([plan(Rate::Pps(1e6)), plan(Rate::Pps(3e5))], NS, 10_000_000)));
    }

    #[test]
    fn a_burst_is_due_together_and_the_mean_rate_holds() {
        let bursts = Plan { burst: 10, ..plan(Rate::Pps(1e6)) };
        let taken = all(Schedule::new([bursts], NS, 1_000_000));
        assert_eq!(taken.len(), 1_000);
        for (number, pick) in taken.iter().enumerate() {
            assert_eq!(pick.due, number as u64 / 10 * 10_000);
        }
    }

    #[test]
    fn bits_are_counted_for_each_size() {
        let mixed = Plan {
            wire_bytes: &[60, 1_514],
            order: Sizes::Sequence(vec![64, 1_518]).order(1),
            ..plan(Rate::L1Bps(1e9))
        };
        let taken = all(Schedule::new([mixed], NS, 1_000_000_000));
        let bits: u64 = taken.iter().map(|pick| [84 * 8, 1_538 * 8][usize::from(pick.class)]).sum();
        assert!((bits as f64 / 1e9 - 1.0).abs() < 2e-5, "{bits}");
    }

    #[test]
    fn a_packet_in_an_age_is_one_packet() {
        for burst in [1, 3] {
            let rare = Plan { burst, ..plan(Rate::Pps(1e-300)) };
            assert_eq!(all(Schedule::new([rare], NS, 1_000_000_000)).len(), burst as usize);
        }
    }

    #[test]
    fn a_stream_ends_after_its_packets_and_others_go_on() {
        let short = Plan { packets: Some(5), ..plan(Rate::Pps(1e6)) };
        let taken = all(Schedule::new([short, plan(Rate::Pps(1e3))], NS, 1_000_000_000));
        let count = |stream| taken.iter().filter(|pick| pick.stream == stream).count();
        assert_eq!((count(0), count(1)), (5, 1_000));
    }

    #[test]
    fn a_stream_without_pace_fills_every_burst_and_does_not_starve_the_others() {
        let mut schedule = Schedule::new([plan(Rate::Max), plan(Rate::Pps(1e6))], NS, 2_000_000);
        let mut others = 0;
        for now in (0..1_000_000).step_by(10_000) {
            let mut picks = Picks::new();
            schedule.take(now, &mut picks);
            assert_eq!(picks.len(), BURST);
            others += picks.iter().filter(|pick| pick.stream == 1).count();
        }
        assert!((980..=1_000).contains(&others), "{others}");
    }

    proptest! {
        #[test]
        fn packets_come_in_the_order_in_which_they_are_due(
            rates in proptest::collection::vec(1_000.0..2e6_f64, 1..6), burst in 1..8_u32,
        ) {
            let plans = rates.iter().map(|pps| Plan { burst, ..plan(Rate::Pps(*pps)) });
            let taken = all(Schedule::new(plans, NS, 3_000_000));
            prop_assert!(taken.is_sorted_by_key(|pick| pick.due));
            for (stream, pps) in rates.iter().enumerate() {
                let count = taken.iter().filter(|pick| usize::from(pick.stream) == stream).count() as f64;
                prop_assert!((count - pps * 0.003).abs() <= f64::from(burst), "{} of {}", count, pps);
            }
        }
    }
}
