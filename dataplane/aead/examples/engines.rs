// SPDX-License-Identifier: Apache-2.0
//! All engines side by side in one run: TSC cycles a packet for staged bursts of 32, ICV 16, AAD 8.
//!
//! `cargo run --release -p greyhound-aead --example engines`. Engines take turns, burst by burst, so that what
//! else the machine does falls on all of them alike; each figure is the median of many bursts, with the tenth
//! and the ninetieth percentile in parentheses.

use greyhound_aead::{Aad, Engine, IcvLength, Key, OpenJob, SealJob, open, seal};
use sysmem::Cycles;

const TEXT_BYTES: [usize; 9] = [64, 72, 128, 256, 512, 576, 1024, 1408, 1424];
const PACKETS: usize = 32;
const ROUNDS: usize = 3000;
const ICV_BYTES: usize = 16;
/// Off a power of two, as packet buffers are.
const STRIDE_BYTES: usize = 2048 + 128;

fn main() {
    let mut out = String::new();
    for engine in Engine::available() {
        out += &format!("{}\n", engine.describe());
    }
    for key_bytes in [16, 32] {
        let keys: Vec<Key> = Engine::available()
            .map(|engine| engine.key(&[0x5a; 32][..key_bytes], IcvLength::Sixteen).expect("a key"))
            .collect();
        out += &format!("AES-{}, {:26}", key_bytes * 8, "cycles a packet");
        TEXT_BYTES.iter().for_each(|bytes| out += &format!("{bytes:>16}"));
        out.push('\n');
        let columns: Vec<_> = TEXT_BYTES.iter().map(|&bytes| measure(&keys, bytes)).collect();
        for (number, key) in keys.iter().enumerate() {
            for (direction, name) in ["seal", "open"].into_iter().enumerate() {
                out += &format!("{:10}{name:26}", key.engine().name());
                for column in &columns {
                    let [low, median, high] = column[number][direction];
                    out += &format!("{:>16}", format!("{median} ({low}–{high})"));
                }
                out.push('\n');
            }
        }
    }
    std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes()).expect("standard output");
}

/// For each key, seal and open: low, median and high.
fn measure(keys: &[Key], text_bytes: usize) -> Vec<[[u64; 3]; 2]> {
    let mut memory = vec![0x17; PACKETS * STRIDE_BYTES];
    let mut samples = vec![[const { Vec::new() }; 2]; keys.len()];
    for _ in 0..ROUNDS {
        for (key, [sealed, opened]) in keys.iter().zip(&mut samples) {
            let mut jobs: Vec<SealJob<'_>> = buffers(&mut memory, text_bytes)
                .map(|(number, buffer)| SealJob::new(key, nonce(number), Aad::short(7, number), buffer))
                .collect::<Result<_, _>>()
                .expect("buffers have room for the ICV");
            sealed.push(cycles(|| seal(&mut jobs)));
            let mut jobs: Vec<OpenJob<'_>> = buffers(&mut memory, text_bytes)
                .map(|(number, buffer)| OpenJob::new(key, nonce(number), Aad::short(7, number), buffer))
                .collect();
            opened.push(cycles(|| open(&mut jobs)));
            assert!(jobs.iter().all(|job| job.verified), "{:?}", key.engine());
        }
    }
    samples.into_iter().map(|both| both.map(percentiles)).collect()
}

fn buffers(memory: &mut [u8], text_bytes: usize) -> impl Iterator<Item = (u32, &mut [u8])> {
    let cut = move |buffer| <[u8]>::get_mut(buffer, ..text_bytes + ICV_BYTES).expect("a stride is longer");
    (1..).zip(memory.chunks_mut(STRIDE_BYTES).map(cut))
}

fn nonce(number: u32) -> [u8; 12] {
    let mut nonce = [0xca; 12];
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn cycles(work: impl FnOnce()) -> u64 {
    let start = Cycles::tsc();
    work();
    Cycles::tsc().since(start) / PACKETS as u64
}

fn percentiles(mut samples: Vec<u64>) -> [u64; 3] {
    samples.sort_unstable();
    [10, 50, 90].map(|percent| samples[samples.len() * percent / 100])
}
