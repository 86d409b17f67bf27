// SPDX-License-Identifier: Apache-2.0
//! 1 to N workers, each a thread on a core of its own: what a second one adds, and what hand-over costs.
//!
//! A worker's thread feeds and empties its own queues between its turns, so that no core is needed for that; only turns
//! that had work are timed. The rate of all workers is the packets that came through divided by the time of the busiest
//! one. Baseline and candidate take turns inside each run.
//!
//! ```text
//!   thread i:  write headers [seal] → wire → │ worker i: turn, turn, … │ → wire → buffers      │ │ timed
//!                                             ↕ mailboxes (hand-over)
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use anyhow::{Context as _, anyhow, ensure};
use crossbeam::queue::ArrayQueue;
use dataplane::worker::Worker;
use messages::{DropReason, PortIndex, WorkerCounter};
use pipeline::Pipeline;
use pktbuf::{BURST, Batch, Packet, Pool};
use port::memory::Wire;
use serde::{Deserialize, Serialize};
use sysmem::Cycles;

use crate::bed::{Headend, LAN, Role, Setting, WAN};
use crate::profile::{self, Flow, Routes};
use crate::report::Measured;
use crate::rig::{self, Rig};
use crate::traffic::{Size, Traffic, Way};

/// Packets that a thread feeds at a time; twice that is on the way in all, less than a hand-over ring holds.
const FED: usize = 256;
/// Packets of a window, each feeding thread.
const WINDOW_PACKETS: u64 = 49_152;
const QUICK_WINDOW_PACKETS: u64 = 12_288;
const WARM_UP: usize = 1;
/// Share of the slowest rounds left out: the kernel ran something else in them.
const TRIMMED: f64 = 0.1;
/// Turns in a row that may find nothing before a thread looks whether all is done.
const IDLE_TURNS: usize = 2;

/// Which worker a sealed packet arrives at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Outbound: any worker seals with any SA. Nothing is handed over.
    Anywhere,
    /// The worker that owns its SA.
    Owner,
    /// Any worker, whoever owns its SA.
    Spread,
}

impl Arrival {
    /// As it stands in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::Owner => "owner",
            Self::Spread => "spread",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The headends; `workers` is the number of the candidate's.
    pub setting: Setting,
    /// Outbound or inbound.
    pub way: Way,
    /// Where inbound packets arrive.
    pub arrival: Arrival,
    /// Packet sizes.
    pub size: Size,
    /// Runs that are noted.
    pub runs: usize,
    /// A quarter of the packets.
    pub quick: bool,
}

/// One line of the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Bytes of the inner IP packet, or `imix`.
    pub size: serde_json::Value,
    /// Tunnels, each with an SA of its own each way.
    pub tunnels: u32,
    /// Where packets arrive: `anywhere`, `owner`, `spread`.
    pub arrival: String,
    /// Workers.
    pub workers: u16,
    /// The engine.
    pub engine: String,
    /// Cycles a packet of the busiest worker, over all packets.
    pub cycles: Measured,
    /// The same with one worker, in the same runs.
    pub cycles_of_one: Measured,
    /// Rate ÷ rate of one worker, run by run.
    pub speedup: Measured,
    /// Million packets a second.
    pub mpps: Measured,
    /// Packets handed from one worker to another, in a hundred.
    pub handed_over_percent: Measured,
    /// Packets that did not come out.
    pub lost: u64,
}

/// Measures one row.
///
/// # Errors
/// No memory, not enough CPUs, or packets that do not come out.
pub fn measure(plan: &Plan, cpus: &[usize], cycles_per_second: u64) -> anyhow::Result<Row> {
    let candidates = usize::from(plan.setting.workers);
    ensure!(cpus.len() >= candidates, "{candidates} workers need as many CPUs; there are {}", cpus.len());
    let mut many = Bench::new(plan, plan.setting.workers)?;
    let mut one = Bench::new(plan, 1)?;
    let (mut of_many, mut of_one, mut handed) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..WARM_UP + plan.runs {
        let (first, second) = if run.is_multiple_of(2) {
            let first = many.window(cpus)?;
            (first, one.window(cpus)?)
        } else {
            let second = one.window(cpus)?;
            (many.window(cpus)?, second)
        };
        if run >= WARM_UP {
            of_many.push(first.cycles);
            of_one.push(second.cycles);
            handed.push(first.handed_over * 100.0);
        }
    }
    let speedup = of_one.iter().zip(&of_many).map(|(one, many)| one / many).collect();
    let cycles = Measured::of(of_many);
    Ok(Row {
        direction: plan.way.name().to_owned(),
        size: plan.size.to_json(),
        tunnels: plan.setting.tunnels,
        arrival: plan.arrival.name().to_owned(),
        workers: plan.setting.workers,
        engine: plan.setting.engine.name().to_owned(),
        cycles,
        cycles_of_one: Measured::of(of_one),
        speedup: Measured::of(speedup),
        mpps: cycles.map(|cycles| cycles_per_second as f64 / cycles / 1e6),
        handed_over_percent: Measured::of(handed),
        lost: many.lost() + one.lost(),
    })
}

