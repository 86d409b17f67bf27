// SPDX-License-Identifier: Apache-2.0
//! Results as one page of HTML that needs nothing else: plots, tables, and the machine.

use std::fmt::Write as _;

use machine::Machine;

use crate::outcome::{FRAME_SIZES, Outcome, Quantiles};
use crate::plot::{Axis, Series, bars, escape, lines};
use crate::rfc2544::{Report, SizeResult};

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}\
th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}\
svg{width:100%;height:auto;max-width:48rem}pre{font-size:.8rem;background:#f5f5f5;padding:.75rem;overflow-x:auto}";

/// The page of a single run.
#[must_use]
pub fn of_run(title: &str, outcome: &Outcome, machine: &Machine) -> String {
    let mut page = begin(title);
    let names: Vec<String> = outcome.streams.iter().map(|stream| stream.name.clone()).collect();
    let mpps = |value: f64| value / 1e6;
    let sent = outcome.streams.iter().map(|stream| mpps(stream.sent.pps)).collect();
    let received =
        outcome.streams.iter().map(|stream| mpps(stream.arrived.as_ref().map_or(0.0, |arrived| arrived.pps)));
    let series = [("sent".to_owned(), sent), ("received".to_owned(), received.collect())];
    section(
        &mut page,
        "Throughput by stream",
        &bars(&names, "stream", &Axis::linear("million packets/s"), &series),
    );
    let cdf = outcome.streams.iter().filter_map(|stream| {
        let points = stream.arrived.as_ref()?.latency_cdf.clone();
        Some(Series { name: stream.name.clone(), points })
    });
    section(&mut page, "Latency, cumulative", &cdf_plot(&cdf.collect::<Vec<_>>()));
    let heads = [
        "stream",
        "size",
        "sent",
        "packets/s",
        "L1 Gbit/s",
        "received",
        "lost",
        "reordered",
        "duplicated",
        "corrupt",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
    ];
    let rows = outcome.streams.iter().map(|stream| {
        let mut row = vec![
            stream.name.clone(),
            stream.size.clone(),
            stream.sent.packets.to_string(),
            format!("{:.0}", stream.sent.pps),
            format!("{:.3}", stream.sent.l1_bps / 1e9),
        ];
        if let Some(arrived) = &stream.arrived {
            let counts =
                [arrived.received, arrived.lost, arrived.reordered, arrived.duplicated, arrived.corrupt];
            row.extend(counts.map(|count| count.to_string()));
            row.extend(quantiles(arrived.latency_us.as_ref()));
        }
        row
    });
    table(&mut page, &heads, rows);
    end(page, machine)
}

/// The page of RFC 2544's benchmarks.
#[must_use]
pub fn of_rfc2544(title: &str, report: &Report, machine: &Machine) -> String {
    let mut page = begin(title);
    let settings = &report.settings;
    let _ = writeln!(
        page,
        "<p>Line {:.3} Gbit/s; trials of {} s, resolution {} % of the line, {} searches a size.</p>",
        settings.line_bps as f64 / 1e9,
        settings.trial_seconds,
        settings.resolution_percent,
        settings.repeats
    );
    section(&mut page, "Throughput by frame size", &throughput_plot(report));
    section(
        &mut page,
        "Latency at the throughput, cumulative",
        &cdf_plot(&by_size(report, |size| size.latency_cdf.clone())),
    );
    let loss =
        by_size(report, |size| size.loss.iter().map(|point| [point.percent, point.loss_percent]).collect());
    section(
        &mut page,
        "Loss by load",
        &lines(&Axis::linear("load, % of the line"), &Axis::linear("lost, %"), &loss),
    );
    let heads = [
        "frame bytes",
        "no drop, packets/s",
        "L1 Gbit/s",
        "% of line",
        "spread %",
        "partial drop, packets/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "back-to-back",
        "reset s",
    ];
    table(&mut page, &heads, report.sizes.iter().map(row));
    end(page, machine)
}

fn throughput_plot(report: &Report) -> String {
    let labels: Vec<String> = report.sizes.iter().map(|size| size.size.to_string()).collect();
    let gbps = |searched: Option<&crate::rfc2544::Searched>| {
        searched.and_then(|searched| searched.point).map_or(0.0, |point| point.l1_bps / 1e9)
    };
    let series = [
        ("no drop".to_owned(), report.sizes.iter().map(|size| gbps(size.no_drop.as_ref())).collect()),
        (
            "partial drop".to_owned(),
            report.sizes.iter().map(|size| gbps(size.partial_drop.as_ref())).collect(),
        ),
    ];
    bars(&labels, "frame size, bytes with FCS", &Axis::linear("Gbit/s with preamble and gap"), &series)
}

fn by_size(report: &Report, points: impl Fn(&SizeResult) -> Vec<[f64; 2]>) -> Vec<Series> {
    let series =
        report.sizes.iter().map(|size| Series { name: format!("{} bytes", size.size), points: points(size) });
    series.filter(|series| !series.points.is_empty()).collect()
}

fn cdf_plot(series: &[Series]) -> String {
    lines(&Axis::logarithmic("latency, µs"), &Axis::linear("% of packets"), series)
}

fn row(size: &SizeResult) -> Vec<String> {
    let mut row = vec![size.size.to_string()];
    let limited = |limited: bool| if limited { " (port took no more)" } else { "" };
    match size.no_drop.as_ref().and_then(|searched| searched.point.map(|point| (searched, point))) {
        Some((searched, point)) => row.extend([
            format!("{:.0}{}", point.pps, limited(searched.generator_limited)),
            format!("{:.3}", point.l1_bps / 1e9),
            format!("{:.2}", point.percent),
            format!("{:.2}", searched.spread_percent),
        ]),
        None => row.extend(["-"; 4].map(str::to_owned)),
    }
    let partial = size.partial_drop.as_ref().and_then(|searched| searched.point);
    row.push(partial.map_or_else(|| "-".to_owned(), |point| format!("{:.0}", point.pps)));
    row.extend(quantiles(size.latency_us.as_ref()));
    let mut bursts = size.back_to_back.clone();
    bursts.sort_unstable();
    row.push(bursts.get(bursts.len() / 2).map_or_else(|| "-".to_owned(), u64::to_string));
    row.push(size.reset_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}")));
    row
}

fn quantiles(quantiles: Option<&Quantiles>) -> [String; 4] {
    match quantiles {
        Some(us) => [us.p50, us.p99, us.p999, us.max].map(|us| format!("{us:.1}")),
        None => ["-"; 4].map(str::to_owned),
    }
}

fn begin(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>Frame sizes: {FRAME_SIZES}. Latency runs from when a packet was due until it was received.</p>\n"
    )
}

fn section(page: &mut String, heading: &str, plot: &str) {
    if !plot.is_empty() {
        let _ = write!(page, "<h2>{}</h2>\n{plot}", escape(heading));
    }
}

fn table(page: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    page.push_str("<h2>Figures</h2>\n<div style=\"overflow-x:auto\"><table>\n");
    page.push_str(&cells("th", &mut heads.iter().copied()));
    rows.for_each(|row| page.push_str(&cells("td", &mut row.iter().map(String::as_str))));
    page.push_str("</table></div>\n");
}

fn end(mut page: String, machine: &Machine) -> String {
    let _ = write!(page, "<h2>Machine</h2>\n<pre>{}</pre>\n</body>\n</html>\n", escape(&machine.to_string()));
    page
}
