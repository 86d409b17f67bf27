// SPDX-License-Identifier: Apache-2.0
//! What a record costs: both ends in one thread (no cache line travels), and an idle turn.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use greyhound_ring::{Consumer, PAYLOAD_BYTES, Producer, RECORD_BYTES, bytes_for, format};
use sysmem::SharedMemory;

const CAPACITY: u32 = 1024;

fn ring() -> (Producer, Consumer) {
    let bytes = bytes_for(CAPACITY).expect("a power of two");
    let memory = Arc::new(SharedMemory::create("ring-bench", bytes).expect("shared memory"));
    let region = memory.region(0, bytes).expect("all of it");
    format(&region, CAPACITY).expect("a ring");
    let producer = Producer::attach(region.clone()).expect("a fresh ring");
    (producer, Consumer::attach(region).expect("a fresh ring"))
}

fn idle_turn(criterion: &mut Criterion) {
    let (_producer, mut consumer) = ring();
    let mut record = [0; RECORD_BYTES];
    criterion.bench_function("pop, nothing there", |bencher| {
        bencher.iter(|| consumer.pop(black_box(&mut record)));
    });
}

fn push_and_pop(criterion: &mut Criterion) {
    let (mut producer, mut consumer) = ring();
    let mut record = [0; RECORD_BYTES];
    let mut group = criterion.benchmark_group("push and pop");
    for payload_bytes in [16, 128, PAYLOAD_BYTES] {
        let payload = vec![0xa5; payload_bytes];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{payload_bytes} bytes"), |bencher| {
            bencher.iter(|| {
                producer.push(black_box(&payload)).expect("room");
                consumer.pop(black_box(&mut record)).expect("an honest peer")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, idle_turn, push_and_pop);
criterion_main!(benches);
