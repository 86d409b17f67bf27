// SPDX-License-Identifier: Apache-2.0
//! Putting the process together, and taking it apart on SIGTERM.
//!
//! Order: no core dumps → EAL and packet memory → ports → sequence store → socket → workers' threads → privileges
//! dropped → housekeeping until a signal → workers joined → sequence numbers taken back.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aead::Engine;
use anyhow::{Context as _, bail, ensure};
use messages::{CountersLayout, Hello, HelloPort, PROTOCOL_VERSION, WorkerId};
use pipeline::PipelineConfig;
use pktbuf::{ALIGN_OUTBOUND, Pool, PoolConfig, SEALING_TAILROOM};
use port::dpdk::{Eal, EalConfig, register_worker_thread};
use port::{Port, Queue};
use sysmem::Calibration;
use tables::{Limits, Neighbors, PortLimits};
use wire::VlanId;

use crate::config::Config;
use crate::control_link::{Listener, RING_RECORDS};
use crate::counters::CountersMemory;
use crate::housekeeping::Housekeeping;
use crate::idle::Policy;
use crate::installer::Installer;
use crate::mailbox::Mailboxes;
use crate::privileges;
use crate::store::{SequenceStore, StoreError};
use crate::worker::Worker;

/// Bytes around an IP packet in a frame: Ethernet, 802.1Q.
const LINK_BYTES: usize = 18;
/// The least room for a frame: drivers such as net_af_packet refuse less, whatever the MTU.
const FRAME_BYTES_MIN: usize = 2048;
/// Packets that a worker's thread may keep to itself.
const POOL_CACHE: u32 = 256;
/// How long housekeeping rests when nobody asks anything of it.
const REST: Duration = Duration::from_micros(500);

/// Where an instance's files lie.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Name of the instance.
    pub instance: String,
    /// Holds `dataplane.toml`.
    pub config: PathBuf,
    /// Holds `dataplane.sock`.
    pub run: PathBuf,
    /// Holds the sequence store.
    pub state: PathBuf,
}

/// Runs a dataplane until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting: the message names the thing, what was wrong and what would be right.
pub fn run(config: &Config, directories: &Directories) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    privileges::before_keys().context("core dumps could not be switched off")?;
    make_private_directory(&directories.state)?;
    std::fs::create_dir_all(&directories.run).with_context(|| format!("{}", directories.run.display()))?;
    let engine = choose_engine(&config.engine)?;
    let pool = packet_memory(config, directories)?;
    let ports = open_ports(config, &pool)?;
    let mut parts = Parts::new(config, directories, engine, &ports)?;
    let threads = parts.start_workers(config, &ports, &pool)?;
    privileges::after_start().context("capabilities could not be dropped")?;
    tracing::info!(instance = directories.instance, workers = config.workers.len(), "ready");
    let Parts { mut housekeeping, mailboxes, clock, .. } = parts;
    while !stop.load(Ordering::Relaxed) {
        if !housekeeping.turn(clock.to_monotonic_ns(clock.now())) {
            std::thread::sleep(REST);
        }
        if threads.iter().any(JoinHandle::is_finished) {
            break;
        }
    }
    let was_asked = stop.load(Ordering::Relaxed);
    mailboxes.stop();
    let all_well = threads.into_iter().map(JoinHandle::join).all(|result| matches!(result, Ok(Ok(()))));
    housekeeping.close();
    // A socket left behind does no harm: the next start replaces it.
    let _ = std::fs::remove_file(directories.run.join("dataplane.sock"));
    ensure!(was_asked && all_well, "a worker ended on its own; see the messages above");
    tracing::info!("ended");
    Ok(())
}

/// Everything that is neither a port nor a thread.
struct Parts {
    housekeeping: Housekeeping,
    mailboxes: Arc<Mailboxes>,
    neighbors: Arc<Neighbors>,
    clock: Calibration,
    worker_counters: Vec<crate::counters::WorkerCounters>,
    state: Arc<pipeline::State>,
}

