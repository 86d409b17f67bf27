// SPDX-License-Identifier: Apache-2.0
//! Packets through the whole path, both ways: cycles a packet from a burst in packet memory to frames ready to
//! transmit, and the bare engine on the same lengths in the same run.

use aead::{Aad, Engine, IcvLength, OpenJob, SealJob};
use anyhow::{Context as _, bail, ensure};
use arrayvec::ArrayVec;
use messages::{DropReason, EspMode, PortIndex};
use pipeline::Pipeline;
use pktbuf::{BURST, Batch, Packet};
use serde::Serialize;
use sysmem::Cycles;

use crate::bed::{Bed, LAN, Setting, WAN, frame};

/// GRE header, padding and trailer are encrypted with the packet.
const GRE_BYTES: usize = 4;
const TUNNEL_HEADER_BYTES: usize = 20;
const ICV_BYTES: usize = 16;
/// 7 × 64 + 4 × 576 + 1 × 1,400 bytes.
const IMIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1_400, 64, 576, 64, 576, 64];
const FLOWS: u32 = 4_096;
/// Rounds before anything is noted.
const WARM_UP: usize = 3;

/// Inner IPv4 packet sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of this many bytes.
    Fixed(usize),
    /// The mix.
    Imix,
}

impl Size {
    fn of(self, packet: usize) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Imix => IMIX[packet % IMIX.len()],
        }
    }
}

/// Median and spread over the runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Measured {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (f(self.min), f(self.max));
        Self { median: f(self.median), min: a.min(b), max: a.max(b) }
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// Bytes of the inner IPv4 packet, or `imix`.
    pub size: serde_json::Value,
    /// Tunnels, a random one for each packet.
    pub tunnels: u32,
    /// `warm` (256 buffers) or `cold` (4,096 buffers cycling).
    pub memory: &'static str,
    /// Workers.
    pub workers: u16,
    /// AES key length.
    pub key_bits: u16,
    /// ESP mode.
    pub mode: String,
    /// The engine.
    pub engine: &'static str,
    /// Cycles of the time stamp counter a packet.
    pub cycles: Measured,
    /// The bare engine's.
    pub engine_cycles: Measured,
    /// Million packets a second.
    pub mpps: Measured,
    /// Gigabits of inner IP a second.
    pub gbps: Measured,
}

/// What one call measures.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The headends.
    pub setting: Setting,
    /// Packet sizes.
    pub size: Size,
    /// Buffers that go round.
    pub buffers: usize,
    /// Runs that are noted.
    pub runs: usize,
    /// Rounds over all buffers in each run.
    pub rounds: usize,
}

/// Cycles of one run, summed.
#[derive(Clone, Copy, Default)]
struct Run {
    outbound: u64,
    inbound: u64,
    seal: u64,
    open: u64,
}

