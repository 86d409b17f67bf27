// SPDX-License-Identifier: Apache-2.0
//! SA updates into a busy worker, the way they always come: request ring → housekeeping → tables and key schedules →
//! a new generation → the worker switches between two bursts. What that costs the packets is told by windows with
//! updates and windows without, in turn.
//!
//! ```text
//!   this thread: Begin, Put × batch, Commit at a rate ─ ring ─▶ housekeeping thread ─ mailbox ─▶ worker's thread, pinned
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use dataplane::control_link::{Listener, RING_RECORDS};
use dataplane::housekeeping::Housekeeping;
use dataplane::worker::Worker;
use messages::{
    Base, Digest, Direction, DropReason, Event, Hello, HelloPort, Object, PROTOCOL_VERSION, Request,
};
use pktbuf::{Packet, Pool};
use port::memory::Wire;
use serde::{Deserialize, Serialize};
use sysmem::Calibration;

use crate::bed::{self, LAN, MTU, Role, Setting, WAN};
use crate::control::Control;
use crate::profile::{self, Routes};
use crate::report::Measured;
use crate::rig::{self, Rig};
use crate::scale::turns;
use crate::traffic::{Size, Traffic, Way};

/// Packets that the worker is given at a time.
const FED: usize = 256;
/// A round that took longer had its CPU taken away: a switch takes microseconds. It is counted, and left out.
const INTERRUPTED: Duration = Duration::from_millis(1);
/// How long housekeeping rests when nobody asks anything of it, as in the dataplane.
const REST: Duration = Duration::from_micros(500);
/// How long a commit may take.
const COMMIT_TIME: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_millis(500);
const QUICK_WINDOW: Duration = Duration::from_millis(120);
/// The window of rounds between two windows, which do not count.
const BETWEEN: usize = 0;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The headend; one worker.
    pub setting: Setting,
    /// Packet sizes.
    pub size: Size,
    /// SA updates a second.
    pub rate: u32,
    /// Updates in one transaction.
    pub batch: u32,
    /// CPU of the worker, and CPU of everything else.
    pub cpus: [usize; 2],
    /// Pairs of windows.
    pub runs: usize,
    /// Shorter windows.
    pub quick: bool,
}

/// The result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `outbound`.
    pub direction: String,
    /// Bytes of the inner IP packet, or `imix`.
    pub size: serde_json::Value,
    /// Tunnels, each with an SA each way.
    pub tunnels: u32,
    /// The engine.
    pub engine: String,
    /// SA updates a second that were asked for.
    pub rate: u32,
    /// Updates in one transaction.
    pub batch: u32,
    /// SA updates a second that were committed.
    pub updates_per_second: Measured,
    /// Cycles a packet while updates come.
    pub cycles: Measured,
    /// Cycles a packet in the windows between.
    pub cycles_without: Measured,
    /// By how many percent the throughput falls, pair by pair.
    pub fall_percent: Measured,
    /// Million packets a second while updates come.
    pub mpps: Measured,
    /// Packets that went in and did not come out.
    pub lost: u64,
    /// Rounds left out because the worker's CPU was taken away for more than a millisecond.
    pub interrupted: u64,
}

/// Measures one row.
///
/// # Errors
/// The headend cannot be built, or refuses an update.
pub fn measure(plan: &Plan, clock: &Calibration) -> anyhow::Result<Row> {
    ensure!(plan.setting.workers == 1, "one worker");
    let Rig { headend, mailboxes, counters, workers, wires, .. } = Rig::new(Role::Sealer, &plan.setting)?;
    let layout = counters.layout();
    let (installer, neighbors, directory) = headend.into_parts();
    let socket = directory.path().join("dataplane.sock");
    let listener = Listener::bind(&socket, rustix::process::getuid().as_raw())?;
    let hello = hello(plan, clock, layout);
    let mut housekeeping =
        Housekeeping::new(installer, Arc::clone(&mailboxes), neighbors, counters, listener, hello);
    let load = Load::new(plan, &wires)?;
    let (stop, window) = (AtomicBool::new(false), AtomicUsize::new(BETWEEN));
    let [worker_cpu, other_cpu] = plan.cpus;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| load.carry(workers, worker_cpu, &window, &stop));
        scope.spawn(|| {
            pin(other_cpu);
            while !stop.load(Ordering::Relaxed) {
                if !housekeeping.turn(clock.to_monotonic_ns(clock.now())) {
                    std::thread::sleep(REST);
                }
            }
        });
        pin(other_cpu);
        let updated = Updater::connect(plan, &socket).and_then(|mut updater| updater.windows(&window));
        stop.store(true, Ordering::Relaxed);
        let carried = worker.join().map_err(|_| anyhow!("the worker's thread panicked"))??;
        Ok(row(plan, clock, &updated?, &carried))
    })
}