impl Parts {
    fn new(
        config: &Config,
        directories: &Directories,
        engine: Engine,
        ports: &[Port],
    ) -> anyhow::Result<Self> {
        let workers = u16::try_from(config.workers.len())?;
        let mailboxes = Mailboxes::new(workers);
        let neighbors = Arc::new(Neighbors::new(config.neighbors_max as usize));
        let layout = CountersLayout { workers, ports: u16::try_from(ports.len())? };
        let counters = CountersMemory::create(layout).context("counters memory")?;
        let worker_counters =
            (0..workers).map(|worker| counters.writer(WorkerId(worker))).collect::<Result<_, _>>()?;
        let clock = Calibration::measure();
        let installer =
            Installer::new(engine, limits(config, ports), Arc::clone(&neighbors), open_store(directories))
                .with_room_for(scheduler_room(config));
        let state = Arc::clone(installer.state());
        let control_uid = config.control_uid.unwrap_or_else(|| rustix::process::getuid().as_raw());
        let listener = Listener::bind(&directories.run.join("dataplane.sock"), control_uid)?;
        let hello = hello(config, engine, ports, layout, &clock);
        let housekeeping = Housekeeping::new(
            installer,
            Arc::clone(&mailboxes),
            Arc::clone(&neighbors),
            counters,
            listener,
            hello,
        );
        Ok(Self { housekeeping, mailboxes, neighbors, clock, worker_counters, state })
    }

    fn start_workers(
        &mut self,
        config: &Config,
        ports: &[Port],
        pool: &Pool,
    ) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<()>>>> {
        let workers = u16::try_from(config.workers.len())?;
        let counters = std::mem::take(&mut self.worker_counters);
        let mut threads = Vec::new();
        for ((index, settings), counters) in (0..workers).zip(&config.workers).zip(counters) {
            let pipeline = PipelineConfig {
                worker: WorkerId(index),
                workers,
                macs: ports.iter().map(Port::mac).collect(),
                vlans: config.ports.iter().map(|port| port.vlan.and_then(VlanId::new)).collect(),
                pool: pool.clone(),
                neighbors: Arc::clone(&self.neighbors),
                state: Arc::clone(&self.state),
            };
            let queues = ports.iter().map(|port| take_queue(port, index)).collect::<anyhow::Result<_>>()?;
            let worker = Worker::new(pipeline, queues, Arc::clone(&self.mailboxes), counters);
            let (clock, cpu, idle) = (self.clock, settings.cpu, config.idle);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run_worker(worker, cpu, idle, &clock))?;
            threads.push(thread);
        }
        Ok(threads)
    }
}

fn run_worker(worker: Worker, cpu: usize, idle: Policy, clock: &Calibration) -> anyhow::Result<()> {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    let result = if pinned {
        privileges::after_start().context("capabilities of a worker could not be dropped").and_then(|()| {
            let _registration = register_worker_thread().context("worker thread")?;
            worker.run(clock, idle);
            Ok(())
        })
    } else {
        Err(anyhow::anyhow!(
            "worker.cpu {cpu}: the thread could not be pinned there; name a CPU this machine has and this process may use"
        ))
    };
    if let Err(error) = &result {
        tracing::error!("{error:#}");
    }
    result
}

fn take_queue(port: &Port, index: u16) -> anyhow::Result<Queue> {
    port.queue(index).with_context(|| {
        let (name, queues) = (port.name(), port.queues());
        format!(
            "port {name} has {queues} queues: every worker needs one, so use fewer workers or another device"
        )
    })
}

/// Packets that may wait in a port's scheduler: all schedulers together hold no more than half of what descriptors and
/// workers leave of the memory, or receive queues would run dry.
fn scheduler_room(config: &Config) -> u32 {
    let ports = config.ports.len().max(1);
    let free = (config.memory.packets as usize).saturating_sub(config.packets_in_use());
    u32::try_from(free / 2 / ports).unwrap_or(u32::MAX)
}

fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signal handler")?;
    }
    Ok(stop)
}

fn choose_engine(name: &str) -> anyhow::Result<Engine> {
    let engine = if name == "auto" { Engine::best() } else { Engine::named(name)? };
    tracing::info!(engine = engine.describe(), "AEAD engine");
    Ok(engine)
}

/// A missing or damaged store does not keep the dataplane from starting: it keeps every SA out, and says why.
fn open_store(directories: &Directories) -> Option<SequenceStore> {
    match SequenceStore::open(&directories.state) {
        Ok(store) => Some(store),
        Err(error @ (StoreError::Missing(_) | StoreError::Damaged(_))) => {
            tracing::error!(%error, "every SA will be refused");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the sequence store cannot be read; every SA will be refused");
            None
        }
    }
}

