// SPDX-License-Identifier: Apache-2.0
//! RFC 2544's benchmarks, size by size.

use super::units::Unit;
use super::{LATENCY_HEADS, latency_cells, plot, table};
use crate::plot::{Axis, Series, bars, lines};
use crate::rfc2544::{Point, Report, Searched, SizeResult};

/// Writes plots and tables of all benchmarks that were run.
pub(super) fn write(page: &mut String, report: &Report) {
    write_settings(page, report);
    if report.sizes.iter().any(|size| size.no_drop.is_some()) {
        plot(page, "Throughput by frame size", &throughput_plot(report));
    }
    let cdf = by_size(report, |size| size.latency_cdf.clone());
    let cdf = lines(&Axis::logarithmic("latency, µs"), &Axis::linear("% of packets"), &cdf);
    plot(page, &format!("{}, cumulative", latency_head(report)), &cdf);
    let loss =
        by_size(report, |size| size.loss.iter().map(|point| [point.percent, point.loss_percent]).collect());
    let loss = lines(&Axis::linear("load, % of the line"), &Axis::linear("lost, %"), &loss);
    plot(page, "Loss by load", &loss);
    write_throughput(page, report);
    write_latency(page, report);
    write_loss(page, report);
    write_bursts_and_resets(page, report);
}

/// What latency is measured at is the throughput, unless nobody searched for it.
fn latency_head(report: &Report) -> &'static str {
    let mut measured = report.sizes.iter().filter(|size| size.latency_us.is_some());
    let at_throughput = |size: &SizeResult| size.no_drop.as_ref().is_some_and(|found| found.point.is_some());
    if measured.all(at_throughput) { "Latency at the throughput" } else { "Latency at the highest load" }
}

fn write_settings(page: &mut String, report: &Report) {
    let settings = &report.settings;
    let benchmarks: Vec<String> = settings
        .benchmarks
        .iter()
        .filter_map(|benchmark| serde_json::to_value(benchmark).ok()?.as_str().map(str::to_owned))
        .collect();
    let mut rows = vec![
        ("line, L1", Unit::bits(settings.line_bps as f64)),
        ("benchmarks", benchmarks.join(", ")),
        ("seconds of a trial", settings.trial_seconds.to_string()),
        ("highest load tried, % of the line", settings.most_percent.to_string()),
        ("resolution, % of the rate", settings.resolution_percent.to_string()),
        ("trials that decide on a rate", settings.trials.to_string()),
        ("of them, may lose too much, %", settings.exceed_percent.to_string()),
        ("loss that the partial drop rate allows, %", settings.partial_drop_percent.to_string()),
        ("searches a size, of which the median counts", settings.repeats.to_string()),
    ];
    rows.extend(settings.reset_command.clone().map(|command| ("reset command", command)));
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table(page, "Settings", &["", ""], &rows);
}

fn throughput_plot(report: &Report) -> String {
    let labels: Vec<String> = report.sizes.iter().map(|size| size.size.to_string()).collect();
    let bps = |searched: Option<&Searched>| {
        searched.and_then(|searched| searched.point).map_or(0.0, |point| point.l1_bps)
    };
    let no_drop = || report.sizes.iter().map(|size| bps(size.no_drop.as_ref()));
    let partial_drop = || report.sizes.iter().map(|size| bps(size.partial_drop.as_ref()));
    let unit = Unit::of_bits(no_drop().chain(partial_drop()));
    let (no_drop, partial_drop) = (no_drop().map(|bps| unit.of(bps)), partial_drop().map(|bps| unit.of(bps)));
    let (no_drop, partial_drop) = (no_drop.collect(), partial_drop.collect());
    let label = format!("{} with preamble and gap", unit.name);
    let series = [("no drop".to_owned(), no_drop), ("partial drop".to_owned(), partial_drop)];
    bars(&labels, "frame size, bytes with FCS", &Axis::linear(&label), &series)
}

