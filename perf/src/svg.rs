// SPDX-License-Identifier: Apache-2.0
//! A result of `path` as a picture: cycles by size, what the engine takes at the bottom of each bar and what the path
//! adds on top of it, stage by stage where they were measured. Plain SVG 1.1, no library.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value};

const PANEL_WIDTH: usize = 460;
const PANEL_HEIGHT: usize = 300;
const MARGIN: usize = 50;
const BAR_SHARE: f64 = 0.6;
const COLUMNS: usize = 2;
const ENGINE: &str = "engine";
const REST: &str = "path";
/// The stage that the engine is part of.
const CIPHER: &str = "cipher";
/// Told apart by lightness too; engine first.
const COLORS: [&str; 10] = [
    "#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c", "#ccb974",
    "#64b5cd",
];

/// One bar: parts from bottom to top, in cycles.
struct Bar {
    label: String,
    parts: Vec<(String, f64)>,
}

impl Bar {
    fn height(&self) -> f64 {
        self.parts.iter().map(|(_, cycles)| cycles).sum()
    }
}

/// Draws a result of `path --json`.
///
/// # Errors
/// It is none.
pub fn draw(result: &Value) -> anyhow::Result<String> {
    let rows = result.get("rows").and_then(Value::as_array).context("no `rows`: not a result of --json")?;
    let mut panels: BTreeMap<String, Vec<Bar>> = BTreeMap::new();
    for row in rows.iter().filter_map(Value::as_object) {
        if let Some(bar) = bar(row) {
            panels.entry(title(row)).or_default().push(bar);
        }
    }
    ensure!(!panels.is_empty(), "no row has cycles and engine_cycles: draw a result of `path`");
    let names = names(&panels);
    let lines = panels.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS * PANEL_WIDTH, lines * PANEL_HEIGHT + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let machine = result.pointer("/machine/cpu").and_then(Value::as_str).unwrap_or("");
    let engine = result.pointer("/machine/engine").and_then(Value::as_str).unwrap_or("");
    text(&mut svg, 10.0, 16.0, "start", &format!("TSC cycles a packet: {machine}, {engine}"));
    legend(&mut svg, &names);
    for (place, (title, bars)) in panels.iter().enumerate() {
        let (x, y) = (place % COLUMNS * PANEL_WIDTH, place / COLUMNS * PANEL_HEIGHT + MARGIN);
        panel(&mut svg, x as f64, y as f64, title, bars, &names);
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn title(row: &Map<String, Value>) -> String {
    let field = |name: &str| row.get(name).map(plain).unwrap_or_default();
    let esn = if row.get("esn") == Some(&Value::Bool(true)) { ", ESN" } else { "" };
    format!(
        "{}, {}, {} tunnels, AES-{}, {} mode{esn}, IPv{}, {}",
        field("direction"),
        field("memory"),
        field("tunnels"),
        field("key_bits"),
        field("mode"),
        field("family"),
        field("engine"),
    )
}

fn bar(row: &Map<String, Value>) -> Option<Bar> {
    let median = |value: &Value| value.get("median").and_then(Value::as_f64);
    let (cycles, engine) = (median(row.get("cycles")?)?, median(row.get("engine_cycles")?)?);
    let mut parts = vec![(ENGINE.to_owned(), engine)];
    let mut left = (cycles - engine).max(0.0);
    for (name, value) in row.get("stages").and_then(Value::as_object).into_iter().flatten() {
        let Some(stage) = median(value) else { continue };
        // The engine is drawn already.
        let stage = if name == CIPHER { (stage - engine).max(0.0) } else { stage };
        parts.push((name.clone(), stage.min(left)));
        left = (left - stage).max(0.0);
    }
    parts.push((REST.to_owned(), left));
    Some(Bar { label: plain(row.get("size")?), parts })
}

fn names(panels: &BTreeMap<String, Vec<Bar>>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in panels.values().flatten().flat_map(|bar| &bar.parts) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn color(names: &[String], name: &str) -> &'static str {
    let place = names.iter().position(|known| known == name).unwrap_or(0);
    COLORS[place % COLORS.len()]
}

fn legend(svg: &mut String, names: &[String]) {
    for (place, name) in names.iter().enumerate() {
        let x = 10.0 + 90.0 * place as f64;
        rectangle(svg, [x, 26.0, 10.0, 10.0], color(names, name));
        text(svg, x + 14.0, 35.0, "start", name);
    }
}

fn panel(svg: &mut String, x: f64, y: f64, title: &str, bars: &[Bar], names: &[String]) {
    let (left, bottom) = (x + MARGIN as f64, y + (PANEL_HEIGHT - MARGIN) as f64);
    let (width, height) = ((PANEL_WIDTH - MARGIN - 10) as f64, (PANEL_HEIGHT - MARGIN - 30) as f64);
    let most = bars.iter().map(Bar::height).fold(1.0, f64::max);
    text(svg, x + PANEL_WIDTH as f64 / 2.0, y + 14.0, "middle", title);
    for line in 0..=4 {
        let share = f64::from(line) / 4.0;
        let at = bottom - height * share;
        rectangle(svg, [left, at, width, 0.5], "#cccccc");
        text(svg, left - 4.0, at + 4.0, "end", &format!("{:.0}", most * share));
    }
    let step = width / bars.len().max(1) as f64;
    for (place, bar) in bars.iter().enumerate() {
        let at = left + step * (place as f64 + (1.0 - BAR_SHARE) / 2.0);
        let mut top = bottom;
        for (name, cycles) in &bar.parts {
            let part = height * cycles / most;
            top -= part;
            rectangle(svg, [at, top, step * BAR_SHARE, part], color(names, name));
        }
        let middle = at + step * BAR_SHARE / 2.0;
        text(svg, middle, top - 3.0, "middle", &format!("{:.0}", bar.height()));
        text(svg, middle, bottom + 14.0, "middle", &bar.label);
    }
}

fn rectangle(svg: &mut String, [x, y, width, height]: [f64; 4], color: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(direction: &str, stages: Value) -> Value {
        json!({
            "direction": direction, "size": 64, "memory": "warm", "tunnels": 1, "key_bits": 128, "mode": "transport",
            "esn": false, "family": 4, "engine": "a<b", "stages": stages,
            "cycles": { "median": 100.0, "min": 99.0, "max": 101.0 },
            "engine_cycles": { "median": 40.0, "min": 39.0, "max": 41.0 },
        })
    }

    fn of(result: &Value) -> String {
        draw(result).unwrap()
    }

    #[test]
    fn each_direction_has_a_panel_and_words_are_escaped() {
        let svg = of(&json!({ "rows": [row("outbound", Value::Null), row("inbound", Value::Null)] }));
        assert!(svg.contains("outbound, warm") && svg.contains("inbound, warm") && svg.contains("a&lt;b"));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn stages_are_stacked_and_what_they_leave_is_the_rest() {
        let cycles = |cycles: f64| json!({ "median": cycles, "min": cycles, "max": cycles });
        let stages = json!({ "route": cycles(25.0), "cipher": cycles(50.0) });
        let bar = bar(row("outbound", stages).as_object().unwrap()).unwrap();
        let parts: Vec<_> = bar.parts.iter().map(|(name, cycles)| (name.as_str(), *cycles)).collect();
        assert_eq!(parts, [(ENGINE, 40.0), (CIPHER, 10.0), ("route", 25.0), (REST, 25.0)]);
    }

    #[test]
    fn a_result_of_something_else_is_refused() {
        assert!(draw(&json!({ "rows": [{ "size": 1 }] })).is_err());
        assert!(draw(&json!([])).is_err());
    }
}
