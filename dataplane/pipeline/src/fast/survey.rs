// SPDX-License-Identifier: Apache-2.0
//! A long run of packets under a policy that goes by code points: those that a class only counts are counted together, and
//! only the others are looked at one by one.

use pktbuf::BURST;
use qos::tally::{Place, Tally};
use tables::AtWork;

use super::outbound::{Departure, Way};
use super::sizes::Sizes;

/// From so many packets on that go one way a survey is worth it.
const LONG_RUN: usize = 8;

/// How the packets of a run are counted.
pub(super) struct Survey<'a> {
    counted_at: &'a [Place; 64],
    pub(super) sizes: Sizes,
}

/// Places in a run, rising.
pub(super) struct Places {
    all: [u8; BURST],
    count: usize,
}

impl<'a> Survey<'a> {
    /// `None`: these have to be looked at one by one.
    #[inline(always)]
    pub(super) fn of(way: &Way<'_>, at_work: AtWork<'a>, run: &[Departure<'_>]) -> Option<Self> {
        let is_worth_it = run.len() >= LONG_RUN && at_work.goes_by_dscp() && !way.has_groups();
        is_worth_it.then(|| Self { counted_at: at_work.counted_at(), sizes: Sizes::of(way, at_work) })
    }

    /// Where a packet with this ToS is counted.
    #[inline(always)]
    pub(super) fn place(&self, tos: u8) -> Place {
        self.counted_at[usize::from(tos >> 2)]
    }

    /// Counts the packets of a run, as they came in, and returns the places of those that count nowhere yet.
    #[inline(always)]
    pub(super) fn count(&self, run: &[Departure<'_>], tally: &mut Tally) -> Places {
        let mut others = Places { all: [0; BURST], count: 0 };
        for (number, departure) in (0..).zip(run) {
            let place = self.place(departure.plain.tos);
            tally.count(place, self.sizes.wire_bytes(departure.plain));
            // Written in any case, and kept if it is one: which packets these are is nothing that the CPU could guess.
            others.all[others.count % BURST] = number;
            others.count += usize::from(place == Place::NOWHERE);
        }
        others
    }
}

impl Places {
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.all.iter().take(self.count).map(|place| usize::from(*place))
    }
}
