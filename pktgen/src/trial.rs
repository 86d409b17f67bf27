// SPDX-License-Identifier: Apache-2.0
//! One trial: a profile sent for a while through open ports, and what arrived meanwhile. Without a port to send
//! through, what somebody else sends of the same profile.
//!
//! ```text
//!   one thread     send, receive, send, receive …       one CPU, or one port with one queue
//!   two threads    one sends, one receives              two CPUs and two ports
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aead::Engine;
use anyhow::{Context as _, anyhow, ensure};
use port::Queue;
use port::dpdk::register_worker_thread;
use sysmem::{Calibration, Cycles};

use crate::answer::Answerer;
use crate::device::Ports;
use crate::generator::Generator;
use crate::open::Opener;
use crate::outcome::{
    ArrivedOutcome, DeviceCounts, FRAME_SIZES, Outcome, Quantiles, SenderOutcome, StreamOutcome, Volume, cdf,
};
use crate::profile::{Profile, Stream};
use crate::receive::{Latencies, Receiver, Shared, latencies};
use crate::send::{Sender, Sent, Turn};

/// From the decision to begin until the first packet is due.
const LEAD: Duration = Duration::from_millis(30);
/// How often it is looked at how the trial stands.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer than asked it goes on while the port does not take what is due.
const OVERTIME: f64 = 0.1;

/// What is sent, and how.
pub struct Trial<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// Where its key files are.
    pub folder: &'a Path,
    /// Who seals and opens.
    pub engine: Engine,
    /// How long packets are due.
    pub seconds: f64,
    /// How long nothing must come before the trial is over.
    pub settle: Duration,
    /// CPUs of the threads, if they are to be pinned.
    pub cpus: &'a [usize],
    /// Whether what comes back is looked at.
    pub receive: bool,
    /// Ends it early when set.
    pub stop: &'a AtomicBool,
}

impl Trial<'_> {
    /// Runs the trial; `live` is shown how it stands ten times a second.
    ///
    /// # Errors
    /// A profile that cannot be, CPUs that there are not, or a packet that cannot be written.
    pub fn run(&self, ports: &Ports, live: &mut dyn FnMut(&Outcome)) -> anyhow::Result<Outcome> {
        let clock = Calibration::measure();
        let streams = self.profile.streams().len();
        let (sent, shared) = (Sent::new(streams), Shared::new(streams)?);
        let generator = Generator::new(self.profile, self.engine, self.folder)?;
        let ticks = self.seconds * clock.hz() as f64;
        ensure!(ticks < 1e18, "{} seconds: too long", self.seconds);
        let schedule = generator.schedule(self.profile, clock.hz() as f64, ticks as u64);
        let receiver = self.receiver(clock, &shared)?;
        let start = clock.now().plus(clock.ns_to_cycles(LEAD.as_nanos() as u64));
        let sender = match ports.transmit {
            Some(_) => Some(Sender::new(generator, schedule, &ports.pool, clock, start, Arc::clone(&sent))?),
            None => None,
        };
        let end = start.plus(ticks as u64);
        let deadline = end.plus((ticks * OVERTIME) as u64 + clock.hz() / 10);
        let mut view = View {
            trial: self,
            ports,
            sent,
            shared,
            latencies: latencies(streams)?,
            before: DeviceCounts::of(ports),
        };
        let part = Part { trial: self, clock, start, end, deadline, over: &AtomicBool::new(false) };
        let ended = part.work(ports, sender, receiver, |elapsed| {
            live(&view.outcome(elapsed, SenderOutcome::default()));
        })?;
        let mut outcome = view.outcome(ended.seconds, ended.sender);
        for (stream, next) in outcome.streams.iter_mut().zip(ended.next_sequences) {
            stream.next_sequence = next;
        }
        for (stream, latencies) in outcome.streams.iter_mut().zip(&view.latencies) {
            if let Some(arrived) = &mut stream.arrived {
                arrived.latency_cdf = cdf(latencies);
            }
        }
        Ok(outcome)
    }

    fn receiver(&self, clock: Calibration, shared: &Arc<Shared>) -> anyhow::Result<Option<Receiver>> {
        if !self.receive {
            return Ok(None);
        }
        let opener = Opener::new(&self.profile.open, self.engine, self.folder)?;
        let answerer = Answerer::new(self.profile.answer.as_ref());
        Receiver::new(opener, answerer, clock, Arc::clone(shared)).map(Some)
    }
}

