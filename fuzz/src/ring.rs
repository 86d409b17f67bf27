// SPDX-License-Identifier: Apache-2.0
//! The control channel's ring with a peer that may write any word at any time.
//!
//! The first byte says whether memory that nobody formatted is attached to, or the rest is a list of steps: pushes,
//! pops, looks, and words that the peer writes. As long as the peer has written none, the ring is a queue, exactly. What
//! comes out is read as a message, as the process does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use messages::{Event, Request, decode};
use ring::{Consumer, Corrupt, PAYLOAD_BYTES, Producer, PushError, RECORD_BYTES, bytes_for, format};

use crate::input::Input;

const WORD_BYTES: usize = 8;
const RECORD_WORDS: usize = RECORD_BYTES / WORD_BYTES;
/// Words in front of the slots, those of the header, and where the indices stand: see the crate's picture.
const HEADER_WORDS: usize = 4;
const TAIL: usize = 128 / WORD_BYTES;
const HEAD: usize = 256 / WORD_BYTES;
const SLOTS: usize = 384 / WORD_BYTES;

type Heap = Arc<[AtomicU64]>;

/// A ring and what happens to it.
///
/// # Panics
/// On a finding.
pub fn ring(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 8 {
        0 => attach(input),
        choice => Rings::new(1 << (choice % 4)).run(input),
    }
}

/// Attaches to a few words and zeros behind them, as many as the capacity they state would need, or not.
fn attach(mut input: Input<'_>) {
    let capacity = 1_u32 << (input.u8() % 8);
    let exact = bytes_for(capacity).expect("a capacity that is allowed") / WORD_BYTES;
    let words = exact.wrapping_add_signed(isize::from(input.u8().cast_signed()) / 64);
    let memory: Heap = (0..words).map(|_| AtomicU64::new(0)).collect();
    if input.u8() & 1 == 0 && words == exact {
        format(&memory, capacity).expect("the size is right");
    }
    while !input.is_empty() {
        let at = usize::from(input.u8()) % SLOTS;
        memory[at].store(input.u64(), Ordering::Relaxed);
    }
    if let Ok(mut producer) = Producer::attach(memory.clone()) {
        assert_eq!(bytes_for(u32::try_from(producer.capacity()).expect("small")), Some(words * WORD_BYTES));
        let _ = producer.push(b"first");
    }
    if let Ok(mut consumer) = Consumer::attach(memory.clone()) {
        assert_eq!(bytes_for(u32::try_from(consumer.capacity()).expect("small")), Some(words * WORD_BYTES));
        let _ = consumer.pop(&mut [0; RECORD_BYTES]);
    }
}

struct Rings {
    memory: Heap,
    producer: Producer<Heap>,
    consumer: Consumer<Heap>,
    /// What is in the ring, while nobody meddled.
    model: Option<VecDeque<Vec<u8>>>,
    producer_broke: Option<Corrupt>,
    consumer_broke: Option<Corrupt>,
}

impl Rings {
    fn new(capacity: u32) -> Self {
        let words = bytes_for(capacity).expect("a capacity that is allowed") / WORD_BYTES;
        let memory: Heap = (0..words).map(|_| AtomicU64::new(0)).collect();
        format(&memory, capacity).expect("the size is right");
        let producer = Producer::attach(memory.clone()).expect("formatted");
        let consumer = Consumer::attach(memory.clone()).expect("formatted");
        let model = Some(VecDeque::new());
        Self { memory, producer, consumer, model, producer_broke: None, consumer_broke: None }
    }

