// SPDX-License-Identifier: Apache-2.0
//! Where things lie in a ring's memory, and the checks that both ends make of it.

use std::sync::atomic::Ordering;

use crate::memory::{Memory, Word};

/// Version of the layout. Both ends must have the same.
pub const VERSION: u64 = 1;
/// Bytes of a slot, whole cache lines. (The loom model has smaller ones: it tries every order of every word.)
pub const RECORD_BYTES: usize = if cfg!(loom) { 24 } else { 512 };
/// Largest payload of a record in bytes.
pub const PAYLOAD_BYTES: usize = RECORD_BYTES - WORD_BYTES;
/// Most records that a ring can have.
pub const MAX_CAPACITY: u32 = 1 << 16;

pub(crate) const WORD_BYTES: usize = size_of::<u64>();
pub(crate) const RECORD_WORDS: usize = RECORD_BYTES / WORD_BYTES;

/// "GREYRING", read as a number on the machine that wrote it.
const MAGIC: u64 = u64::from_ne_bytes(*b"GREYRING");
const MAGIC_WORD: usize = 0;
const VERSION_WORD: usize = 1;
const CAPACITY_WORD: usize = 2;
const RECORD_BYTES_WORD: usize = 3;
// Two cache lines apart: CPUs fetch lines in pairs.
const TAIL_WORD: usize = 16;
const HEAD_WORD: usize = 32;
const SLOTS_WORD: usize = 48;

/// Sets records apart from zeroed slots.
const MARK: u16 = 0x6772;

const _: () = assert!(PAYLOAD_BYTES <= u16::MAX as usize && RECORD_BYTES.is_multiple_of(WORD_BYTES));
const _: () = assert!(cfg!(loom) || RECORD_BYTES.is_multiple_of(sysmem::CACHE_LINE_BYTES));
const _: () = assert!((SLOTS_WORD * WORD_BYTES).is_multiple_of(sysmem::CACHE_LINE_BYTES));

/// Why an end cannot attach to a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The capacity is no power of two, or too large.
    #[error("a ring of {0} records: must be a power of two from 1 to {MAX_CAPACITY}")]
    Capacity(u64),
    /// The memory has not the size that the capacity calls for.
    #[error("{bytes} bytes of memory for a ring, which takes {expected}")]
    Memory {
        /// Bytes of memory found.
        bytes: usize,
        /// Bytes that the ring takes.
        expected: usize,
    },
    /// The memory holds no ring.
    #[error("the memory holds no ring: it begins with {0:#018x}")]
    Magic(u64),
    /// The peer has another version of this layout.
    #[error(
        "the ring has layout version {found}, this program speaks version {VERSION}: \
         run control and dataplane of the same release"
    )]
    Version {
        /// The version found in the memory.
        found: u64,
    },
    /// The peer has records of another size.
    #[error("the ring has records of {found} bytes, this program's have {RECORD_BYTES}")]
    RecordBytes {
        /// The size found in the memory.
        found: u64,
    },
    /// This end was attached before.
    #[error("the ring was used before: a connection begins with fresh memory")]
    Used,
}

/// What the peer did that no honest peer does. The ring is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The peer's index went back, or further than the ring allows.
    #[error("the peer's ring index is {found}, possible were {least} to {most}")]
    Index {
        /// The index found.
        found: u64,
        /// The peer's last valid index.
        least: u64,
        /// The furthest that it could have come.
        most: u64,
    },
    /// A published record is not one.
    #[error("record {index} has the header {header:#018x}, which no producer writes there")]
    Record {
        /// The record's index.
        index: u64,
        /// The header word found.
        header: u64,
    },
    /// The memory shrank under us, which sealed memory cannot.
    #[error("the ring's memory is shorter than it was")]
    Memory,
}

/// Bytes of memory that a ring of `capacity` records takes, or `None` unless that is a power of two up to
/// [`MAX_CAPACITY`].
#[must_use]
pub const fn bytes_for(capacity: u32) -> Option<usize> {
    if capacity.is_power_of_two() && capacity <= MAX_CAPACITY {
        Some(SLOTS_WORD * WORD_BYTES + capacity as usize * RECORD_BYTES)
    } else {
        None
    }
}

/// Makes `memory`, which must be exactly [`bytes_for`] long, an empty ring of `capacity` records.
///
/// Done once, by the side that created the memory, before either end attaches.
///
/// # Errors
/// When the capacity is impossible or the memory has another size.
pub fn format<M: Memory>(memory: &M, capacity: u32) -> Result<(), AttachError> {
    let words = memory.words();
    check_size(words.len(), capacity.into())?;
    words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    let header = [
        (VERSION_WORD, VERSION),
        (CAPACITY_WORD, capacity.into()),
        (RECORD_BYTES_WORD, RECORD_BYTES as u64),
        (MAGIC_WORD, MAGIC),
    ];
    for (at, value) in header {
        if let Some(word) = words.get(at) {
            word.store(value, Ordering::Release);
        }
    }
    Ok(())
}

