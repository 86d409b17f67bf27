// SPDX-License-Identifier: Apache-2.0
//! `greyhound watch`: rates of ports, tunnels and drops, worker load, and events as they come.
//!
//! For programs: one JSON object a line for each look.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::lists::{loads, time_of_day};
use super::rates::rate;
use super::table::{number, scaled, table, text};
use super::{CliError, Output};
use crate::api::{DropRow, PortRow, TunnelRow, WorkersBody};
use crate::history::{Entry, Since};

/// Events shown below the tables.
const EVENTS_SHOWN: usize = 8;
/// Tunnels shown: the busiest.
const TUNNELS_SHOWN: usize = 20;
/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

struct Look {
    at: Instant,
    ports: Vec<PortRow>,
    tunnels: Vec<TunnelRow>,
    drops: Vec<DropRow>,
    workers: WorkersBody,
}

impl Look {
    async fn take(client: &Client) -> Result<Self, CliError> {
        Ok(Self {
            ports: client.list("/v1/ports").await?,
            tunnels: client.list("/v1/tunnels").await?,
            drops: client.list("/v1/drops").await?,
            workers: client.list("/v1/workers").await?,
            at: Instant::now(),
        })
    }
}

pub(super) async fn run(client: &Client, out: &Output, interval: f64) -> Result<(), CliError> {
    tokio::select! {
        result = watch(client, out, interval) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn watch(client: &Client, out: &Output, interval: f64) -> Result<(), CliError> {
    let (mut before, mut events, mut next) = (None, Vec::new(), 0);
    loop {
        let since: Since = client.list(&format!("/v1/events?since={next}")).await?;
        next = since.next;
        let new = since.events.len();
        events.extend(since.events);
        events.drain(..events.len().saturating_sub(EVENTS_SHOWN.max(new)));
        // While the dataplane is away there are no counters, but there are events.
        let now = match Look::take(client).await {
            Ok(look) => Some(look),
            Err(CliError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        show(out, before.as_ref(), now.as_ref(), &events, new)?;
        before = now;
        tokio::time::sleep(Duration::from_secs_f64(interval)).await;
    }
}

fn show(
    out: &Output,
    before: Option<&Look>,
    now: Option<&Look>,
    events: &[Entry],
    new: usize,
) -> Result<(), CliError> {
    let rates = before.zip(now).map(|(before, now)| Rates::between(before, now));
    if out.json {
        let new = events.get(events.len() - new..).unwrap_or_default();
        let line =
            json!({ "connected": now.is_some(), "rates": rates.map(|rates| rates.json()), "events": new });
        return out.text(&line.to_string());
    }
    let body = match (now, rates) {
        (None, _) => "the dataplane is not connected".to_owned(),
        (Some(_), None) => "measuring…".to_owned(),
        (Some(_), Some(rates)) => rates.text(),
    };
    let first = events.len().saturating_sub(EVENTS_SHOWN);
    let events = events.get(first..).unwrap_or_default();
    let events = events.iter().map(|entry| format!("{} {}", time_of_day(entry.unix_ms), entry.text));
    out.text(&format!("{CLEAR}{body}\n\n{}", events.collect::<Vec<_>>().join("\n")))
}

/// Growth a second of whatever grew: name, then a rate for each column.
struct Rates {
    ports: Vec<(String, [f64; 4])>,
    tunnels: Vec<(String, [f64; 4])>,
    drops: Vec<(String, [f64; 1])>,
    workers: Vec<(String, f64)>,
}

impl Rates {
    fn between(before: &Look, now: &Look) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let port =
            |row: &PortRow| (row.name.clone(), [row.rx_packets, row.rx_bytes, row.tx_packets, row.tx_bytes]);
        let tunnel = |row: &TunnelRow| {
            let counts = [row.packets_out, row.bytes_out, row.packets_in, row.bytes_in];
            (row.tunnel.name.clone(), counts.map(Option::unwrap_or_default))
        };
        let drop = |row: &DropRow| (row.reason.clone(), [row.packets]);
        let mut tunnels = growth(&before.tunnels, &now.tunnels, tunnel, seconds);
        tunnels.sort_by(|(_, a), (_, b)| b.iter().sum::<f64>().total_cmp(&a.iter().sum()));
        tunnels.truncate(TUNNELS_SHOWN);
        let workers = loads(&before.workers, now.workers.clone());
        Self {
            ports: growth(&before.ports, &now.ports, port, seconds),
            tunnels,
            drops: growth(&before.drops, &now.drops, drop, seconds),
            workers: workers.into_iter().map(|row| (row.row.worker.to_string(), row.load)).collect(),
        }
    }

    fn text(&self) -> String {
        let traffic = |title, [a, b, c, d]: [&'static str; 4], rows: &[(String, [f64; 4])], none| {
            let cells = |(name, rates): &(String, [f64; 4])| {
                let [packets, bytes, packets_back, bytes_back] = *rates;
                vec![
                    name.clone(),
                    scaled(packets),
                    scaled(bytes * 8.0),
                    scaled(packets_back),
                    scaled(bytes_back * 8.0),
                ]
            };
            let columns = [text(title), number(a), number(b), number(c), number(d)];
            table(&columns, rows.iter().map(cells).collect(), none)
        };
        let ports = traffic("port", ["rx pps", "rx l2 bps", "tx pps", "tx l2 bps"], &self.ports, "no ports");
        let tunnels =
            traffic("tunnel", ["out pps", "out bps", "in pps", "in bps"], &self.tunnels, "no tunnels");
        let drops = self.drops.iter().filter(|(_, [rate])| *rate > 0.0);
        let drops = drops.map(|(reason, [rate])| vec![reason.clone(), scaled(*rate)]).collect();
        let drops = table(&[text("drops"), number("pps")], drops, "no drops");
        let workers =
            self.workers.iter().map(|(worker, load)| vec![worker.clone(), format!("{:.1} %", load * 100.0)]);
        let workers = table(&[text("worker"), number("load")], workers.collect(), "no workers");
        [ports, tunnels, drops, workers].join("\n\n")
    }

    fn json(&self) -> Value {
        let named = |rows: &[(String, [f64; 4])], fields: [&str; 4]| -> Value {
            let row = |(name, rates): &(String, [f64; 4])| {
                let mut row: serde_json::Map<String, Value> = fields
                    .iter()
                    .zip(rates)
                    .map(|(field, rate)| ((*field).to_owned(), json!(rate)))
                    .collect();
                row.insert("name".into(), name.as_str().into());
                Value::Object(row)
            };
            rows.iter().map(row).collect()
        };
        let drops: Vec<Value> =
            self.drops.iter().map(|(reason, [rate])| json!({ "reason": reason, "pps": rate })).collect();
        let workers: Vec<Value> =
            self.workers.iter().map(|(worker, load)| json!({ "worker": worker, "load": load })).collect();
        json!({
            "ports": named(&self.ports, ["rx_pps", "rx_bytes_ps", "tx_pps", "tx_bytes_ps"]),
            "tunnels": named(&self.tunnels, ["out_pps", "out_bytes_ps", "in_pps", "in_bytes_ps"]),
            "drops": drops,
            "workers": workers,
        })
    }
}

/// Rates of each row of `now`, by name; a row that is new grew from nothing.
fn growth<T, const N: usize>(
    before: &[T],
    now: &[T],
    counts: impl Fn(&T) -> (String, [u64; N]),
    seconds: f64,
) -> Vec<(String, [f64; N])> {
    let earlier: HashMap<String, [u64; N]> = before.iter().map(&counts).collect();
    let row = |row: &T| {
        let (name, now) = counts(row);
        let before = earlier.get(&name).copied().unwrap_or([0; N]);
        let mut rates = [0.0; N];
        for (out, (before, now)) in rates.iter_mut().zip(before.iter().zip(now)) {
            *out = rate(*before, now, seconds);
        }
        (name, rates)
    };
    now.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_name_whatever_the_order() {
        let counts = |row: &(&str, u64)| (row.0.to_owned(), [row.1]);
        let rates = growth(&[("a", 10), ("b", 20)], &[("b", 40), ("c", 6), ("a", 10)], counts, 2.0);
        assert_eq!(rates, [("b".into(), [10.0]), ("c".into(), [3.0]), ("a".into(), [0.0])]);
    }
}
