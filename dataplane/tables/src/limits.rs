// SPDX-License-Identifier: Apache-2.0
//! What a dataplane was sized for.

/// What the dataplane was started with; the wanted state has to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// SA indices are below this.
    pub sas_max: u32,
    /// Tunnel indices are below this.
    pub tunnels_max: u32,
    /// Number of workers.
    pub workers: u16,
    /// The ports, by index.
    pub ports: Vec<PortLimits>,
}

/// What a port was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLimits {
    /// The largest IP packet that device and buffers take, in bytes.
    pub mtu_max: u16,
    /// Whether its frames have an 802.1Q tag.
    pub is_tagged: bool,
}

impl Limits {
    /// Protection indices are below this: every tunnel may have one of its own, and every SA.
    #[must_use]
    pub fn protections_max(&self) -> u32 {
        self.sas_max.max(self.tunnels_max)
    }
}
