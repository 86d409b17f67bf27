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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shared::SharedMemory;

    fn region(words: usize) -> Region {
        let bytes = bytes_for(words);
        Arc::new(SharedMemory::create("counter-test", bytes).unwrap()).region(0, bytes).unwrap()
    }

    #[test]
    fn a_reader_sees_what_the_writer_counts() {
        let region = region(10);
        let reader = CounterReader::new(region.clone()).unwrap();
        let mut writer = CounterWriter::new(region).unwrap();
        writer.add(0, 5);
        writer.add(0, 7);
        writer.set(9, 100);
        writer.publish(3, &[1, 2, 3]);
        let mut values = [99; 11];
        reader.read_all(&mut values);
        assert_eq!(values, [12, 0, 0, 1, 2, 3, 0, 0, 0, 100, 0]);
        assert_eq!((reader.read(0), reader.read(16)), (Some(12), None));
        assert_eq!((reader.len(), writer.len()), (16, 16), "whole cache lines");
    }

    #[test]
    fn an_index_beyond_the_block_does_nothing() {
        let region = region(8);
        let reader = CounterReader::new(region.clone()).unwrap();
        let mut writer = CounterWriter::new(region).unwrap();
        writer.add(8, 1);
        writer.set(usize::MAX, 1);
        writer.publish(7, &[4, 5, 6]);
        writer.publish(9, &[1]);
        let mut values = [0; 8];
        reader.read_all(&mut values);
        assert_eq!(values, [0, 0, 0, 0, 0, 0, 0, 4]);
    }

    #[test]
    fn a_new_writer_starts_at_zero_whatever_was_there() {
        let region = region(8);
        region.words()[3].store(77, Ordering::Relaxed);
        let mut writer = CounterWriter::new(region.clone()).unwrap();
        writer.add(3, 1);
        assert_eq!(CounterReader::new(region).unwrap().read(3), Some(1));
    }

    #[test]
    fn a_peer_that_scribbles_does_not_change_what_is_counted() {
        let region = region(8);
        let mut writer = CounterWriter::new(region.clone()).unwrap();
        writer.add(0, 10);
        region.words()[0].store(u64::MAX, Ordering::Relaxed);
        writer.add(0, 1);
        assert_eq!(region.words()[0].load(Ordering::Relaxed), 11);
    }

    #[test]
    fn counters_wrap() {
        let mut writer = CounterWriter::new(region(1)).unwrap();
        writer.set(0, u64::MAX);
        writer.add(0, 2);
        assert_eq!(writer.values[0], 1);
        let word = CounterWord::new(u64::MAX);
        word.add(3);
        assert_eq!(word.read(), 2);
        word.set(8);
        assert_eq!(word.read(), 8);
    }

    #[test]
    fn a_block_off_its_cache_lines_is_refused() {
        let memory = Arc::new(SharedMemory::create("counter-test", 256).unwrap());
        for (offset, bytes) in [(8, 64), (64, 72), (0, 8)] {
            let region = memory.region(offset, bytes).unwrap();
            let wrong = CounterWriter::new(region.clone()).unwrap_err();
            assert!(matches!(wrong, SharedError::Misaligned { align: 64, .. }));
            assert!(CounterReader::new(region).is_err());
        }
        assert_eq!((bytes_for(0), bytes_for(1), bytes_for(8), bytes_for(9)), (0, 64, 64, 128));
    }

    #[test]
    fn readers_in_other_threads_never_see_a_counter_go_back() {
        let region = region(1);
        let mut writer = CounterWriter::new(region.clone()).unwrap();
        let reader = CounterReader::new(region).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut last = 0;
                while last < 20_000 {
                    let value = reader.read(0).unwrap();
                    assert!(value >= last);
                    last = value;
                    std::thread::yield_now();
                }
            });
            for _ in 0..20_000 {
                writer.add(0, 1);
            }
        });
    }
}
