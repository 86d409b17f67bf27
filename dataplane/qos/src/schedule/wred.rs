// SPDX-License-Identifier: Apache-2.0
//! Weighted random early detection: RED (RFC 2309 §3) with thresholds by DSCP.
//!
//! The average length of the queue in packets goes a 2^-weight of the way to the length that each arrival finds. While
//! the queue is empty the average decays as if packets of [`Wred::idle_packet_ns`] had found it so. From the least to the
//! most threshold the probability rises to the profile's; RED's count of packets since the last signal makes the gaps
//! between signals even. Fixed point throughout: 32 binary places.

use wire::Dscp;

const ONE: u64 = 1 << 32;

/// Thresholds of one drop precedence, on the average queue in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropProfile {
    /// Below it nothing is signalled.
    pub min_packets: u16,
    /// From it on everything is.
    pub max_packets: u16,
    /// One packet in so many is signalled just below `max_packets`; at least 1.
    pub one_in: u16,
}

/// Parameters of WRED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wred {
    /// How slowly the average follows: by 2^-weight; at most 16.
    pub weight: u8,
    /// How long a typical packet takes to leave, in nanoseconds; at least 1.
    pub idle_packet_ns: u64,
    /// The profile of every DSCP that has none of its own.
    pub default: DropProfile,
    /// Profiles by DSCP.
    pub profiles: Vec<(Dscp, DropProfile)>,
}

impl Wred {
    fn profile(&self, dscp: Dscp) -> DropProfile {
        self.profiles.iter().find(|(own, _)| *own == dscp).map_or(self.default, |(_, profile)| *profile)
    }
}

/// What WRED wants for a packet that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Congestion: mark the packet if it can be marked.
    Signal,
    /// The average is at the upper threshold: marking is no longer enough.
    Refuse,
}

/// What WRED remembers of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    average: u64,
    empty_since_ns: Option<u64>,
    since_signal: u32,
}

impl State {
    /// A packet of `dscp` arrives and finds `packets` in the queue; `random` is uniform.
    pub(super) fn arrival(
        &mut self,
        wred: &Wred,
        dscp: Dscp,
        packets: u32,
        now_ns: u64,
        random: u32,
    ) -> Verdict {
        self.average_with(wred, packets, now_ns);
        let profile = wred.profile(dscp);
        let (min, max) = (fixed(profile.min_packets), fixed(profile.max_packets));
        if self.average >= max {
            self.since_signal = 0;
            return Verdict::Refuse;
        }
        if self.average < min {
            self.since_signal = 0;
            return Verdict::Pass;
        }
        // 1 / probability, in packets: RED's uniform gaps are those of random < p / (1 - count × p).
        let inverse = u128::from(max - min) * u128::from(profile.one_in) * u128::from(ONE);
        let one_in = u64::try_from(inverse / u128::from((self.average - min).max(1))).unwrap_or(u64::MAX);
        let left = one_in.saturating_sub(u64::from(self.since_signal) << 32);
        self.since_signal = self.since_signal.saturating_add(1);
        if u128::from(random) * u128::from(left) >= 1 << 64 {
            return Verdict::Pass;
        }
        self.since_signal = 0;
        Verdict::Signal
    }

    /// The queue has run empty.
    pub(super) fn emptied(&mut self, now_ns: u64) {
        self.empty_since_ns = Some(now_ns);
    }

    fn average_with(&mut self, wred: &Wred, packets: u32, now_ns: u64) {
        if let Some(since_ns) = self.empty_since_ns.take() {
            let missed = now_ns.saturating_sub(since_ns) / wred.idle_packet_ns.max(1);
            self.average = scaled(self.average, power(ONE - (ONE >> wred.weight), missed));
        }
        let length = u64::from(packets.min(u32::MAX >> 1)) << 32;
        let step = length.abs_diff(self.average) >> wred.weight;
        self.average = if length > self.average { self.average + step } else { self.average - step };
    }
}

fn fixed(packets: u16) -> u64 {
    u64::from(packets) << 32
}

/// `value` × `factor`, a fraction of at most [`ONE`].
fn scaled(value: u64, factor: u64) -> u64 {
    ((u128::from(value) * u128::from(factor)) >> 32) as u64
}

/// `base`, a fraction, to the `exponent`: one squaring for each binary place of the exponent.
fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = ONE;
    while exponent > 0 && result > 0 {
        if exponent % 2 == 1 {
            result = scaled(result, base);
        }
        base = scaled(base, base);
        exponent /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const AF11: Dscp = Dscp::of_tos(10 << 2);
    const AF13: Dscp = Dscp::of_tos(14 << 2);

    fn wred(weight: u8) -> Wred {
        let default = DropProfile { min_packets: 20, max_packets: 40, one_in: 10 };
        let early = DropProfile { min_packets: 5, max_packets: 10, one_in: 10 };
        Wred { weight, idle_packet_ns: 1_000, default, profiles: vec![(AF13, early)] }
    }

    fn random(seed: &mut u64) -> u32 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 32) as u32
    }

    #[test]
    fn the_dscp_decides_where_early_drops_begin_and_where_all_is_refused() {
        let mut seed = 1;
        for (dscp, packets, verdict) in [
            (AF11, 19, Some(Verdict::Pass)),
            (AF11, 40, Some(Verdict::Refuse)),
            (AF13, 4, Some(Verdict::Pass)),
            (AF13, 10, Some(Verdict::Refuse)),
        ] {
            let mut state = State::default();
            for _ in 0..100 {
                let was = state.arrival(&wred(0), dscp, packets, 0, random(&mut seed));
                assert_eq!(Some(was), verdict, "{dscp} at {packets}");
            }
        }
    }

    #[test]
    fn half_way_between_the_thresholds_gaps_are_even_and_their_mean_is_reds() {
        let (mut state, mut seed, mut gaps, mut gap) = (State::default(), 7, Vec::new(), 0u32);
        for _ in 0..200_000 {
            gap += 1;
            if state.arrival(&wred(0), AF11, 30, 0, random(&mut seed)) == Verdict::Signal {
                gaps.push(gap);
                gap = 0;
            }
        }
        // p = 1/20: uniform from 1 to 20 (Floyd and Jacobson 1993, method 2), so a mean of 10.5.
        let mean = f64::from(gaps.iter().sum::<u32>()) / gaps.len() as f64;
        assert!((10.2..10.8).contains(&mean), "{mean}");
        assert_eq!((gaps.iter().min(), gaps.iter().max()), (Some(&1), Some(&20)));
    }

    #[test]
    fn the_average_follows_slowly_and_decays_while_the_queue_is_empty() {
        let mut state = State::default();
        for _ in 0..16 {
            state.average_with(&wred(4), 32, 0);
        }
        let after_16 = state.average as f64 / ONE as f64;
        assert!((after_16 - 32.0 * (1.0 - (15.0f64 / 16.0).powi(16))).abs() < 1e-6, "{after_16}");
        state.emptied(0);
        state.average_with(&wred(4), 0, 16_000);
        let later = state.average as f64 / ONE as f64;
        assert!((later - after_16 * (15.0f64 / 16.0).powi(17)).abs() < 1e-6, "{later}");
    }
}
