// SPDX-License-Identifier: Apache-2.0
//! Packets through the whole path: cycles a packet from a burst in packet memory to frames ready to transmit, and the
//! bare engine on the same buffers in the same run.
//!
//! A run is two blocks, the path's and the engine's, whose order alternates from run to run; a block is many rounds,
//! and a round carries every buffer once. Headers are written between rounds, outside the timed part. A block's figure
//! is the median of its rounds, so that a round in which the kernel ran something else does not count; a result's is
//! the median over the runs.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use messages::{DropReason, PortIndex};
use pipeline::Pipeline;
use pktbuf::{BURST, Batch, Packet, Pool};
use serde::{Deserialize, Serialize};
use sysmem::Cycles;
use wire::ethernet;

use crate::bare::{self, Keys};
use crate::bed::{Bed, LAN, Setting, WAN};
use crate::profile::{self, Flow, Routes};
use crate::reference::Reference;
use crate::report::Measured;
use crate::traffic::{Size, Traffic, Way};

/// Runs before anything is noted.
const WARM_UP: usize = 1;
/// Packets of each run that another engine opens.
const SAMPLES: usize = 16;
/// Packets of a block, whatever the number of buffers.
const BLOCK_PACKETS: usize = 49_152;
const QUICK_BLOCK_PACKETS: usize = 12_288;

/// How many buffers go round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// 256: they stay in the second-level cache.
    Warm,
    /// 4,096: they do not.
    Cold,
}

impl Memory {
    /// The number of buffers.
    #[must_use]
    pub fn buffers(self) -> usize {
        match self {
            Self::Warm => 256,
            Self::Cold => 4_096,
        }
    }

    /// As it stands in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Bytes of the inner IP packet, or `imix`.
    pub size: serde_json::Value,
    /// Tunnels, a random one for each packet.
    pub tunnels: u32,
    /// `warm` (256 buffers) or `cold` (4,096 buffers cycling).
    pub memory: String,
    /// Workers.
    pub workers: u16,
    /// AES key length.
    pub key_bits: u16,
    /// ESP mode.
    pub mode: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Without the fast path: what packets cost that are not plain.
    #[serde(default)]
    pub whole_way: bool,
    /// Through the scheduler of the port, in eight classes, not congested.
    #[serde(default)]
    pub scheduled: bool,
    /// Behind a device that has fallen behind, so that every packet waits.
    #[serde(default)]
    pub congested: bool,
    /// With a policy of so many classes that does not queue; 0: without.
    #[serde(default)]
    pub classes: u8,
    /// IP version inside.
    pub family: u8,
    /// The engine.
    pub engine: String,
    /// The engine that has opened a sample of each run; none if this machine has only one.
    pub verified_by: Option<String>,
    /// Cycles of the time stamp counter a packet.
    pub cycles: Measured,
    /// The bare engine's.
    pub engine_cycles: Measured,
    /// What the path costs beside the engine, run by run.
    pub difference: Measured,
    /// Path ÷ engine, run by run.
    pub ratio: Measured,
    /// Million packets a second.
    pub mpps: Measured,
    /// Gigabits of inner IP a second.
    pub gbps: Measured,
    /// Cycles a packet of each stage, where they were asked for; what is left is the port's queue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages: BTreeMap<String, Measured>,
}

/// What one call measures.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Outbound or inbound.
    pub way: Way,
    /// Packet sizes.
    pub size: Size,
    /// Buffers that go round.
    pub memory: Memory,
    /// Runs that are noted.
    pub runs: usize,
    /// A quarter of the packets.
    pub quick: bool,
}

impl Plan {
    fn rounds(&self) -> usize {
        let packets = if self.quick { QUICK_BLOCK_PACKETS } else { BLOCK_PACKETS };
        (packets / self.memory.buffers()).max(1)
    }
}

/// The headends, the flows through them and the engine's keys: built once, measured many times.
pub struct Course {
    setting: Setting,
    bed: Bed,
    flows: Vec<Flow>,
    keys: Keys,
    reference: Option<Reference>,
    whole_way: bool,
    device: Device,
    times_stages: bool,
    /// Packets so far: flows and nonces go on from here.
    packets: usize,
}

impl Course {
    /// Builds everything for a setting.
    ///
    /// # Errors
    /// If the bed cannot be built.
    pub fn new(setting: &Setting) -> anyhow::Result<Self> {
        Ok(Self {
            setting: *setting,
            bed: Bed::new(setting)?,
            flows: profile::flows(&Routes::new(setting.tunnels)),
            keys: Keys::new(setting)?,
            reference: Reference::for_setting(setting),
            whole_way: false,
            device: Device::KeepsUp,
            times_stages: false,
            packets: 0,
        })
    }

