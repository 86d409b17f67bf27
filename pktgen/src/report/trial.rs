// SPDX-License-Identifier: Apache-2.0
//! One trial: what was sent and what arrived, stream by stream.

use super::units::Unit;
use super::{LATENCY_HEADS, latency_cells, plot, table};
use crate::outcome::{Outcome, StreamOutcome};
use crate::plot::{Axis, Series, bars, lines};

/// Writes plots and tables of a trial.
pub(super) fn write(page: &mut String, outcome: &Outcome) {
    let streams = &outcome.streams;
    let names: Vec<String> = streams.iter().map(|stream| stream.name.clone()).collect();
    let received = |stream: &StreamOutcome| stream.arrived.as_ref().map_or(0.0, |arrived| arrived.pps);
    let rates = streams.iter().flat_map(|stream| [stream.sent.pps, received(stream)]);
    let unit = Unit::of_packets(rates);
    let sent = streams.iter().map(|stream| unit.of(stream.sent.pps)).collect();
    let mut series = vec![("sent".to_owned(), sent)];
    if streams.iter().any(|stream| stream.arrived.is_some()) {
        let received = streams.iter().map(|stream| unit.of(received(stream))).collect();
        series.push(("received".to_owned(), received));
    }
    let throughput = bars(&names, "stream", &Axis::linear(unit.name), &series);
    plot(page, "Throughput by stream", &throughput);
    let cdf = streams.iter().filter_map(|stream| {
        let points = stream.arrived.as_ref()?.latency_cdf.clone();
        Some(Series { name: stream.name.clone(), points })
    });
    let cdf: Vec<Series> = cdf.filter(|series| !series.points.is_empty()).collect();
    let cdf = lines(&Axis::logarithmic("latency, µs"), &Axis::linear("% of packets"), &cdf);
    plot(page, "Latency, cumulative", &cdf);
    write_tables(page, outcome);
}

fn write_tables(page: &mut String, outcome: &Outcome) {
    let heads = ["stream", "frame bytes", "rate asked", "packets", "packets/s", "L2", "L1"];
    let rows: Vec<_> = outcome.streams.iter().map(sent).collect();
    table(page, "Sent", &heads, &rows);
    let heads = [
        "stream",
        "received",
        "packets/s",
        "lost",
        "reordered",
        "duplicated",
        "too late",
        "corrupt",
        "longest pause ms",
    ];
    let rows: Vec<_> = outcome.streams.iter().filter_map(arrived).collect();
    table(page, "Received", &heads, &rows);
    let latency = outcome.streams.iter().filter_map(|stream| {
        let cells = latency_cells(Some(stream.arrived.as_ref()?.latency_us.as_ref()?));
        Some([vec![stream.name.clone()], cells.to_vec()].concat())
    });
    let mut rows: Vec<_> = latency.collect();
    if let Some(late) = &outcome.sender.late_us {
        rows.push([vec!["(the sender's own part)".to_owned()], latency_cells(Some(late)).to_vec()].concat());
    }
    table(page, "Latency", &[&["stream"][..], &LATENCY_HEADS].concat(), &rows);
    let (sender, device) = (&outcome.sender, &outcome.device);
    let kept_up = if sender.kept_up { "yes" } else { "no" };
    let rows = [
        ("seconds", format!("{:.3}", outcome.seconds)),
        ("the port took all that was due, in time", kept_up.to_owned()),
        ("bursts that the port did not take whole", sender.refused.to_string()),
        ("times that no packet buffer was free", sender.starved.to_string()),
        ("CPU seconds of the sending thread", format!("{:.3}", sender.cpu_seconds)),
        ("frames of others, or that cannot be opened", outcome.foreign.to_string()),
        ("questions for an address, answered", outcome.answered.to_string()),
        ("transmitted, by the device", device.transmitted.to_string()),
        ("received, by the device", device.received.to_string()),
        ("lost by the receiving device", device.missed.to_string()),
        ("longer than the device's MTU", device.too_long.to_string()),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table(page, "Trial", &["", ""], &rows);
}

fn sent(stream: &StreamOutcome) -> Vec<String> {
    let sent = &stream.sent;
    vec![
        stream.name.clone(),
        stream.size.clone(),
        stream.rate.clone(),
        sent.packets.to_string(),
        format!("{:.0}", sent.pps),
        Unit::bits(sent.l2_bps),
        Unit::bits(sent.l1_bps),
    ]
}

fn arrived(stream: &StreamOutcome) -> Option<Vec<String>> {
    let arrived = stream.arrived.as_ref()?;
    let counts = [arrived.lost, arrived.reordered, arrived.duplicated, arrived.too_late, arrived.corrupt];
    let mut row = vec![stream.name.clone(), arrived.received.to_string(), format!("{:.0}", arrived.pps)];
    row.extend(counts.map(|count| count.to_string()));
    row.push(format!("{:.3}", arrived.longest_pause * 1e3));
    Some(row)
}
