// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf scale`.

use std::process::ExitCode;

use clap::Args;
use greyhound_perf::bed::Setting;
use greyhound_perf::machine::Machine;
use greyhound_perf::report::{Report, size_text, table};
use greyhound_perf::scale::{self, Arrival, Plan, Row};
use greyhound_perf::traffic::{Size, Way};
use sysmem::Calibration;

use super::Common;
use super::progress::Progress;

/// 1 to N workers: what each adds, and what hand-over costs.
///
/// Whole workers of the dataplane over memory ports, each on a CPU of its own; their port work is in the figures. One
/// worker runs in the same runs, in turn. Outbound, workers share SAs. Inbound, each SA has an owner: packets arrive at
/// it (`owner`), or anywhere and are handed over (`spread`).
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-perf scale                           2 workers to as many as there are CPUs
  greyhound-perf scale --workers 4 --sizes imix
  greyhound-perf scale --cpus 2,3,4,5            on these CPUs")]
pub(crate) struct Arguments {
    /// Numbers of workers; by default 2 and every further one up to the CPUs that there are.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Vec<u16>,
    /// CPUs for the workers; by default all that this process may use.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Tunnels of the rows with many SAs.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(2..=60_000))]
    tunnels: u32,
    /// Bytes of the inner IP packet, or imix.
    #[arg(long, value_delimiter = ',', default_value = "64,imix")]
    sizes: Vec<Size>,
    #[command(flatten)]
    common: Common,
}

const KINDS: [(Way, Arrival, bool); 5] = [
    (Way::Outbound, Arrival::Anywhere, true),
    (Way::Outbound, Arrival::Anywhere, false),
    (Way::Inbound, Arrival::Owner, true),
    (Way::Inbound, Arrival::Spread, true),
    (Way::Inbound, Arrival::Spread, false),
];

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let clock = Calibration::measure();
        let cpus = if self.cpus.is_empty() { scale::cpus()? } else { self.cpus.clone() };
        let most = u16::try_from(cpus.len())?;
        let workers: Vec<u16> =
            if self.workers.is_empty() { (2..=most.max(2)).collect() } else { self.workers.clone() };
        let machine = Machine::here(&self.common.engine.describe(), "memory pool, 256 a worker", &clock);
        let mut report = Report { machine, tables: Vec::new(), rows: Vec::new() };
        let mut progress = Progress::new(workers.len() * self.sizes.len() * KINDS.len());
        for &workers in &workers {
            for &size in &self.sizes {
                for (way, arrival, many) in KINDS {
                    let plan = self.plan(workers, size, way, arrival, if many { self.tunnels } else { 1 });
                    let (way, arrival, tunnels) = (way.name(), arrival.name(), plan.setting.tunnels);
                    progress.next(&format!("{workers} workers, {way} {size}, {tunnels} tunnels, {arrival}"));
                    report.rows.push(scale::measure(&plan, &cpus, clock.hz())?);
                }
            }
        }
        progress.done();
        super::print(&report, self.common.json, to_table)?;
        Ok(ExitCode::SUCCESS)
    }

    fn plan(&self, workers: u16, size: Size, way: Way, arrival: Arrival, tunnels: u32) -> Plan {
        let setting = Setting::usual(tunnels, workers, self.common.engine);
        Plan { setting, way, arrival, size, runs: usize::from(self.common.runs), quick: self.common.quick }
    }
}

fn to_table(report: &Report<Row>) -> String {
    let mut table = table(&[
        "direction",
        "size",
        "tunnels",
        "arrival",
        "workers",
        "speedup",
        "spread",
        "cycles",
        "of one",
        "Mpps",
        "handed over",
        "lost",
    ]);
    for row in &report.rows {
        table.add_row([
            row.direction.clone(),
            size_text(&row.size),
            row.tunnels.to_string(),
            row.arrival.clone(),
            row.workers.to_string(),
            format!("{:.2}", row.speedup.median),
            format!("{:.2}-{:.2}", row.speedup.min, row.speedup.max),
            format!("{:.0}", row.cycles.median),
            format!("{:.0}", row.cycles_of_one.median),
            format!("{:.2}", row.mpps.median),
            format!("{:.0} %", row.handed_over_percent.median),
            row.lost.to_string(),
        ]);
    }
    format!("{}{table}\n", report.machine)
}
