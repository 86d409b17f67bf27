// SPDX-License-Identifier: Apache-2.0
//! Meters and markers: srTCM (RFC 2697), trTCM (RFC 2698) and the two-rate marker of RFC 4115.
//!
//! The RFCs add one token (a byte) at a time; here tokens flow in without steps ([`crate::bucket`]), which is the same
//! but for less than one byte, and needs no timer. A packet conforms if the bucket holds at least its bytes.
//! A meter belongs to all workers at once, so that a class has its rate however its packets are spread over them: its words are
//! atomics. In colour-blind mode every packet counts as green (RFC 4115) or uncoloured (RFC 2697, 2698), which is the same thing.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use wire::Dscp;

use crate::bucket::{self, TrafficProfile};

/// What a meter says of a packet, and what a packet came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Colour {
    /// Within the committed rate.
    Green,
    /// Above it, within the excess or peak rate.
    Yellow,
    /// Above both.
    Red,
}

/// A bucket of a meter, which several workers may fill and take from at once.
///
/// Tokens are those of [`crate::bucket`]. No two workers ever get the same token, so that what passes is never more than
/// burst and rate; a token that one worker has just brought another may miss once.
#[derive(Debug)]
struct Tokens {
    rate: u64,
    depth: u64,
    level: AtomicU64,
}

impl Tokens {
    const fn new(profile: TrafficProfile) -> Self {
        let depth = bucket::depth(profile.burst_bytes);
        Self { rate: profile.rate.bps(), depth, level: AtomicU64::new(depth) }
    }

    /// What the rate brings in this time.
    const fn income(&self, elapsed_ns: u64) -> u64 {
        self.rate.saturating_mul(elapsed_ns)
    }

    /// Adds tokens; returns those that found no room.
    #[inline(always)]
    fn fill(&self, tokens: u64, workers: Workers) -> u64 {
        let room = |level: u64| self.depth.saturating_sub(level);
        let filled = |level: u64| Some(level + tokens.min(room(level)));
        let level = workers.update(&self.level, filled).unwrap_or(self.depth);
        tokens.saturating_sub(room(level))
    }

    /// Takes the tokens of `bytes` if there are so many.
    #[inline(always)]
    fn take(&self, bytes: u32, workers: Workers) -> bool {
        workers.update(&self.level, |level| level.checked_sub(bucket::tokens(bytes))).is_some()
    }

    /// Goes on from where another bucket is, as far as that fits.
    fn start_as(&self, other: &Self) {
        self.level.store(other.level.load(Relaxed).min(self.depth), Relaxed);
    }
}

/// Who asks a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One thread only: plain loads and stores will do.
    One,
    /// Any number, at once.
    Several,
}

impl Workers {
    /// Changes a word, unless `change` has nothing to change it to; returns what it was.
    #[inline(always)]
    fn update(self, word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        match self {
            Self::One => {
                let before = word.load(Relaxed);
                word.store(change(before)?, Relaxed);
                Some(before)
            }
            Self::Several => word.fetch_update(Relaxed, Relaxed, change).ok(),
        }
    }

    /// Whether `word` was `before` and is `after` from here on: of several workers, one only hears that it was.
    #[inline(always)]
    fn advance(self, word: &AtomicU64, before: u64, after: u64) -> bool {
        match self {
            Self::One => {
                word.store(after, Relaxed);
                true
            }
            Self::Several => word.compare_exchange(before, after, Relaxed, Relaxed).is_ok(),
        }
    }
}

/// A three-colour meter. Its buckets start full.
#[derive(Debug)]
pub struct Meter {
    /// Up to when time has brought tokens. Who advances it, brings them.
    updated_ns: AtomicU64,
    /// Bucket C of all three RFCs.
    committed: Tokens,
    /// Bucket E (RFC 2697, 4115) or P (RFC 2698).
    second: Tokens,
    algorithm: Algorithm,
    workers: Workers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    SingleRate,
    TwoRate,
    TwoRateExcess,
}

impl Meter {
    /// The single-rate marker: CIR with CBS, and EBS, which fills with what C has no room for (RFC 2697 §3). Without an EBS
    /// there is no yellow.
    #[must_use]
    pub const fn single_rate(committed: TrafficProfile, ebs_bytes: u32, workers: Workers) -> Self {
        let excess = TrafficProfile { rate: committed.rate, burst_bytes: ebs_bytes };
        Self::new(committed, excess, Algorithm::SingleRate, workers)
    }

    /// The two-rate marker: CIR with CBS, PIR with PBS (RFC 2698 §3). A green packet takes tokens of both.
    #[must_use]
    pub const fn two_rate(committed: TrafficProfile, peak: TrafficProfile, workers: Workers) -> Self {
        Self::new(committed, peak, Algorithm::TwoRate, workers)
    }