/// What a window came to.
struct Window {
    cycles: f64,
    handed_over: f64,
}

/// Some workers with what feeds them.
struct Bench {
    way: Way,
    rig: Rig,
    sealer: Option<Headend>,
    feeders: Vec<Feeder>,
    packets_a_feeder: u64,
    home: Arc<ArrayQueue<Packet>>,
    _pool: Pool,
}

/// What one worker's thread holds beside the worker.
struct Feeder {
    queue: u16,
    traffic: Option<Traffic>,
    sealer: Option<Pipeline>,
    buffers: Vec<Packet>,
    next: usize,
    rounds: Vec<f64>,
}

impl Bench {
    fn new(plan: &Plan, workers: u16) -> anyhow::Result<Self> {
        let setting = Setting { workers, ..plan.setting };
        let role = if plan.way == Way::Outbound { Role::Sealer } else { Role::Opener };
        let rig = Rig::new(role, &setting)?;
        let mut sealer = match plan.way {
            Way::Outbound => None,
            Way::Inbound => Some(Headend::new(Role::Sealer, &setting)?),
        };
        let flows = profile::flows(&Routes::new(setting.tunnels));
        let total = FED * usize::from(workers);
        let pool = plan.way.pool(total)?;
        let mut feeders = Vec::new();
        for queue in 0..workers {
            let flows = arriving(plan, &flows, queue, workers);
            let traffic =
                (!flows.is_empty()).then(|| Traffic::new(&setting, plan.size, &flows)).transpose()?;
            let config = sealer.as_mut().and_then(Headend::next_config);
            feeders.push(Feeder {
                queue,
                traffic,
                sealer: config.map(Pipeline::new),
                buffers: Vec::with_capacity(total),
                next: 0,
                rounds: Vec::new(),
            });
        }
        let home = Arc::new(ArrayQueue::new(total));
        while let Some(packet) = pool.alloc() {
            ensure!(home.push(packet).is_ok(), "more buffers than there should be");
        }
        let packets_a_feeder = if plan.quick { QUICK_WINDOW_PACKETS } else { WINDOW_PACKETS };
        Ok(Self { way: plan.way, rig, sealer, feeders, packets_a_feeder, home, _pool: pool })
    }

    /// Lets all workers run until each feeding thread's packets are through.
    fn window(&mut self, cpus: &[usize]) -> anyhow::Result<Window> {
        let feeding = self.feeders.iter().filter(|feeder| feeder.traffic.is_some()).count() as u64;
        let wanted = self.packets_a_feeder * feeding;
        let before = self.counted();
        let out = AtomicU64::new(0);
        let shared = Shared {
            way: self.way,
            wires: Arc::clone(&self.rig.wires),
            home: Arc::clone(&self.home),
            out: &out,
            wanted,
            share: self.packets_a_feeder,
            barrier: Barrier::new(self.feeders.len()),
            dropped: AtomicU64::new(0),
        };
        let threads = self.rig.workers.iter_mut().zip(&mut self.feeders).zip(cpus);
        let busy: Vec<anyhow::Result<f64>> = std::thread::scope(|scope| {
            let handles: Vec<_> = threads
                .map(|((worker, feeder), cpu)| scope.spawn(|| feeder.run(worker, *cpu, &shared)))
                .collect();
            let joined = handles.into_iter().map(|handle| handle.join());
            joined
                .map(|result| result.unwrap_or_else(|_| Err(anyhow!("a worker's thread panicked"))))
                .collect()
        });
        let busiest = busy.into_iter().try_fold(0.0, |most, busy| anyhow::Ok(f64::max(most, busy?)))?;
        self.rig.headend.installer.extend_limits()?;
        if let Some(sealer) = &mut self.sealer {
            sealer.installer.extend_limits()?;
        }
        let handed = self.counted().handed_over - before.handed_over;
        Ok(Window { cycles: busiest / wanted as f64, handed_over: handed as f64 / wanted as f64 })
    }

