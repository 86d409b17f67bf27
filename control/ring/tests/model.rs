// SPDX-License-Identifier: Apache-2.0
//! The ring against a queue from the standard library, in one thread and in two.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use greyhound_ring::{Consumer, PAYLOAD_BYTES, Producer, PushError, RECORD_BYTES, bytes_for, format};
use proptest::prelude::*;
use sysmem::{Region, SharedMemory};

type Heap = Arc<[AtomicU64]>;

fn heap_ring(capacity: u32) -> (Heap, Producer<Heap>, Consumer<Heap>) {
    let words = bytes_for(capacity).unwrap() / 8;
    let memory: Heap = (0..words).map(|_| AtomicU64::new(0)).collect();
    format(&memory, capacity).unwrap();
    let producer = Producer::attach(memory.clone()).unwrap();
    let consumer = Consumer::attach(memory.clone()).unwrap();
    (memory, producer, consumer)
}

fn shared_ring(capacity: u32) -> (Producer<Region>, Consumer<Region>) {
    let bytes = bytes_for(capacity).unwrap();
    let memory = Arc::new(SharedMemory::create("ring-test", bytes).unwrap());
    let region = memory.region(0, bytes).unwrap();
    format(&region, capacity).unwrap();
    (Producer::attach(region.clone()).unwrap(), Consumer::attach(region).unwrap())
}

#[test]
fn a_ring_holds_its_capacity_and_not_one_more() {
    for capacity in [1, 2, 64] {
        let (_, mut producer, mut consumer) = heap_ring(capacity);
        let mut record = [0; RECORD_BYTES];
        assert_eq!((producer.capacity(), consumer.capacity()), (capacity.into(), capacity.into()));
        for round in 0..3_u8 {
            for number in 0..capacity {
                assert_eq!(producer.room(), Ok(u64::from(capacity - number)));
                producer.push(&[round, number as u8]).unwrap();
            }
            assert_eq!(producer.push(b"more"), Err(PushError::Full));
            assert_eq!((producer.unread(), consumer.unread()), (Ok(capacity.into()), Ok(capacity.into())));
            for number in 0..capacity {
                assert_eq!(consumer.pop(&mut record), Ok(Some(2)));
                assert_eq!(record[..2], [round, number as u8]);
            }
            assert_eq!(consumer.pop(&mut record), Ok(None));
            assert_eq!((producer.unread(), consumer.unread()), (Ok(0), Ok(0)));
        }
    }
}

#[test]
fn a_payload_that_does_not_fit_is_refused_and_sends_nothing() {
    let (_, mut producer, mut consumer) = heap_ring(4);
    for bytes in [PAYLOAD_BYTES + 1, RECORD_BYTES, 65536, 65536 + 8] {
        assert_eq!(producer.push(&vec![1; bytes]), Err(PushError::TooLong { bytes }));
    }
    assert_eq!(consumer.pop(&mut [0; RECORD_BYTES]), Ok(None));
}

#[test]
fn every_payload_length_arrives_whole_and_padded_with_zeros() {
    let (mut producer, mut consumer) = shared_ring(2);
    let content: Vec<u8> = (0..PAYLOAD_BYTES).map(|at| at as u8 | 1).collect();
    for length in 0..=PAYLOAD_BYTES {
        let mut record = [0xa5; RECORD_BYTES];
        producer.push(&content[..length]).unwrap();
        assert_eq!(consumer.pop(&mut record), Ok(Some(length)));
        assert_eq!(record[..length], content[..length]);
        assert!(record[length..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_consumed_slot_is_zero() {
    let (memory, mut producer, mut consumer) = heap_ring(4);
    let non_zero = || memory[48..].iter().filter(|word| word.load(Ordering::Relaxed) != 0).count();
    for _ in 0..10 {
        producer.push(&[0xff; PAYLOAD_BYTES]).unwrap();
        producer.push(&[0xff; 8]).unwrap();
        assert_eq!(non_zero(), 64 + 2);
        consumer.pop(&mut [0; RECORD_BYTES]).unwrap();
        assert_eq!(non_zero(), 2);
        consumer.pop(&mut [0; RECORD_BYTES]).unwrap();
        assert_eq!(non_zero(), 0);
    }
}

#[test]
fn two_threads_pass_every_record_once_and_in_order() {
    const RECORDS: u64 = 50_000;
    let (mut producer, mut consumer) = shared_ring(64);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..RECORDS {
                let payload = numbered(number);
                while producer.push(&payload) == Err(PushError::Full) {
                    std::thread::yield_now();
                }
            }
        });
        let mut record = [0; RECORD_BYTES];
        for number in 0..RECORDS {
            let length = loop {
                match consumer.pop(&mut record).unwrap() {
                    Some(length) => break length,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(record[..length], numbered(number));
        }
        assert_eq!(consumer.pop(&mut record), Ok(None));
    });
}

/// A payload whose length and every byte depend on its number.
fn numbered(number: u64) -> Vec<u8> {
    let length = 8 + (number % (PAYLOAD_BYTES as u64 - 7)) as usize;
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Push(Vec<u8>),
    Pop,
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES + 1).prop_map(Step::Push),
        4 => Just(Step::Pop),
        1 => Just(Step::Look),
    ]
}

proptest! {
    #[test]
    fn the_ring_does_what_a_bounded_queue_does(
        exponent in 0..5_u32, steps in proptest::collection::vec(step(), 0..200),
    ) {
        let capacity = 1 << exponent;
        let (_, mut producer, mut consumer) = heap_ring(capacity);
        let mut model = VecDeque::new();
        let mut record = [0; RECORD_BYTES];
        for step in steps {
            match step {
                Step::Push(payload) if payload.len() > PAYLOAD_BYTES => {
                    prop_assert_eq!(producer.push(&payload), Err(PushError::TooLong { bytes: payload.len() }));
                }
                Step::Push(payload) if model.len() == capacity as usize => {
                    prop_assert_eq!(producer.push(&payload), Err(PushError::Full));
                }
                Step::Push(payload) => {
                    prop_assert_eq!(producer.push(&payload), Ok(()));
                    model.push_back(payload);
                }
                Step::Pop => {
                    let found = consumer.pop(&mut record).unwrap().map(|length| record[..length].to_vec());
                    prop_assert_eq!(found, model.pop_front());
                }
                Step::Look => {
                    prop_assert_eq!(producer.unread(), Ok(model.len() as u64));
                    prop_assert_eq!(consumer.unread(), Ok(model.len() as u64));
                    prop_assert!(producer.room().unwrap() <= u64::from(capacity) - model.len() as u64);
                }
            }
        }
    }
}
