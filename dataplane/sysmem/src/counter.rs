// SPDX-License-Identifier: Apache-2.0
//! Counter words with one writer and any number of readers, in shared or in private memory.
//!
//! The writer loads and stores, both relaxed: no locked instruction, no fence. A reader sees each word whole, and
//! never sees it go back; two words read one after the other need not belong to the same moment.
//!
//! Not here: which counters there are and what they are called.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::CACHE_LINE_BYTES;
use crate::shared::{Region, SharedError};

/// One counter. It may be part of a larger structure, on a cache line that its writer writes anyway.
///
/// Only one thread may write it. A second writer loses counts; it is no undefined behaviour.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct CounterWord(AtomicU64);

impl CounterWord {
    /// A counter that stands at `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Adds `count`, wrapping at 2^64. For the one writer.
    #[inline]
    pub fn add(&self, count: u64) {
        add(&self.0, count);
    }

    /// Sets the value. For the one writer.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value as this thread sees it.
    #[inline]
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes of shared memory that `words` counters of one writer need: whole cache lines, so that two writers never share
/// one.
#[must_use]
pub const fn bytes_for(words: usize) -> usize {
    words.saturating_mul(size_of::<u64>()).next_multiple_of(CACHE_LINE_BYTES)
}

/// The writing end of a block of counters in shared memory.
///
/// It keeps the values itself and only ever stores to the shared memory: a peer that scribbles there falsifies what it
/// reads, never what the writer counts.
#[derive(Debug)]
pub struct CounterWriter {
    region: Region,
    values: Box<[u64]>,
}

impl CounterWriter {
    /// Takes `region` as a block of counters and sets them all to 0.
    ///
    /// # Errors
    /// When `region` does not begin and end at a cache line.
    pub fn new(region: Region) -> Result<Self, SharedError> {
        check_lines(&region)?;
        region.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let values = vec![0; region.words().len()].into_boxed_slice();
        Ok(Self { region, values })
    }

    /// Adds `count` to counter `index`, wrapping at 2^64; beyond the block it does nothing.
    #[inline]
    pub fn add(&mut self, index: usize, count: u64) {
        if let (Some(value), Some(word)) = (self.values.get_mut(index), self.region.words().get(index)) {
            *value = value.wrapping_add(count);
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// Sets counter `index`; beyond the block it does nothing.
    #[inline]
    pub fn set(&mut self, index: usize, value: u64) {
        if let (Some(kept), Some(word)) = (self.values.get_mut(index), self.region.words().get(index)) {
            *kept = value;
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Sets the counters from `first` on, as many as `values` and the block both have. Unchanged words are not written,
    /// so that their cache lines stay shared with the readers.
    pub fn publish(&mut self, first: usize, values: &[u64]) {
        let kept = self.values.iter_mut().skip(first);
        let words = self.region.words().iter().skip(first);
        for ((kept, word), &value) in kept.zip(words).zip(values) {
            if *kept != value {
                *kept = value;
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Number of counters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the block has no counter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// The reading end of a block of counters in shared memory.
#[derive(Debug, Clone)]
pub struct CounterReader {
    region: Region,
}

impl CounterReader {
    /// Takes `region` as a block of counters.
    ///
    /// # Errors
    /// When `region` does not begin and end at a cache line.
    pub fn new(region: Region) -> Result<Self, SharedError> {
        check_lines(&region)?;
        Ok(Self { region })
    }

    /// The value of counter `index`, or `None` beyond the block.
    #[must_use]
    pub fn read(&self, index: usize) -> Option<u64> {
        self.region.words().get(index).map(|word| word.load(Ordering::Relaxed))
    }

    /// Copies the counters from the first on into `values`, as many as both have.
    pub fn read_all(&self, values: &mut [u64]) {
        for (value, word) in values.iter_mut().zip(self.region.words()) {
            *value = word.load(Ordering::Relaxed);
        }
    }

    /// Number of counters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.words().len()
    }

    /// Whether the block has no counter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.words().is_empty()
    }
}

#[inline]
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

fn check_lines(region: &Region) -> Result<(), SharedError> {
    if region.offset().is_multiple_of(CACHE_LINE_BYTES) && region.len_bytes().is_multiple_of(CACHE_LINE_BYTES)
    {
        return Ok(());
    }
    Err(SharedError::Misaligned {
        offset: region.offset(),
        bytes: region.len_bytes(),
        align: CACHE_LINE_BYTES,
    })
}
