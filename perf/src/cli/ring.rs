// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf ring`.

use std::process::ExitCode;

use clap::Args;
use greyhound_perf::bed::Setting;
use greyhound_perf::machine::Machine;
use greyhound_perf::report::{Report, size_text, table};
use greyhound_perf::traffic::Size;
use greyhound_perf::updates::{self, Plan, Row};
use sysmem::Calibration;

use super::Common;
use super::progress::Progress;

/// SA updates into a busy worker, and what they cost its packets.
///
/// A worker seals at full load while control replaces SAs, outbound and inbound in turn, through the request ring, the
/// dataplane's housekeeping and a switch of generations. Windows with updates and windows without take turns.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-perf ring                            10,000 SA updates a second, 100 in a transaction
  greyhound-perf ring --rate 1000 --batch 10 --tunnels 60000")]
pub(crate) struct Arguments {
    /// SA updates a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// SA updates in one transaction: a transaction is one switch of generations, and one write of the sequence store.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// Tunnels, each with an SA each way.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tunnels: u32,
    /// Bytes of the inner IP packet, or imix.
    #[arg(long, value_delimiter = ',', default_value = "64,imix")]
    sizes: Vec<Size>,
    /// CPU of the worker, and CPU of everything else; by default the last and the first.
    #[arg(long, value_delimiter = ',', num_args = 2)]
    cpus: Vec<usize>,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let clock = Calibration::measure();
        let cpus = super::two_cpus(&self.cpus)?;
        let machine = Machine::here(&self.common.engine.describe(), "memory pool, 256", &clock);
        let mut report = Report { machine, tables: Vec::new(), rows: Vec::new() };
        let mut progress = Progress::new(self.sizes.len());
        for &size in &self.sizes {
            progress.next(&format!("{size}, {} updates a second, {} tunnels", self.rate, self.tunnels));
            report.rows.push(updates::measure(&self.plan(size, cpus), &clock)?);
        }
        progress.done();
        super::print(&report, self.common.json, to_table)?;
        Ok(ExitCode::SUCCESS)
    }

    fn plan(&self, size: Size, cpus: [usize; 2]) -> Plan {
        let setting = Setting::usual(self.tunnels, 1, self.common.engine);
        let (runs, quick) = (usize::from(self.common.runs), self.common.quick);
        Plan { setting, size, rate: self.rate, batch: self.batch, cpus, runs, quick }
    }
}

fn to_table(report: &Report<Row>) -> String {
    let mut table = table(&[
        "size",
        "tunnels",
        "wanted/s",
        "committed/s",
        "cycles",
        "without",
        "fall",
        "spread",
        "lost",
        "interrupted",
    ]);
    for row in &report.rows {
        table.add_row([
            size_text(&row.size),
            row.tunnels.to_string(),
            row.rate.to_string(),
            format!("{:.0}", row.updates_per_second.median),
            format!("{:.0}", row.cycles.median),
            format!("{:.0}", row.cycles_without.median),
            format!("{:.1} %", row.fall_percent.median),
            format!("{:.1}-{:.1}", row.fall_percent.min, row.fall_percent.max),
            row.lost.to_string(),
            row.interrupted.to_string(),
        ]);
    }
    format!("{}{table}\n", report.machine)
}
