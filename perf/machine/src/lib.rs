// SPDX-License-Identifier: Apache-2.0
//! The machine record that stands beside every result, of benchmarks and of the packet generator.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::read_to_string;

use serde::{Deserialize, Serialize};
use sysmem::Calibration;

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Version of Greyhound.
    pub greyhound: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs that the machine has.
    pub cpus: usize,
    /// Microcode revision.
    pub microcode: String,
    /// Those CPU flags that engines and clock are chosen by.
    pub flags: Vec<String>,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor of CPU 0, if there is one.
    pub governor: Option<String>,
    /// Cycles of the time stamp counter a second.
    pub tsc_hz: u64,
    /// The engine and its code path.
    pub engine: String,
    /// What packet buffers there were.
    pub buffers: String,
    /// Huge pages of 2 MiB that are set aside.
    pub huge_pages: u64,
    /// The kernel's setting of transparent huge pages.
    pub transparent_huge_pages: Option<String>,
    /// Processes that wanted to run beside this one at the start, by the load average of one minute.
    pub load: f64,
}

const FLAGS: [&str; 9] =
    ["aes", "pclmulqdq", "avx2", "avx512f", "avx512vl", "vaes", "vpclmulqdq", "constant_tsc", "hypervisor"];

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here(engine: &str, buffers: &str, clock: &Calibration) -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let flags = field("flags");
        let has = |flag: &&str| flags.split_whitespace().any(|found| found == *flag);
        let number = |path: &str| word(path).and_then(|word| word.parse().ok());
        Self {
            greyhound: env!("CARGO_PKG_VERSION").to_owned(),
            cpu: field("model name"),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            microcode: field("microcode"),
            flags: FLAGS.iter().filter(|flag| has(flag)).map(|flag| (*flag).to_owned()).collect(),
            kernel: word("/proc/sys/kernel/osrelease").unwrap_or_default(),
            governor: word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            tsc_hz: clock.hz(),
            engine: engine.to_owned(),
            buffers: buffers.to_owned(),
            huge_pages: number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").unwrap_or(0),
            transparent_huge_pages: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
            load: word("/proc/loadavg").and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let governor = self.governor.as_deref().unwrap_or("none");
        let thp = self.transparent_huge_pages.as_deref().unwrap_or("none");
        let Self { greyhound, cpu, cpus, microcode, .. } = self;
        writeln!(f, "greyhound {greyhound} on {cpu}, {cpus} CPUs (microcode {microcode})")?;
        writeln!(
            f,
            "{}; kernel {}, governor {governor}, TSC {:.3} GHz, load {:.1}",
            self.flags.join(" "),
            self.kernel,
            self.tsc_hz as f64 / 1e9,
            self.load
        )?;
        writeln!(f, "huge pages {}, transparent {thp}; buffers {}", self.huge_pages, self.buffers)?;
        writeln!(f, "engine {}", self.engine)
    }
}

/// The first word of a file.
fn word(path: &str) -> Option<String> {
    read_to_string(path).ok()?.split_whitespace().next().map(str::to_owned)
}

/// Of a file such as `always [madvise] never`, the word in brackets.
fn chosen(path: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}
