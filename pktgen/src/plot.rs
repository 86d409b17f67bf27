// SPDX-License-Identifier: Apache-2.0
//! Plots as SVG, to stand in a page: lines over a linear or logarithmic axis, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;
/// Okabe and Ito's colours, told apart by people who see colours differently.
const COLORS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d1f"];

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What stands at it.
    pub label: String,
    /// Whether it is logarithmic.
    pub logarithmic: bool,
}

impl Axis {
    /// A linear axis.
    #[must_use]
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), logarithmic: false }
    }

    /// A logarithmic axis.
    #[must_use]
    pub fn logarithmic(label: &str) -> Self {
        Self { label: label.to_owned(), logarithmic: true }
    }
}

/// Named points: one line, or one colour of bars.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its points.
    pub points: Vec<[f64; 2]>,
}

/// Lines through points; empty without any.
#[must_use]
pub fn lines(x: &Axis, y: &Axis, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|series| &series.points);
    let Some(x_scale) = Scale::over(all().map(|point| point[0]), x.logarithmic, [LEFT, WIDTH - RIGHT]) else {
        return String::new();
    };
    let Some(y_scale) = Scale::over(all().map(|point| point[1]), y.logarithmic, [HEIGHT - BOTTOM, TOP])
    else {
        return String::new();
    };
    let mut svg = open(series);
    y_axis(&mut svg, &y_scale, &y.label);
    for (value, label) in x_scale.ticks() {
        let at = x_scale.place(value);
        rule(&mut svg, [at, TOP, at, HEIGHT - BOTTOM]);
        text(&mut svg, at, HEIGHT - BOTTOM + 16.0, "middle", &label);
    }
    text(&mut svg, f64::midpoint(LEFT, WIDTH), HEIGHT - 10.0, "middle", &x.label);
    for (number, series) in series.iter().enumerate() {
        let place =
            |point: &[f64; 2]| format!("{:.1},{:.1}", x_scale.place(point[0]), y_scale.place(point[1]));
        let points: Vec<String> = series.points.iter().map(place).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{}\"/>",
            color(number),
            points.join(" ")
        );
        for point in &series.points {
            let (x, y) = (x_scale.place(point[0]), y_scale.place(point[1]));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{}\"/>", color(number));
        }
    }
    close(svg)
}

/// Groups of bars, one group for each label; a series has a value for each. Empty without any.
#[must_use]
pub fn bars(labels: &[String], x_label: &str, y: &Axis, series: &[(String, Vec<f64>)]) -> String {
    let values = series.iter().flat_map(|(_, values)| values).copied();
    let Some(scale) = Scale::over(values.chain([0.0]), false, [HEIGHT - BOTTOM, TOP]) else {
        return String::new();
    };
    let names: Vec<Series> =
        series.iter().map(|(name, _)| Series { name: name.clone(), points: Vec::new() }).collect();
    let mut svg = open(&names);
    y_axis(&mut svg, &scale, &y.label);
    let group = (WIDTH - LEFT - RIGHT) / labels.len().max(1) as f64;
    let bar = group * 0.8 / series.len().max(1) as f64;
    for (place, label) in labels.iter().enumerate() {
        let left = LEFT + group * (place as f64 + 0.1);
        text(&mut svg, left + group * 0.4, HEIGHT - BOTTOM + 16.0, "middle", label);
        for (number, (_, values)) in series.iter().enumerate() {
            let Some(value) = values.get(place) else { continue };
            let (x, y) = (left + bar * number as f64, scale.place(*value));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                bar * 0.92,
                HEIGHT - BOTTOM - y,
                color(number)
            );
        }
    }
    text(&mut svg, f64::midpoint(LEFT, WIDTH), HEIGHT - 10.0, "middle", x_label);
    close(svg)
}

/// From values to places.
struct Scale {
    least: f64,
    most: f64,
    logarithmic: bool,
    places: [f64; 2],
}

impl Scale {
    /// Over all values; none without any.
    fn over(values: impl Iterator<Item = f64>, logarithmic: bool, places: [f64; 2]) -> Option<Self> {
        let values = values.filter(|value| value.is_finite() && (!logarithmic || *value > 0.0));
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            return None;
        }
        if logarithmic {
            (least, most) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
            most = most.max(least * 10.0);
        } else {
            least = least.min(0.0);
            let step = nice_step(most - least);
            most = ((most / step).ceil() * step).max(least + step);
        }
        Some(Self { least, most, logarithmic, places })
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.least) / self.least).log10() / (self.most / self.least).log10()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        self.places[0] + (self.places[1] - self.places[0]) * share
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let mut ticks = Vec::new();
        let step = nice_step(self.most - self.least);
        let mut value = self.least;
        while value <= self.most * (1.0 + 1e-9) {
            ticks.push((value, number(value)));
            value = if self.logarithmic { value * 10.0 } else { value + step };
        }
        ticks
    }
}

/// A step of 1, 2 or 5 times a power of ten that makes about five of a span.
fn nice_step(span: f64) -> f64 {
    if span <= 0.0 {
        return 1.0;
    }
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|multiple| rough <= multiple * power * 1.0001);
    multiple.unwrap_or(10.0) * power
}

fn number(value: f64) -> String {
    let text = if value.abs() >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}").trim_end_matches('0').to_owned()
    };
    if text == "-0" { "0".to_owned() } else { text }
}

fn color(number: usize) -> &'static str {
    COLORS[number % COLORS.len()]
}

/// Begins a picture with its legend below the plot.
fn open(series: &[Series]) -> String {
    let rows = series.len().div_ceil(4);
    let height = HEIGHT + 20.0 * rows as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n"
    );
    for (place, series) in series.iter().enumerate() {
        let (x, y) = (LEFT + 140.0 * (place % 4) as f64, HEIGHT + 8.0 + 20.0 * (place / 4) as f64);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{}\"/>",
            y - 9.0,
            color(place)
        );
        text(&mut svg, x + 14.0, y, "start", &series.name);
    }
    svg
}

fn close(mut svg: String) -> String {
    svg.push_str("</svg>\n");
    svg
}

fn y_axis(svg: &mut String, scale: &Scale, label: &str) {
    for (value, tick) in scale.ticks() {
        let at = scale.place(value);
        rule(svg, [LEFT, at, WIDTH - RIGHT, at]);
        text(svg, LEFT - 6.0, at + 4.0, "end", &tick);
    }
    let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle:.1})\">{}</text>",
        escape(label)
    );
}

fn rule(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#d0d0d0\" stroke-width=\"0.7\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(words));
}

/// Words as they may stand in HTML and SVG.
#[must_use]
pub fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_beyond_the_most() {
        let scale = Scale::over([0.0, 9.3].into_iter(), false, [0.0, 100.0]).unwrap();
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0", "2", "4", "6", "8", "10"]);
        let scale = Scale::over([0.7, 80.0].into_iter(), true, [0.0, 100.0]).unwrap();
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100"]);
        assert!((scale.place(1.0) - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_makes_no_plot_and_one_point_makes_one() {
        let (x, y) = (Axis::linear("x"), Axis::linear("y"));
        assert_eq!(lines(&x, &y, &[]), "");
        let one = Series { name: "a<b".to_owned(), points: vec![[1.0, 0.0]] };
        let svg = lines(&x, &y, &[one]);
        assert!(svg.contains("a&lt;b") && svg.contains("<circle") && !svg.contains("NaN"));
        let bars = bars(&["64".to_owned()], "size", &y, &[("n".to_owned(), vec![0.0])]);
        assert!(bars.contains("<rect") && !bars.contains("NaN"));
    }
}