fn packet_memory(config: &Config, directories: &Directories) -> anyhow::Result<Pool> {
    let mtu = config.ports.iter().map(|port| usize::from(port.mtu_max)).max().unwrap_or(1_500);
    let pool = PoolConfig {
        packets: config.memory.packets as usize,
        data_bytes: (mtu + LINK_BYTES + SEALING_TAILROOM).max(FRAME_BYTES_MIN),
        cache: POOL_CACHE,
        align_at: ALIGN_OUTBOUND,
    };
    let needed_mib = (pool.packets * (pool.data_bytes + 512)) >> 20;
    let memory_mib = config.memory.mib.map_or(needed_mib + 64, |mib| mib as usize);
    Eal::init(&EalConfig {
        instance: format!("greyhound-{}-{}", directories.instance, std::process::id()),
        memory_mib: u32::try_from(memory_mib)?,
        huge_pages: config.memory.huge_pages,
        devices: config.ports.iter().map(|port| port.device.clone()).collect(),
        ..EalConfig::default()
    })?;
    Pool::dpdk("packets", &pool).context("packet memory; raise memory.mib or lower memory.packets")
}

fn open_ports(config: &Config, pool: &Pool) -> anyhow::Result<Vec<Port>> {
    let queues = u16::try_from(config.workers.len())?;
    let open = |settings: &crate::config::PortConfig| {
        let port = Port::open(
            &settings.device,
            &port::PortConfig {
                name: settings.name.clone(),
                queues,
                rx_descriptors: settings.rx_descriptors,
                tx_descriptors: settings.tx_descriptors,
                mtu: settings.mtu_max,
                pool: pool.clone(),
                promiscuous: false,
            },
        )?;
        let driver = port.capabilities().driver;
        let mac = port.mac().map(|byte| format!("{byte:02x}")).join(":");
        let vlan = settings.vlan;
        tracing::info!(port = settings.name, device = settings.device, driver, mac, vlan, "port open");
        anyhow::Ok(port)
    };
    config.ports.iter().map(open).collect()
}

fn limits(config: &Config, ports: &[Port]) -> Limits {
    Limits {
        sas_max: config.sas_max,
        tunnels_max: config.tunnels_max,
        workers: config.workers.len() as u16,
        ports: ports.iter().zip(&config.ports).map(port_limits).collect(),
    }
}

fn port_limits((port, settings): (&Port, &crate::config::PortConfig)) -> PortLimits {
    PortLimits { mtu_max: port.mtu(), is_tagged: settings.vlan.is_some() }
}

fn hello(
    config: &Config,
    engine: Engine,
    ports: &[Port],
    counters: CountersLayout,
    clock: &Calibration,
) -> Hello {
    let of_port = |(port, settings): (&Port, &crate::config::PortConfig)| HelloPort {
        name: settings.name.clone(),
        device: settings.device.clone(),
        mac: port.mac(),
        mtu_max: port.mtu(),
        vlan: settings.vlan,
    };
    Hello {
        version: PROTOCOL_VERSION,
        pid: std::process::id(),
        generation: 0,
        digest: None,
        engine: engine.name().to_owned(),
        worker_cpus: config.workers.iter().map(|worker| worker.cpu as u32).collect(),
        cycles_per_second: clock.hz(),
        ports: ports.iter().zip(&config.ports).map(of_port).collect(),
        sas_max: config.sas_max,
        tunnels_max: config.tunnels_max,
        ring_records: RING_RECORDS,
        counters,
    }
}

/// Makes a directory that only its owner may enter.
///
/// # Errors
/// It cannot be made, or belongs to others too.
pub fn make_private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("{}", path.display()))?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{} may be entered by others (mode {:o}); make it 0700", path.display(), mode & 0o777);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(packets: usize) -> u32 {
        let port = |name: &str| format!("[[port]]\nname = \"{name}\"\ndevice = \"net_null_{name}\"\n");
        let text =
            format!("[memory]\npackets = {packets}\n[[worker]]\ncpu = 1\n{}{}", port("lan"), port("wan"));
        scheduler_room(&Config::parse(&text, Path::new("dataplane.toml")).unwrap())
    }

    #[test]
    fn schedulers_leave_the_packets_of_descriptors_alone() {
        // Two ports of 2 × 1,024 descriptors, and 512 for the worker.
        let in_use = 4_608;
        assert_eq!([in_use, in_use + 3, in_use + 400, 16_384].map(room), [0, 0, 100, 2_944]);
    }
}
