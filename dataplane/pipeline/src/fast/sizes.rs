// SPDX-License-Identifier: Apache-2.0
//! What packets are on the wire, in a table for ways of one shape.

use tables::AtWork;

use super::group::Group;
use super::plain::Plain;
use super::ways::{Shape, Way};

/// What packets of 0 to 3 bytes are on the wire: ESP pads to four bytes, so four more are four more.
pub(super) struct Sizes {
    table: [u32; 4],
    shape: Shape,
}

/// From so many packets on a table, or a survey, is worth it.
const LONG_GROUP: usize = 8;

impl Sizes {
    /// For a long group, in which it does not depend on a packet's mark.
    #[inline(always)]
    pub(super) fn of_long(group: &Group<'_, '_>, at_work: AtWork<'_>) -> Option<Self> {
        let is_worth_it = group.len() >= LONG_GROUP && !group.first.has_groups();
        is_worth_it.then(|| Self::of(group.first, at_work))
    }

    /// As a policy at work on this way counts them.
    fn of(way: &Way<'_>, at_work: AtWork<'_>) -> Self {
        Self { table: [0, 1, 2, 3].map(|bytes| way.wire_bytes(at_work, bytes)), shape: way.shape() }
    }

    /// From here on they are packets of another way, mostly of the same shape.
    #[inline(always)]
    pub(super) fn suit(&mut self, way: &Way<'_>, at_work: AtWork<'_>) {
        if self.shape != way.shape() {
            *self = Self::of(way, at_work);
        }
    }

    #[inline(always)]
    pub(super) fn wire_bytes(&self, plain: &Plain) -> u32 {
        let total_bytes = plain.total_bytes;
        self.table[usize::from(total_bytes & 3)] + u32::from(total_bytes & !3)
    }
}