    /// Notes what each stage takes as well: a reading of the clock a stage and burst.
    pub fn time_stages(&mut self) {
        self.times_stages = true;
        self.bed.sealer.time_stages(|| Cycles::tsc().raw());
        self.bed.opener.time_stages(|| Cycles::tsc().raw());
    }

    /// Sends everything the whole way, past the fast path.
    pub fn go_the_whole_way(&mut self) {
        self.whole_way = true;
        self.bed.sealer.set_whole_way_only(true);
        self.bed.opener.set_whole_way_only(true);
    }

    /// Has what is sealed wait for a device that has fallen behind. It has to be scheduled.
    pub fn congest(&mut self) {
        self.device = Device::IsBehind;
    }

    /// The headends.
    #[must_use]
    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Measures one row.
    ///
    /// # Errors
    /// If packets do not come out as they must.
    pub fn measure(&mut self, plan: &Plan, cycles_per_second: u64) -> anyhow::Result<Row> {
        let traffic = Traffic::new(&self.setting, plan.size, &self.flows)?;
        let behind = self.device.bursts_behind() * BURST;
        let mut buffers = Buffers::new(plan, plan.memory.buffers() + behind, &traffic)?;
        let mut path = Vec::new();
        let mut engine = Vec::new();
        let mut stages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for run in 0..WARM_UP + plan.runs {
            let before = self.stage_cycles(plan.way);
            let (of_path, of_engine) = if run.is_multiple_of(2) {
                let of_path = self.path_block(plan, &traffic, &mut buffers)?;
                (of_path, self.engine_block(plan, &traffic, &mut buffers)?)
            } else {
                let of_engine = self.engine_block(plan, &traffic, &mut buffers)?;
                (self.path_block(plan, &traffic, &mut buffers)?, of_engine)
            };
            self.bed.housekeep()?;
            if run >= WARM_UP {
                path.push(of_path);
                engine.push(of_engine);
                let packets = (plan.rounds() * buffers.packets.len()) as f64;
                for ((stage, before), (_, after)) in before.into_iter().zip(self.stage_cycles(plan.way)) {
                    stages.entry(stage).or_default().push((after - before) as f64 / packets);
                }
            }
        }
        let mut row = self.row(plan, cycles_per_second, path, engine);
        row.stages = stages.into_iter().map(|(stage, cycles)| (stage, Measured::of(cycles))).collect();
        row.stages.retain(|_, cycles| cycles.max > 0.0);
        Ok(row)
    }

    /// Cycles so far of each stage of the pipeline that is measured.
    fn stage_cycles(&self, way: Way) -> Vec<(String, u64)> {
        let pipeline = match way {
            Way::Outbound => &self.bed.sealer,
            Way::Inbound => &self.bed.opener,
        };
        let spent = pipeline.stage_times().filter(|_| self.times_stages);
        spent.map(|(stage, cycles)| (stage.name().to_owned(), cycles)).collect()
    }

    fn row(&self, plan: &Plan, cycles_per_second: u64, path: Vec<f64>, engine: Vec<f64>) -> Row {
        let both = |f: fn(f64, f64) -> f64| {
            Measured::of(path.iter().zip(&engine).map(|(path, engine)| f(*path, *engine)).collect())
        };
        let (difference, ratio) = (both(|path, engine| path - engine), both(|path, engine| path / engine));
        let cycles = Measured::of(path.clone());
        let hz = cycles_per_second as f64;
        let bits = plan.size.mean() * 8.0;
        Row {
            direction: plan.way.name().to_owned(),
            size: plan.size.to_json(),
            tunnels: self.setting.tunnels,
            memory: plan.memory.name().to_owned(),
            workers: 1,
            key_bits: self.setting.key_bits,
            mode: format!("{:?}", self.setting.mode).to_lowercase(),
            esn: self.setting.esn,
            whole_way: self.whole_way,
            scheduled: self.setting.scheduled,
            congested: self.device == Device::IsBehind,
            classes: self.setting.classes,
            family: if self.setting.family == wire::Family::Ipv4 { 4 } else { 6 },
            engine: self.setting.engine.name().to_owned(),
            verified_by: self.reference.map(|reference| reference.engine().name().to_owned()),
            cycles,
            engine_cycles: Measured::of(engine),
            difference,
            ratio,
            mpps: cycles.map(|cycles| hz / cycles / 1e6),
            gbps: cycles.map(|cycles| hz / cycles * bits / 1e9),
            stages: BTreeMap::new(),
        }
    }

