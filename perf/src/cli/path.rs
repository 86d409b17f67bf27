// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf path`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use greyhound_perf::bed::Setting;
use greyhound_perf::machine::Machine;
use greyhound_perf::path::{Course, Memory, Plan};
use greyhound_perf::report::{Report, Tables};
use greyhound_perf::traffic::{Size, Way};
use messages::EspMode;
use sysmem::Calibration;
use wire::Family;

use super::Common;
use super::progress::Progress;

/// Packets through the whole path, with the bare engine beside it.
///
/// Each packet comes as a burst of 64 in packet memory, passes 1,000 SPD entries, 10,000 routes, GRE, ESP with an
/// anti-replay window of 1,024 and all counters, and is ready to transmit. The bare engine runs in the same run on the
/// same buffers, with the same keys and lengths: `diff` and `ratio` say what the path adds to it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-perf path                                     one tunnel, every size, both ways, warm and cold
  greyhound-perf path --tunnels 1,64,2000,60000           a random tunnel for each packet
  greyhound-perf path --sizes 64,imix --memory warm --quick
  greyhound-perf path --sizes 64 --stages                 where the cycles go
  greyhound-perf path --mode tunnel --key-bits 256 --esn --family 6
  greyhound-perf path --json > before.json                for `compare`")]
pub(crate) struct Arguments {
    /// Tunnels, a random one for each packet.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tunnels: Vec<u32>,
    /// Bytes of the inner IP packet, or imix: 7 x 64 + 4 x 576 + 1 x 1400.
    #[arg(long, value_delimiter = ',', default_value = "64,128,256,512,1024,1400,imix")]
    sizes: Vec<Size>,
    /// 256 buffers, 4,096 buffers, or both.
    #[arg(long, value_enum, default_value_t)]
    memory: MemoryChoice,
    /// Sealing, opening, or both.
    #[arg(long, value_enum, default_value_t)]
    direction: DirectionChoice,
    /// AES key length.
    #[arg(long, default_value = "128", value_parser = ["128", "192", "256"])]
    key_bits: String,
    /// ESP mode.
    #[arg(long, value_enum, default_value_t)]
    mode: ModeChoice,
    /// Extended sequence numbers.
    #[arg(long)]
    esn: bool,
    /// IP version inside.
    #[arg(long, default_value = "4", value_parser = ["4", "6"])]
    family: String,
    /// Without the fast path: what packets cost that are not plain. Compare with `--ignore whole_way`.
    #[arg(long)]
    whole_way: bool,
    /// Outbound through a scheduler with eight classes, not congested. Compare with `--ignore scheduled`.
    #[arg(long)]
    scheduled: bool,
    /// The same congested: every packet waits. Compare with `--ignore scheduled --ignore congested`.
    #[arg(long, requires = "scheduled")]
    congested: bool,
    /// Outbound with a policy of so many classes by DSCP, without queues, EF policed. Compare with `--ignore classes`.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=8), conflicts_with = "scheduled")]
    classes: u8,
    /// Note what each stage takes as well: a second table, and parts of the bars of `--svg`.
    #[arg(long)]
    stages: bool,
    /// Draw the result into this file as well.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// CPU to measure on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum MemoryChoice {
    Warm,
    Cold,
    #[default]
    Both,
}

impl MemoryChoice {
    fn all(self) -> &'static [Memory] {
        match self {
            Self::Warm => &[Memory::Warm],
            Self::Cold => &[Memory::Cold],
            Self::Both => &[Memory::Warm, Memory::Cold],
        }
    }
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum DirectionChoice {
    Outbound,
    Inbound,
    #[default]
    Both,
}

impl DirectionChoice {
    fn all(self) -> &'static [Way] {
        match self {
            Self::Outbound => &[Way::Outbound],
            Self::Inbound => &[Way::Inbound],
            Self::Both => &[Way::Outbound, Way::Inbound],
        }
    }
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum ModeChoice {
    #[default]
    Transport,
    Tunnel,
}

impl Arguments {
    fn setting(&self, tunnels: u32) -> anyhow::Result<Setting> {
        Ok(Setting {
            mode: match self.mode {
                ModeChoice::Transport => EspMode::Transport,
                ModeChoice::Tunnel => EspMode::Tunnel,
            },
            key_bits: self.key_bits.parse()?,
            esn: self.esn,
            scheduled: self.scheduled,
            classes: self.classes,
            family: if self.family == "6" { Family::Ipv6 } else { Family::Ipv4 },
            ..Setting::usual(tunnels, 1, self.common.engine)
        })
    }

    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        super::pin(self.cpu)?;
        let is_outbound = matches!(self.direction, DirectionChoice::Outbound);
        let has_policy = self.scheduled || self.classes > 0;
        ensure!(is_outbound || !has_policy, "--scheduled and --classes are for --direction outbound");
        let clock = Calibration::measure();
        let buffers = "memory pool, 256 (warm) and 4,096 (cold)";
        let machine = Machine::here(&self.common.engine.describe(), buffers, &clock);
        let mut report = Report { machine, tables: Vec::new(), rows: Vec::new() };
        let each = self.memory.all().len() * self.direction.all().len() * self.sizes.len();
        let mut progress = Progress::new(self.tunnels.len() * (each + 1));
        for &tunnels in &self.tunnels {
            progress.next(&format!("{tunnels} tunnels: building two headends"));
            let mut course = Course::new(&self.setting(tunnels)?)?;
            if self.whole_way {
                course.go_the_whole_way();
            }
            if self.congested {
                course.congest();
            }
            if self.stages {
                course.time_stages();
            }
            let is_first = report.tables.is_empty();
            report.tables.push(tables(tunnels, &course, is_first));
            for &memory in self.memory.all() {
                for &way in self.direction.all() {
                    for &size in &self.sizes {
                        let plan = self.plan(way, size, memory);
                        let name = format!("{tunnels} tunnels, {} {} {size}", memory.name(), way.name());
                        progress.next(&name);
                        report.rows.push(course.measure(&plan, clock.hz()).context(name)?);
                    }
                }
            }
        }
        progress.done();
        if let Some(path) = &self.svg {
            let drawn = greyhound_perf::svg::draw(&serde_json::to_value(&report)?)?;
            std::fs::write(path, drawn).with_context(|| format!("{}", path.display()))?;
        }
        super::print(&report, self.common.json, Report::to_table)?;
        Ok(ExitCode::SUCCESS)
    }

    fn plan(&self, way: Way, size: Size, memory: Memory) -> Plan {
        Plan { way, size, memory, runs: usize::from(self.common.runs), quick: self.common.quick }
    }
}

fn tables(tunnels: u32, course: &Course, is_first: bool) -> Tables {
    let [sealer, _] = &course.bed().headends;
    Tables {
        tunnels,
        build_seconds: sealer.built_in.as_secs_f64(),
        memory_mib: is_first.then_some(sealer.growth_bytes as f64 / f64::from(1 << 20)),
    }
}
