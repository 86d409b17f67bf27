// SPDX-License-Identifier: Apache-2.0
//! Outcomes as tables for people.

use comfy_table::{CellAlignment, Table, presets};
use greyhound_pktgen::outcome::{Outcome, StreamOutcome};

/// An empty table without lines; all but the first column stand to the right.
pub(super) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// A trial's outcome.
pub(super) fn of(outcome: &Outcome) -> String {
    let mut table = table(&[
        "stream",
        "size",
        "sent",
        "pps",
        "L1 Mbit/s",
        "received",
        "lost",
        "reordered",
        "dupl.",
        "corrupt",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
    ]);
    outcome.streams.iter().for_each(|stream| {
        table.add_row(cells(stream));
    });
    let mut text = format!("{table}\n{:.1} s; sizes {}", outcome.seconds, outcome.frame_sizes);
    if outcome.foreign > 0 {
        text.push_str(&format!("; foreign {}", outcome.foreign));
    }
    if outcome.answered > 0 {
        text.push_str(&format!("; answered {}", outcome.answered));
    }
    if outcome.device.missed > 0 {
        text.push_str(&format!("; the receiving device lost {}", outcome.device.missed));
    }
    if let Some(late) = outcome.sender.late_us {
        text.push_str(&format!("; sender late p50 {:.1} max {:.0} µs", late.p50, late.max));
        if !outcome.sender.kept_up {
            text.push_str("; the port did not take what was due");
        }
    }
    text.push('\n');
    text
}

/// How a trial stands, in one line.
pub(super) fn line(outcome: &Outcome) -> String {
    format!("[{:.0} s] sent {}, lost {}\n", outcome.seconds, outcome.sent(), outcome.lost())
}

fn cells(stream: &StreamOutcome) -> Vec<String> {
    let sent = &stream.sent;
    let mut cells = vec![
        stream.name.clone(),
        stream.size.clone(),
        grouped(sent.packets),
        grouped(sent.pps.round() as u64),
        format!("{:.1}", sent.l1_bps / 1e6),
    ];
    let Some(arrived) = &stream.arrived else {
        cells.resize(14, "-".to_owned());
        return cells;
    };
    let counts = [arrived.received, arrived.lost, arrived.reordered, arrived.duplicated + arrived.too_late];
    cells.extend(counts.map(grouped));
    cells.push(grouped(arrived.corrupt));
    match arrived.latency_us {
        Some(latency) => {
            let quantiles = [latency.p50, latency.p99, latency.p999, latency.max];
            cells.extend(quantiles.map(|us| format!("{us:.1}")));
        }
        None => cells.resize(14, "-".to_owned()),
    }
    cells
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
