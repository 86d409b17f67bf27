// SPDX-License-Identifier: Apache-2.0
//! The sending end of a ring.

use std::sync::atomic::Ordering;

use crate::layout::{
    AttachError, Corrupt, Index, PAYLOAD_BYTES, RECORD_WORDS, Shape, WORD_BYTES, record_header,
};
use crate::memory::{Memory, Word};

/// Why a record was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The consumer has not yet taken enough; try again later.
    #[error("the ring is full")]
    Full,
    /// The payload does not fit a record.
    #[error("a record of {bytes} bytes: at most {PAYLOAD_BYTES} fit")]
    TooLong {
        /// Length of the payload.
        bytes: usize,
    },
    /// The consumer broke the ring.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The sending end. There may be one for each ring, in one process.
#[derive(Debug)]
pub struct Producer<M: Memory = sysmem::Region> {
    memory: M,
    shape: Shape,
    /// Records published.
    tail: u64,
    /// Records consumed, as last read from the peer and found valid.
    head: u64,
    broken: Option<Corrupt>,
}

impl<M: Memory> Producer<M> {
    /// Attaches to a ring that was formatted and has had no producer yet.
    ///
    /// # Errors
    /// When the memory holds no ring of this version, size and record size, or a used one.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let shape = Shape::of(&memory)?;
        Index::Tail.expect_unused(memory.words())?;
        Ok(Self { memory, shape, tail: 0, head: 0, broken: None })
    }

    /// Sends a copy of `payload`, whole.
    ///
    /// # Errors
    /// When the ring is full, the payload does not fit a record, or the peer broke the ring; nothing is sent then.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), PushError> {
        let Ok(length @ 0..=MAX_LENGTH) = u16::try_from(payload.len()) else {
            return Err(PushError::TooLong { bytes: payload.len() });
        };
        if self.room()? == 0 {
            return Err(PushError::Full);
        }
        let words = self.memory.words();
        let slot = self.shape.slot(words, self.tail)?;
        fill(slot, record_header(self.tail, length), payload);
        Index::Tail.publish(words, self.tail.wrapping_add(1))?;
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Records that can be pushed for sure. It looks at the peer's index only when the answer would be 0.
    ///
    /// # Errors
    /// When the peer broke the ring.
    pub fn room(&mut self) -> Result<u64, Corrupt> {
        if self.last_known_room() == 0 {
            self.look()?;
        }
        self.broken.map_or(Ok(self.last_known_room()), Err)
    }

    /// Records that the consumer has not taken yet.
    ///
    /// # Errors
    /// When the peer broke the ring.
    pub fn unread(&mut self) -> Result<u64, Corrupt> {
        self.look()?;
        Ok(self.tail.wrapping_sub(self.head))
    }

    /// Records that fit the ring.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.shape.capacity()
    }

    fn last_known_room(&self) -> u64 {
        self.shape.capacity() - self.tail.wrapping_sub(self.head)
    }

    fn look(&mut self) -> Result<(), Corrupt> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match Index::Head.read(self.memory.words(), self.head, self.tail) {
            Ok(head) => self.head = head,
            Err(corrupt) => self.broken = Some(corrupt),
        }
        self.broken.map_or(Ok(()), Err)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "layout asserts that it fits")]
const MAX_LENGTH: u16 = PAYLOAD_BYTES as u16;

/// Writes all words of the slot: header, payload, zeros.
fn fill<W: Word>(slot: &[W; RECORD_WORDS], header: u64, payload: &[u8]) {
    let (chunks, rest) = payload.as_chunks::<WORD_BYTES>();
    let mut last = [0; WORD_BYTES];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let payload = chunks.iter().chain([&last]).map(|chunk| u64::from_ne_bytes(*chunk));
    let values = std::iter::once(header).chain(payload).chain(std::iter::repeat(0));
    for (word, value) in slot.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
}