    fn counted(&mut self) -> Counted {
        let mut sum = Counted::default();
        for worker in &mut self.rig.workers {
            let counters = worker.counters();
            sum.handed_over += counters.worker(WorkerCounter::HandedOut);
            sum.dropped += DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum::<u64>();
        }
        sum
    }

    fn lost(&mut self) -> u64 {
        self.counted().dropped
    }
}

#[derive(Clone, Copy, Default)]
struct Counted {
    handed_over: u64,
    dropped: u64,
}

/// What the threads of a window have in common.
struct Shared<'a> {
    way: Way,
    wires: Arc<[Wire; 2]>,
    home: Arc<ArrayQueue<Packet>>,
    out: &'a AtomicU64,
    wanted: u64,
    share: u64,
    barrier: Barrier,
    dropped: AtomicU64,
}

impl Feeder {
    /// Feeds, turns and collects until all packets of the window are through; returns the cycles of the busy turns.
    fn run(&mut self, worker: &mut Worker, cpu: usize, shared: &Shared<'_>) -> anyhow::Result<f64> {
        let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
        shared.barrier.wait();
        ensure!(pinned, "CPU {cpu}: not one that this process may use");
        self.rounds.clear();
        let (mut fed, mut dropped) = (0, own_drops(worker));
        let (from, to) = match shared.way {
            Way::Outbound => (LAN, WAN),
            Way::Inbound => (WAN, LAN),
        };
        loop {
            fed += self.feed(shared, from, shared.share.saturating_sub(fed))?;
            let spent = turns(worker);
            if spent > 0 {
                self.rounds.push(spent as f64);
            }
            let now = own_drops(worker);
            shared.dropped.fetch_add(now - dropped, Ordering::Relaxed);
            dropped = now;
            self.collect(shared, to);
            let through = shared.out.load(Ordering::Acquire) + shared.dropped.load(Ordering::Acquire);
            if through >= shared.wanted {
                break;
            }
            if spent == 0 {
                std::thread::yield_now();
            }
        }
        Ok(trimmed_sum(&mut self.rounds))
    }

    /// Writes packets, seals them if they are to arrive sealed, and puts them into the worker's queue; not timed.
    fn feed(&mut self, shared: &Shared<'_>, at: PortIndex, left: u64) -> anyhow::Result<u64> {
        let Some(traffic) = &self.traffic else { return Ok(0) };
        let room = FED.min(usize::try_from(left)?);
        while self.buffers.len() < room {
            let Some(packet) = shared.home.pop() else { break };
            self.buffers.push(packet);
        }
        let count = self.buffers.len().min(room);
        let mut packets: Vec<Packet> = self.buffers.drain(..count).collect();
        for packet in &mut packets {
            traffic.write_header(shared.way, self.next, packet)?;
            self.next += 1;
        }
        if let Some(sealer) = &mut self.sealer {
            packets = sealed(sealer, packets)?;
        }
        rig::inject(&shared.wires, at, self.queue, &mut packets);
        ensure!(packets.is_empty(), "a queue of a memory port is full");
        Ok(count as u64)
    }

    /// Takes what the worker has sent; what others need goes home.
    fn collect(&mut self, shared: &Shared<'_>, at: PortIndex) {
        let before = self.buffers.len();
        rig::collect(&shared.wires, at, self.queue, &mut self.buffers);
        let collected = self.buffers.len() - before;
        shared.out.fetch_add(collected as u64, Ordering::Release);
        let keep = if self.traffic.is_some() { FED } else { 0 };
        while self.buffers.len() > keep {
            let Some(packet) = self.buffers.pop() else { break };
            // Home has room for all there are.
            drop(shared.home.push(packet));
        }
    }
}

fn own_drops(worker: &mut Worker) -> u64 {
    let counters = worker.counters();
    DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum()
}

/// Turns until there is nothing to do; the cycles of those that had work.
pub(crate) fn turns(worker: &mut Worker) -> u64 {
    let (mut cycles, mut idle) = (0, 0);
    let now_ns = sysmem::clock::monotonic_ns();
    while idle < IDLE_TURNS {
        let start = Cycles::tsc();
        let had_work = worker.turn(now_ns);
        let spent = Cycles::tsc().since(start);
        if had_work {
            cycles += spent;
        } else {
            idle += 1;
        }
    }
    cycles
}

