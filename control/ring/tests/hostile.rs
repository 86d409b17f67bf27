// SPDX-License-Identifier: Apache-2.0
//! A peer that writes whatever it likes wherever it likes: no panic, no endless loop, no length that does not fit.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use greyhound_ring::{
    Consumer, Corrupt, PAYLOAD_BYTES, Producer, PushError, RECORD_BYTES, bytes_for, format,
};
use proptest::prelude::*;

const TAIL: usize = 128 / 8;
const HEAD: usize = 256 / 8;
const SLOTS: usize = 384 / 8;
const CAPACITY: u32 = 8;

type Heap = Arc<[AtomicU64]>;

fn ring() -> (Heap, Producer<Heap>, Consumer<Heap>) {
    let words = bytes_for(CAPACITY).unwrap() / 8;
    let memory: Heap = (0..words).map(|_| AtomicU64::new(0)).collect();
    format(&memory, CAPACITY).unwrap();
    let producer = Producer::attach(memory.clone()).unwrap();
    let consumer = Consumer::attach(memory.clone()).unwrap();
    (memory, producer, consumer)
}

fn set(memory: &Heap, word: usize, value: u64) {
    memory[word].store(value, Ordering::Release);
}

#[test]
fn a_tail_beyond_the_capacity_or_behind_is_corrupt() {
    for tail in [9, 10, 1 << 32, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let (memory, _, mut consumer) = ring();
        set(&memory, TAIL, tail);
        let corrupt = Corrupt::Index { found: tail, least: 0, most: 8 };
        assert_eq!(consumer.pop(&mut [0; RECORD_BYTES]), Err(corrupt));
        assert_eq!(consumer.unread(), Err(corrupt));
    }
}

#[test]
fn a_tail_that_goes_back_is_corrupt_even_inside_the_capacity() {
    let (memory, mut producer, mut consumer) = ring();
    for _ in 0..4 {
        producer.push(b"x").unwrap();
    }
    assert_eq!(consumer.unread(), Ok(4));
    set(&memory, TAIL, 3);
    assert_eq!(consumer.unread(), Err(Corrupt::Index { found: 3, least: 4, most: 8 }));
}

#[test]
fn a_head_that_runs_ahead_or_goes_back_is_corrupt() {
    for head in [4, 9, u64::MAX / 2, u64::MAX] {
        let (memory, mut producer, _) = ring();
        for _ in 0..3 {
            producer.push(b"x").unwrap();
        }
        set(&memory, HEAD, head);
        assert_eq!(producer.unread(), Err(Corrupt::Index { found: head, least: 0, most: 3 }));
        assert!(matches!(producer.push(b"x"), Ok(()) | Err(PushError::Corrupt(_))));
    }
    let (memory, mut producer, mut consumer) = ring();
    producer.push(b"x").unwrap();
    consumer.pop(&mut [0; RECORD_BYTES]).unwrap();
    assert_eq!(producer.unread(), Ok(0));
    set(&memory, HEAD, 0);
    assert_eq!(producer.unread(), Err(Corrupt::Index { found: 0, least: 1, most: 1 }));
}

#[test]
fn a_broken_ring_stays_broken_when_the_peer_mends_it() {
    let (memory, mut producer, mut consumer) = ring();
    producer.push(b"x").unwrap();
    set(&memory, TAIL, 100);
    let corrupt = consumer.pop(&mut [0; RECORD_BYTES]).unwrap_err();
    set(&memory, TAIL, 1);
    assert_eq!(consumer.pop(&mut [0; RECORD_BYTES]), Err(corrupt));

    for _ in 1..8 {
        producer.push(b"x").unwrap();
    }
    set(&memory, HEAD, 100);
    let PushError::Corrupt(corrupt) = producer.push(b"x").unwrap_err() else { panic!("not corrupt") };
    set(&memory, HEAD, 8);
    assert_eq!(producer.push(b"x"), Err(PushError::Corrupt(corrupt)));
    assert_eq!(producer.room(), Err(corrupt));
}

#[test]
fn a_record_that_was_never_written_is_corrupt() {
    let (memory, _, mut consumer) = ring();
    set(&memory, TAIL, 1);
    let mut record = [0xa5; RECORD_BYTES];
    assert_eq!(consumer.pop(&mut record), Err(Corrupt::Record { index: 0, header: 0 }));
    assert_eq!(record, [0; RECORD_BYTES]);
}

#[test]
fn a_record_with_an_impossible_length_is_corrupt_and_its_bytes_are_kept_from_the_caller() {
    let (memory, mut producer, mut consumer) = ring();
    producer.push(&[0xff; PAYLOAD_BYTES]).unwrap();
    let header = memory[SLOTS].load(Ordering::Relaxed) + 1;
    set(&memory, SLOTS, header);
    let mut record = [0xa5; RECORD_BYTES];
    assert_eq!(consumer.pop(&mut record), Err(Corrupt::Record { index: 0, header }));
    assert_eq!(record, [0; RECORD_BYTES]);
    assert!(memory[SLOTS..].iter().all(|word| word.load(Ordering::Relaxed) == 0), "zeroed all the same");
}

#[test]
fn a_record_left_over_from_an_earlier_round_is_corrupt() {
    let (memory, mut producer, mut consumer) = ring();
    let mut record = [0; RECORD_BYTES];
    producer.push(b"old").unwrap();
    let old: Vec<u64> = memory[SLOTS..SLOTS + 64].iter().map(|word| word.load(Ordering::Relaxed)).collect();
    consumer.pop(&mut record).unwrap();
    for _ in 1..8 {
        producer.push(b"new").unwrap();
        consumer.pop(&mut record).unwrap();
    }
    old.iter().zip(SLOTS..).for_each(|(&value, word)| set(&memory, word, value));
    set(&memory, TAIL, 9);
    assert_eq!(consumer.pop(&mut record), Err(Corrupt::Record { index: 8, header: old[0] }));
}

