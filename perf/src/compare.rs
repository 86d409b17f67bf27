// SPDX-License-Identifier: Apache-2.0
//! Two results side by side: which rows belong together, and whether they differ by more than the noise.
//!
//! Works on any `--json` output: what is an object with `median`, `min` and `max` was measured, everything else in a
//! row says which row it is. Noise is half of each side's spread, added: what lies within it is called the same.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::report::{Measured, table};

/// What is compared, the first of these that a row has; whether less is better.
const FIGURES: [(&str, bool); 2] = [("cycles", true), ("mpps", false)];
/// Says nothing about which row it is.
const ASIDE: [&str; 1] = ["verified_by"];

/// How the second result stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Better by more than the noise.
    Faster,
    /// Worse by more than the noise.
    Slower,
    /// No difference that could be told from noise.
    Same,
}

/// A row that both results have.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// What says which row it is.
    pub row: BTreeMap<String, Value>,
    /// What is compared.
    pub figure: &'static str,
    /// In the first result.
    pub before: Measured,
    /// In the second result.
    pub after: Measured,
    /// Median of the second ÷ median of the first.
    pub ratio: f64,
    /// Half of both spreads, relative to the medians.
    pub noise: f64,
    /// Better or worse.
    pub verdict: Verdict,
    /// The same for the bare engine, if both have it: what changed there did not change in the path.
    pub engine_ratio: Option<f64>,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Whether both were measured on the same CPU model with the same engine and microcode.
    pub same_machine: bool,
    /// Rows of both.
    pub pairs: Vec<Pair>,
    /// Rows that only one has.
    pub unmatched: usize,
}

impl Comparison {
    /// Matches the rows of two results, leaving the fields in `ignore` aside.
    ///
    /// # Errors
    /// Something that is no result, or no row that both have.
    pub fn of(before: &Value, after: &Value, ignore: &[String]) -> anyhow::Result<Self> {
        let (first, second) = (rows(before, ignore)?, rows(after, ignore)?);
        let known: BTreeMap<&str, Row<'_>> = first.iter().map(|(key, row)| (key.as_str(), *row)).collect();
        let matched = second.iter().filter_map(|(key, after)| Some((known.get(key.as_str())?, after)));
        let pairs: Vec<Pair> = matched.filter_map(|(before, after)| pair(before, after)).collect();
        ensure!(!pairs.is_empty(), "no row is in both; --ignore leaves a field aside, such as engine");
        let same = |field: &str| before.pointer(field) == after.pointer(field);
        Ok(Self {
            same_machine: ["/machine/cpu", "/machine/microcode", "/machine/engine"].into_iter().all(same),
            unmatched: first.len() + second.len() - 2 * pairs.len(),
            pairs,
        })
    }

    /// By how many percent the worst row is slower beyond the noise; 0 if none is.
    #[must_use]
    pub fn worst_percent(&self) -> f64 {
        let slower = self.pairs.iter().filter(|pair| pair.verdict == Verdict::Slower);
        slower.map(|pair| (slowdown(pair.figure, pair.ratio) - 1.0) * 100.0).fold(0.0, f64::max)
    }

    /// For people.
    #[must_use]
    pub fn to_table(&self) -> String {
        let names = telling_fields(&self.pairs);
        let mut heads: Vec<&str> = names.iter().map(String::as_str).collect();
        heads.extend(["figure", "before", "after", "ratio", "noise", "engine", "verdict"]);
        let mut table = table(&heads);
        for pair in &self.pairs {
            let mut cells: Vec<String> =
                names.iter().map(|name| plain(pair.row.get(name).unwrap_or(&Value::Null))).collect();
            cells.extend([
                pair.figure.to_owned(),
                format!("{:.2}", pair.before.median),
                format!("{:.2}", pair.after.median),
                format!("{:.3}", pair.ratio),
                format!("±{:.1} %", pair.noise * 100.0),
                pair.engine_ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
                verdict_words(pair.verdict).to_owned(),
            ]);
            table.add_row(cells);
        }
        let machines = if self.same_machine { "" } else { "not the same CPU, microcode or engine\n" };
        format!("{machines}{table}\n{} rows are in one of them only\n", self.unmatched)
    }
}

fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::Same => "same within noise",
    }
}

type Row<'a> = &'a serde_json::Map<String, Value>;

/// Rows in order, with what tells them apart.
fn rows<'a>(result: &'a Value, ignore: &[String]) -> anyhow::Result<Vec<(String, Row<'a>)>> {
    let rows = result.get("rows").and_then(Value::as_array).context("no `rows`: not a result of --json")?;
    let keyed = rows.iter().filter_map(Value::as_object).map(|row| {
        let identity: BTreeMap<_, _> = identity(row).filter(|(name, _)| !ignore.contains(name)).collect();
        (serde_json::to_string(&identity).unwrap_or_default(), row)
    });
    Ok(keyed.collect())
}

fn identity<'a>(row: Row<'a>) -> impl Iterator<Item = (&'a String, &'a Value)> {
    row.iter()
        .filter(|(name, value)| !value.is_object() && !value.is_f64() && !ASIDE.contains(&name.as_str()))
}