fn pin(cpu: usize) {
    // Elsewhere it disturbs the worker, and shows in the figures.
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
}

fn hello(plan: &Plan, clock: &Calibration, counters: messages::CountersLayout) -> Hello {
    let port = |name: &str, port| HelloPort {
        name: name.to_owned(),
        device: "memory".to_owned(),
        mac: bed::mac(Role::Sealer, port).0,
        mtu_max: MTU,
        vlan: None,
    };
    Hello {
        version: PROTOCOL_VERSION,
        pid: std::process::id(),
        generation: 1,
        digest: None,
        engine: plan.setting.engine.name().to_owned(),
        worker_cpus: plan.cpus.iter().take(1).map(|cpu| *cpu as u32).collect(),
        cycles_per_second: clock.hz(),
        ports: vec![port("lan", LAN), port("wan", WAN)],
        sas_max: plan.setting.tunnels * 2,
        tunnels_max: plan.setting.tunnels,
        ring_records: RING_RECORDS,
        counters,
    }
}

/// Windows are numbered from 1: odd ones are quiet, even ones have updates.
struct Updated {
    per_second: Vec<f64>,
}

/// Sends updates at a rate.
struct Updater<'a> {
    plan: &'a Plan,
    control: Control,
    /// Transactions so far.
    transaction: u32,
    /// Updates so far: each has a key of its own.
    updates: u32,
    answered: u32,
}

impl<'a> Updater<'a> {
    fn connect(plan: &'a Plan, socket: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self { plan, control: Control::connect(socket)?, transaction: 0, updates: 0, answered: 0 })
    }

    fn windows(&mut self, window: &AtomicUsize) -> anyhow::Result<Updated> {
        let length = if self.plan.quick { QUICK_WINDOW } else { WINDOW };
        let mut per_second = Vec::new();
        // The first transaction finds every page and every file new.
        self.transact()?;
        self.wait_for_answers()?;
        for run in 0..self.plan.runs {
            let (quiet, busy) = (2 * run + 1, 2 * run + 2);
            // Which comes first alternates, so that what drifts meets both.
            for number in if run.is_multiple_of(2) { [quiet, busy] } else { [busy, quiet] } {
                window.store(number, Ordering::Relaxed);
                if number == busy {
                    per_second.push(self.update_for(length)?);
                } else {
                    std::thread::sleep(length);
                }
                window.store(BETWEEN, Ordering::Relaxed);
            }
        }
        Ok(Updated { per_second })
    }

