// SPDX-License-Identifier: Apache-2.0
//! What packets of one way are on the wire, in a table.

use tables::AtWork;

use super::outbound::{Shape, Way};
use super::plain::Plain;

/// What packets of 0 to 3 bytes are on the wire: ESP pads to four bytes, so four more are four more.
pub(super) struct Sizes {
    table: [u32; 4],
    shape: Shape,
}

impl Sizes {
    /// As a policy at work on this way counts them.
    pub(super) fn of(way: &Way<'_>, at_work: AtWork<'_>) -> Self {
        let wire_bytes = |total_bytes| way.wire_bytes(at_work, &Plain { total_bytes, ..Plain::NONE });
        Self { table: [0, 1, 2, 3].map(wire_bytes), shape: way.shape() }
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
        self.table[usize::from(plain.total_bytes & 3)] + u32::from(plain.total_bytes & !3)
    }
}