/// The capacity of a ring as checked at attach: a private copy that no peer can change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    capacity: u64,
}

impl Shape {
    /// Reads and checks the header.
    pub(crate) fn of<M: Memory>(memory: &M) -> Result<Self, AttachError> {
        let words = memory.words();
        let header = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Acquire));
        let magic = header(MAGIC_WORD);
        if magic != MAGIC {
            return Err(AttachError::Magic(magic));
        }
        let version = header(VERSION_WORD);
        if version != VERSION {
            return Err(AttachError::Version { found: version });
        }
        let record_bytes = header(RECORD_BYTES_WORD);
        if record_bytes != RECORD_BYTES as u64 {
            return Err(AttachError::RecordBytes { found: record_bytes });
        }
        let capacity = header(CAPACITY_WORD);
        check_size(words.len(), capacity)?;
        Ok(Self { capacity })
    }

    pub(crate) fn capacity(self) -> u64 {
        self.capacity
    }

    /// The words of the slot for record `index`.
    #[inline]
    pub(crate) fn slot<W>(self, words: &[W], index: u64) -> Result<&[W; RECORD_WORDS], Corrupt> {
        // The capacity is a power of two up to 2^16: the masked index fits any usize.
        let slot = (index & (self.capacity - 1)) as usize;
        let first = SLOTS_WORD + slot * RECORD_WORDS;
        words.get(first..).and_then(|rest| rest.first_chunk()).ok_or(Corrupt::Memory)
    }
}

fn check_size(words: usize, capacity: u64) -> Result<(), AttachError> {
    let expected = u32::try_from(capacity).ok().and_then(bytes_for).ok_or(AttachError::Capacity(capacity))?;
    let bytes = words.saturating_mul(WORD_BYTES);
    if bytes == expected { Ok(()) } else { Err(AttachError::Memory { bytes, expected }) }
}

/// One of the two indices in the memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Index {
    /// Records published, written by the producer.
    Tail,
    /// Records consumed, written by the consumer.
    Head,
}

impl Index {
    #[inline]
    fn word<W>(self, words: &[W]) -> Result<&W, Corrupt> {
        let at = match self {
            Self::Tail => TAIL_WORD,
            Self::Head => HEAD_WORD,
        };
        words.get(at).ok_or(Corrupt::Memory)
    }

    /// Shows the peer our own index, and with it everything written before.
    #[inline]
    pub(crate) fn publish<W: Word>(self, words: &[W], value: u64) -> Result<(), Corrupt> {
        self.word(words)?.store(value, Ordering::Release);
        Ok(())
    }

    /// Copies the peer's index, and with it sees everything that the peer wrote before it. The copy lies in
    /// `least..=most`, wrapping.
    #[inline]
    pub(crate) fn read<W: Word>(self, words: &[W], least: u64, most: u64) -> Result<u64, Corrupt> {
        let found = self.word(words)?.load(Ordering::Acquire);
        if found.wrapping_sub(least) > most.wrapping_sub(least) {
            return Err(Corrupt::Index { found, least, most });
        }
        Ok(found)
    }

    /// Refuses a ring in which this index already moved.
    pub(crate) fn expect_unused<W: Word>(self, words: &[W]) -> Result<(), AttachError> {
        match self.word(words).map(|word| word.load(Ordering::Acquire)) {
            Ok(0) => Ok(()),
            _ => Err(AttachError::Used),
        }
    }
}

/// The first word of a record: index and mark make a slot that was never written, or a stale one, recognisable.
#[inline]
pub(crate) fn record_header(index: u64, payload_bytes: u16) -> u64 {
    index << 32 | u64::from(MARK) << 16 | u64::from(payload_bytes)
}

