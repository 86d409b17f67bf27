// SPDX-License-Identifier: Apache-2.0
//! What a generator sends through: any DPDK device, or memory inside the process with a wire that delays and damages.
//!
//! ```text
//!   0000:3b:00.0                     a PCI device            net_memif0,role=client,…   any virtual device of DPDK
//!   memory                           what is sent is received
//!   memory,delay_us=1000,loss_ppm=10 …by a wire, a thread of its own: also duplicate_ppm, reorder_ppm, corrupt_ppm, seed
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail, ensure};
use pktbuf::{Packet, Pool, PoolConfig};
use port::dpdk::{Eal, EalConfig};
use port::fault::{Faults, Faulty};
use port::memory::{PairConfig, Wire, pair_with, wire_with};
use port::{Port, PortConfig};
use std::time::{Duration, Instant};
use sysmem::Calibration;

/// What memory ports are called on the command line.
const MEMORY: &str = "memory";
/// Bytes of Ethernet and 802.1Q around an IP packet.
const LINK_BYTES: usize = 18;
/// Packets of the pool; DPDK uses memory best at a power of two less one.
const PACKETS: usize = 16_383;
const CACHE: u32 = 256;
/// Shortest buffer that DPDK's drivers take.
const BUFFER_BYTES_MIN: usize = 2_048;
/// Packets that a memory port holds.
const MEMORY_QUEUE: usize = 4_096;

/// How DPDK is used, where it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Huge pages, or ordinary ones.
    pub huge_pages: bool,
    /// Packets of the pool.
    pub packets: usize,
    /// Longest frame that is sent or received, without FCS.
    pub longest_frame: usize,
    /// Bytes of a packet buffer that sending needs.
    pub buffer_bytes: usize,
}

impl Settings {
    /// Ordinary pages and 16,383 packets.
    #[must_use]
    pub fn new(longest_frame: usize, buffer_bytes: usize) -> Self {
        Self { huge_pages: false, packets: PACKETS, longest_frame, buffer_bytes }
    }
}

/// Open ports: one that is sent through and one that is received from, which may be the same.
pub struct Ports {
    /// Where packets come from.
    pub pool: Pool,
    /// Sent through.
    pub transmit: Option<Port>,
    /// Received from; if none is named, `transmit`.
    pub receive: Option<Port>,
    wire: Option<Carrier>,
}

impl Ports {
    /// Opens what is named; both may be the same device.
    ///
    /// # Errors
    /// Whatever cannot be opened, with what would help.
    pub fn open(transmit: Option<&str>, receive: Option<&str>, settings: &Settings) -> anyhow::Result<Self> {
        let named: Vec<&str> = transmit.into_iter().chain(receive).collect();
        ensure!(!named.is_empty(), "no port: name one with --port, or --transmit and --receive");
        if named.iter().any(|device| is_memory(device)) {
            return Self::open_memory(transmit, receive, settings);
        }
        let pool = dpdk_pool(&named, settings)?;
        let mtu = u16::try_from(settings.longest_frame.max(1_514) - 14)?;
        let open = |name: &str, device: &str| {
            let config = PortConfig { mtu, promiscuous: true, ..PortConfig::new(name, &pool) };
            Port::open(device, &config).with_context(|| format!("port {device:?}"))
        };
        let is_same = transmit == receive;
        Ok(Self {
            transmit: transmit.map(|device| open("transmit", device)).transpose()?,
            receive: receive.filter(|_| !is_same).map(|device| open("receive", device)).transpose()?,
            pool,
            wire: None,
        })
    }

    fn open_memory(
        transmit: Option<&str>,
        receive: Option<&str>,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let (Some(device), true) = (transmit, receive.is_none_or(|device| Some(device) == transmit)) else {
            bail!("memory ports exist inside this process only: --port memory sends to itself");
        };
        let pool = Pool::memory_with(&pool_config(settings))?;
        let faulty = WireConfig::parse(device)?;
        let config = PairConfig { mtu: u16::MAX, ..PairConfig::new(1, MEMORY_QUEUE) };
        let (transmit, receive, wire) = match faulty {
            None => {
                let (transmit, receive) = pair_with(&config);
                (transmit, receive, None)
            }
            Some(faulty) => {
                let ((transmit, near), (receive, far)) = (wire_with(&config), wire_with(&config));
                (transmit, receive, Some(Carrier::start(near, far, &faulty, &pool)?))
            }
        };
        Ok(Self { pool, transmit: Some(transmit), receive: Some(receive), wire })
    }

    /// The port that is received from.
    #[must_use]
    pub fn receiving(&self) -> Option<&Port> {
        self.receive.as_ref().or(self.transmit.as_ref())
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.end();
        }
    }
}

fn is_memory(device: &str) -> bool {
    device.split(',').next() == Some(MEMORY)
}

fn pool_config(settings: &Settings) -> PoolConfig {
    let bytes = settings.longest_frame.max(settings.buffer_bytes) + pktbuf::SEALING_TAILROOM;
    PoolConfig {
        packets: settings.packets,
        data_bytes: bytes.max(BUFFER_BYTES_MIN).max(1_500 + LINK_BYTES),
        cache: CACHE,
        // Frames are written whole from their first byte.
        align_at: 0,
    }
}

