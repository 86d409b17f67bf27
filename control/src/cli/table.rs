// SPDX-License-Identifier: Apache-2.0
//! Tables and sentences for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::core::{ChangeOutcome, Changed};

/// A column: its title, and whether it holds numbers.
pub(super) struct Column(pub(super) &'static str, pub(super) Align);

/// Which side the cells of a column keep to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A left-aligned column.
pub(super) const fn text(title: &'static str) -> Column {
    Column(title, Align::Left)
}

/// A right-aligned column.
pub(super) const fn number(title: &'static str) -> Column {
    Column(title, Align::Right)
}

/// A table without lines, or a sentence if there are no rows.
pub(super) fn table(columns: &[Column], rows: Vec<Vec<String>>, if_empty: &str) -> String {
    if rows.is_empty() {
        return if_empty.to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.0.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for (column, Column(_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if *align == Align::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What became of a change, and what it was.
pub(super) fn changed(changed: &Changed) -> String {
    let mut lines = changed.changes.clone();
    for retiring in &changed.retiring {
        lines.push(format!("sa {} goes in {} s", retiring.sa, retiring.in_seconds));
    }
    let generation = changed.generation.map(|number| format!(", generation {number}")).unwrap_or_default();
    lines.push(match changed.outcome {
        ChangeOutcome::Committed => format!("committed{generation}"),
        ChangeOutcome::Unchanged => format!("unchanged{generation}"),
        ChangeOutcome::Pending => "pending: the dataplane is not connected, it gets this when it is".into(),
        ChangeOutcome::Checked => "checked: this could be applied; nothing was changed".into(),
    });
    lines.join("\n")
}

/// A value, or a dash.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// "yes" or "no".
pub(super) fn yes_no(value: bool) -> String {
    if value { "yes".into() } else { "no".into() }
}

/// A number with a unit prefix: 1234567 is "1.23 M".
pub(super) fn scaled(value: f64) -> String {
    let steps = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(size, _)| value >= *size) {
        Some((size, prefix)) => format!("{:.2} {prefix}", value / size),
        None => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_titles_and_keeps_numbers_to_the_right() {
        let rows = vec![vec!["wan".into(), "7".into()], vec!["lan".into(), "1234".into()]];
        let text = table(&[text("port"), number("packets")], rows, "none");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].starts_with("PORT") && lines[1].starts_with("wan") && lines[1].ends_with("   7"),
            "{text}"
        );
        assert_eq!(table(&[number("x")], vec![], "nothing"), "nothing");
    }

    #[test]
    fn numbers_are_scaled_by_thousands() {
        let shown = [0.0, 999.0, 1000.0, 1_234_567.0, 2e9].map(scaled);
        assert_eq!(shown, ["0", "999", "1.00 k", "1.23 M", "2.00 G"]);
    }
}