/// What the sending thread says at its end.
#[derive(Default)]
struct Ended {
    seconds: f64,
    sender: SenderOutcome,
    next_sequences: Vec<Option<u64>>,
}

/// What the threads know of the trial.
#[derive(Clone, Copy)]
struct Part<'a> {
    trial: &'a Trial<'a>,
    clock: Calibration,
    start: Cycles,
    end: Cycles,
    deadline: Cycles,
    /// Whether all has been sent.
    over: &'a AtomicBool,
}

impl Part<'_> {
    /// Sends and receives in one thread or two, while this one looks on.
    fn work(
        self,
        ports: &Ports,
        sender: Option<Sender>,
        receiver: Option<Receiver>,
        mut look: impl FnMut(f64),
    ) -> anyhow::Result<Ended> {
        let first = ports.transmit.as_ref().or(ports.receive.as_ref()).context("a port")?;
        let queue = first.queue(0).context("queue 0 of the port")?;
        let is_sending = sender.is_some();
        let receive = ports.receive.as_ref().filter(|_| receiver.is_some() && is_sending);
        let other = receive.map(|port| port.queue(0).context("queue 0 of the receiving port")).transpose()?;
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let cpu = |place: usize| self.trial.cpus.get(place).copied();
            match (receiver, other) {
                (Some(receiver), Some(other)) if self.trial.cpus.len() > 1 => {
                    threads.push(scope.spawn(move || self.turn(cpu(0), sender, None, queue, None)));
                    threads.push(scope.spawn(move || self.turn(cpu(1), None, Some(receiver), other, None)));
                }
                (receiver, other) => {
                    threads.push(scope.spawn(move || self.turn(cpu(0), sender, receiver, queue, other)));
                }
            }
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::sleep(LOOK);
                let is_late = self.clock.now() >= self.end || self.trial.stop.load(Ordering::Relaxed);
                if !is_sending && is_late {
                    self.over.store(true, Ordering::Release);
                }
                look(self.clock.cycles_to_ns(self.clock.now().since(self.start)) as f64 / 1e9);
            }
            let mut ended = Ended::default();
            for (place, thread) in threads.into_iter().enumerate() {
                let result = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
                if place == 0 {
                    ended = result;
                }
            }
            Ok(ended)
        })
    }

    /// One thread, from its pinning to its end.
    fn turn(
        self,
        cpu: Option<usize>,
        mut sender: Option<Sender>,
        mut receiver: Option<Receiver>,
        mut queue: Queue,
        mut other: Option<Queue>,
    ) -> anyhow::Result<Ended> {
        pin(cpu)?;
        let _registration = register_worker_thread()?;
        let (mut ended, mut last) = (Ended::default(), self.clock.now());
        while sender.is_some() && self.clock.now() < self.start {
            std::thread::yield_now();
        }
        let cpu_before = cpu_seconds();
        loop {
            if let Some(active) = &mut sender {
                match self.send(active, &mut queue) {
                    Ok(None) => {}
                    result => {
                        // Before anything else, or a receiver in another thread would wait for good.
                        self.over.store(true, Ordering::Release);
                        ended = result?.unwrap_or_default();
                        ended.sender.cpu_seconds -= cpu_before;
                        last = self.clock.now();
                        sender = None;
                    }
                }
            }
            let is_over = self.over.load(Ordering::Acquire);
            let Some(receiver) = &mut receiver else {
                if is_over {
                    return Ok(ended);
                }
                continue;
            };
            if receiver.turn(other.as_mut().unwrap_or(&mut queue)) > 0 || !is_over {
                last = self.clock.now();
            } else if self.clock.cycles_to_ns(self.clock.now().since(last))
                > self.trial.settle.as_nanos() as u64
                || self.trial.stop.load(Ordering::Relaxed)
            {
                receiver.hand_over(u64::MAX >> 1);
                return Ok(ended);
            }
        }
    }

    /// One turn of the sender; its end, once it has come.
    #[inline]
    fn send(&self, sender: &mut Sender, queue: &mut Queue) -> anyhow::Result<Option<Ended>> {
        let now = self.clock.now();
        let turn = sender.turn(queue)?;
        let is_late = now > self.deadline;
        if turn != Turn::Over && !is_late && !self.trial.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // What is all sent a little before its end took until the end.
        let until = if turn == Turn::Over && !self.trial.stop.load(Ordering::Relaxed) {
            now.max(self.end)
        } else {
            now
        };
        let (sent, next_sequences) = (sender.sent(), sender.next_sequences());
        let sender = SenderOutcome {
            late_us: Quantiles::of(sender.late_ns()),
            refused: sent.refused.read(),
            starved: sent.starved.read(),
            cpu_seconds: cpu_seconds(),
            kept_up: turn == Turn::Over,
        };
        let seconds = self.clock.cycles_to_ns(until.since(self.start)) as f64 / 1e9;
        Ok(Some(Ended { seconds, sender, next_sequences }))
    }
}

