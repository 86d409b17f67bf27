// SPDX-License-Identifier: Apache-2.0
//! Results as one page of HTML that needs nothing else: plots, tables, and the machine.
//!
//! What a page is made of is what `run --json` and `rfc2544 --json` print, so a page can be made later as well.

mod benchmarks;
mod trial;
mod units;

use std::fmt::Write as _;

use anyhow::Context as _;
use machine::Machine;
use serde::{Deserialize, Serialize};

use crate::outcome::{FRAME_SIZES, Outcome, Quantiles};
use crate::plot::escape;
use crate::rfc2544::Report;

const STYLE: &str = "\
.wide{overflow-x:auto}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}\
th,td{padding:.25rem .75rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}\
th{white-space:normal}\
th:first-child,td:first-child{text-align:left}\
svg{width:100%;height:auto;max-width:48rem}h3{font-size:1rem;margin:1.5rem 0 .5rem}pre{font-size:.8rem;background:#f5f5f5;padding:.75rem;white-space:pre-wrap}";

/// What one command found, as it prints it with `--json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// What it was measured on.
    pub machine: Option<Machine>,
    /// Of `run`.
    pub outcome: Option<Outcome>,
    /// Of `rfc2544`.
    pub report: Option<Report>,
}

impl Results {
    /// Reads what was printed.
    ///
    /// # Errors
    /// No JSON, or neither a run's nor RFC 2544's.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let results: Self =
            serde_json::from_str(text).context("wants what run --json or rfc2544 --json prints")?;
        let is_empty = results.outcome.is_none() && results.report.is_none();
        anyhow::ensure!(!is_empty, "neither \"outcome\" (run --json) nor \"report\" (rfc2544 --json)");
        Ok(results)
    }
}

/// The page of a single run.
#[must_use]
pub fn of_run(title: &str, outcome: &Outcome, machine: &Machine) -> String {
    let mut page = begin(title);
    trial::write(&mut page, outcome);
    write_machine(&mut page, machine);
    end(page)
}

/// The page of RFC 2544's benchmarks.
#[must_use]
pub fn of_rfc2544(title: &str, report: &Report, machine: &Machine) -> String {
    let mut page = begin(title);
    benchmarks::write(&mut page, report);
    write_machine(&mut page, machine);
    end(page)
}

/// The page of several results, each under its name.
#[must_use]
pub fn of_all(title: &str, results: &[(String, Results)]) -> String {
    let mut page = begin(title);
    for (name, results) in results {
        let _ = writeln!(page, "<h2>{}</h2>", escape(name));
        results.outcome.iter().for_each(|outcome| trial::write(&mut page, outcome));
        results.report.iter().for_each(|report| benchmarks::write(&mut page, report));
        match &results.machine {
            Some(machine) => write_machine(&mut page, machine),
            None => page.push_str("<p>The result does not say which machine it is from.</p>\n"),
        }
    }
    end(page)
}

/// Heads of [`latency_cells`].
const LATENCY_HEADS: [&str; 6] = ["min µs", "mean µs", "p50 µs", "p99 µs", "p99.9 µs", "max µs"];

fn latency_cells(latency: Option<&Quantiles>) -> [String; 6] {
    match latency {
        Some(us) => [us.min, us.mean, us.p50, us.p99, us.p999, us.max].map(|us| format!("{us:.1}")),
        None => ["-"; 6].map(str::to_owned),
    }
}

fn begin(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>Frame sizes: {FRAME_SIZES}. Latency runs from when a packet was due until it was received.</p>\n"
    )
}

fn plot(page: &mut String, heading: &str, plot: &str) {
    if !plot.is_empty() {
        let _ = write!(page, "<h3>{}</h3>\n{plot}", escape(heading));
    }
}

/// A table under a heading; nothing if it has no rows.
fn table(page: &mut String, heading: &str, heads: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let _ = writeln!(page, "<h3>{}</h3>\n<div class=\"wide\"><table>", escape(heading));
    page.push_str(&cells("th", &mut heads.iter().copied()));
    rows.iter().for_each(|row| page.push_str(&cells("td", &mut row.iter().map(String::as_str))));
    page.push_str("</table></div>\n");
}

fn write_machine(page: &mut String, machine: &Machine) {
    let _ = writeln!(page, "<h3>Machine</h3>\n<pre>{}</pre>", escape(&machine.to_string()));
}

fn end(mut page: String) -> String {
    page.push_str("</body>\n</html>\n");
    page
}

#[cfg(test)]
mod tests;