/// Measures both directions.
///
/// # Errors
/// If the bed cannot be built, or packets do not come out as they must.
pub fn measure(plan: &Plan, cycles_per_second: u64) -> anyhow::Result<[Row; 2]> {
    let mut bed = Bed::new(&plan.setting, plan.buffers)?;
    let mut random = Random(0x5eed);
    let frames: Vec<Vec<u8>> = (0..plan.buffers)
        .map(|packet| {
            frame(random.below(plan.setting.tunnels), random.below(FLOWS) as u16, plan.size.of(packet))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut packets: Vec<Packet> = frames
        .iter()
        .map(|frame| bed.pool.copy_of(frame).context("a buffer"))
        .collect::<anyhow::Result<_>>()?;
    let mut runs = Vec::new();
    for run in 0..WARM_UP + plan.runs {
        let mut sum = Run::default();
        for _ in 0..plan.rounds {
            rewrite(&mut packets, &frames)?;
            sum.outbound += through(&mut bed.sealer, LAN, WAN, &mut packets)?;
            sum.inbound += through(&mut bed.opener, WAN, LAN, &mut packets)?;
            check(&packets, &frames)?;
            let (seal, open) = bare(plan.setting.engine, plan, &mut packets, &frames)?;
            (sum.seal, sum.open) = (sum.seal + seal, sum.open + open);
        }
        bed.housekeep()?;
        if run >= WARM_UP {
            runs.push(sum);
        }
    }
    let each = (plan.buffers * plan.rounds) as f64;
    let bits = frames.iter().map(|frame| (frame.len() - 14) * 8).sum::<usize>() as f64 / frames.len() as f64;
    let per_packet =
        |of: fn(&Run) -> u64| Measured::of(runs.iter().map(|run| of(run) as f64 / each).collect());
    let row = |direction, cycles: Measured, engine_cycles| Row {
        direction,
        size: match plan.size {
            Size::Fixed(bytes) => bytes.into(),
            Size::Imix => "imix".into(),
        },
        tunnels: plan.setting.tunnels,
        memory: if plan.buffers > 256 { "cold" } else { "warm" },
        workers: 1,
        key_bits: plan.setting.key_bits,
        mode: format!("{:?}", plan.setting.mode).to_lowercase(),
        engine: plan.setting.engine.name(),
        cycles,
        engine_cycles,
        mpps: cycles.map(|cycles| cycles_per_second as f64 / cycles / 1e6),
        gbps: cycles.map(|cycles| cycles_per_second as f64 / cycles * bits / 1e9),
    };
    Ok([
        row("outbound", per_packet(|run| run.outbound), per_packet(|run| run.seal)),
        row("inbound", per_packet(|run| run.inbound), per_packet(|run| run.open)),
    ])
}

/// Puts the frames back into their buffers; not timed.
fn rewrite(packets: &mut [Packet], frames: &[Vec<u8>]) -> anyhow::Result<()> {
    for (packet, frame) in packets.iter_mut().zip(frames) {
        packet.clear();
        packet.append(frame.len())?.copy_from_slice(frame);
    }
    Ok(())
}

/// Sends all packets through a pipeline, burst by burst; returns the cycles.
fn through(
    pipeline: &mut Pipeline,
    from: PortIndex,
    to: PortIndex,
    packets: &mut Vec<Packet>,
) -> anyhow::Result<u64> {
    let count = packets.len();
    let mut done = Vec::with_capacity(count);
    let mut batch = Batch::new();
    let mut cycles = 0;
    let mut waiting = packets.drain(..);
    loop {
        batch.extend(waiting.by_ref().take(BURST));
        if batch.is_empty() {
            break;
        }
        let start = Cycles::tsc();
        pipeline.receive(from, &mut batch, 1);
        pipeline.transmit(to, |batch| {
            let taken = batch.len();
            done.extend(batch.drain(..));
            taken
        });
        cycles += Cycles::tsc().since(start);
    }
    drop(waiting);
    *packets = done;
    if packets.len() != count {
        let counters = pipeline.counters();
        let drops = DropReason::ALL.iter().map(|reason| (reason.name(), counters.dropped(*reason)));
        let drops: Vec<_> = drops.filter(|(_, dropped)| *dropped > 0).collect();
        bail!("{} of {count} packets came through; drops: {drops:?}", packets.len());
    }
    Ok(cycles)
}

/// What came out must be what went in, less a hop at each headend.
fn check(packets: &[Packet], frames: &[Vec<u8>]) -> anyhow::Result<()> {
    const HEADERS: usize = 14 + 20;
    let same = |(packet, frame): (&Packet, &Vec<u8>)| packet.data().get(HEADERS..) == frame.get(HEADERS..);
    ensure!(packets.iter().zip(frames).all(same), "a packet came out changed or out of order");
    Ok(())
}

/// The engine alone on the same buffers and plaintext lengths: cycles to seal and to open.
fn bare(
    engine: Engine,
    plan: &Plan,
    packets: &mut [Packet],
    frames: &[Vec<u8>],
) -> anyhow::Result<(u64, u64)> {
    let keymat = [7; 32];
    let key = engine.key(&keymat[..usize::from(plan.setting.key_bits / 8)], IcvLength::Sixteen)?;
    for (packet, frame) in packets.iter_mut().zip(frames) {
        packet.clear();
        packet.append(text_bytes(frame.len() - 14, plan.setting.mode) + ICV_BYTES)?;
    }
    let (mut seal, mut open) = (0, 0);
    let aad = |place: usize| Aad::short(7, place as u32);
    for (burst, packets) in packets.chunks_mut(BURST).enumerate() {
        let nonce = |place: usize| {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&((burst * BURST + place) as u64).to_be_bytes());
            nonce
        };
        let mut jobs = ArrayVec::<SealJob<'_>, BURST>::new();
        for (place, packet) in packets.iter_mut().enumerate() {
            jobs.push(SealJob::new(&key, nonce(place), aad(place), packet.data_mut())?);
        }
        let start = Cycles::tsc();
        aead::seal(&mut jobs);
        seal += Cycles::tsc().since(start);
        drop(jobs);
        let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new();
        for (place, packet) in packets.iter_mut().enumerate() {
            jobs.push(OpenJob::new(&key, nonce(place), aad(place), packet.data_mut()));
        }
        let start = Cycles::tsc();
        aead::open(&mut jobs);
        open += Cycles::tsc().since(start);
        ensure!(jobs.iter().all(|job| job.verified), "the engine does not open what it sealed");
    }
    Ok((seal, open))
}

/// Length of what ESP encrypts around an inner packet.
fn text_bytes(inner: usize, mode: EspMode) -> usize {
    let header = if mode == EspMode::Tunnel { TUNNEL_HEADER_BYTES } else { 0 };
    (inner + GRE_BYTES + header + 2).next_multiple_of(4)
}

/// A small generator (xorshift64*), so that runs are alike.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % u64::from(bound.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is measured must be packets that came through: `measure` fails on any that did not.
    #[test]
    fn every_size_comes_through_both_modes() {
        for (mode, key_bits, tunnels) in [(EspMode::Transport, 128, 1), (EspMode::Tunnel, 256, 50)] {
            for size in [Size::Fixed(64), Size::Fixed(1_400), Size::Imix] {
                let setting = Setting { tunnels, mode, key_bits, esn: true, engine: Engine::best() };
                let plan = Plan { setting, size, buffers: 128, runs: 5, rounds: 1 };
                let rows = measure(&plan, 1_000_000_000).unwrap();
                assert!(rows.iter().all(|row| row.cycles.min > 0.0 && row.engine_cycles.min > 0.0));
            }
        }
    }
}
