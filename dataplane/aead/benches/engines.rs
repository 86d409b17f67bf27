// SPDX-License-Identifier: Apache-2.0
//! Cipher alone: bursts of packets through each available engine, AES-128 and AES-256, ICV 16, AAD 8.
//!
//! Throughput is in packets: time ÷ 64 is a packet's. Jobs are staged outside the measured part, as on the
//! packet path. Opening needs fresh ciphertexts each time: they are sealed outside the measured part too.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use greyhound_aead::{Aad, BURST, Engine, IcvLength, Key, OpenJob, SealJob, open, seal};

const TEXT_BYTES: [usize; 3] = [64, 256, 1424];
const ICV_BYTES: usize = IcvLength::Sixteen.bytes();
/// Off a power of two, as packet buffers are.
const STRIDE_BYTES: usize = 2048 + 128;
const SPI: u32 = 0x1001;

fn nonce(sequence_number: u32) -> [u8; 12] {
    let mut nonce = [0xca; 12];
    nonce[8..].copy_from_slice(&sequence_number.to_be_bytes());
    nonce
}

/// The packets' buffers, numbered.
fn buffers(memory: &mut [u8], text_bytes: usize) -> impl Iterator<Item = (u32, &mut [u8])> {
    memory
        .chunks_mut(STRIDE_BYTES)
        .map(move |buffer| &mut buffer[..text_bytes + ICV_BYTES])
        .zip(1..)
        .map(|(buffer, sequence_number)| (sequence_number, buffer))
}

fn seal_jobs<'a>(key: &'a Key, memory: &'a mut [u8], text_bytes: usize) -> Vec<SealJob<'a>> {
    buffers(memory, text_bytes)
        .map(|(number, buffer)| SealJob::new(key, nonce(number), Aad::short(SPI, number), buffer))
        .collect::<Result<_, _>>()
        .expect("buffers have room for the ICV")
}

fn open_jobs<'a>(key: &'a Key, memory: &'a mut [u8], text_bytes: usize) -> Vec<OpenJob<'a>> {
    buffers(memory, text_bytes)
        .map(|(number, buffer)| OpenJob::new(key, nonce(number), Aad::short(SPI, number), buffer))
        .collect()
}

fn engines(criterion: &mut Criterion) {
    for engine in Engine::available() {
        for key_bytes in [16, 32] {
            let key =
                engine.key(&[0x5a; 32][..key_bytes], IcvLength::Sixteen).expect("a key of a right size");
            let mut group = criterion.benchmark_group(format!("{}/aes-{}", engine.name(), key_bytes * 8));
            group.throughput(Throughput::Elements(BURST as u64));
            for text_bytes in TEXT_BYTES {
                bench_seal(&mut group, &key, text_bytes);
                bench_open(&mut group, &key, text_bytes);
            }
        }
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench_seal(group: &mut Group<'_>, key: &Key, text_bytes: usize) {
    let mut memory = vec![0; BURST * STRIDE_BYTES];
    let mut jobs = seal_jobs(key, &mut memory, text_bytes);
    group.bench_function(BenchmarkId::new("seal", text_bytes), |bencher| bencher.iter(|| seal(&mut jobs)));
}

fn bench_open(group: &mut Group<'_>, key: &Key, text_bytes: usize) {
    let mut sealed = vec![0; BURST * STRIDE_BYTES];
    seal(&mut seal_jobs(key, &mut sealed, text_bytes));
    let mut memory = sealed.clone();
    group.bench_function(BenchmarkId::new("open", text_bytes), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut elapsed = std::time::Duration::ZERO;
            for _ in 0..rounds {
                memory.copy_from_slice(&sealed);
                let mut jobs = open_jobs(key, &mut memory, text_bytes);
                let start = std::time::Instant::now();
                open(&mut jobs);
                elapsed += start.elapsed();
                assert!(jobs.iter().all(|job| job.verified));
            }
            elapsed
        });
    });
}

criterion_group!(benches, engines);
criterion_main!(benches);
