// SPDX-License-Identifier: Apache-2.0
//! `greyhound qos show`.

use super::client::Client;
use super::table::{number, or_dash, table, text};
use super::{CliError, Output};
use crate::api::{ColoursBody, DropsBody, QosRow, ShaperBody};

pub(super) async fn show(
    client: &Client,
    out: &Output,
    port: Option<&str>,
    tunnel: Option<&str>,
) -> Result<(), CliError> {
    let columns = [
        text("port"),
        text("tunnel"),
        text("class"),
        text("service"),
        number("offered"),
        number("sent"),
        number("dropped"),
        text("by reason"),
        text("conform/exceed/violate"),
        number("marked"),
        number("queued"),
        number("bytes"),
        number("p50"),
        number("p99"),
        text("shaper"),
    ];
    let mut rows: Vec<QosRow> = client.list("/v1/qos").await?;
    rows.retain(|row| port.is_none_or(|name| row.port == name));
    rows.retain(|row| tunnel.is_none_or(|name| row.tunnel.as_deref() == Some(name)));
    let nothing = "no class: no port or tunnel that this is about has a service_policy";
    out.either(&rows, |rows| table(&columns, rows.iter().map(cells).collect(), nothing))
}

fn cells(row: &QosRow) -> Vec<String> {
    vec![
        row.port.clone(),
        or_dash(row.tunnel.clone()),
        row.class.clone(),
        or_dash(row.service.clone()),
        row.offered_packets.to_string(),
        row.sent_packets.to_string(),
        row.dropped_packets.to_string(),
        or_dash(reasons(&row.dropped)),
        or_dash(row.colours.as_ref().map(colours)),
        row.marked_packets.to_string(),
        row.queued_packets.to_string(),
        row.queued_bytes.to_string(),
        or_dash(row.delay_p50_ns.map(time)),
        or_dash(row.delay_p99_ns.map(time)),
        or_dash(row.shaper.as_ref().map(shaper)),
    ]
}

/// The reasons that there were, as in "policed 3, wred 7".
fn reasons(drops: &DropsBody) -> Option<String> {
    let all = [
        ("policed", drops.policed),
        ("queue_limit", drops.queue_limit),
        ("wred", drops.wred),
        ("codel", drops.codel),
        ("pie", drops.pie),
        ("no_room", drops.no_room),
        ("size", drops.size),
    ];
    let there: Vec<String> =
        all.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    (!there.is_empty()).then(|| there.join(", "))
}

/// Packets by colour, as in "812/40/3".
fn colours(colours: &ColoursBody) -> String {
    let ColoursBody { conform, exceed, violate } = colours;
    format!("{}/{}/{}", conform.packets, exceed.packets, violate.packets)
}

fn time(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{} µs", ns / 1_000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

fn shaper(shaper: &ShaperBody) -> String {
    let &ShaperBody { rate_bps, burst_bytes, tokens_bytes } = shaper;
    format!("{} kbit/s, {tokens_bytes} of {burst_bytes} bytes", rate_bps / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasons_that_there_were_are_told() {
        let none = DropsBody { policed: 0, queue_limit: 0, wred: 0, codel: 0, pie: 0, no_room: 0, size: 0 };
        assert_eq!(reasons(&none), None);
        let some = DropsBody { policed: 3, wred: 7, ..none };
        assert_eq!(reasons(&some).as_deref(), Some("policed 3, wred 7"));
    }

    #[test]
    fn times_are_in_the_unit_that_reads_best() {
        assert_eq!([time(999), time(9_999_999), time(10_000_000)], ["0 µs", "9999 µs", "10 ms"]);
    }
}
