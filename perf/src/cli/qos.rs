// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf qos`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use greyhound_perf::machine::Machine;
use greyhound_perf::qos::{self, ClassifyCost, Cost, Row, number};
use greyhound_perf::report::table;
use serde::Serialize;
use sysmem::Calibration;

use super::progress::Progress;

/// The scheduler and the classifier: voice on overloaded links, shares, shapers, rules, and what many of them cost.
///
/// The scheduler runs under a fake clock, with a modelled transmit ring and link behind it. Delays, losses, shares and
/// rates are those of what leaves the modelled port. What a policy without queues costs is measured through the whole path, the
/// classifier and the scheduler by themselves. Only cycles and times to build depend on the machine.
#[derive(Args)]
#[command(after_help = "\
Exit code 0 if every goal is met, 1 if not.

Examples:
  greyhound-perf qos                     every row, goal and figure
  greyhound-perf qos --json              one object: machine, rows, cost
  greyhound-perf qos --shapers 1000      the cost with fewer tunnels
  greyhound-perf qos --classify          10, 1,000 and 50,000 rules only")]
pub(crate) struct Arguments {
    /// Tunnels with a shaper each, for the cost.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    shapers: u32,
    /// A quarter of the time on the overloaded links, a tenth of the packets for the cost.
    #[arg(long)]
    quick: bool,
    /// Only the classifier.
    #[arg(long)]
    classify: bool,
    /// Also write the classifier's rules, headers and answers there, for scripts/acl-beside.
    #[arg(long, value_name = "DIRECTORY")]
    write_rules: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    rows: Vec<Row>,
    classify: Vec<ClassifyCost>,
    cost: Option<Cost>,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let clock = Calibration::measure();
        let machine = Machine::here("none", "none", &clock);
        let scenarios = if self.classify { Vec::new() } else { qos::scenarios(self.quick) };
        let mut progress = Progress::new(scenarios.len() + if self.classify { 1 } else { 3 });
        let mut rows = Vec::new();
        for (what, scenario) in &scenarios {
            progress.next(what);
            rows.extend(scenario()?);
        }
        if !self.classify {
            progress.next("path with a policy of eight classes");
            rows.push(qos::policy(self.quick, &clock)?);
        }
        progress.next("classifier with up to 50,000 rules");
        let (classify, classify_rows) = qos::classify(self.quick, self.write_rules.as_deref(), &clock)?;
        rows.extend(classify_rows);
        let cost = if self.classify {
            None
        } else {
            progress.next(&format!("cost with {} shapers", self.shapers));
            Some(qos::cost(self.shapers, self.quick, &clock)?)
        };
        progress.done();
        let met = rows.iter().all(|row| row.met);
        super::print(&Report { machine, rows, classify, cost }, self.json, to_table)?;
        Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn to_table(report: &Report) -> String {
    let mut table = table(&["what", "goal", "figure", "unit", "met"]);
    for Row { name, goal, value, unit, met } in &report.rows {
        let met = if *met { "yes" } else { "NO" };
        table.add_row([name, goal, &number(*value), unit, met]);
    }
    let cost = report.cost.as_ref().map(cost_text).unwrap_or_default();
    format!("{}{table}\n\n{}\n{cost}", report.machine, classify_text(&report.classify))
}

fn classify_text(costs: &[ClassifyCost]) -> String {
    let mut table = table(&["rules", "kind", "cycles", "spread", "flow cache", "build", "memory"]);
    for cost in costs {
        table.add_row([
            cost.rules.to_string(),
            cost.kind.clone(),
            format!("{:.0}", cost.cycles.median),
            format!("{:.0}-{:.0}", cost.cycles.min, cost.cycles.max),
            format!("{:.0}", cost.cached_cycles.median),
            format!("{:.0} ms", cost.build_seconds * 1e3),
            format!("{} KiB", cost.memory_bytes / 1024),
        ]);
    }
    format!("Classifier, cycles a packet:\n{table}\n")
}

fn cost_text(cost: &Cost) -> String {
    let (enqueue, dequeue) = (cost.enqueue_cycles, cost.dequeue_cycles);
    format!(
        "{} shapers with 4 classes each, random tunnels, overloaded: enqueue {:.0} ({:.0}-{:.0}), dequeue {:.0} ({:.0}-{:.0}) \
         cycles a packet\nmemory: {} bytes a shaper, {} a class, {} more with delays, {} a queued item\n",
        cost.shapers,
        enqueue.median,
        enqueue.min,
        enqueue.max,
        dequeue.median,
        dequeue.min,
        dequeue.max,
        cost.bytes_per_shaper,
        cost.bytes_per_class,
        cost.bytes_per_delays,
        cost.bytes_per_item,
    )
}