/// The packets as the other headend sends them.
fn sealed(sealer: &mut Pipeline, packets: Vec<Packet>) -> anyhow::Result<Vec<Packet>> {
    let count = packets.len();
    let mut out = Vec::with_capacity(count);
    let mut batch = Batch::new();
    let mut packets = packets.into_iter();
    loop {
        batch.extend(packets.by_ref().take(BURST));
        if batch.is_empty() {
            break;
        }
        sealer.receive(LAN, &mut batch, 1);
        sealer.transmit(WAN, |batch| {
            let taken = batch.len();
            out.extend(batch.drain(..));
            taken
        });
    }
    ensure!(out.len() == count, "{} of {count} packets were sealed", out.len());
    Ok(out)
}

/// The flows that arrive at a worker's queue.
fn arriving(plan: &Plan, flows: &[Flow], queue: u16, workers: u16) -> Vec<Flow> {
    let owner = |flow: &Flow| crate::bed::spi(flow.tunnel) % u32::from(workers);
    match plan.arrival {
        Arrival::Anywhere => flows.to_vec(),
        Arrival::Owner => flows.iter().filter(|flow| owner(flow) == u32::from(queue)).copied().collect(),
        // One SA's packets keep to one queue, as flows do in a NIC: the last, which does not own it.
        Arrival::Spread if plan.setting.tunnels == 1 => {
            if queue + 1 == workers {
                flows.to_vec()
            } else {
                Vec::new()
            }
        }
        Arrival::Spread => {
            let spread = |flow: &Flow| flow.tunnel.wrapping_mul(0x9e37_79b9) >> 16;
            flows
                .iter()
                .filter(|flow| spread(flow) % u32::from(workers) == u32::from(queue))
                .copied()
                .collect()
        }
    }
}

/// The sum, as if the slowest rounds had been like the others.
fn trimmed_sum(rounds: &mut [f64]) -> f64 {
    rounds.sort_by(f64::total_cmp);
    let kept = rounds.len() - (rounds.len() as f64 * TRIMMED) as usize;
    let sum: f64 = rounds.iter().take(kept).sum();
    if kept == 0 { 0.0 } else { sum * rounds.len() as f64 / kept as f64 }
}

/// CPUs that this process may use.
///
/// # Errors
/// If the system does not say.
pub fn cpus() -> anyhow::Result<Vec<usize>> {
    let cpus = core_affinity::get_core_ids().context("the CPUs of this process")?;
    Ok(cpus.into_iter().map(|cpu| cpu.id).collect())
}

#[cfg(test)]
mod tests {
    use aead::Engine;

    use super::*;

    fn plan(way: Way, arrival: Arrival, tunnels: u32) -> Plan {
        let setting = Setting::usual(tunnels, 2, Engine::best());
        Plan { setting, way, arrival, size: Size::Fixed(64), runs: 5, quick: true }
    }

    /// Two threads even on one CPU: speed is not what is tested.
    fn row(way: Way, arrival: Arrival, tunnels: u32) -> Row {
        let cpu = cpus().unwrap()[0];
        measure(&plan(way, arrival, tunnels), &[cpu, cpu], 1_000_000_000).unwrap()
    }

    #[test]
    fn outbound_workers_share_sas_and_hand_nothing_over() {
        for tunnels in [1, 64] {
            let row = row(Way::Outbound, Arrival::Anywhere, tunnels);
            assert_eq!((row.lost, row.handed_over_percent.max), (0, 0.0));
            assert!(row.speedup.min > 0.0);
        }
    }

    #[test]
    fn inbound_packets_that_arrive_at_their_owner_are_not_handed_over() {
        let row = row(Way::Inbound, Arrival::Owner, 64);
        assert_eq!((row.lost, row.handed_over_percent.max), (0, 0.0));
    }

    #[test]
    fn inbound_packets_that_arrive_elsewhere_are_handed_over_and_none_is_lost() {
        let spread = row(Way::Inbound, Arrival::Spread, 64);
        assert_eq!(spread.lost, 0);
        assert!((20.0..80.0).contains(&spread.handed_over_percent.median), "{spread:?}");
        let one = row(Way::Inbound, Arrival::Spread, 1);
        assert_eq!((one.lost, one.handed_over_percent.min), (0, 100.0));
    }

    #[test]
    fn the_slowest_rounds_do_not_count() {
        let mut rounds: Vec<f64> = vec![10.0; 19];
        rounds.push(1_000_000.0);
        assert!((trimmed_sum(&mut rounds) - 200.0).abs() < 1e-9);
    }
}
