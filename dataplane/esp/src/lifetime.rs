// SPDX-License-Identifier: Apache-2.0
//! Lifetimes of an SA (RFC 4301 §4.4.2.1): soft and hard bounds in bytes, packets and time.
//!
//! Time comes in as an argument, in nanoseconds of whatever clock the deadlines were made with. Not here:
//! what follows from a soft bound (control starts a rekey).

/// Bounds of an SA's use; each is reached at its value, [`u64::MAX`] stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Octets that the cipher was applied to.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Absolute time.
    pub deadline_ns: u64,
}

impl Bounds {
    /// No bound at all.
    pub const NONE: Self = Self { bytes: u64::MAX, packets: u64::MAX, deadline_ns: u64::MAX };

    /// Whether one of the bounds is reached.
    #[inline]
    pub const fn reached(&self, usage: Usage, now_ns: u64) -> bool {
        usage.bytes >= self.bytes || usage.packets >= self.packets || now_ns >= self.deadline_ns
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::NONE
    }
}

/// The two sets of bounds of an SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// From here on a successor should be made.
    pub soft: Bounds,
    /// From here on nothing is sealed or opened.
    pub hard: Bounds,
}

/// How much an SA has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets: outbound the sequence numbers given out, inbound the packets opened.
    pub packets: u64,
    /// Octets that the cipher was applied to: payload, padding and trailer.
    pub bytes: u64,
}

/// Where an SA stands in its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifetimeState {
    /// No bound is reached.
    Live,
    /// A soft bound is reached.
    SoftReached,
    /// A hard bound is reached.
    HardReached,
}

impl Lifetime {
    /// Where an SA with this use stands at `now_ns`.
    pub const fn state(&self, usage: Usage, now_ns: u64) -> LifetimeState {
        if self.hard.reached(usage, now_ns) {
            LifetimeState::HardReached
        } else if self.soft.reached(usage, now_ns) {
            LifetimeState::SoftReached
        } else {
            LifetimeState::Live
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_reached_at_its_value_and_not_before() {
        let usage = Usage { packets: 10, bytes: 1000 };
        let bounds = |bytes, packets, deadline_ns| Bounds { bytes, packets, deadline_ns };
        let none = u64::MAX;
        assert!(!Bounds::NONE.reached(usage, 50));
        assert!(bounds(1000, none, none).reached(usage, 50));
        assert!(!bounds(1001, none, none).reached(usage, 50));
        assert!(bounds(none, 10, none).reached(usage, 50));
        assert!(!bounds(none, 11, none).reached(usage, 50));
        assert!(bounds(none, none, 50).reached(usage, 50));
        assert!(!bounds(none, none, 51).reached(usage, 50));
    }

    #[test]
    fn the_hard_bound_wins_over_the_soft_one() {
        let soft = Bounds { packets: 5, ..Bounds::NONE };
        let hard = Bounds { packets: 10, ..Bounds::NONE };
        let lifetime = Lifetime { soft, hard };
        let state = |packets| lifetime.state(Usage { packets, bytes: 0 }, 0);
        assert_eq!(state(4), LifetimeState::Live);
        assert_eq!(state(5), LifetimeState::SoftReached);
        assert_eq!(state(10), LifetimeState::HardReached);
    }
}