#[test]
fn the_header_is_not_read_again_after_attach() {
    let (memory, mut producer, mut consumer) = ring();
    for word in 0..16 {
        set(&memory, word, u64::MAX);
    }
    let mut record = [0; RECORD_BYTES];
    for _ in 0..20 {
        producer.push(b"still here").unwrap();
        assert_eq!(consumer.pop(&mut record), Ok(Some(10)));
    }
    assert_eq!((producer.capacity(), consumer.capacity()), (8, 8));
}

#[test]
fn an_end_does_not_believe_its_own_index_in_shared_memory() {
    let (memory, mut producer, mut consumer) = ring();
    let mut record = [0; RECORD_BYTES];
    for number in 0..20_u8 {
        set(&memory, TAIL, 77);
        producer.push(&[number]).unwrap();
        set(&memory, HEAD, 99);
        assert_eq!(consumer.pop(&mut record), Ok(Some(1)));
        assert_eq!(record[0], number);
        assert_eq!(producer.unread(), Ok(0));
    }
}

#[test]
fn garbage_written_all_the_time_by_another_thread_ends_in_an_error_or_a_bounded_record() {
    let stop = Arc::new(AtomicBool::new(false));
    for seed in 0..20 {
        let (memory, mut producer, mut consumer) = ring();
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(&memory, seed, &stop));
            let mut record = [0; RECORD_BYTES];
            for _ in 0..2000 {
                let _ = producer.push(&[0x5a; 100]);
                if let Ok(Some(length)) = consumer.pop(&mut record) {
                    assert!(length <= PAYLOAD_BYTES);
                    assert!(record[length..].iter().all(|&byte| byte == 0));
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// Writes small and large values everywhere but, most of the time, to the indices, so that records are reached too.
fn scribble(memory: &Heap, seed: u64, stop: &AtomicBool) {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    while !stop.load(Ordering::Relaxed) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (state >> 33) as usize % memory.len();
        let value = if state & 1 == 0 { (state >> 40) % 20 } else { state };
        if !matches!(word, TAIL | HEAD) || (state >> 20).is_multiple_of(64) {
            memory[word].store(value, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Pop,
    Look,
    Scribble(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let word = prop_oneof![
        Just(TAIL),
        Just(HEAD),
        0..SLOTS,
        (0..8_usize).prop_map(|slot| SLOTS + 64 * slot),
        SLOTS..560
    ];
    let value = prop_oneof![
        0..20_u64,
        any::<u64>(),
        (0..20_u64, any::<u16>())
            .prop_map(|(index, length)| { index << 32 | 0x6772_0000 | u64::from(length) })
    ];
    prop_oneof![
        6 => (0..=PAYLOAD_BYTES).prop_map(Step::Push),
        6 => Just(Step::Pop),
        2 => Just(Step::Look),
        1 => (word, value).prop_map(|(word, value)| Step::Scribble(word, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_the_peer_writes_each_call_ends_in_a_record_that_fits_or_an_error(
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let (memory, mut producer, mut consumer) = ring();
        let mut record = [0; RECORD_BYTES];
        let mut producer_broke = None;
        let mut consumer_broke = None;
        for step in steps {
            match step {
                Step::Push(length) => match producer.push(&vec![0x5a; length]) {
                    Ok(()) | Err(PushError::Full) => {}
                    Err(PushError::TooLong { .. }) => prop_assert!(false, "it fits"),
                    Err(PushError::Corrupt(corrupt)) => {
                        prop_assert_eq!(*producer_broke.get_or_insert(corrupt), corrupt);
                    }
                },
                Step::Pop => match consumer.pop(&mut record) {
                    Ok(Some(length)) => {
                        prop_assert!(length <= PAYLOAD_BYTES && consumer_broke.is_none());
                        prop_assert!(record[length..].iter().all(|&byte| byte == 0));
                    }
                    Ok(None) => prop_assert!(consumer_broke.is_none()),
                    Err(corrupt) => prop_assert_eq!(*consumer_broke.get_or_insert(corrupt), corrupt),
                },
                Step::Look => {
                    if let Ok(room) = producer.room() {
                        prop_assert!(room <= CAPACITY.into());
                    }
                    if let Ok(unread) = consumer.unread() {
                        prop_assert!(unread <= CAPACITY.into());
                    }
                }
                Step::Scribble(word, value) => set(&memory, word, value),
            }
        }
    }

    #[test]
    fn attaching_to_any_garbage_is_refused_or_gives_a_ring_that_fits(
        words in proptest::collection::vec(any::<u64>(), 0..600), header in proptest::array::uniform4(0..600_u64),
    ) {
        let memory: Heap = words.into_iter().map(AtomicU64::new).collect();
        for (word, value) in memory.iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        prop_assert!(Consumer::attach(memory.clone()).is_err());
        // A right magic and version, the rest left to chance.
        for (word, value) in memory.iter().zip([u64::from_ne_bytes(*b"GREYRING"), 1]) {
            word.store(value, Ordering::Relaxed);
        }
        if let Ok(producer) = Producer::attach(memory.clone()) {
            prop_assert_eq!(memory.len() as u64, 48 + 64 * producer.capacity());
        }
    }
}
