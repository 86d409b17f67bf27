// SPDX-License-Identifier: Apache-2.0
//! `dataplane.toml`: what the dataplane is given at start and keeps until it ends. Everything else is control's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::idle::Policy;

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// AEAD engine: `auto`, `native`, `ipsec-mb` or `aes-gcm`.
    #[serde(default = "auto")]
    pub engine: String,
    /// What an idle worker does.
    #[serde(default)]
    pub idle: Policy,
    /// User id that may control this dataplane beside root; by default its own.
    pub control_uid: Option<u32>,
    /// How many SAs there may be, both directions together.
    #[serde(default = "default_sas")]
    pub sas_max: u32,
    /// How many tunnels there may be.
    #[serde(default = "default_tunnels")]
    pub tunnels_max: u32,
    /// How many neighbours there may be.
    #[serde(default = "default_neighbors")]
    pub neighbors_max: u32,
    /// Packet memory.
    #[serde(default)]
    pub memory: Memory,
    /// Workers, in order.
    #[serde(rename = "worker")]
    pub workers: Vec<WorkerConfig>,
    /// Ports, in order.
    #[serde(rename = "port")]
    pub ports: Vec<PortConfig>,
}

/// Packet memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Packets in the pool, over all ports and workers.
    pub packets: u32,
    /// Memory for DPDK in MiB; by default what the pool needs.
    pub mib: Option<u32>,
    /// Huge pages. Without them DPDK runs on ordinary pages: fine for trying out, slower.
    pub huge_pages: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { packets: 16_384, mib: None, huge_pages: true }
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The CPU it is pinned to.
    pub cpu: usize,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// Its name, by which control knows it.
    pub name: String,
    /// DPDK device: a PCI address or a virtual device with its arguments.
    pub device: String,
    /// The largest IP packet it shall carry, in bytes: 576–9,216.
    #[serde(default = "default_mtu")]
    pub mtu_max: u16,
    /// The VLAN whose 802.1Q tag its frames have: 1–4,094, or 0 for a tag with a priority and no VLAN. By default untagged.
    pub vlan: Option<u16>,
    /// Descriptors of each receive queue.
    #[serde(default = "default_descriptors")]
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    #[serde(default = "default_descriptors")]
    pub tx_descriptors: u16,
}

fn auto() -> String {
    "auto".into()
}

const fn default_sas() -> u32 {
    8_192
}

const fn default_tunnels() -> u32 {
    4_096
}

const fn default_neighbors() -> u32 {
    16_384
}

const fn default_mtu() -> u16 {
    1_500
}

const fn default_descriptors() -> u16 {
    1_024
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("{path}: {error}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// Its syntax, or a key or value that is not known.
    #[error("{path}: {error}")]
    Parse {
        /// Its path.
        path: PathBuf,
        /// What is wrong, with the line.
        error: Box<toml::de::Error>,
    },
    /// Its meaning.
    #[error("{path}: {problem}")]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, what is wrong and what would be right.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// As [`read`](Self::read), from a text; `path` is what errors name.
    ///
    /// # Errors
    /// [`ConfigError::Parse`], [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), error: Box::new(error) })?;
        config.check().map_err(|problem| ConfigError::Invalid { path: path.to_owned(), problem })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        in_range("number of [[worker]]", self.workers.len(), 1, 128)?;
        in_range("number of [[port]]", self.ports.len(), 1, 64)?;
        in_range("sas_max", self.sas_max as usize, 2, 1 << 20)?;
        in_range("tunnels_max", self.tunnels_max as usize, 1, 1 << 20)?;
        in_range("neighbors_max", self.neighbors_max as usize, 16, 1 << 20)?;
        in_range("memory.packets", self.memory.packets as usize, 1_024, 1 << 24)?;
        unique("worker.cpu", self.workers.iter().map(|worker| worker.cpu))?;
        unique("port.name", self.ports.iter().map(|port| &port.name))?;
        self.ports.iter().try_for_each(PortConfig::check)?;
        self.check_buffers()
    }

    /// Packets that all descriptors hold, and workers keep at hand: so many are never free for anything else.
    #[must_use]
    pub fn packets_in_use(&self) -> usize {
        let queues = self.workers.len();
        let descriptors: usize = self
            .ports
            .iter()
            .map(|port| queues * (usize::from(port.rx_descriptors) + usize::from(port.tx_descriptors)))
            .sum();
        descriptors + queues * 512
    }

    fn check_buffers(&self) -> Result<(), String> {
        let (queues, needed) = (self.workers.len(), self.packets_in_use());
        let packets = self.memory.packets as usize;
        if packets < needed {
            return Err(format!(
                "memory.packets is {packets}, but all descriptors of {queues} workers hold {needed}: make it at least that"
            ));
        }
        Ok(())
    }
}

impl PortConfig {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) {
            return Err(format!("port name {name:?}: use 1 to 32 letters, digits, '-', '_' and '.'"));
        }
        if self.device.is_empty() {
            return Err(format!("port {name}: device is empty; give a PCI address or a virtual device"));
        }
        in_range(&format!("port {name}: mtu_max"), usize::from(self.mtu_max), 576, 9_216)?;
        if let Some(vlan) = self.vlan {
            in_range(&format!("port {name}: vlan"), usize::from(vlan), 0, 4_094)?;
        }
        in_range(&format!("port {name}: rx_descriptors"), usize::from(self.rx_descriptors), 64, 8_192)?;
        in_range(&format!("port {name}: tx_descriptors"), usize::from(self.tx_descriptors), 64, 8_192)
    }
}

fn in_range(what: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{what} is {value}; it must be from {least} to {most}"))
}

fn unique<T: Ord + std::fmt::Debug>(what: &str, values: impl Iterator<Item = T>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for value in values {
        if let Some(twice) = seen.replace(value) {
            return Err(format!("{what} {twice:?} is given twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [[worker]]
        cpu = 1
        [[port]]
        name = "wan"
        device = "net_null0"
    "#;

    fn problem(text: &str) -> String {
        Config::parse(text, Path::new("dataplane.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_least_that_is_needed_is_a_worker_and_a_port() {
        let config = Config::parse(GOOD, Path::new("x")).unwrap();
        assert_eq!(
            (config.engine.as_str(), config.idle, config.ports[0].mtu_max),
            ("auto", Policy::Adaptive, 1500)
        );
        assert!(config.memory.huge_pages);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = GOOD.replace("cpu = 1", "cpu = 1\ncores = 2");
        let problem = problem(&text);
        assert!(problem.contains("cores") && problem.contains("line 4"), "{problem}");
    }

    #[test]
    fn what_is_wrong_and_what_would_be_right_is_said() {
        for (from, to, words) in [
            ("name = \"wan\"", "name = \"w an\"", ["w an", "letters"]),
            ("cpu = 1", "cpu = 1\n[[worker]]\ncpu = 1", ["worker.cpu 1", "twice"]),
            (
                "device = \"net_null0\"",
                "device = \"net_null0\"\nmtu_max = 100",
                ["mtu_max is 100", "576 to 9216"],
            ),
            (
                "device = \"net_null0\"",
                "device = \"net_null0\"\nvlan = 4095",
                ["wan: vlan is 4095", "0 to 4094"],
            ),
            ("[[worker]]", "[memory]\npackets = 1024\n[[worker]]", ["memory.packets", "2560"]),
            ("[[worker]]", "sas_max = 0\n[[worker]]", ["sas_max is 0", "from 2"]),
        ] {
            let problem = problem(&GOOD.replacen(from, to, 1));
            assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
        }
    }
}
