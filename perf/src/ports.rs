// SPDX-License-Identifier: Apache-2.0
//! Ports over DPDK's virtual devices, with dpdk-testpmd on the same devices in the same run beside them.
//!
//! ```text
//!   io       net_null → receive, transmit → net_null                       beside testpmd --forward-mode=io
//!   headend  net_pcap, infinite_rx → worker seals → net_null, a sink       beside testpmd --forward-mode=macswap
//! ```
//!
//! Windows of ours and of testpmd take turns. No figure here is a NIC figure.

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use dataplane::counters::CountersMemory;
use dataplane::mailbox::Mailboxes;
use dataplane::worker::Worker;
use messages::{CountersLayout, DropReason, WorkerCounter, WorkerId};
use pktbuf::{ALIGN_OUTBOUND, Batch, Pool, PoolConfig};
use port::dpdk::{Eal, EalConfig, WorkerThread, register_worker_thread};
use port::{Port, PortConfig, Queue};
use serde::{Deserialize, Serialize};
use sysmem::Calibration;

use crate::bed::{Headend, MTU, Role, Setting};
use crate::profile::{self, Routes};
use crate::report::Measured;
use crate::traffic::{Size, Traffic};

const POOL_PACKETS: usize = 16_383;
const POOL_CACHE: u32 = 256;
const DATA_BYTES: usize = 2_048;
const MEMORY_MIB: u32 = 256;
/// Different frames in the capture that net_pcap repeats.
const CAPTURED: usize = 1_024;
const WINDOW: Duration = Duration::from_millis(300);
/// How often housekeeping has its turn.
const HOUSEKEEPING: Duration = Duration::from_millis(20);
/// How long testpmd counts, in seconds; it prints rates once a second, and the first is its start.
const TESTPMD_SECONDS: usize = 3;
/// How long testpmd may take to start.
const TESTPMD_TIME: Duration = Duration::from_secs(30);
/// Turns between two looks at the clock.
const TURNS: usize = 64;

/// How DPDK is used.
#[derive(Clone, Debug)]
pub struct Plan {
    /// testpmd's path, if it is to run.
    pub testpmd: Option<PathBuf>,
    /// CPU that forwards, and another for testpmd's console.
    pub cpus: [usize; 2],
    /// Huge pages or ordinary ones, for both.
    pub huge_pages: bool,
    /// Runs that are noted.
    pub runs: usize,
}

/// One line of the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `io` or `headend`.
    pub what: String,
    /// Bytes of the IP packet.
    pub size: serde_json::Value,
    /// The engine; none for `io`.
    pub engine: Option<String>,
    /// Million packets a second.
    pub mpps: Measured,
    /// What testpmd was told to do.
    pub testpmd_mode: String,
    /// Its rate, if it ran.
    pub testpmd_mpps: Option<Measured>,
    /// Our rate ÷ testpmd's, run by run.
    pub ratio: Option<Measured>,
    /// What `path` says for the same packets without any port.
    pub path_mpps: Option<Measured>,
    /// What follows for the headend if the devices cost it what they cost testpmd.
    pub predicted_mpps: Option<Measured>,
}

impl Row {
    /// Adds what `path` says of the same packets.
    pub fn predict(&mut self, path: Measured) {
        self.path_mpps = Some(path);
        let devices = self.testpmd_mpps.map(|testpmd| 1.0 / testpmd.median);
        self.predicted_mpps = devices.map(|devices| path.map(|path| 1.0 / (1.0 / path + devices)));
    }
}

/// EAL, started for this process.
pub struct Dpdk {
    plan: Plan,
    pool: Pool,
    directory: tempfile::TempDir,
    _thread: WorkerThread,
}

