// SPDX-License-Identifier: Apache-2.0
//! A modelled transmit ring, bounded in bytes, and the link behind it, in exact arithmetic.

/// One port's way out.
pub(super) struct Wire {
    bps: u64,
    bound_bytes: u64,
    /// When the last packet of the ring has left, in nanoseconds × bit/s.
    busy_until: u128,
}

/// A byte in billionths of a bit: what a link of 1 bit/s carries in 8 × 10^9 ns.
const BYTE: u128 = 8_000_000_000;

impl Wire {
    /// The ring takes another packet while no more than `bound_bytes` are in it or on their way out.
    pub(super) fn new(bps: u64, bound_bytes: u64) -> Self {
        Self { bps, bound_bytes, busy_until: 0 }
    }

    pub(super) fn has_room(&self, now_ns: u64) -> bool {
        self.busy_until.saturating_sub(self.at(now_ns)) <= u128::from(self.bound_bytes) * BYTE
    }

    /// Takes a packet; returns the moment at which its last bit will have left.
    pub(super) fn send(&mut self, wire_bytes: u32, now_ns: u64) -> u64 {
        self.busy_until = self.busy_until.max(self.at(now_ns)) + u128::from(wire_bytes) * BYTE;
        self.busy_until.div_ceil(u128::from(self.bps)) as u64
    }

    fn at(&self, now_ns: u64) -> u128 {
        u128::from(now_ns) * u128::from(self.bps)
    }
}

/// How far the packets seen so far have been ahead of a rate: a token bucket of this depth would have passed them all.
pub(super) struct Burst {
    bps: u64,
    ahead: u128,
    most: u128,
    last_ns: u64,
}

impl Burst {
    pub(super) fn new(bps: u64) -> Self {
        Self { bps, ahead: 0, most: 0, last_ns: 0 }
    }

    pub(super) fn see(&mut self, wire_bytes: u32, now_ns: u64) {
        let drained = u128::from(self.bps) * u128::from(now_ns - self.last_ns);
        self.ahead = self.ahead.saturating_sub(drained) + u128::from(wire_bytes) * BYTE;
        self.most = self.most.max(self.ahead);
        self.last_ns = now_ns;
    }

    /// The most it has been, in whole bytes, rounded up.
    pub(super) fn most_bytes(&self) -> u64 {
        self.most.div_ceil(BYTE) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_one_behind_the_other_and_the_ring_fills() {
        let mut wire = Wire::new(1_000_000_000, 1500);
        assert_eq!(wire.send(1500, 100), 12_100);
        assert!(wire.has_room(100));
        assert_eq!(wire.send(1500, 100), 24_100);
        assert!(!wire.has_room(12_099));
        assert!(wire.has_room(12_100));
        assert_eq!(wire.send(125, 50_000), 51_000);
    }

    #[test]
    fn a_burst_is_what_is_ahead_of_the_rate() {
        let mut burst = Burst::new(8_000);
        burst.see(1000, 0);
        burst.see(1000, 500_000_000);
        burst.see(1000, 10_000_000_000);
        assert_eq!(burst.most_bytes(), 1500);
    }
}
