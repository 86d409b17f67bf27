// SPDX-License-Identifier: Apache-2.0
//! Results for people and for programs.

use std::fmt;

use comfy_table::{Table, presets};
use pipeline::Stage;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::path::Row;

/// Median and spread over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Measured {
    /// Of at least one value.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self { median, min: at(0), max: at(values.len().saturating_sub(1)) }
    }

    /// The same in another unit; `f` must rise or fall throughout.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (f(self.min), f(self.max));
        Self { median: f(self.median), min: a.min(b), max: a.max(b) }
    }
}

/// How long a headend's tables took, and what they need.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Tables {
    /// Tunnels, each with two SAs.
    pub tunnels: u32,
    /// Staging and compiling the whole configuration of one headend.
    pub build_seconds: f64,
    /// Memory of one headend, if it was the first that the process built: later ones use again what was freed.
    pub memory_mib: Option<f64>,
}

/// One object with the machine and the rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report<R = Row> {
    /// What they were measured on.
    pub machine: Machine,
    /// What was built for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Tables>,
    /// The results.
    pub rows: Vec<R>,
}

impl Report {
    /// A table, with the machine above it.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = table(&[
            "direction",
            "size",
            "tunnels",
            "memory",
            "key",
            "mode",
            "IP",
            "cycles",
            "spread",
            "engine",
            "diff",
            "ratio",
            "Mpps",
            "Gbit/s",
        ]);
        for row in &self.rows {
            table.add_row(cells(row));
        }
        let built: String = self.tables.iter().map(Tables::to_string).collect();
        format!("{}{built}{table}\n{}", self.machine, self.stages_table())
    }

    /// Cycles a packet of each stage, in the order of a packet's way; nothing where they were not asked for.
    fn stages_table(&self) -> String {
        let stages = Stage::ALL.map(Stage::name);
        let stages =
            stages.into_iter().filter(|stage| self.rows.iter().any(|row| row.stages.contains_key(*stage)));
        let stages: Vec<_> = stages.collect();
        if stages.is_empty() {
            return String::new();
        }
        let mut table = table(&[&["direction", "size", "tunnels", "memory"], &stages[..]].concat());
        for row in &self.rows {
            let cycles = stages.iter().map(|stage| row.stages.get(*stage));
            let cycles =
                cycles.map(|cycles| cycles.map_or("-".to_owned(), |cycles| format!("{:.0}", cycles.median)));
            table.add_row(cells(row).into_iter().take(4).chain(cycles));
        }
        format!("\nCycles a packet by stage; `cipher` is the engine and what stands around it:\n{table}\n")
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tunnels: tables built in {:.2} s", self.tunnels, self.build_seconds)?;
        match self.memory_mib {
            Some(mib) => writeln!(f, ", {mib:.0} MiB"),
            None => writeln!(f),
        }
    }
}

/// An empty table without lines.
#[must_use]
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads);
    table
}

/// The size of a row: a number of bytes, or `imix`.
#[must_use]
pub fn size_text(size: &serde_json::Value) -> String {
    size.to_string().trim_matches('"').to_owned()
}

fn cells(row: &Row) -> Vec<String> {
    let Measured { median, min, max } = row.cycles;
    let engine = row.engine_cycles.median;
    let esn = if row.esn { "+esn" } else { "" };
    let scheduled = match (row.scheduled, row.congested) {
        (true, true) => ", scheduled and congested",
        (true, false) => ", scheduled",
        (false, _) => "",
    };
    let classes = if row.classes > 0 { format!(", {} classes", row.classes) } else { String::new() };
    let whole_way = if row.whole_way { ", whole way" } else { "" };
    vec![
        row.direction.clone(),
        size_text(&row.size),
        row.tunnels.to_string(),
        row.memory.clone(),
        row.key_bits.to_string(),
        format!("{}{esn}{whole_way}{scheduled}{classes}", row.mode),
        row.family.to_string(),
        format!("{median:.0}"),
        format!("{min:.0}-{max:.0}"),
        format!("{engine:.0}"),
        format!("{:.0}", row.difference.median),
        format!("{:.2}", row.ratio.median),
        format!("{:.2}", row.mpps.median),
        format!("{:.2}", row.gbps.median),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let measured = Measured::of(vec![4.0, 1.0, 3.0, 100.0]);
        assert_eq!(measured, Measured { median: 3.5, min: 1.0, max: 100.0 });
        assert_eq!(Measured::of(vec![2.0, 9.0, 1.0]).median, 2.0);
    }

    #[test]
    fn a_falling_unit_swaps_least_and_most() {
        let rate = Measured { median: 4.0, min: 2.0, max: 8.0 }.map(|cycles| 16.0 / cycles);
        assert_eq!(rate, Measured { median: 4.0, min: 2.0, max: 8.0 });
    }
}