    /// Updates at the plan's rate; returns what was committed a second.
    fn update_for(&mut self, length: Duration) -> anyhow::Result<f64> {
        let start = Instant::now();
        let answered = self.answered;
        let interval = Duration::from_secs_f64(f64::from(self.plan.batch) / f64::from(self.plan.rate));
        let mut due = start;
        while start.elapsed() < length {
            if Instant::now() >= due {
                self.transact()?;
                due += interval;
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
            self.read_answers()?;
        }
        self.wait_for_answers()?;
        Ok(f64::from((self.answered - answered) * self.plan.batch) / start.elapsed().as_secs_f64())
    }

    /// One transaction: a batch of SAs replaced by ones with fresh keys, outbound and inbound in turn.
    fn transact(&mut self) -> anyhow::Result<()> {
        self.transaction += 1;
        let transaction = self.transaction;
        self.control.push(&Request::Begin { transaction, base: Base::Running })?;
        for _ in 0..self.plan.batch {
            let tunnel = (self.updates / 2).wrapping_mul(40_503) % self.plan.setting.tunnels;
            let direction =
                if self.updates.is_multiple_of(2) { Direction::Outbound } else { Direction::Inbound };
            let sa = bed::replacement(&self.plan.setting, tunnel, direction, self.updates)?;
            self.control.push(&Request::Put(Object::Sa(sa)))?;
            self.updates += 1;
        }
        self.control.push(&Request::Commit { transaction, digest: Digest([0; 32]) })
    }

    fn read_answers(&mut self) -> anyhow::Result<()> {
        while let Some(event) = self.control.next_event()? {
            match event {
                Event::Committed { .. } => self.answered += 1,
                Event::Refused { transaction, refusal } => bail!("transaction {transaction}: {refusal}"),
                _ => {}
            }
        }
        Ok(())
    }

    fn wait_for_answers(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.answered < self.transaction {
            self.read_answers()?;
            ensure!(start.elapsed() < COMMIT_TIME, "a commit was not answered");
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

/// Packets for the worker, round after round.
struct Load<'a> {
    traffic: Traffic,
    wires: &'a [Wire; 2],
    pool: Pool,
    buffers: Vec<Packet>,
}

/// What the worker's thread saw: cycles of each round, by window.
struct Carried {
    rounds: Vec<(usize, u64)>,
    lost: u64,
}

impl<'a> Load<'a> {
    fn new(plan: &Plan, wires: &'a [Wire; 2]) -> anyhow::Result<Self> {
        let flows = profile::flows(&Routes::new(plan.setting.tunnels));
        let traffic = Traffic::new(&plan.setting, plan.size, &flows)?;
        let pool = Way::Outbound.pool(FED)?;
        let buffers = std::iter::from_fn(|| pool.alloc()).collect();
        Ok(Self { traffic, wires, pool, buffers })
    }

    fn carry(
        mut self,
        mut workers: Vec<Worker>,
        cpu: usize,
        window: &AtomicUsize,
        stop: &AtomicBool,
    ) -> anyhow::Result<Carried> {
        pin(cpu);
        let Some(worker) = workers.first_mut() else { bail!("no worker") };
        let (mut rounds, mut next, mut lost) = (Vec::new(), 0, 0);
        while !stop.load(Ordering::Relaxed) && !self.buffers.is_empty() {
            let in_window = window.load(Ordering::Relaxed);
            let mut packets = std::mem::take(&mut self.buffers);
            for packet in &mut packets {
                self.traffic.write_header(Way::Outbound, next, packet)?;
                next += 1;
            }
            let count = packets.len();
            rig::inject(self.wires, LAN, 0, &mut packets);
            let spent = turns(worker);
            rig::collect(self.wires, WAN, 0, &mut self.buffers);
            lost += (count - self.buffers.len()) as u64;
            // Packets that were dropped are home in the pool.
            self.buffers.extend(std::iter::from_fn(|| self.pool.alloc()));
            if in_window != BETWEEN && window.load(Ordering::Relaxed) == in_window && count == FED {
                rounds.push((in_window, spent));
            }
        }
        let counters = worker.counters();
        let dropped: u64 = DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum();
        Ok(Carried { rounds, lost: lost.max(dropped) })
    }
}

fn row(plan: &Plan, clock: &Calibration, updated: &Updated, carried: &Carried) -> Row {
    let limit = clock.ns_to_cycles(INTERRUPTED.as_nanos() as u64);
    let mean = |window: usize| {
        let of_window = carried.rounds.iter().filter(|(number, cycles)| *number == window && *cycles < limit);
        let (sum, count) = of_window.fold((0, 0_u64), |(sum, count), (_, cycles)| (sum + cycles, count + 1));
        sum as f64 / (count * FED as u64) as f64
    };
    let quiet: Vec<f64> = (0..plan.runs).map(|run| mean(2 * run + 1)).collect();
    let busy: Vec<f64> = (0..plan.runs).map(|run| mean(2 * run + 2)).collect();
    let fall = quiet.iter().zip(&busy).map(|(quiet, busy)| (1.0 - quiet / busy) * 100.0).collect();
    let cycles = Measured::of(busy);
    Row {
        direction: Way::Outbound.name().to_owned(),
        size: plan.size.to_json(),
        tunnels: plan.setting.tunnels,
        engine: plan.setting.engine.name().to_owned(),
        rate: plan.rate,
        batch: plan.batch,
        updates_per_second: Measured::of(updated.per_second.clone()),
        cycles,
        cycles_without: Measured::of(quiet),
        fall_percent: Measured::of(fall),
        mpps: cycles.map(|cycles| clock.hz() as f64 / cycles / 1e6),
        lost: carried.lost,
        interrupted: carried.rounds.iter().filter(|(_, cycles)| *cycles >= limit).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use aead::Engine;

    use super::*;

    #[test]
    fn updates_reach_a_worker_under_load_and_lose_nothing() {
        let setting = Setting::usual(64, 1, Engine::best());
        let cpu = crate::scale::cpus().unwrap()[0];
        let plan = Plan {
            setting,
            size: Size::Fixed(64),
            rate: 1_000,
            batch: 20,
            cpus: [cpu, cpu],
            runs: 2,
            quick: true,
        };
        let row = measure(&plan, &Calibration::measure()).unwrap();
        assert_eq!(row.lost, 0);
        assert!(row.updates_per_second.max > 0.0, "{row:?}");
    }
}