/// The payload length that `header` states, if it is one that a producer writes for record `index`.
#[inline]
pub(crate) fn payload_bytes(header: u64, index: u64) -> Result<usize, Corrupt> {
    let length = (header & 0xffff) as u16;
    if record_header(index, length) != header || usize::from(length) > PAYLOAD_BYTES {
        return Err(Corrupt::Record { index, header });
    }
    Ok(length.into())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::{Consumer, Producer};

    fn fresh(capacity: u32) -> Arc<[AtomicU64]> {
        let memory: Arc<[AtomicU64]> =
            (0..bytes_for(capacity).unwrap() / WORD_BYTES).map(|_| AtomicU64::new(!0)).collect();
        format(&memory, capacity).unwrap();
        memory
    }

    fn refusal(memory: &Arc<[AtomicU64]>) -> AttachError {
        let producer = Producer::attach(memory.clone()).unwrap_err();
        let consumer = Consumer::attach(memory.clone()).unwrap_err();
        assert_eq!(producer, consumer);
        producer
    }

    #[test]
    fn the_layout_is_what_version_1_says() {
        assert_eq!((VERSION, RECORD_BYTES, PAYLOAD_BYTES), (1, 512, 504));
        assert_eq!(bytes_for(4), Some(384 + 4 * 512));
        let memory = fresh(4);
        let byte = |at: usize| memory[at / 8].load(Ordering::Relaxed);
        assert_eq!([byte(0), byte(8), byte(16), byte(24)], [MAGIC, 1, 4, 512]);

        let mut producer = Producer::attach(memory.clone()).unwrap();
        producer.push(b"abcdefghij").unwrap();
        producer.push(b"").unwrap();
        assert_eq!((byte(128), byte(256)), (2, 0), "tail, head");
        assert_eq!(byte(384), 0x6772_000a, "index 0, mark, length 10");
        assert_eq!(byte(384 + 8).to_ne_bytes(), *b"abcdefgh");
        assert_eq!(byte(384 + 16).to_ne_bytes(), *b"ij\0\0\0\0\0\0");
        assert_eq!(byte(384 + 512), 0x1_6772_0000, "index 1, mark, length 0");

        let mut consumer = Consumer::attach(memory.clone()).unwrap();
        consumer.pop(&mut [0; RECORD_BYTES]).unwrap();
        assert_eq!((byte(128), byte(256)), (2, 1));
    }

    #[test]
    fn capacities_are_powers_of_two_within_the_limit() {
        for capacity in [0, 3, 5, 1000, MAX_CAPACITY + 1, MAX_CAPACITY * 2, u32::MAX] {
            assert_eq!(bytes_for(capacity), None, "{capacity}");
        }
        for capacity in [1, 2, 1024, MAX_CAPACITY] {
            assert_eq!(bytes_for(capacity), Some(384 + capacity as usize * 512));
        }
    }

    #[test]
    fn memory_of_another_size_cannot_become_a_ring() {
        for words in [0, 1, 47, 48 + 63, 48 + 65, 48 + 128] {
            let memory: Arc<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
            let expected = AttachError::Memory { bytes: words * 8, expected: 384 + 512 };
            assert_eq!(format(&memory, 1), Err(expected));
            assert_eq!(format(&memory, 3), Err(AttachError::Capacity(3)));
        }
    }

    #[test]
    fn each_header_word_is_checked_at_attach() {
        let cases = [
            (MAGIC_WORD, 7, AttachError::Magic(7)),
            (VERSION_WORD, 2, AttachError::Version { found: 2 }),
            (CAPACITY_WORD, 6, AttachError::Capacity(6)),
            (CAPACITY_WORD, u64::MAX, AttachError::Capacity(u64::MAX)),
            (CAPACITY_WORD, 1 << 32 | 4, AttachError::Capacity(1 << 32 | 4)),
            (CAPACITY_WORD, 8, AttachError::Memory { bytes: 384 + 4 * 512, expected: 384 + 8 * 512 }),
            (CAPACITY_WORD, 2, AttachError::Memory { bytes: 384 + 4 * 512, expected: 384 + 2 * 512 }),
            (RECORD_BYTES_WORD, 256, AttachError::RecordBytes { found: 256 }),
        ];
        for (word, value, expected) in cases {
            let memory = fresh(4);
            memory[word].store(value, Ordering::Relaxed);
            assert_eq!(refusal(&memory), expected);
        }
    }

    #[test]
    fn a_version_mismatch_names_both_versions_and_what_to_do() {
        let message = AttachError::Version { found: 17 }.to_string();
        for part in ["version 17", "version 1:", "same release"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_used_ring_is_refused_to_a_second_end() {
        let memory = fresh(4);
        let mut producer = Producer::attach(memory.clone()).unwrap();
        producer.push(b"x").unwrap();
        assert_eq!(Producer::attach(memory.clone()).unwrap_err(), AttachError::Used);
        let mut consumer = Consumer::attach(memory.clone()).unwrap();
        consumer.pop(&mut [0; RECORD_BYTES]).unwrap();
        assert_eq!(Consumer::attach(memory).unwrap_err(), AttachError::Used);
    }

    #[test]
    fn memory_too_short_for_a_header_is_no_ring() {
        let memory: Arc<[AtomicU64]> = Arc::new([]);
        assert_eq!(refusal(&memory), AttachError::Magic(0));
        let memory: Arc<[AtomicU64]> = Arc::new([AtomicU64::new(MAGIC)]);
        assert_eq!(refusal(&memory), AttachError::Version { found: 0 });
    }

    #[test]
    fn only_the_header_of_this_very_record_gives_a_length() {
        for index in [0, 1, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            for length in [0, 1, 504] {
                assert_eq!(payload_bytes(record_header(index, length), index), Ok(length.into()));
            }
            for header in [0, u64::MAX, record_header(index, 505), record_header(index.wrapping_add(1), 8)] {
                assert_eq!(payload_bytes(header, index), Err(Corrupt::Record { index, header }));
            }
            assert!(payload_bytes(record_header(index, 8) ^ (1 << 16), index).is_err(), "mark");
        }
    }
}