    /// Cycles a packet through the path. The packets of the last round are looked at where they come out.
    fn path_block(&mut self, plan: &Plan, traffic: &Traffic, buffers: &mut Buffers) -> anyhow::Result<f64> {
        let rounds = plan.rounds();
        let mut cycles = Vec::with_capacity(rounds);
        for round in 1..=rounds {
            let first = self.packets;
            self.packets += buffers.packets.len();
            let is_looked_at = round == rounds;
            buffers.write(plan.way, traffic, first, is_looked_at)?;
            let spent = match plan.way {
                Way::Outbound => {
                    let spent = through(&mut self.bed.sealer, [LAN, WAN], buffers, self.device)?;
                    if is_looked_at {
                        self.check_sealed(traffic, first, &buffers.packets)?;
                    }
                    spent
                }
                Way::Inbound => {
                    through(&mut self.bed.sealer, [LAN, WAN], buffers, Device::KeepsUp)?;
                    if is_looked_at {
                        self.check_sealed(traffic, first, &buffers.packets)?;
                    }
                    let spent = through(&mut self.bed.opener, [WAN, LAN], buffers, Device::KeepsUp)?;
                    if is_looked_at {
                        check_opened(traffic, first, &buffers.packets)?;
                    }
                    spent
                }
            };
            cycles.push(spent);
        }
        Ok(Measured::of(cycles).median)
    }

    /// Cycles a packet of the engine alone.
    fn engine_block(&mut self, plan: &Plan, traffic: &Traffic, buffers: &mut Buffers) -> anyhow::Result<f64> {
        let rounds = plan.rounds();
        let mut cycles = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let first = self.packets;
            self.packets += buffers.packets.len();
            for (number, packet) in (first..).zip(&mut buffers.packets) {
                traffic.shape_sealed(plan.way, number, packet)?;
            }
            let packets = &mut buffers.packets;
            let sealing = bare::seal(&self.keys, traffic, first, first as u64, packets)?;
            let spent = match plan.way {
                Way::Outbound => sealing,
                Way::Inbound => bare::open(&self.keys, traffic, first, first as u64, packets)?,
            };
            cycles.push(spent as f64 / buffers.packets.len() as f64);
        }
        Ok(Measured::of(cycles).median)
    }

    fn check_sealed(&self, traffic: &Traffic, first: usize, packets: &[Packet]) -> anyhow::Result<()> {
        // A scheduler changes the order of packets.
        let Some(reference) = self.reference.as_ref().filter(|_| !self.setting.scheduled) else {
            return Ok(());
        };
        let step = (packets.len() / SAMPLES).max(1);
        for place in (0..packets.len()).step_by(step) {
            let number = first + place;
            let frame = packets.get(place).context("a packet")?.data();
            reference.check(traffic, number, frame).with_context(|| format!("packet {number}"))?;
        }
        Ok(())
    }
}

fn check_opened(traffic: &Traffic, first: usize, packets: &[Packet]) -> anyhow::Result<()> {
    for (number, packet) in (first..).zip(packets) {
        let inside = packet.data().get(ethernet::HEADER_BYTES..).unwrap_or(&[]);
        traffic.check_inside(number, 2, inside)?;
    }
    Ok(())
}

/// The packets that go round, and where they come out.
struct Buffers {
    packets: Vec<Packet>,
    out: Vec<Packet>,
    _pool: Pool,
}

impl Buffers {
    fn new(plan: &Plan, count: usize, traffic: &Traffic) -> anyhow::Result<Self> {
        let pool = plan.way.pool(count)?;
        let mut packets = Vec::with_capacity(count);
        for number in 0..count {
            let mut packet = pool.alloc().context("a buffer")?;
            traffic.write_frame(plan.way, number, &mut packet)?;
            packets.push(packet);
        }
        Ok(Self { packets, out: Vec::with_capacity(count), _pool: pool })
    }

    /// Writes the packets from number `first` on; not timed.
    fn write(&mut self, way: Way, traffic: &Traffic, first: usize, whole: bool) -> anyhow::Result<()> {
        for (number, packet) in (first..).zip(&mut self.packets) {
            if whole {
                traffic.write_frame(way, number, packet)?;
            } else {
                traffic.write_header(way, number, packet)?;
            }
        }
        Ok(())
    }
}