fn measured(row: Row<'_>, name: &str) -> Option<Measured> {
    serde_json::from_value(row.get(name)?.clone()).ok()
}

fn pair(before: Row<'_>, after: Row<'_>) -> Option<Pair> {
    let (figure, first, second) = FIGURES
        .into_iter()
        .find_map(|(name, _)| Some((name, measured(before, name)?, measured(after, name)?)))?;
    let ratio = second.median / first.median;
    let noise = half_spread(&first) + half_spread(&second);
    let engine = |row| measured(row, "engine_cycles").map(|engine| engine.median);
    Some(Pair {
        row: identity(before).map(|(name, value)| (name.clone(), value.clone())).collect(),
        figure,
        before: first,
        after: second,
        ratio,
        noise,
        verdict: verdict(slowdown(figure, ratio), noise),
        engine_ratio: engine(after).zip(engine(before)).map(|(after, before)| after / before),
    })
}

/// Above 1 if the second is worse.
fn slowdown(figure: &str, ratio: f64) -> f64 {
    let less_is_better = FIGURES.iter().any(|(name, less)| *name == figure && *less);
    if less_is_better { ratio } else { 1.0 / ratio }
}

fn verdict(slowdown: f64, noise: f64) -> Verdict {
    if (slowdown - 1.0).abs() <= noise {
        Verdict::Same
    } else if slowdown > 1.0 {
        Verdict::Slower
    } else {
        Verdict::Faster
    }
}

fn half_spread(measured: &Measured) -> f64 {
    (measured.max - measured.min) / 2.0 / measured.median
}

/// The fields in which the rows differ; the others would only fill the table.
fn telling_fields(pairs: &[Pair]) -> Vec<String> {
    let Some(first) = pairs.first() else { return Vec::new() };
    let differs = |name: &&String| pairs.iter().any(|pair| pair.row.get(*name) != first.row.get(*name));
    first.row.keys().filter(differs).cloned().collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(cycles: [f64; 3], engine: &str) -> Value {
        let [min, median, max] = cycles;
        json!({
            "machine": { "cpu": "x", "microcode": "1", "engine": engine },
            "rows": [
                { "direction": "outbound", "size": 64, "engine": engine, "verified_by": null,
                  "cycles": { "median": median, "min": min, "max": max },
                  "engine_cycles": { "median": 30.0, "min": 29.0, "max": 31.0 } },
                { "direction": "outbound", "size": "imix", "engine": engine, "verified_by": "aes-gcm",
                  "cycles": { "median": 100.0, "min": 100.0, "max": 100.0 } },
            ],
        })
    }

    fn compared(before: [f64; 3], after: [f64; 3]) -> Comparison {
        Comparison::of(&result(before, "a"), &result(after, "a"), &[]).unwrap()
    }

    fn of_64(comparison: &Comparison) -> &Pair {
        comparison.pairs.iter().find(|pair| pair.row["size"] == 64).unwrap()
    }

    #[test]
    fn what_lies_within_both_spreads_is_the_same() {
        let comparison = compared([95.0, 100.0, 105.0], [100.0, 107.0, 111.0]);
        assert_eq!(of_64(&comparison).verdict, Verdict::Same);
        assert_eq!(comparison.worst_percent(), 0.0);
    }

    #[test]
    fn what_lies_beyond_is_faster_or_slower() {
        let comparison = compared([99.0, 100.0, 101.0], [119.0, 120.0, 121.0]);
        assert_eq!(of_64(&comparison).verdict, Verdict::Slower);
        assert!((comparison.worst_percent() - 20.0).abs() < 1e-9);
        let comparison = compared([119.0, 120.0, 121.0], [99.0, 100.0, 101.0]);
        assert_eq!(of_64(&comparison).verdict, Verdict::Faster);
        assert_eq!(comparison.worst_percent(), 0.0);
    }

    #[test]
    fn a_rate_that_falls_is_slower() {
        let rate = |rate: f64| json!({ "rows": [{ "workers": 2, "mpps": { "median": rate, "min": rate, "max": rate } }] });
        let comparison = Comparison::of(&rate(10.0), &rate(8.0), &[]).unwrap();
        assert_eq!(comparison.pairs[0].verdict, Verdict::Slower);
        assert!((comparison.worst_percent() - 25.0).abs() < 1e-9);
    }

    #[test]
    fn rows_of_other_engines_do_not_match_unless_that_is_left_aside() {
        let (a, b) = (result([1.0, 2.0, 3.0], "a"), result([1.0, 2.0, 3.0], "b"));
        assert!(Comparison::of(&a, &b, &[]).is_err());
        let comparison = Comparison::of(&a, &b, &["engine".to_owned()]).unwrap();
        assert_eq!((comparison.pairs.len(), comparison.same_machine), (2, false));
    }

    #[test]
    fn the_table_names_only_fields_that_differ() {
        let table = compared([99.0, 100.0, 101.0], [99.0, 100.0, 101.0]).to_table();
        assert!(table.contains("size") && !table.contains("direction"), "{table}");
        assert!(table.contains("same within noise"));
    }
}