impl Dpdk {
    /// Starts EAL; once in a process.
    ///
    /// # Errors
    /// No DPDK in this build, or EAL refuses.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        ensure!(Eal::version().is_some(), "this build has no DPDK; install libdpdk-dev and build again");
        Eal::init(&EalConfig {
            instance: format!("greyhound-perf-{}", std::process::id()),
            memory_mib: MEMORY_MIB,
            huge_pages: plan.huge_pages,
            ..EalConfig::default()
        })?;
        let thread = register_worker_thread()?;
        let config = PoolConfig {
            packets: POOL_PACKETS,
            data_bytes: DATA_BYTES,
            cache: POOL_CACHE,
            align_at: ALIGN_OUTBOUND,
        };
        let pool = Pool::dpdk("perf", &config)?;
        Ok(Self { plan, pool, directory: tempfile::tempdir()?, _thread: thread })
    }

    /// Receive → transmit on net_null and nothing else.
    ///
    /// # Errors
    /// The device cannot be opened, or testpmd does not run.
    pub fn io(&self) -> anyhow::Result<Row> {
        let size = Size::Fixed(64);
        let port = self.open("net_null8", "net_null8,size=64")?;
        let mut queue = port.queue(0).context("queue 0")?;
        let vdevs = ["net_null8,size=64".to_owned()];
        self.row("io", size, None, "io", &vdevs, || Ok(forward(&mut queue)))
    }

    /// The whole headend: what net_pcap repeats, sealed, into net_null.
    ///
    /// # Errors
    /// The devices cannot be opened, a packet is dropped, or testpmd does not run.
    pub fn headend(&self, setting: &Setting, size: Size, clock: &Calibration) -> anyhow::Result<Row> {
        let capture = self.directory.path().join(format!("{size}.pcap"));
        write_capture(&capture, setting, size)?;
        let source = format!("net_pcap_{size},rx_pcap={},infinite_rx=1", capture.display());
        let sink = format!("net_null_{size},no-rx=1");
        let ports = [self.open("lan", &source)?, self.open("wan", &sink)?];
        let queues = ports.iter().map(|port| port.queue(0).context("queue 0"));
        let queues: Vec<Queue> = queues.collect::<anyhow::Result<_>>()?;
        let mut headend = Headend::new(Role::Sealer, setting)?;
        let counters = CountersMemory::create(CountersLayout { workers: 1, ports: 2 })?;
        let mut config = headend.next_config().context("a worker")?;
        config.pool = self.pool.clone();
        let counters = counters.writer(WorkerId(0))?;
        let mut worker = Worker::new(config, queues, Mailboxes::new(1), counters);
        let vdevs = [source, sink];
        self.row("headend", size, Some(setting), "macswap", &vdevs, || {
            let (mut sealed, mut elapsed) = (0, Duration::ZERO);
            while elapsed < WINDOW {
                // What housekeeping does beside the worker, often enough for any rate; not measured.
                headend.installer.extend_limits()?;
                let (packets, time) = carry(&mut worker, clock)?;
                (sealed, elapsed) = (sealed + packets, elapsed + time);
            }
            Ok(sealed as f64 / elapsed.as_secs_f64() / 1e6)
        })
    }

    fn open(&self, name: &str, device: &str) -> anyhow::Result<Port> {
        let config = PortConfig { mtu: MTU, promiscuous: true, ..PortConfig::new(name, &self.pool) };
        Ok(Port::open(device, &config)?)
    }

    fn row(
        &self,
        what: &str,
        size: Size,
        setting: Option<&Setting>,
        mode: &str,
        vdevs: &[String],
        mut window: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<Row> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        window()?;
        for run in 0..self.plan.runs {
            if run.is_multiple_of(2) {
                ours.push(window()?);
                theirs.extend(self.testpmd(mode, vdevs)?);
            } else {
                theirs.extend(self.testpmd(mode, vdevs)?);
                ours.push(window()?);
            }
        }
        let ratio = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        let has_both = !theirs.is_empty();
        Ok(Row {
            what: what.to_owned(),
            size: size.to_json(),
            engine: setting.map(|setting| setting.engine.name().to_owned()),
            mpps: Measured::of(ours),
            testpmd_mode: mode.to_owned(),
            testpmd_mpps: has_both.then(|| Measured::of(theirs)),
            ratio: has_both.then(|| Measured::of(ratio)),
            path_mpps: None,
            predicted_mpps: None,
        })
    }

    /// Million packets a second of testpmd on the same devices, in a process of its own.
    fn testpmd(&self, mode: &str, vdevs: &[String]) -> anyhow::Result<Option<f64>> {
        let Some(program) = &self.plan.testpmd else { return Ok(None) };
        let [forwarding, console] = self.plan.cpus;
        let mut command = Command::new(program);
        command.args(["-l", &format!("{console},{forwarding}"), "--main-lcore", &console.to_string()]);
        let memory = if self.plan.huge_pages { "--in-memory" } else { "--no-huge" };
        command.args([memory, "-m", &MEMORY_MIB.to_string(), "--no-telemetry", "--no-shconf", "--no-pci"]);
        command.args(vdevs.iter().map(|vdev| format!("--vdev={vdev}")));
        command.args(["--", "--burst=64", "--mbcache=256", "--total-num-mbufs=16383", "--auto-start"]);
        command.args([format!("--forward-mode={mode}"), "--stats-period=1".to_owned()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut testpmd = Running(child.with_context(|| format!("{}", program.display()))?);
        let rates = testpmd.rates()?;
        Ok(Some(Measured::of(rates).median / 1e6))
    }
}

/// A process that ends with this.
struct Running(Child);

impl Running {
    /// Packets received a second, by the port that receives, second by second.
    fn rates(&mut self) -> anyhow::Result<Vec<f64>> {
        let stdout = self.0.stdout.take().context("testpmd's output")?;
        let start = Instant::now();
        let mut rates = Vec::new();
        let mut last_lines = Vec::new();
        for line in std::io::BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(rate) = rx_rate(&line).filter(|rate| *rate > 0.0) {
                rates.push(rate);
            }
            if rates.len() > TESTPMD_SECONDS {
                return Ok(rates.split_off(1));
            }
            ensure!(start.elapsed() < TESTPMD_TIME, "testpmd forwards nothing: {last_lines:?}");
            last_lines.push(line);
            last_lines.drain(..last_lines.len().saturating_sub(10));
        }
        let mut reasons = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut reasons)?;
        }
        bail!("testpmd ended: {last_lines:?} {reasons}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; nobody waits for a word of it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of a line such as `  Rx-pps:     31337          Rx-bps:      1234`.
fn rx_rate(line: &str) -> Option<f64> {
    line.trim().strip_prefix("Rx-pps:")?.split_whitespace().next()?.parse().ok()
}

/// Receives and transmits for a window; million packets a second.
fn forward(queue: &mut Queue) -> f64 {
    let mut batch = Batch::new();
    let (start, mut packets) = (Instant::now(), 0);
    loop {
        for _ in 0..TURNS {
            queue.receive(&mut batch);
            packets += queue.transmit(&mut batch);
        }
        let elapsed = start.elapsed();
        if elapsed >= WINDOW {
            return packets as f64 / elapsed.as_secs_f64() / 1e6;
        }
    }
}

/// Turns a worker for a part of a window; how many packets it sealed, and how long it took. All that came in must go out.
fn carry(worker: &mut Worker, clock: &Calibration) -> anyhow::Result<(u64, Duration)> {
    let before = worker.counters().worker(WorkerCounter::Sealed);
    let start = Instant::now();
    let elapsed = loop {
        let now_ns = clock.to_monotonic_ns(clock.now());
        for _ in 0..TURNS {
            worker.turn(now_ns);
        }
        let elapsed = start.elapsed();
        if elapsed >= HOUSEKEEPING {
            break elapsed;
        }
    };
    let counters = worker.counters();
    let drops = DropReason::ALL.iter().map(|reason| (reason.name(), counters.dropped(*reason)));
    let drops: Vec<_> = drops.filter(|(_, count)| *count > 0).collect();
    ensure!(drops.is_empty(), "the headend dropped packets: {drops:?}");
    Ok((counters.worker(WorkerCounter::Sealed) - before, elapsed))
}

fn write_capture(path: &Path, setting: &Setting, size: Size) -> anyhow::Result<()> {
    let flows = profile::flows(&Routes::new(setting.tunnels));
    let traffic = Traffic::new(setting, size, &flows)?;
    let file = std::fs::File::create(path).with_context(|| format!("{}", path.display()))?;
    let mut capture = port::pcap::Writer::new(std::io::BufWriter::new(file))?;
    for number in 0..CAPTURED {
        capture.write(number as u64 * 1_000, &traffic.frame(number))?;
    }
    capture.finish()?;
    Ok(())
}

/// testpmd where Debian's package `dpdk-dev` puts it, or anywhere in the path.
#[must_use]
pub fn find_testpmd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("dpdk-testpmd")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn testpmds_rates_are_found_in_what_it_prints() {
        assert_eq!(rx_rate("  Rx-pps:     31337          Rx-bps:      1234"), Some(31_337.0));
        assert_eq!(rx_rate("  Tx-pps:        12          Tx-bps:         1"), None);
        assert_eq!(rx_rate("  RX-packets: 42             RX-missed: 0"), None);
    }
}
