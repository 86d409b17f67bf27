// SPDX-License-Identifier: Apache-2.0
//! CoDel (RFC 8289): drops by how long packets have waited, not by how many wait.
//!
//! The pseudocode of RFC 8289 §5 takes packets until one may leave; here the scheduler asks about one head at a time, so
//! that a drop is given back before the next packet is looked at. The decisions are the same.

/// Parameters of CoDel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoDel {
    /// A wait that is acceptable for long, in nanoseconds (RFC 8289 §4.3).
    pub target_ns: u64,
    /// How long the wait has to be above the target, about the worst round trip (RFC 8289 §4.4).
    pub interval_ns: u64,
}

impl CoDel {
    /// 5 ms and 100 ms, which RFC 8289 §4.4 recommends for the Internet.
    pub const INTERNET: Self = Self { target_ns: 5_000_000, interval_ns: 100_000_000 };
}

impl Default for CoDel {
    fn default() -> Self {
        Self::INTERNET
    }
}

/// What CoDel remembers of one queue; the names are those of RFC 8289 §5.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    first_above_time: Option<u64>,
    drop_next: u64,
    count: u32,
    lastcount: u32,
    dropping: bool,
    /// A drop within the dropping state moves `drop_next` only if the packet behind it is late too.
    moves_next: bool,
}

impl State {
    /// Whether congestion has to be signalled with the head, which came at `since_ns` and leaves `bytes_behind`.
    pub(super) fn signals(
        &mut self,
        codel: CoDel,
        since_ns: u64,
        now_ns: u64,
        bytes_behind: u64,
        packet_bytes_max: u32,
    ) -> bool {
        let small = bytes_behind <= u64::from(packet_bytes_max);
        if !self.ok_to_drop(codel, now_ns.saturating_sub(since_ns), now_ns, small) {
            (self.dropping, self.moves_next) = (false, false);
            return false;
        }
        if !self.dropping {
            self.enter(codel, now_ns);
            return true;
        }
        if self.moves_next {
            self.drop_next = control_law(codel, self.drop_next, self.count);
            self.moves_next = false;
        }
        if now_ns < self.drop_next {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.moves_next = true;
        true
    }

    /// The queue has run empty.
    pub(super) fn emptied(&mut self) {
        (self.first_above_time, self.dropping, self.moves_next) = (None, false, false);
    }

    fn ok_to_drop(&mut self, codel: CoDel, sojourn_ns: u64, now_ns: u64, small: bool) -> bool {
        if sojourn_ns < codel.target_ns || small {
            self.first_above_time = None;
            return false;
        }
        match self.first_above_time {
            None => {
                self.first_above_time = Some(now_ns.saturating_add(codel.interval_ns));
                false
            }
            Some(first_above_time) => now_ns >= first_above_time,
        }
    }

    fn enter(&mut self, codel: CoDel, now_ns: u64) {
        let delta = self.count.saturating_sub(self.lastcount);
        let lately = now_ns.saturating_sub(self.drop_next) < codel.interval_ns.saturating_mul(16);
        self.count = if delta > 1 && lately { delta } else { 1 };
        self.lastcount = self.count;
        self.drop_next = control_law(codel, now_ns, self.count);
        self.dropping = true;
    }
}

/// `t` + interval / √count.
fn control_law(codel: CoDel, t: u64, count: u32) -> u64 {
    // Ten binary places of the root: within a thousandth at any count.
    let root = (u64::from(count.max(1)) << 20).isqrt();
    t.saturating_add(codel.interval_ns.saturating_mul(1 << 10) / root)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn ask(state: &mut State, now_ns: u64, waited_ns: u64) -> bool {
        state.signals(CoDel::INTERNET, now_ns - waited_ns, now_ns, 100_000, 1500)
    }

    #[test]
    fn a_wait_above_the_target_is_signalled_after_an_interval_and_then_ever_sooner() {
        let mut state = State::default();
        let drops: Vec<u64> = (1_000..2_000).filter(|ms| ask(&mut state, ms * MS, 6 * MS)).collect();
        // Each drop moves the next by 100 ms / √count: 1100, + 100, + 70.7, + 57.7, + 50, …
        assert_eq!(drops[..6], [1100, 1200, 1271, 1329, 1379, 1424]);
    }

    #[test]
    fn a_wait_below_the_target_a_short_queue_and_an_empty_one_end_it() {
        for end in 0..3 {
            let mut state = State::default();
            assert!(!ask(&mut state, 1000 * MS, 6 * MS));
            assert!(ask(&mut state, 1100 * MS, 6 * MS));
            match end {
                0 => assert!(!ask(&mut state, 1150 * MS, 4 * MS)),
                1 => assert!(!state.signals(CoDel::INTERNET, 0, 1150 * MS, 1500, 1500)),
                _ => state.emptied(),
            }
            assert!(!ask(&mut state, 1201 * MS, 6 * MS), "{end}");
        }
    }

    #[test]
    fn a_queue_that_congests_again_soon_starts_near_the_rate_it_had() {
        let mut state = State::default();
        let mut last = 0;
        for ms in 1_000..2_000 {
            if ask(&mut state, ms * MS, 6 * MS) {
                last = ms;
            }
        }
        let count = state.count;
        assert!(count > 5 && !ask(&mut state, (last + 1) * MS, MS));
        assert!(!ask(&mut state, (last + 2) * MS, 6 * MS));
        assert!(ask(&mut state, (last + 102) * MS, 6 * MS));
        assert_eq!(state.count, count - 1);
    }
}
