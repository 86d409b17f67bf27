// SPDX-License-Identifier: Apache-2.0
//! A long group of packets under a policy that goes by code points: those that a class only counts are counted together, and
//! only the others are looked at one by one.

use pktbuf::BURST;
use qos::tally::{Place, Tally};
use tables::AtWork;

use super::group::Group;
use super::sizes::Sizes;
use super::ways::Departure;

/// What a group comes to.
pub(super) struct Survey {
    /// Of the packets that are only counted.
    pub(super) tally: Tally,
    /// The most bytes that a packet is on the wire.
    pub(super) longest: u32,
    others: [u8; BURST],
    other_count: usize,
}

impl Survey {
    /// Of packets as they came in; `None`: they have to be looked at one by one.
    #[inline(always)]
    pub(super) fn of(group: &Group<'_, '_>, at_work: AtWork<'_>) -> Option<Self> {
        at_work.goes_by_dscp().then_some(())?;
        let sizes = Sizes::of_long(group, at_work)?;
        let mut survey = Self { tally: Tally::default(), longest: 0, others: [0; BURST], other_count: 0 };
        survey.count(group, at_work, sizes);
        Some(survey)
    }

    #[inline(always)]
    fn count(&mut self, group: &Group<'_, '_>, at_work: AtWork<'_>, mut sizes: Sizes) {
        let counted_at = at_work.counted_at();
        let mut number = 0;
        for (run, way) in group.runs() {
            sizes.suit(way, at_work);
            for Departure { plain, .. } in run {
                let place = counted_at[usize::from(plain.tos() >> 2)];
                let wire_bytes = sizes.wire_bytes(plain);
                debug_assert_eq!(wire_bytes, way.wire_bytes(at_work, plain.total_bytes));
                self.longest = self.longest.max(wire_bytes);
                self.tally.count(place, wire_bytes);
                // Written in any case, and kept if it is one: which packets these are is nothing that the CPU could guess.
                self.others[self.other_count % BURST] = number;
                self.other_count += usize::from(place == Place::NOWHERE);
                number += 1;
            }
        }
    }

    /// The packets that are not counted yet: their places in the group, rising.
    #[inline(always)]
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        self.others.into_iter().take(self.other_count).map(usize::from)
    }
}