fn by_size(report: &Report, points: impl Fn(&SizeResult) -> Vec<[f64; 2]>) -> Vec<Series> {
    let series =
        report.sizes.iter().map(|size| Series { name: format!("{} bytes", size.size), points: points(size) });
    series.filter(|series| !series.points.is_empty()).collect()
}

fn write_throughput(page: &mut String, report: &Report) {
    let heads = [
        "frame bytes",
        "rate",
        "% of line",
        "packets/s",
        "L1",
        "lost %",
        "searches found, % of line",
        "spread, % of the median",
        "limited by",
    ];
    let rows: Vec<_> = report
        .sizes
        .iter()
        .flat_map(|size| {
            let named = [("no drop", &size.no_drop), ("partial drop", &size.partial_drop)];
            named.map(|(name, searched)| {
                let most = report.settings.most_percent;
                Some(searched_row(size.size, name, searched.as_ref()?, most))
            })
        })
        .flatten()
        .collect();
    table(page, "Throughput", &heads, &rows);
}

fn searched_row(size: u16, name: &str, searched: &Searched, most_percent: f64) -> Vec<String> {
    let mut row = vec![size.to_string(), name.to_owned()];
    match &searched.point {
        Some(point) => row.extend([
            format!("{:.2}", point.percent),
            format!("{:.0}", point.pps),
            Unit::bits(point.l1_bps),
            format!("{:.4}", point.loss_percent),
        ]),
        None => row.extend(["none", "-", "-", "-"].map(str::to_owned)),
    }
    let found: Vec<String> = searched.found_percent.iter().map(|percent| format!("{percent:.2}")).collect();
    let limited = match &searched.point {
        _ if searched.generator_limited => "generator",
        Some(point) if point.percent >= most_percent => "highest load tried",
        _ => "device",
    };
    row.extend([found.join(" "), format!("{:.2}", searched.spread_percent), limited.to_owned()]);
    row
}

fn write_latency(page: &mut String, report: &Report) {
    let row = |size: &SizeResult| {
        let cells = latency_cells(Some(size.latency_us.as_ref()?));
        let load = size.latency_percent.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}"));
        Some([vec![size.size.to_string(), load], cells.to_vec()].concat())
    };
    let rows: Vec<_> = report.sizes.iter().filter_map(row).collect();
    let heads = [&["frame bytes", "load, % of line"][..], &LATENCY_HEADS].concat();
    table(page, latency_head(report), &heads, &rows);
}

fn write_loss(page: &mut String, report: &Report) {
    let heads =
        ["frame bytes", "load, % of line", "packets/s", "L1", "sent", "lost", "lost %", "generator kept up"];
    let row = |size: u16, point: &Point| {
        vec![
            size.to_string(),
            format!("{:.2}", point.percent),
            format!("{:.0}", point.pps),
            Unit::bits(point.l1_bps),
            point.sent.to_string(),
            point.lost.to_string(),
            format!("{:.4}", point.loss_percent),
            if point.kept_up { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows = report.sizes.iter().flat_map(|size| size.loss.iter().map(move |point| row(size.size, point)));
    table(page, "Frame loss", &heads, &rows.collect::<Vec<_>>());
}

fn write_bursts_and_resets(page: &mut String, report: &Report) {
    let bursts = report.sizes.iter().filter(|size| !size.back_to_back.is_empty()).map(|size| {
        let mut sorted = size.back_to_back.clone();
        sorted.sort_unstable();
        let each: Vec<String> = size.back_to_back.iter().map(u64::to_string).collect();
        vec![size.size.to_string(), sorted[sorted.len() / 2].to_string(), each.join(" ")]
    });
    let heads = ["frame bytes", "longest burst, packets (median)", "each search"];
    table(page, "Back-to-back frames", &heads, &bursts.collect::<Vec<_>>());
    let reset = |size: &SizeResult| Some(vec![size.size.to_string(), format!("{:.3}", size.reset_seconds?)]);
    let rows: Vec<_> = report.sizes.iter().filter_map(reset).collect();
    table(page, "Reset", &["frame bytes", "seconds without packets"], &rows);
}
