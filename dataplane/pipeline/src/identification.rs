// SPDX-License-Identifier: Apache-2.0
//! IPv4 identification of headers made here (RFC 791, RFC 6864).

use messages::WorkerId;

/// Counts identifications so that no two workers use the same one until all 65,536 are used up.
pub(crate) struct Identification {
    next: u16,
    step: u16,
}

impl Identification {
    /// Worker `worker` of `workers` takes every `workers`-th value.
    pub(crate) fn new(worker: WorkerId, workers: u16) -> Self {
        Self { next: worker.0, step: workers.max(1) }
    }

    /// The next identification.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> u16 {
        let current = self.next;
        self.next = self.next.wrapping_add(self.step);
        current
    }
}