/// How a port's device takes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    /// All at once.
    KeepsUp,
    /// It has taken none of the first bursts, and takes a burst for a burst from then on.
    IsBehind,
}

impl Device {
    /// Bursts that it is behind: two wait in its queue, which the scheduler goes no further ahead, two in the scheduler. From
    /// then on each burst that comes is queued, another leaves the queue, and a third is taken.
    fn bursts_behind(self) -> usize {
        if self == Self::IsBehind { 4 } else { 0 }
    }

    /// Frames that it takes after so many bursts.
    fn room(self, burst: usize) -> usize {
        match self {
            Self::KeepsUp => usize::MAX,
            Self::IsBehind if burst + 1 < self.bursts_behind() => 0,
            Self::IsBehind => BURST,
        }
    }
}

/// Sends all packets through a pipeline, burst by burst, as a worker does; returns the cycles a packet, as long as more come.
fn through(
    pipeline: &mut Pipeline,
    [from, to]: [PortIndex; 2],
    buffers: &mut Buffers,
    device: Device,
) -> anyhow::Result<f64> {
    let Buffers { packets, out, .. } = buffers;
    let count = packets.len();
    let now_ns = sysmem::clock::monotonic_ns();
    let mut batch = Batch::new();
    let mut timed = (0, 0);
    let mut waiting = packets.drain(..);
    for burst in 0..count.div_ceil(BURST) {
        batch.extend(waiting.by_ref().take(BURST));
        let come = batch.len();
        let start = Cycles::tsc();
        pipeline.receive(from, &mut batch, now_ns);
        pipeline.release(now_ns);
        transmit(pipeline, to, out, device.room(burst));
        if burst >= device.bursts_behind() {
            timed.0 += Cycles::tsc().since(start);
            timed.1 += come;
        }
    }
    drop(waiting);
    for _ in 0..device.bursts_behind() {
        pipeline.release(now_ns);
        transmit(pipeline, to, out, usize::MAX);
    }
    std::mem::swap(packets, out);
    if packets.len() != count {
        let counters = pipeline.counters();
        let drops = DropReason::ALL.iter().map(|reason| (reason.name(), counters.dropped(*reason)));
        let drops: Vec<_> = drops.filter(|(_, dropped)| *dropped > 0).collect();
        bail!("{} of {count} packets came through; drops: {drops:?}", packets.len());
    }
    ensure!(out.is_empty(), "packets were left over");
    Ok(timed.0 as f64 / timed.1 as f64)
}

/// Takes at most `room` frames of a port.
fn transmit(pipeline: &mut Pipeline, port: PortIndex, out: &mut Vec<Packet>, mut room: usize) {
    pipeline.transmit(port, |batch| {
        let taken = batch.len().min(room);
        room -= taken;
        out.extend(batch.drain(..taken));
        taken
    });
}

#[cfg(test)]
mod tests {
    use aead::Engine;
    use messages::EspMode;
    use wire::Family;

    use super::*;

    const SETTING: fn() -> Setting = || Setting::usual(1, 1, Engine::best());

    /// `measure` fails on any packet that did not come out as it must.
    fn measured(setting: &Setting, sizes: &[Size]) -> Vec<Row> {
        let mut course = Course::new(setting).unwrap();
        let mut rows = Vec::new();
        for way in [Way::Outbound, Way::Inbound] {
            for size in sizes {
                let plan = Plan { way, size: *size, memory: Memory::Warm, runs: 5, quick: true };
                rows.push(course.measure(&plan, 1_000_000_000).unwrap());
            }
        }
        rows
    }

    #[test]
    fn every_kind_of_headend_carries_its_packets_both_ways() {
        for setting in [
            SETTING(),
            Setting { mode: EspMode::Tunnel, key_bits: 256, esn: true, tunnels: 600, ..SETTING() },
            Setting { family: Family::Ipv6, tunnels: 64, ..SETTING() },
        ] {
            for row in measured(&setting, &[Size::Fixed(64), Size::Fixed(1_400), Size::Imix]) {
                assert!(row.cycles.min > 0.0 && row.engine_cycles.min > 0.0, "{row:?}");
                assert!(row.verified_by.as_deref() != Some(row.engine.as_str()));
            }
        }
    }