/// Binds this thread to a CPU, if one is named.
///
/// # Errors
/// The process may not use it.
pub fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let pinned = cpu.is_none_or(|id| core_affinity::set_for_current(core_affinity::CoreId { id }));
    ensure!(pinned, "--cpus: CPU {} is none that this process may use", cpu.unwrap_or(0));
    Ok(())
}

/// Seconds that this thread has had a CPU.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How the trial stands, from what the threads count.
struct View<'a> {
    trial: &'a Trial<'a>,
    ports: &'a Ports,
    sent: Arc<Sent>,
    shared: Arc<Shared>,
    latencies: Latencies,
    before: DeviceCounts,
}

impl View<'_> {
    fn outcome(&mut self, seconds: f64, sender: SenderOutcome) -> Outcome {
        self.shared.collect(&mut self.latencies);
        let streams = self.trial.profile.streams().enumerate();
        Outcome {
            frame_sizes: FRAME_SIZES.to_owned(),
            seconds,
            streams: streams.filter_map(|(number, stream)| self.stream(number, stream, seconds)).collect(),
            foreign: self.shared.foreign.read().saturating_sub(self.shared.answered.read()),
            answered: self.shared.answered.read(),
            sender,
            device: DeviceCounts::of(self.ports).since(self.before),
        }
    }

    fn stream(&self, number: usize, stream: &Stream, seconds: f64) -> Option<StreamOutcome> {
        let (packets, bytes) = (self.sent.packets.get(number)?.read(), self.sent.bytes.get(number)?.read());
        let counts = self.shared.streams.get(number)?;
        let arrived = (self.trial.receive && stream.stamp).then(|| {
            let received = counts.received.read();
            let ns = counts.last_ns.read().saturating_sub(counts.first_ns.read());
            ArrivedOutcome {
                received,
                pps: if ns == 0 { 0.0 } else { received.saturating_sub(1) as f64 * 1e9 / ns as f64 },
                // Of another sender only what came after a loss tells of it.
                lost: if self.ports.transmit.is_some() { packets } else { counts.highest.read() }
                    .saturating_sub(received),
                reordered: counts.reordered.read(),
                duplicated: counts.duplicated.read(),
                too_late: counts.too_late.read(),
                corrupt: counts.corrupt.read(),
                longest_pause: counts.pause_ns.read() as f64 / 1e9,
                latency_cdf: Vec::new(),
                latency_us: self.latencies.get(number).and_then(Quantiles::of),
            }
        });
        Some(StreamOutcome {
            name: stream.name.clone(),
            size: stream.size.to_string(),
            rate: stream.rate.to_string(),
            sent: Volume::new(packets, bytes, seconds),
            next_sequence: None,
            arrived,
        })
    }
}
