// SPDX-License-Identifier: Apache-2.0
//! Which keys of a burst are still on their way.

/// As many keys go together.
pub(super) const TOGETHER: usize = 64;

/// Places in a burst.
#[derive(Clone, Copy)]
pub(super) struct Places {
    all: [u8; TOGETHER],
    pub(super) count: usize,
}

impl Places {
    pub(super) const NONE: Self = Self { all: [0; TOGETHER], count: 0 };

    #[inline(always)]
    pub(super) fn at(&self, at: usize) -> usize {
        usize::from(self.all[at % TOGETHER]) % TOGETHER
    }

    /// One more place if `goes`: written in any case, for a jump would be foreseen by no CPU.
    #[inline(always)]
    pub(super) fn push_if(&mut self, place: usize, goes: bool) {
        self.all[self.count % TOGETHER] = place as u8;
        self.count += usize::from(goes);
    }
}
