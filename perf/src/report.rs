// SPDX-License-Identifier: Apache-2.0
//! Results for people and for programs.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::machine::Machine;
use crate::path::{Measured, Row};

/// One object with the machine and the rows.
#[derive(Serialize)]
pub struct Report {
    /// What they were measured on.
    pub machine: Machine,
    /// The results.
    pub rows: Vec<Row>,
}

impl Report {
    /// A table, with the machine above it.
    #[must_use]
    pub fn to_table(&self) -> String {
        let machine = &self.machine;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let heads = [
            "direction",
            "size",
            "tunnels",
            "memory",
            "key",
            "mode",
            "cycles",
            "spread",
            "engine",
            "diff",
            "ratio",
            "Mpps",
            "Gbit/s",
        ];
        table.set_header(heads);
        for row in &self.rows {
            table.add_row(cells(row));
        }
        format!(
            "{} (microcode {}), {}, kernel {}, TSC {:.3} GHz\n{}\n{table}\n",
            machine.cpu,
            machine.microcode,
            machine.flags.join(" "),
            machine.kernel,
            machine.tsc_hz as f64 / 1e9,
            machine.engine,
        )
    }
}

fn cells(row: &Row) -> Vec<String> {
    let Measured { median, min, max } = row.cycles;
    let engine = row.engine_cycles.median;
    vec![
        row.direction.to_owned(),
        row.size.to_string().trim_matches('"').to_owned(),
        row.tunnels.to_string(),
        row.memory.to_owned(),
        row.key_bits.to_string(),
        row.mode.clone(),
        format!("{median:.0}"),
        format!("{min:.0}-{max:.0}"),
        format!("{engine:.0}"),
        format!("{:.0}", median - engine),
        format!("{:.2}", median / engine),
        format!("{:.2}", row.mpps.median),
        format!("{:.2}", row.gbps.median),
    ]
}