    fn run(mut self, mut input: Input<'_>) {
        while !input.is_empty() {
            match input.u8() % 8 {
                0 | 1 => self.push(&mut input),
                2..=4 => self.pop(),
                5 => self.look(),
                6 => self.write_index(&mut input),
                _ => self.write_word(&mut input),
            }
        }
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let bytes = usize::from(input.u16()) % (PAYLOAD_BYTES + 8);
        let mut payload = input.bytes(bytes.min(64)).to_vec();
        payload.resize(bytes, 0x5a);
        match self.producer.push(&payload) {
            Ok(()) => {
                let Some(queue) = &mut self.model else { return };
                queue.push_back(payload);
                assert!(queue.len() as u64 <= self.producer.capacity(), "more than fit");
            }
            Err(PushError::TooLong { bytes }) => assert!(bytes > PAYLOAD_BYTES),
            Err(PushError::Full) => {
                let full = |queue: &VecDeque<_>| queue.len() as u64 == self.producer.capacity();
                assert!(self.model.as_ref().is_none_or(full), "full, and is not");
            }
            Err(PushError::Corrupt(corrupt)) => stays(&mut self.producer_broke, corrupt, &self.model),
        }
    }

    fn pop(&mut self) {
        let mut record = [0xa5; RECORD_BYTES];
        match self.consumer.pop(&mut record) {
            Ok(Some(length)) => {
                assert!(self.consumer_broke.is_none() && length <= PAYLOAD_BYTES);
                let (payload, rest) = record.split_at(length);
                assert!(rest.iter().all(|byte| *byte == 0), "bytes behind the payload");
                if let Some(queue) = &mut self.model {
                    assert_eq!(queue.pop_front().as_deref(), Some(payload));
                }
                let _ = decode::<Request>(payload);
                let _ = decode::<Event>(payload);
            }
            Ok(None) => {
                assert!(self.consumer_broke.is_none());
                assert!(self.model.as_ref().is_none_or(VecDeque::is_empty), "a record is lost");
            }
            Err(corrupt) => stays(&mut self.consumer_broke, corrupt, &self.model),
        }
    }

    fn look(&mut self) {
        let capacity = self.producer.capacity();
        match self.producer.room() {
            Ok(room) => assert!(room <= capacity),
            Err(corrupt) => stays(&mut self.producer_broke, corrupt, &self.model),
        }
        match self.consumer.unread() {
            Ok(unread) => {
                assert!(unread <= capacity);
                assert!(self.model.as_ref().is_none_or(|queue| queue.len() as u64 == unread));
            }
            Err(corrupt) => stays(&mut self.consumer_broke, corrupt, &self.model),
        }
    }

    fn write_index(&mut self, input: &mut Input<'_>) {
        let at = input.choose([TAIL, HEAD]);
        // Near the value that stands there is where the border between right and wrong lies.
        let near = u64::from(input.u8()).wrapping_sub(128);
        let value = if input.u8() & 1 == 0 {
            self.memory[at].load(Ordering::Relaxed).wrapping_add(near)
        } else {
            input.u64()
        };
        self.write(at, value);
    }

    fn write_word(&mut self, input: &mut Input<'_>) {
        let slot = SLOTS + usize::from(input.u8()) % 8 * RECORD_WORDS;
        let at = match input.u8() % 4 {
            0 => usize::from(input.u8()) % HEADER_WORDS,
            1 => slot,
            2 => slot + usize::from(input.u8()) % RECORD_WORDS,
            _ => usize::from(input.u16()),
        } % self.memory.len();
        let old = self.memory[at].load(Ordering::Relaxed);
        let value = if input.u8() & 1 == 0 { old ^ u64::from(input.u16()) } else { input.u64() };
        self.write(at, value);
    }

    fn write(&mut self, at: usize, value: u64) {
        self.memory[at].store(value, Ordering::Relaxed);
        self.model = None;
    }
}

/// A ring that broke stays so, for the same reason, and none breaks by itself.
fn stays(broke: &mut Option<Corrupt>, corrupt: Corrupt, model: &Option<VecDeque<Vec<u8>>>) {
    assert!(model.is_none(), "the ring broke by itself: {corrupt}");
    assert_eq!(*broke.get_or_insert(corrupt), corrupt);
}
