// SPDX-License-Identifier: Apache-2.0
//! The machine record that stands beside every result.

use serde::Serialize;
use sysmem::Calibration;

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// Microcode revision.
    pub microcode: String,
    /// Those CPU flags that AEAD engines choose by.
    pub flags: Vec<String>,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor of CPU 0, if there is one.
    pub governor: Option<String>,
    /// Cycles of the time stamp counter a second.
    pub tsc_hz: u64,
    /// The engine and its code path.
    pub engine: String,
}

const FLAGS: [&str; 7] = ["aes", "pclmulqdq", "avx2", "avx512f", "vaes", "vpclmulqdq", "constant_tsc"];

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here(engine: aead::Engine, clock: &Calibration) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let flags = field("flags");
        let has = |flag: &&str| flags.split_whitespace().any(|found| found == *flag);
        let governor = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").ok();
        Self {
            cpu: field("model name"),
            microcode: field("microcode"),
            flags: FLAGS.iter().filter(|flag| has(flag)).map(|flag| (*flag).to_owned()).collect(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            governor: governor.map(|governor| governor.trim().to_owned()),
            tsc_hz: clock.hz(),
            engine: engine.describe(),
        }
    }
}
