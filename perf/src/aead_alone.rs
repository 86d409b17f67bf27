// SPDX-License-Identifier: Apache-2.0
//! Every engine by itself: staged bursts of 64 in packet buffers, seal and open, no packet path around.
//!
//! Engines take turns inside each run, and the order rotates, so that what else the machine does meets all of them.

use aead::{Aad, Engine, IcvLength, Key, OpenJob, SealJob};
use anyhow::{Context as _, ensure};
use arrayvec::ArrayVec;
use pktbuf::{BURST, Packet, Pool, PoolConfig};
use serde::{Deserialize, Serialize};
use sysmem::Cycles;

use crate::report::Measured;
use crate::traffic::ICV_BYTES;

/// Plaintext lengths in bytes: a path's own for 64 to 1,400 bytes lie between them; 9,216 is a jumbo frame.
pub const TEXT_BYTES: [usize; 7] = [64, 128, 256, 512, 1_024, 1_424, 9_216];
/// Key lengths in bits.
pub const KEY_BITS: [u16; 2] = [128, 256];

/// Buffers, unless they would leave the second-level cache.
const BUFFERS: usize = 256;
const BUFFERS_OF_JUMBOS: usize = 64;
/// Bytes that a block seals and opens.
const BLOCK_BYTES: usize = 8 << 20;
const ROUNDS: core::ops::RangeInclusive<usize> = 8..=100;
const WARM_UP: usize = 1;

/// One line of the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The engine.
    pub engine: String,
    /// `seal` or `open`.
    pub direction: String,
    /// AES key length.
    pub key_bits: u16,
    /// Plaintext length in bytes.
    pub size: usize,
    /// Cycles of the time stamp counter a packet.
    pub cycles: Measured,
    /// Cycles a byte of plaintext.
    pub cycles_per_byte: Measured,
    /// Gigabits of plaintext a second.
    pub gbps: Measured,
}

/// Cycles a packet of one run.
#[derive(Clone, Copy)]
struct Run {
    seal: f64,
    open: f64,
}

/// Measures all engines at one length: for each, seal and open.
///
/// # Errors
/// No memory, or an engine that does not open what it sealed.
pub fn measure(
    engines: &[Engine],
    key_bits: u16,
    text_bytes: usize,
    runs: usize,
    quick: bool,
    cycles_per_second: u64,
) -> anyhow::Result<Vec<Row>> {
    let keymat: Vec<u8> = (0..key_bits / 8).map(|byte| byte as u8 ^ 0x5a).collect();
    let keys: Vec<Key> =
        engines.iter().map(|engine| engine.key(&keymat, IcvLength::Sixteen)).collect::<Result<_, _>>()?;
    let mut bench = Bench::new(text_bytes, quick)?;
    let mut results = vec![Vec::new(); engines.len()];
    for run in 0..WARM_UP + runs {
        for turn in 0..engines.len() {
            let which = (turn + run) % engines.len();
            let (Some(key), Some(result)) = (keys.get(which), results.get_mut(which)) else { continue };
            let measured = bench.block(key)?;
            if run >= WARM_UP {
                result.push(measured);
            }
        }
    }
    let row = |engine: &Engine, direction: &str, cycles: Measured| Row {
        engine: engine.name().to_owned(),
        direction: direction.to_owned(),
        key_bits,
        size: text_bytes,
        cycles,
        cycles_per_byte: cycles.map(|cycles| cycles / text_bytes as f64),
        gbps: cycles.map(|cycles| cycles_per_second as f64 / cycles * text_bytes as f64 * 8.0 / 1e9),
    };
    let rows = engines.iter().zip(&results).flat_map(|(engine, runs)| {
        let of = |f: fn(&Run) -> f64| Measured::of(runs.iter().map(f).collect());
        [row(engine, "seal", of(|run| run.seal)), row(engine, "open", of(|run| run.open))]
    });
    Ok(rows.collect())
}

struct Bench {
    packets: Vec<Packet>,
    rounds: usize,
    nonce: u64,
    _pool: Pool,
}

impl Bench {
    fn new(text_bytes: usize, quick: bool) -> anyhow::Result<Self> {
        let count = if text_bytes > 2_048 { BUFFERS_OF_JUMBOS } else { BUFFERS };
        let config = PoolConfig {
            packets: count,
            data_bytes: text_bytes + ICV_BYTES,
            align_at: 0,
            ..PoolConfig::default()
        };
        let pool = Pool::memory_with(&config)?;
        let packets = (0..count).map(|place| {
            let mut packet = pool.alloc().context("a buffer")?;
            packet.append(text_bytes + ICV_BYTES)?.fill(place as u8);
            anyhow::Ok(packet)
        });
        let packets = packets.collect::<anyhow::Result<_>>()?;
        let rounds = BLOCK_BYTES / if quick { 4 } else { 1 } / (text_bytes * count);
        Ok(Self { packets, rounds: rounds.clamp(*ROUNDS.start(), *ROUNDS.end()), nonce: 0, _pool: pool })
    }

    /// The median of the rounds for each direction; what one seals, the other opens.
    fn block(&mut self, key: &Key) -> anyhow::Result<Run> {
        let (mut seal, mut open) = (Vec::new(), Vec::new());
        let count = self.packets.len() as f64;
        for _ in 0..self.rounds {
            let first = self.nonce;
            self.nonce += self.packets.len() as u64;
            seal.push(self.seal(key, first)? as f64 / count);
            open.push(self.open(key, first)? as f64 / count);
        }
        Ok(Run { seal: Measured::of(seal).median, open: Measured::of(open).median })
    }

    fn seal(&mut self, key: &Key, first: u64) -> anyhow::Result<u64> {
        let mut cycles = 0;
        let mut numbers = first..;
        for burst in self.packets.chunks_mut(BURST) {
            let mut jobs = ArrayVec::<SealJob<'_>, BURST>::new();
            for (packet, number) in burst.iter_mut().zip(numbers.by_ref()) {
                jobs.push(SealJob::new(key, nonce(number), Aad::short(7, number as u32), packet.data_mut())?);
            }
            let start = Cycles::tsc();
            aead::seal(&mut jobs);
            cycles += Cycles::tsc().since(start);
        }
        Ok(cycles)
    }

    fn open(&mut self, key: &Key, first: u64) -> anyhow::Result<u64> {
        let mut cycles = 0;
        let mut numbers = first..;
        for burst in self.packets.chunks_mut(BURST) {
            let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new();
            for (packet, number) in burst.iter_mut().zip(numbers.by_ref()) {
                jobs.push(OpenJob::new(key, nonce(number), Aad::short(7, number as u32), packet.data_mut()));
            }
            let start = Cycles::tsc();
            aead::open(&mut jobs);
            cycles += Cycles::tsc().since(start);
            ensure!(jobs.iter().all(|job| job.verified), "an engine does not open what it sealed");
        }
        Ok(cycles)
    }
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0xca; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_a_row_for_each_direction() {
        let engines: Vec<_> = Engine::available().collect();
        for text_bytes in [64, 9_216] {
            let rows = measure(&engines, 256, text_bytes, 5, true, 1_000_000_000).unwrap();
            assert_eq!(rows.len(), 2 * engines.len());
            assert!(rows.iter().all(|row| row.cycles.min > 0.0 && row.size == text_bytes));
        }
    }
}