    #[test]
    fn every_packet_that_waits_for_its_device_leaves() {
        let setting = Setting { scheduled: true, ..SETTING() };
        let mut course = Course::new(&setting).unwrap();
        course.congest();
        let plan =
            Plan { way: Way::Outbound, size: Size::Fixed(64), memory: Memory::Warm, runs: 2, quick: true };
        let row = course.measure(&plan, 1_000_000_000).unwrap();
        assert!(row.scheduled && row.congested && row.cycles.min > 0.0, "{row:?}");
    }

    /// Of all rounds, where the path's figure is that of the middle one: on a busy machine they may come to more.
    #[test]
    fn stages_come_to_most_of_the_whole() {
        let mut course = Course::new(&SETTING()).unwrap();
        course.time_stages();
        for (way, own) in [(Way::Outbound, "headers"), (Way::Inbound, "decapsulate")] {
            let plan = Plan { way, size: Size::Fixed(256), memory: Memory::Warm, runs: 5, quick: true };
            let row = course.measure(&plan, 1_000_000_000).unwrap();
            let sum: f64 = row.stages.values().map(|cycles| cycles.max).sum();
            assert!(sum > row.cycles.min / 2.0, "{row:?}");
            assert!(
                ["parse", "lookup", "cipher", own].iter().all(|name| row.stages[*name].min > 0.0),
                "{row:?}"
            );
        }
    }

    #[test]
    fn a_sealed_frame_that_was_changed_does_not_pass() {
        let setting = SETTING();
        let Some(reference) = Reference::for_setting(&setting) else {
            println!("skipped: this machine has one engine only");
            return;
        };
        let mut course = Course::new(&setting).unwrap();
        let traffic = Traffic::new(&setting, Size::Fixed(256), &course.flows).unwrap();
        let plan =
            Plan { way: Way::Outbound, size: Size::Fixed(256), memory: Memory::Warm, runs: 5, quick: true };
        let mut buffers = Buffers::new(&plan, plan.memory.buffers(), &traffic).unwrap();
        through(&mut course.bed.sealer, [LAN, WAN], &mut buffers, Device::KeepsUp).unwrap();
        let good = buffers.packets[3].data().to_vec();
        reference.check(&traffic, 3, &good).unwrap();
        assert!(reference.check(&traffic, 4, &good).is_err(), "another packet");
        for at in [34, 38, 49, 60, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(reference.check(&traffic, 3, &bad).is_err(), "byte {at}");
        }
    }

    /// Frames through a whole worker of the dataplane, in at `from`, out at `to`.
    fn through_worker(
        rig: &mut crate::rig::Rig,
        from: PortIndex,
        to: PortIndex,
        packets: &mut Vec<Packet>,
    ) -> Vec<Packet> {
        let mut out = Vec::new();
        crate::rig::inject(&rig.wires, from, 0, packets);
        assert!(packets.is_empty());
        while rig.workers[0].turn(1) {
            crate::rig::collect(&rig.wires, to, 0, &mut out);
        }
        out
    }

    /// The benchmark and the dataplane start with the same keys and sequence numbers, so that both must make the same
    /// bytes of the same frames.
    #[test]
    fn what_is_measured_is_byte_for_byte_what_the_dataplane_sends() {
        use crate::bed::Role;
        for setting in [SETTING(), Setting { mode: EspMode::Tunnel, esn: true, tunnels: 600, ..SETTING() }] {
            let mut course = Course::new(&setting).unwrap();
            let traffic = Traffic::new(&setting, Size::Imix, &course.flows).unwrap();
            let plan =
                Plan { way: Way::Outbound, size: Size::Imix, memory: Memory::Warm, runs: 5, quick: true };
            let [mut measured, mut carried] =
                [(); 2].map(|()| Buffers::new(&plan, plan.memory.buffers(), &traffic).unwrap());
            let mut rigs =
                [Role::Sealer, Role::Opener].map(|role| crate::rig::Rig::new(role, &setting).unwrap());
            for (hop, (from, to)) in [(LAN, WAN), (WAN, LAN)].into_iter().enumerate() {
                let pipeline = if hop == 0 { &mut course.bed.sealer } else { &mut course.bed.opener };
                through(pipeline, [from, to], &mut measured, Device::KeepsUp).unwrap();
                carried.packets = through_worker(&mut rigs[hop], from, to, &mut carried.packets);
                assert_eq!(measured.packets.len(), carried.packets.len());
                for (a, b) in measured.packets.iter().zip(&carried.packets) {
                    assert_eq!(a.data(), b.data());
                }
            }
        }
    }
}
