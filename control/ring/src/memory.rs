// SPDX-License-Identifier: Apache-2.0
//! What a ring lies in: words of shared memory, of private memory (tests, simulations, fuzzing), or of loom's model.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A 64-bit word that both ends may read and write at any time.
pub trait Word {
    /// Reads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    fn store(&self, value: u64, order: Ordering);
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

#[cfg(loom)]
impl Word for loom::sync::atomic::AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

/// Memory for one ring.
pub trait Memory {
    /// The kind of its words.
    type Word: Word;

    /// All words, always the same ones.
    fn words(&self) -> &[Self::Word];
}

impl Memory for sysmem::Region {
    type Word = AtomicU64;

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        self.words()
    }
}

impl<W: Word> Memory for Arc<[W]> {
    type Word = W;

    #[inline]
    fn words(&self) -> &[W] {
        self
    }
}