fn dpdk_pool(devices: &[&str], settings: &Settings) -> anyhow::Result<Pool> {
    let config = pool_config(settings);
    // Room for the pool's headers and the devices' own.
    let memory_mib = ((config.packets * (config.data_bytes + 512)) >> 20) + 96;
    Eal::init(&EalConfig {
        instance: format!("greyhound-pktgen-{}", std::process::id()),
        memory_mib: u32::try_from(memory_mib)?,
        huge_pages: settings.huge_pages,
        devices: devices
            .iter()
            .map(|device| (*device).to_owned())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect(),
        ..EalConfig::default()
    })?;
    Ok(Pool::dpdk("pktgen", &config)?)
}

/// What happens on the wire between two memory ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct WireConfig {
    delay_us: u64,
    faults: Faults,
    seed: u64,
}

impl WireConfig {
    /// What stands behind `memory`; none if nothing does.
    fn parse(device: &str) -> anyhow::Result<Option<Self>> {
        let Some((_, arguments)) = device.split_once(',') else { return Ok(None) };
        let mut config = Self { faults: Faults { reorder_depth: 8, ..Faults::default() }, ..Self::default() };
        for argument in arguments.split(',') {
            let wrong = || {
                format!(
                    "{device:?}: {argument:?}: wants delay_us, loss_ppm, duplicate_ppm, reorder_ppm, corrupt_ppm or seed, = and a number"
                )
            };
            let (name, value) = argument.split_once('=').with_context(wrong)?;
            let ppm = || value.parse::<u32>().ok().filter(|ppm| *ppm <= 1_000_000).with_context(wrong);
            match name {
                "delay_us" => config.delay_us = value.parse().with_context(wrong)?,
                "seed" => config.seed = value.parse().with_context(wrong)?,
                "loss_ppm" => config.faults.loss_ppm = ppm()?,
                "duplicate_ppm" => config.faults.duplicate_ppm = ppm()?,
                "reorder_ppm" => config.faults.reorder_ppm = ppm()?,
                "corrupt_ppm" => config.faults.corrupt_ppm = ppm()?,
                _ => bail!(wrong()),
            }
        }
        Ok(Some(config))
    }
}

/// A thread that is the wire.
struct Carrier {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Carrier {
    fn start(from: Wire, to: Wire, config: &WireConfig, pool: &Pool) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let clock = Calibration::measure();
        let mut line = DelayLine {
            from,
            to,
            faulty: Faulty::new(config.faults, config.seed, pool),
            delay: clock.ns_to_cycles(config.delay_us * 1_000),
            clock,
            held: VecDeque::with_capacity(1 << 16),
        };
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                line.carry();
            }
        };
        Ok(Self { stop, thread: std::thread::Builder::new().name("wire".to_owned()).spawn(run)? })
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        // Should it have panicked, its packets are lost, and that shows in the counts.
        let _ = self.thread.join();
    }
}

/// Takes packets at one end and lets them out at the other, later.
struct DelayLine {
    from: Wire,
    to: Wire,
    faulty: Faulty,
    delay: u64,
    clock: Calibration,
    held: VecDeque<(sysmem::Cycles, Packet)>,
}

impl DelayLine {
    fn carry(&mut self) {
        if let Some(packet) = self.from.collect() {
            let (held, release) = (&mut self.held, self.clock.now().plus(self.delay));
            self.faulty.pass(packet, |packet| held.push_back((release, packet)));
        }
        while self.held.front().is_some_and(|(release, _)| *release <= self.clock.now()) {
            let Some((release, packet)) = self.held.pop_front() else { return };
            if let Err(packet) = self.to.inject(0, packet) {
                // The wire loses what it is told to lose and nothing else: the receiver's queue is full, so it waits.
                self.held.push_front((release, packet));
                return;
            }
        }
    }
}

/// Waits until a port's link is up.
///
/// # Errors
/// It is not after `seconds`.
pub fn wait_for_link(port: &Port, seconds: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    while !port.link_up() {
        ensure!(
            start.elapsed().as_secs() < seconds,
            "port {:?}: no link after {seconds} s; is the other end there?",
            port.name()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_is_as_its_arguments_say() {
        assert_eq!(WireConfig::parse("memory").unwrap(), None);
        let config = WireConfig::parse("memory,delay_us=1000,loss_ppm=7").unwrap().unwrap();
        assert_eq!((config.delay_us, config.faults.loss_ppm), (1_000, 7));
        for wrong in ["memory,delay", "memory,delay_us=x", "memory,loss_ppm=1000001", "memory,speed=1"] {
            let error = format!("{:#}", WireConfig::parse(wrong).unwrap_err());
            assert!(error.contains("delay_us, loss_ppm"), "{error}");
        }
    }

    #[test]
    fn memory_and_a_device_do_not_go_together() {
        let settings = Settings::new(1_514, 2_048);
        for (transmit, receive) in [(Some("memory"), Some("net_null0")), (None, Some("memory")), (None, None)]
        {
            assert!(Ports::open(transmit, receive, &settings).is_err());
        }
    }
}
