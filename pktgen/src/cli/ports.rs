// SPDX-License-Identifier: Apache-2.0
//! Arguments that name ports, and what all commands that use them share.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aead::Engine;
use anyhow::{Context as _, ensure};
use clap::Args;
use greyhound_pktgen::device::{Ports, Settings, wait_for_link};
use machine::Machine;
use sysmem::Calibration;

/// Ports and threads.
#[derive(Args)]
pub(super) struct PortArguments {
    /// Device that is sent through and received from: as DPDK names it (0000:3b:00.0, net_memif0,…), or memory.
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["transmit", "receive"])]
    port: Option<String>,
    /// Device that is sent through; without --receive, nothing is received.
    #[arg(long, value_name = "DEVICE")]
    transmit: Option<String>,
    /// Device that is received from; without --transmit, nothing is sent.
    #[arg(long, value_name = "DEVICE")]
    receive: Option<String>,
    /// CPUs to pin to: one for sending and receiving, or one for each (with two devices).
    #[arg(long, value_delimiter = ',', value_name = "CPU[,CPU]")]
    pub(super) cpus: Vec<usize>,
    /// Take memory from huge pages (vm.nr_hugepages); PCI devices want them.
    #[arg(long)]
    huge_pages: bool,
    /// Packet buffers.
    #[arg(long, default_value_t = 16_383, value_parser = clap::value_parser!(u32).range(1_023..=1_048_575))]
    buffers: u32,
    /// Seconds to wait for the link to come up.
    #[arg(long, default_value_t = 10)]
    link_seconds: u64,
    /// AEAD engine: auto, or one by name.
    #[arg(long, default_value = "auto", value_parser = super::engine)]
    pub(super) engine: Engine,
}

impl PortArguments {
    /// Whether anything is received.
    pub(super) fn receives(&self) -> bool {
        self.port.is_some() || self.receive.is_some()
    }

    /// Whether anything is sent.
    pub(super) fn sends(&self) -> bool {
        self.port.is_some() || self.transmit.is_some()
    }

    /// Opens them, for frames so long and buffers so large, and waits for the link.
    pub(super) fn open(&self, longest_frame: usize, buffer_bytes: usize) -> anyhow::Result<Ports> {
        ensure!(self.cpus.len() <= 2, "--cpus: one or two");
        let port = self.port.as_deref();
        let settings = Settings {
            huge_pages: self.huge_pages,
            packets: self.buffers as usize,
            ..Settings::new(longest_frame, buffer_bytes)
        };
        let ports =
            Ports::open(self.transmit.as_deref().or(port), self.receive.as_deref().or(port), &settings)?;
        for port in ports.transmit.iter().chain(&ports.receive) {
            wait_for_link(port, self.link_seconds)?;
        }
        Ok(ports)
    }
}

/// What it was measured on.
pub(super) fn machine(engine: Engine) -> Machine {
    Machine::here(&engine.describe(), "packet pool of the generator", &Calibration::measure())
}

/// Whether a page can be written there, found out before there is anything to write: a long run is not to be lost.
pub(super) fn check_page(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).with_context(|| format!("--html {}", path.display()))
}

/// A flag that SIGTERM and SIGINT set.
pub(super) fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
