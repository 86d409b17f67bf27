// SPDX-License-Identifier: Apache-2.0
//! The ring under loom: every interleaving of the two ends and every value that the memory
//! orders in the code allow a load to see. Run as `lib.rs` says.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use greyhound_ring::{
    Consumer, Memory, PAYLOAD_BYTES, Producer, PushError, RECORD_BYTES, Word, bytes_for, format,
};
use loom::sync::atomic::AtomicU64;
use loom::thread;

type Modelled = Arc<[AtomicU64]>;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.check(check);
}

fn ring(capacity: u32) -> (Modelled, Producer<Modelled>, Consumer<Modelled>) {
    let words = bytes_for(capacity).expect("a power of two") / 8;
    let memory: Modelled = (0..words).map(|_| AtomicU64::new(0)).collect();
    format(&memory, capacity).expect("a ring");
    let producer = Producer::attach(memory.clone()).expect("fresh");
    let consumer = Consumer::attach(memory.clone()).expect("fresh");
    (memory, producer, consumer)
}

/// The number in each word of the payload, so that a record of two halves shows.
fn payload(number: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [0; PAYLOAD_BYTES];
    payload.as_chunks_mut().0.fill(number.to_ne_bytes());
    payload
}

/// Pushes the numbers from 1 on, as often as it finds room in `tries`; returns how many.
fn push_numbers(producer: &mut Producer<Modelled>, tries: u64) -> u64 {
    let mut pushed = 0_u64;
    for _ in 0..tries {
        match producer.push(&payload(pushed + 1)) {
            Ok(()) => pushed += 1,
            Err(PushError::Full) => thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    pushed
}

/// Pops in `tries`; each record must be the next number. Returns how many came.
fn pop_numbers(consumer: &mut Consumer<Modelled>, already: u64, tries: u64) -> u64 {
    let mut record = [0; RECORD_BYTES];
    let mut popped = already;
    for _ in 0..tries {
        match consumer.pop(&mut record).expect("an honest peer") {
            Some(length) => {
                popped += 1;
                assert_eq!(record[..length], payload(popped));
            }
            None => thread::yield_now(),
        }
    }
    popped
}

fn passes_in_order(capacity: u32, pushes: u64, pops: u64) {
    model(move || {
        let (memory, mut producer, mut consumer) = ring(capacity);
        let sender = thread::spawn(move || push_numbers(&mut producer, pushes));
        let popped = pop_numbers(&mut consumer, 0, pops);
        let pushed = sender.join().expect("sender");
        assert_eq!(pop_numbers(&mut consumer, popped, pushed - popped), pushed);
        let slots = memory.words().iter().skip(48);
        assert!(slots.into_iter().all(|word| Word::load(word, Ordering::Relaxed) == 0), "all slots zeroed");
    });
}

#[test]
fn a_ring_of_one_slot_passes_every_record_whole_and_in_order() {
    passes_in_order(1, 3, 3);
}

#[test]
fn a_ring_of_two_slots_passes_every_record_whole_and_in_order() {
    passes_in_order(2, 4, 3);
}

#[test]
fn both_ends_see_plausible_counts_meanwhile() {
    model(|| {
        let (_, mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            let pushed = push_numbers(&mut producer, 2);
            assert!(producer.unread().expect("an honest peer") <= pushed);
        });
        assert!(consumer.unread().expect("an honest peer") <= 2);
        pop_numbers(&mut consumer, 0, 1);
        sender.join().expect("sender");
    });
}

#[test]
fn a_peer_that_publishes_what_it_did_not_write_is_found_out() {
    model(|| {
        let (memory, mut producer, mut consumer) = ring(2);
        let hostile = thread::spawn(move || {
            producer.push(b"honest").expect("room");
            Word::store(&memory[16], 2, Ordering::Release);
        });
        let mut record = [0; RECORD_BYTES];
        let mut records = 0;
        for _ in 0..3 {
            match consumer.pop(&mut record) {
                Ok(Some(length)) => {
                    assert_eq!(record[..length], *b"honest");
                    records += 1;
                }
                Ok(None) => thread::yield_now(),
                Err(_) => break,
            }
        }
        assert!(records <= 1);
        hostile.join().expect("hostile");
    });
}
