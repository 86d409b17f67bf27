// SPDX-License-Identifier: Apache-2.0
//! Packets that wait for a neighbour to answer. They may leave already; only the address on the link is missing.

use arrayvec::ArrayVec;
use messages::PortIndex;
use tables::NeighborIndex;

use crate::outgoing::Outgoing;

/// Packets that one worker holds at most.
const PACKETS: usize = 256;
/// Packets held for one neighbour at most.
const PACKETS_PER_NEIGHBOR: usize = 16;
/// How long a packet waits: three questions, a second apart.
const PATIENCE_NS: u64 = 3_000_000_000;

/// A packet and what it waits for.
pub(crate) struct Waiter {
    pub neighbor: NeighborIndex,
    pub port: PortIndex,
    pub outgoing: Outgoing,
    /// The generation that let it leave.
    pub generation: u64,
    until_ns: u64,
}

impl Waiter {
    pub(crate) fn is_overdue(&self, now_ns: u64) -> bool {
        now_ns >= self.until_ns
    }
}

/// The packets of one worker that wait, oldest first.
#[derive(Default)]
pub(crate) struct Waiting {
    waiters: ArrayVec<Waiter, PACKETS>,
    /// A bit for each neighbour that is waited for, by its lowest bits: most questions end here.
    awaited: u64,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Holds a packet, or gives it back if too many wait already.
    pub(crate) fn hold(
        &mut self,
        port: PortIndex,
        neighbor: NeighborIndex,
        outgoing: Outgoing,
        (generation, now_ns): (u64, u64),
    ) -> Result<(), Outgoing> {
        let for_neighbor = self.waiters.iter().filter(|waiter| waiter.neighbor == neighbor).count();
        if self.waiters.is_full() || for_neighbor >= PACKETS_PER_NEIGHBOR {
            return Err(outgoing);
        }
        let until_ns = now_ns.saturating_add(PATIENCE_NS);
        self.awaited |= bit(neighbor);
        self.waiters.push(Waiter { neighbor, port, outgoing, generation, until_ns });
        Ok(())
    }

    /// Whether a packet waits for this neighbour.
    #[inline]
    pub(crate) fn is_awaited(&self, neighbor: NeighborIndex) -> bool {
        self.awaited & bit(neighbor) != 0 && self.waiters.iter().any(|waiter| waiter.neighbor == neighbor)
    }

    /// Takes out the oldest waiter that `ready` says is done waiting.
    pub(crate) fn take(&mut self, ready: impl FnMut(&Waiter) -> bool) -> Option<Waiter> {
        let place = self.waiters.iter().position(ready)?;
        let waiter = self.waiters.remove(place);
        self.awaited = self.waiters.iter().fold(0, |bits, waiter| bits | bit(waiter.neighbor));
        Some(waiter)
    }

    /// Port and neighbour that the waiter at `place` waits for.
    pub(crate) fn awaited(&self, place: usize) -> Option<(PortIndex, NeighborIndex)> {
        self.waiters.get(place).map(|waiter| (waiter.port, waiter.neighbor))
    }
}

fn bit(neighbor: NeighborIndex) -> u64 {
    1 << (neighbor.0 % u64::BITS)
}

#[cfg(test)]
mod tests {
    use pktbuf::Pool;

    use super::*;

    #[test]
    fn a_neighbour_is_awaited_as_long_as_a_packet_waits_for_it() {
        let pool = Pool::memory(8, 2_048).unwrap();
        let mut waiting = Waiting::default();
        // The first two share a bit.
        for neighbor in [3, 67, 5, 3] {
            let outgoing = Outgoing::link_local(pool.copy_of(&[0; 60]).unwrap());
            assert!(waiting.hold(PortIndex(0), NeighborIndex(neighbor), outgoing, (1, 0)).is_ok());
        }
        let awaited = |waiting: &Waiting| [3, 67, 5, 131, 6].map(|n| waiting.is_awaited(NeighborIndex(n)));
        assert_eq!(awaited(&waiting), [true, true, true, false, false]);
        assert!(waiting.take(|waiter| waiter.neighbor.0 == 3).is_some());
        assert_eq!(awaited(&waiting), [true, true, true, false, false]);
        assert!(waiting.take(|waiter| waiter.neighbor.0 == 3).is_some());
        assert_eq!(awaited(&waiting), [false, true, true, false, false]);
        while waiting.take(|_| true).is_some() {}
        assert_eq!(awaited(&waiting), [false; 5]);
    }
}