    /// The two-rate marker with an excess rate: CIR with CBS, EIR with EBS, each for itself (RFC 4115 §2).
    #[must_use]
    pub const fn two_rate_excess(
        committed: TrafficProfile,
        excess: TrafficProfile,
        workers: Workers,
    ) -> Self {
        Self::new(committed, excess, Algorithm::TwoRateExcess, workers)
    }

    const fn new(
        committed: TrafficProfile,
        second: TrafficProfile,
        algorithm: Algorithm,
        workers: Workers,
    ) -> Self {
        let (committed, second) = (Tokens::new(committed), Tokens::new(second));
        Self { updated_ns: AtomicU64::new(0), committed, second, algorithm, workers }
    }

    /// Goes on with the tokens of another meter, as many as fit.
    pub fn start_as(&self, other: &Self) {
        self.committed.start_as(&other.committed);
        self.second.start_as(&other.second);
        self.updated_ns.store(other.updated_ns.load(Relaxed), Relaxed);
    }

    /// The colour of a packet of `bytes` that arrives at `now_ns`. `came` is [`Colour::Green`] in colour-blind mode. A
    /// moment before the last one counts as the last one.
    #[inline(always)]
    pub fn meter(&self, bytes: u32, came: Colour, now_ns: u64) -> Colour {
        let before = self.updated_ns.load(Relaxed);
        if now_ns > before {
            self.refill(before, now_ns);
        }
        match self.algorithm {
            Algorithm::TwoRate => self.peak_first(bytes, came),
            Algorithm::SingleRate | Algorithm::TwoRateExcess => self.committed_first(bytes, came),
        }
    }

    /// Lets the time from `before` to `now_ns` pass, unless another worker has begun to.
    fn refill(&self, before: u64, now_ns: u64) {
        if !self.workers.advance(&self.updated_ns, before, now_ns) {
            return;
        }
        let elapsed_ns = now_ns - before;
        let overflow = self.committed.fill(self.committed.income(elapsed_ns), self.workers);
        let second = match self.algorithm {
            Algorithm::SingleRate => overflow,
            Algorithm::TwoRate | Algorithm::TwoRateExcess => self.second.income(elapsed_ns),
        };
        self.second.fill(second, self.workers);
    }

    /// RFC 2697 §3 and RFC 4115 §2: green from C, else yellow from E, else red; never better than it came.
    #[inline(always)]
    fn committed_first(&self, bytes: u32, came: Colour) -> Colour {
        if came == Colour::Green && self.committed.take(bytes, self.workers) {
            Colour::Green
        } else if came != Colour::Red && self.second.take(bytes, self.workers) {
            Colour::Yellow
        } else {
            Colour::Red
        }
    }

    /// RFC 2698 §3: red above P, else yellow above C, else green.
    #[inline(always)]
    fn peak_first(&self, bytes: u32, came: Colour) -> Colour {
        if came == Colour::Red || !self.second.take(bytes, self.workers) {
            Colour::Red
        } else if came == Colour::Green && self.committed.take(bytes, self.workers) {
            Colour::Green
        } else {
            Colour::Yellow
        }
    }
}

/// What is done with a packet of a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Transmit,
    /// It goes on with this code point; [`wire::dscp::rewrite`] writes it.
    Mark(Dscp),
    /// It is dropped.
    Drop,
}

/// Which colour packets come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None that counts.
    ColourBlind,
    /// The one that their code point means: these are yellow, these red, all others green.
    ColourAware {
        /// One bit for each code point that is yellow.
        yellow: u64,
        /// One bit for each code point that is red.
        red: u64,
    },
}

impl Mode {
    #[inline(always)]
    fn colour(self, dscp: Dscp) -> Colour {
        match self {
            Self::ColourAware { red, .. } if red >> dscp.get() & 1 == 1 => Colour::Red,
            Self::ColourAware { yellow, .. } if yellow >> dscp.get() & 1 == 1 => Colour::Yellow,
            _ => Colour::Green,
        }
    }
}

/// A meter, its mode, and an action for each colour.
#[derive(Debug)]
pub struct Policer {
    meter: Meter,
    mode: Mode,
    actions: [Action; 3],
}

impl Policer {
    /// A policer with the actions for green, yellow and red.
    #[must_use]
    pub const fn new(meter: Meter, mode: Mode, actions: [Action; 3]) -> Self {
        Self { meter, mode, actions }
    }

