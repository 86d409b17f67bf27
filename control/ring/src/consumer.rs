// SPDX-License-Identifier: Apache-2.0
//! The receiving end of a ring.

use std::sync::atomic::Ordering;

use crate::layout::{
    AttachError, Corrupt, Index, RECORD_BYTES, RECORD_WORDS, Shape, WORD_BYTES, payload_bytes,
};
use crate::memory::{Memory, Word};

/// The receiving end. There may be one for each ring, in one process.
#[derive(Debug)]
pub struct Consumer<M: Memory = sysmem::Region> {
    memory: M,
    shape: Shape,
    /// Records consumed.
    head: u64,
    /// Records published, as last read from the peer and found valid.
    tail: u64,
    broken: Option<Corrupt>,
}

impl<M: Memory> Consumer<M> {
    /// Attaches to a ring that was formatted and has had no consumer yet.
    ///
    /// # Errors
    /// When the memory holds no ring of this version, size and record size, or a used one.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let shape = Shape::of(&memory)?;
        Index::Head.expect_unused(memory.words())?;
        Ok(Self { memory, shape, head: 0, tail: 0, broken: None })
    }

    /// Takes the next record: its payload is the first bytes of `record`, as many as returned; the rest is zero.
    ///
    /// `None` when there is none. `record` is the only copy then left, the slot is zeroed.
    ///
    /// # Errors
    /// When the peer broke the ring, by its index or by a record that is none; then and ever after.
    pub fn pop(&mut self, record: &mut [u8; RECORD_BYTES]) -> Result<Option<usize>, Corrupt> {
        if self.head == self.tail {
            self.look()?;
        }
        match self.broken {
            Some(broken) => Err(broken),
            None if self.head == self.tail => Ok(None),
            None => self.take(record).map(Some).inspect_err(|&corrupt| self.broken = Some(corrupt)),
        }
    }

    /// Records that wait.
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

    fn look(&mut self) -> Result<(), Corrupt> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let most = self.head.wrapping_add(self.shape.capacity());
        match Index::Tail.read(self.memory.words(), self.tail, most) {
            Ok(tail) => self.tail = tail,
            Err(corrupt) => self.broken = Some(corrupt),
        }
        self.broken.map_or(Ok(()), Err)
    }

    fn take(&mut self, record: &mut [u8; RECORD_BYTES]) -> Result<usize, Corrupt> {
        let words = self.memory.words();
        let header = empty(self.shape.slot(words, self.head)?, record);
        let index = self.head;
        self.head = index.wrapping_add(1);
        Index::Head.publish(words, self.head)?;
        let length = payload_bytes(header, index).inspect_err(|_| record.fill(0))?;
        record.iter_mut().skip(length).for_each(|byte| *byte = 0);
        Ok(length)
    }
}

/// Moves the slot's content out, payload into `record`, and leaves zeros. Returns the header.
fn empty<W: Word>(slot: &[W; RECORD_WORDS], record: &mut [u8; RECORD_BYTES]) -> u64 {
    let (header, payload) = (&slot[0], &slot[1..]);
    let (chunks, _) = record.as_chunks_mut::<WORD_BYTES>();
    for (chunk, word) in chunks.iter_mut().zip(payload) {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
        word.store(0, Ordering::Relaxed);
    }
    let found = header.load(Ordering::Relaxed);
    header.store(0, Ordering::Relaxed);
    found
}
