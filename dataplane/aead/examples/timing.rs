// SPDX-License-Identifier: Apache-2.0
//! Does the time of a packet depend on secrets? Welch's t over two classes of them, after dudect
//! (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017).
//!
//! `cargo run --release -p greyhound-aead --example timing`. Above 4.5 something may leak, above 10 it does: then
//! look at the code. Samples above a percentile are left out, for several percentiles, as interrupts make a long
//! tail. The exit status is 1 when the native engine, in any form that this CPU runs, passes 10, or when the control,
//! whose time must differ, does not. `scripts/test.sh` leaves it out: its verdict is right only on a quiet machine.

use std::fmt::Write;
use std::process::ExitCode;

use greyhound_aead::{Aad, Engine, IcvLength, Key, OpenJob, SealJob, open, seal};
use sysmem::Cycles;

/// Batches, each with keys of its own, whose places in memory the two classes take by turns.
const BATCHES: usize = 200;
const SAMPLES: usize = 2_000;
const TEXT_BYTES: [usize; 3] = [72, 400, 1424];
const ICV_BYTES: usize = 16;
const NONCE: [u8; 12] = [7; 12];
const AAD: Aad = Aad::short(1, 2);
const CUTS_PERCENT: [usize; 4] = [50, 75, 90, 97];
const LEAKS: f64 = 10.0;

/// What differs between the two classes.
#[derive(Clone, Copy, PartialEq)]
enum Secret {
    /// Plaintext of zeros, or random.
    Plaintext,
    /// Key of zeros, or random.
    Key,
    /// A received ICV that is wrong in its first octet, or in its last.
    Icv,
    /// Nothing secret: the second class is a vector of text longer, which must show.
    Control,
}

/// A generator without state to share: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn octets<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

fn main() -> ExitCode {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut report, mut failed) = (String::new(), false);
    for engine in Engine::in_every_form() {
        let _ = writeln!(report, "{}", engine.describe());
        for text_bytes in TEXT_BYTES {
            let experiments = [
                ("seal: plaintext of zeros or random", Secret::Plaintext),
                ("seal: key of zeros or random", Secret::Key),
                ("open: ICV wrong in its first or last octet", Secret::Icv),
                ("control: text 64 octets longer, must show", Secret::Control),
            ];
            for (name, secret) in experiments {
                let t = largest_t(&samples(engine, secret, text_bytes, &mut random));
                failed |= engine.name() == "native" && (t > LEAKS) != (secret == Secret::Control);
                let _ = writeln!(report, "  {text_bytes:5} octets, {name:44} t = {t:5.2}");
            }
        }
    }
    let _ = std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Cycles of the packets of each class.
fn samples(engine: Engine, secret: Secret, text_bytes: usize, random: &mut Random) -> [Vec<u64>; 2] {
    let mut samples = [const { Vec::new() }; 2];
    for batch in 0..BATCHES {
        let other = if secret == Secret::Key { random.octets() } else { [0; 16] };
        let key = |octets: [u8; 16]| engine.key(&octets, IcvLength::Sixteen).expect("a key");
        // The key that is made first lies at the lower address.
        let keys = if batch % 2 == 0 {
            [key([0; 16]), key(other)]
        } else {
            let other = key(other);
            [key([0; 16]), other]
        };
        for _ in 0..SAMPLES {
            let class = random.next() as usize % 2;
            samples[class].push(one(&keys, class, secret, text_bytes, random));
        }
    }
    samples
}

/// Cycles of one packet. All that is done before is the same for both classes.
fn one(keys: &[Key; 2], class: usize, secret: Secret, text_bytes: usize, random: &mut Random) -> u64 {
    let text_bytes = text_bytes + if secret == Secret::Control { 64 * class } else { 0 };
    let mask = (class as u8).wrapping_neg();
    let mut buffer = vec![0; text_bytes + ICV_BYTES];
    for key in keys {
        seal_one(key, &mut buffer);
    }
    buffer.fill(0);
    let random_mask = if secret == Secret::Plaintext { mask } else { 0 };
    buffer.iter_mut().for_each(|octet| *octet = random.next() as u8 & random_mask);
    let key = &keys[if secret == Secret::Key { class } else { 0 }];
    if secret != Secret::Icv {
        return seal_one(key, &mut buffer);
    }
    seal_one(key, &mut buffer);
    buffer[text_bytes] ^= 0x55 & !mask;
    buffer[text_bytes + ICV_BYTES - 1] ^= 0x55 & mask;
    let mut jobs = [OpenJob::new(key, NONCE, AAD, &mut buffer)];
    let start = Cycles::tsc();
    open(&mut jobs);
    let cycles = Cycles::tsc().since(start);
    assert!(!jobs[0].verified);
    cycles
}

fn seal_one(key: &Key, buffer: &mut [u8]) -> u64 {
    let mut jobs = [SealJob::new(key, NONCE, AAD, buffer).expect("room for the ICV")];
    let start = Cycles::tsc();
    seal(&mut jobs);
    Cycles::tsc().since(start)
}

/// The largest |t| over all cuts.
fn largest_t(samples: &[Vec<u64>; 2]) -> f64 {
    let mut all = samples.concat();
    all.sort_unstable();
    let t = |percent: usize| {
        let limit = all[all.len() * percent / 100];
        let [first, second] = samples.each_ref().map(|class| moments(class, limit));
        ((first.0 - second.0) / (first.1 + second.1).sqrt()).abs()
    };
    CUTS_PERCENT.into_iter().map(t).fold(0.0, f64::max)
}

/// Mean, and variance of the mean, of the samples up to `limit`.
fn moments(samples: &[u64], limit: u64) -> (f64, f64) {
    let kept: Vec<f64> =
        samples.iter().filter(|&&cycles| cycles <= limit).map(|&cycles| cycles as f64).collect();
    let count = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / count;
    let variance = kept.iter().map(|cycles| (cycles - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance / count)
}