    /// Its meter.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What is to be done with a packet of `bytes` and `dscp` that arrives at `now_ns`.
    #[inline(always)]
    pub fn police(&self, bytes: u32, dscp: Dscp, now_ns: u64) -> (Colour, Action) {
        let colour = self.meter.meter(bytes, self.mode.colour(dscp), now_ns);
        let [green, yellow, red] = self.actions;
        let action = match colour {
            Colour::Green => green,
            Colour::Yellow => yellow,
            Colour::Red => red,
        };
        (colour, action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{BURST_BYTES_MAX, Rate};
    use proptest::prelude::*;

    /// A fraction of whole numbers in lowest terms: bytes, exactly.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Ratio(i128, i128);

    impl Ratio {
        fn of(numerator: i128, denominator: i128) -> Self {
            let (mut a, mut b) = (numerator.abs().max(1), denominator);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            Self(numerator / a, denominator / a)
        }

        fn plus(self, other: Self) -> Self {
            Self::of(self.0 * other.1 + other.0 * self.1, self.1 * other.1)
        }

        fn minus(self, other: Self) -> Self {
            self.plus(Self(-other.0, other.1))
        }

        fn is_below(self, other: Self) -> bool {
            self.0 * other.1 < other.0 * self.1
        }

        fn min(self, other: Self) -> Self {
            if other.is_below(self) { other } else { self }
        }
    }

    fn whole(bytes: u32) -> Ratio {
        Ratio(i128::from(bytes), 1)
    }

    /// The RFCs' words over rational numbers, with the time since the last packet.
    struct Model {
        algorithm: Algorithm,
        profiles: [TrafficProfile; 2],
        tokens: [Ratio; 2],
    }

    impl Model {
        fn meter(&mut self, bytes: u32, came: Colour, elapsed_ns: u64) -> Colour {
            let income = |profile: TrafficProfile| {
                Ratio::of(i128::from(profile.rate.bps()) * i128::from(elapsed_ns), 8_000_000_000)
            };
            let [c, e] = self.profiles;
            let full = [whole(c.burst_bytes), whole(e.burst_bytes)];
            let c_then = self.tokens[0].plus(income(c));
            let spill = c_then.minus(c_then.min(full[0]));
            let e_income = if matches!(self.algorithm, Algorithm::SingleRate) { spill } else { income(e) };
            self.tokens = [c_then.min(full[0]), self.tokens[1].plus(e_income).min(full[1])];
            let size = whole(bytes);
            let [c_short, e_short] = self.tokens.map(|tokens| tokens.is_below(size));
            let (colour, taken) = match (self.algorithm, came) {
                (_, Colour::Red) => (Colour::Red, [false, false]),
                (Algorithm::TwoRate, _) if e_short => (Colour::Red, [false, false]),
                (Algorithm::TwoRate, Colour::Green) if !c_short => (Colour::Green, [true, true]),
                (Algorithm::TwoRate, _) => (Colour::Yellow, [false, true]),
                (_, Colour::Green) if !c_short => (Colour::Green, [true, false]),
                _ if !e_short => (Colour::Yellow, [false, true]),
                _ => (Colour::Red, [false, false]),
            };
            for (tokens, _) in self.tokens.iter_mut().zip(taken).filter(|(_, taken)| *taken) {
                *tokens = tokens.minus(size);
            }
            colour
        }
    }

    fn profile(bps: u64, burst_bytes: u32) -> TrafficProfile {
        TrafficProfile { rate: Rate::from_bps(bps).unwrap(), burst_bytes }
    }

    fn any_profile() -> impl Strategy<Value = TrafficProfile> {
        (1u64..40_000_000_000, 0u32..20_000).prop_map(|(bps, burst_bytes)| profile(bps, burst_bytes))
    }

    fn any_colour() -> impl Strategy<Value = Colour> {
        prop::sample::select(vec![Colour::Green, Colour::Yellow, Colour::Red])
    }

    proptest! {
        #[test]
        fn every_meter_is_its_rfc_in_rational_numbers(
            algorithm in prop::sample::select(vec![Algorithm::SingleRate, Algorithm::TwoRate, Algorithm::TwoRateExcess]),
            c in any_profile(),
            e in any_profile(),
            workers in prop::sample::select(vec![Workers::One, Workers::Several]),
            packets in prop::collection::vec((0u32..10_000, any_colour(), 0u64..10_000, 0u32..20), 0..200),
        ) {
            let meter = match algorithm {
                Algorithm::SingleRate => Meter::single_rate(c, e.burst_bytes, workers),
                Algorithm::TwoRate => Meter::two_rate(c, e, workers),
                Algorithm::TwoRateExcess => Meter::two_rate_excess(c, e, workers),
            };
            let tokens = [whole(c.burst_bytes), whole(e.burst_bytes)];
            let mut model = Model { algorithm, profiles: [c, e], tokens };
            let mut now_ns = 0;
            for (bytes, came, gap, scale) in packets {
                let gap_ns = gap << scale;
                now_ns += gap_ns;
                prop_assert_eq!(meter.meter(bytes, came, now_ns), model.meter(bytes, came, gap_ns));
            }
        }
    }

    #[test]
    fn asking_a_meter_each_nanosecond_does_not_make_it_drift() {
        let new = || Meter::single_rate(profile(999_999_937, 1000), 1000, Workers::One);
        let (often, seldom) = (new(), new());
        for meter in [&often, &seldom] {
            assert_eq!(meter.meter(1000, Colour::Green, 0), Colour::Green);
            assert_eq!(meter.meter(1000, Colour::Green, 0), Colour::Yellow);
        }
        // 1000 bytes at this rate take 8,000 ns and a half: packets of 0 bytes only let time pass.
        for now_ns in 0..=8_000 {
            often.meter(0, Colour::Green, now_ns);
        }
        for meter in [&often, &seldom] {
            assert_eq!(meter.meter(1000, Colour::Green, 8_000), Colour::Red);
            assert_eq!(meter.meter(1000, Colour::Green, 8_001), Colour::Green);
        }
    }

    #[test]
    fn the_deepest_buckets_and_the_longest_pause_do_not_overflow() {
        let meter = Meter::single_rate(profile(u64::MAX, u32::MAX), u32::MAX, Workers::One);
        for now_ns in [0, u64::MAX] {
            let colours = core::array::from_fn(|_| meter.meter(BURST_BYTES_MAX, Colour::Green, now_ns));
            assert_eq!(colours, [Colour::Green, Colour::Yellow, Colour::Red]);
        }
    }

    #[test]
    fn a_colour_aware_policer_reads_the_code_point_and_each_colour_has_its_action() {
        let [af11, af12, af13] = [10, 12, 14].map(|value| Dscp::new(value).unwrap());
        let meter = || Meter::two_rate(profile(8_000, 100), profile(16_000, 300), Workers::One);
        let aware = Mode::ColourAware { yellow: 1 << af12.get(), red: 1 << af13.get() };
        let actions = [Action::Transmit, Action::Mark(af12), Action::Drop];
        let policer = Policer::new(meter(), aware, actions);
        assert_eq!(policer.police(100, af13, 0), (Colour::Red, Action::Drop));
        assert_eq!(policer.police(100, af12, 0), (Colour::Yellow, Action::Mark(af12)));
        assert_eq!(policer.police(100, af11, 0), (Colour::Green, Action::Transmit));
        assert_eq!(policer.police(100, af11, 0), (Colour::Yellow, Action::Mark(af12)));
        assert_eq!(policer.police(100, af11, 0), (Colour::Red, Action::Drop));
        let blind = Policer::new(meter(), Mode::ColourBlind, actions);
        assert_eq!(blind.police(100, af13, 0).0, Colour::Green);
    }

    #[test]
    fn what_several_workers_get_together_is_burst_and_rate() {
        const BYTES: u32 = 100;
        const END_NS: u64 = 10_000_000;
        let (rate, burst) = (800_000_000, 50_000);
        let meter = Meter::two_rate_excess(profile(rate, burst), profile(rate, burst), Workers::Several);
        let taken = |meter: &Meter| {
            let mut taken = [0u64; 2];
            for now_ns in (0..=END_NS).step_by(400) {
                match meter.meter(BYTES, Colour::Green, now_ns) {
                    Colour::Green => taken[0] += u64::from(BYTES),
                    Colour::Yellow => taken[1] += u64::from(BYTES),
                    Colour::Red => {}
                }
            }
            taken
        };
        let all = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&meter))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        let left =
            [&meter.committed, &meter.second].map(|bucket| bucket.level.load(Relaxed) / bucket::tokens(1));
        // The workers offer twice of what there is, in whatever order they run: no token is given twice, and none is lost.
        for (bucket, left) in left.into_iter().enumerate() {
            let sum: u64 = all.iter().map(|taken| taken[bucket]).sum();
            let most = u64::from(burst) + rate * END_NS / 8_000_000_000;
            assert!(sum + left <= most, "{sum} and {left} of {most}");
        }
    }

    #[test]
    fn a_meter_goes_on_with_the_tokens_of_another_as_far_as_they_fit() {
        let before = Meter::single_rate(profile(8_000, 300), 500, Workers::One);
        assert_eq!(before.meter(200, Colour::Green, 5), Colour::Green);
        let next = Meter::single_rate(profile(8_000, 1000), 400, Workers::One);
        next.start_as(&before);
        let colours = [100, 400, 1].map(|bytes| next.meter(bytes, Colour::Green, 5));
        assert_eq!(colours, [Colour::Green, Colour::Yellow, Colour::Red]);
    }
}
