// SPDX-License-Identifier: Apache-2.0
//! The commands that only show something.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{Client, understand};
use super::table::{number, or_dash, table, text, yes_no};
use super::{CliError, Output, rates};
use crate::api::{
    DropRow, NeighborRow, PolicyRow, PortRow, RouteRow, SaRow, StatusBody, TunnelRow, WorkerRow, WorkersBody,
};
use crate::history::Since;
use crate::view::Phase;

/// A worker with its load.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoadRow {
    /// Share of cycles spent in turns that had packets, from 0 to 1.
    pub(super) load: f64,
    #[serde(flatten)]
    pub(super) row: WorkerRow,
}

pub(super) async fn status(client: &Client, out: &Output) -> Result<(), CliError> {
    let answer = client.get("/v1/status").await?;
    if out.json {
        return out.json(&answer);
    }
    out.text(&status_text(&understand(answer)?))
}

fn status_text(status: &StatusBody) -> String {
    let configuration = &status.configuration;
    let phase = match configuration.phase {
        Phase::Empty => "nothing configured; `greyhound apply FILE` does",
        Phase::Committed => "committed: the dataplane runs it",
        Phase::Pending => "pending: waiting for the dataplane",
        Phase::Refused => "refused: the dataplane does not run it",
        Phase::Foreign => "none; the dataplane runs somebody else's",
    };
    let dataplane = match &status.dataplane {
        None => "not connected".to_owned(),
        Some(dataplane) => format!(
            "connected for {} s, pid {}, generation {}, engine {}, CPUs {:?}, ports {}",
            dataplane.connected_seconds,
            dataplane.pid,
            or_dash(dataplane.generation),
            dataplane.engine,
            dataplane.worker_cpus,
            dataplane.ports.join(" ")
        ),
    };
    let counts = format!(
        "{} ports, {} routes, {} tunnels, {} protections, {} policies, {} SAs",
        configuration.ports,
        configuration.routes,
        configuration.tunnels,
        configuration.protections,
        configuration.policies,
        configuration.sas
    );
    let mut lines = vec![
        format!(
            "instance       {} (greyhound-control {}, pid {})",
            status.instance, status.version, status.pid
        ),
        format!("dataplane      {dataplane}"),
        format!("configuration  {phase}"),
        format!("               {counts}"),
    ];
    lines.extend(configuration.trouble.iter().map(|trouble| format!("trouble        {trouble}")));
    lines.extend(
        status.retiring.iter().map(|sa| format!("retiring       sa {} in {} s", sa.sa, sa.in_seconds)),
    );
    lines.extend(status.warnings.iter().map(|warning| format!("warning        {warning}")));
    lines.join("\n")
}

pub(super) async fn sas(client: &Client, out: &Output) -> Result<(), CliError> {
    let columns = [
        text("direction"),
        text("spi"),
        text("protection"),
        text("group"),
        text("algorithm"),
        text("esn"),
        text("state"),
        number("packets"),
        number("bytes"),
        number("sequence"),
        text("key"),
    ];
    let rows: Vec<SaRow> = client.list("/v1/sas").await?;
    out.either(&rows, |rows| table(&columns, rows.iter().map(sa_cells).collect(), "no SAs"))
}

fn sa_cells(row: &SaRow) -> Vec<String> {
    let state = match (row.installed, row.retiring_in_seconds) {
        (_, Some(seconds)) => format!("goes in {seconds} s"),
        (true, None) => "installed".into(),
        (false, None) => "not installed".into(),
    };
    vec![
        row.direction.clone(),
        format!("0x{:08x}", row.spi),
        or_dash(row.protection.clone()),
        or_dash(row.group.clone()),
        or_dash(row.algorithm.clone()),
        or_dash(row.esn.map(yes_no)),
        state,
        or_dash(row.packets),
        or_dash(row.bytes),
        or_dash(row.next_sequence.or(row.right_edge)),
        or_dash(row.key.clone()),
    ]
}

pub(super) async fn tunnels(client: &Client, out: &Output) -> Result<(), CliError> {
    let columns = [
        text("tunnel"),
        text("source"),
        text("destination"),
        text("key"),
        text("protection"),
        text("egress"),
        number("mtu"),
        number("packets out"),
        number("bytes out"),
        number("packets in"),
        number("bytes in"),
    ];
    let rows: Vec<TunnelRow> = client.list("/v1/tunnels").await?;
    out.either(&rows, |rows| table(&columns, rows.iter().map(tunnel_cells).collect(), "no tunnels"))
}

fn tunnel_cells(row: &TunnelRow) -> Vec<String> {
    let tunnel = &row.tunnel;
    vec![
        tunnel.name.clone(),
        tunnel.source.to_string(),
        tunnel.destination.to_string(),
        or_dash(tunnel.key),
        or_dash(tunnel.protection.clone()),
        or_dash(row.egress.clone()),
        or_dash(row.effective_mtu),
        or_dash(row.packets_out),
        or_dash(row.bytes_out),
        or_dash(row.packets_in),
        or_dash(row.bytes_in),
    ]
}

pub(super) async fn routes(client: &Client, out: &Output) -> Result<(), CliError> {
    let columns = [text("prefix"), text("to"), text("origin")];
    let rows: Vec<RouteRow> = client.list("/v1/routes").await?;
    out.either(&rows, |rows| table(&columns, rows.iter().map(route_cells).collect(), "no routes"))
}

fn route_cells(row: &RouteRow) -> Vec<String> {
    let route = &row.route;
    let to = match (&route.tunnel, &route.port, route.via) {
        (Some(tunnel), _, _) => format!("tunnel {tunnel}"),
        (None, Some(port), Some(via)) => format!("port {port} via {via}"),
        (None, Some(port), None) => format!("port {port}"),
        (None, None, _) => "discard".into(),
    };
    vec![route.prefix.to_string(), to, row.origin.clone()]
}

pub(super) async fn policies(client: &Client, out: &Output) -> Result<(), CliError> {
    let columns = [
        text("port"),
        number("order"),
        text("policy"),
        text("local"),
        text("remote"),
        text("protocol"),
        text("local ports"),
        text("remote ports"),
        text("action"),
    ];
    let answer = client.get("/v1/policies").await?;
    // The words of selectors are those of the file.
    let rows: Vec<Value> = understand(answer)?;
    let _: Vec<PolicyRow> = understand(Value::Array(rows.clone()))?;
    out.either(&rows, |rows| table(&columns, rows.iter().map(policy_cells).collect(), "no policies"))
}

fn policy_cells(row: &Value) -> Vec<String> {
    let word = |name: &str| match row.get(name) {
        None | Some(Value::Null) => "any".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let action = match row.get("protection").and_then(Value::as_str) {
        Some(protection) => format!("{} {protection}", word("action")),
        None => word("action"),
    };
    let mut cells: Vec<String> =
        ["port", "order", "name", "local", "remote", "protocol", "local_ports", "remote_ports"]
            .map(word)
            .into();
    cells.push(action);
    cells
}

pub(super) async fn neighbors(client: &Client, out: &Output) -> Result<(), CliError> {
    let columns = [text("port"), text("address"), text("mac"), text("state")];
    let rows: Vec<NeighborRow> = client.list("/v1/neighbors").await?;
    let cells = |row: &NeighborRow| {
        vec![row.port.clone(), row.address.to_string(), or_dash(row.mac.clone()), row.state.clone()]
    };
    out.either(&rows, |rows| table(&columns, rows.iter().map(cells).collect(), "no neighbours"))
}

pub(super) async fn ports(client: &Client, out: &Output) -> Result<(), CliError> {
    let columns = [
        text("port"),
        text("side"),
        text("addresses"),
        number("mtu"),
        number("vlan"),
        text("mac"),
        number("rx packets"),
        number("rx bytes"),
        number("tx packets"),
        number("tx bytes"),
        text("device"),
    ];
    let rows: Vec<PortRow> = client.list("/v1/ports").await?;
    out.either(&rows, |rows| table(&columns, rows.iter().map(port_cells).collect(), "no ports"))
}

fn port_cells(row: &PortRow) -> Vec<String> {
    let addresses = row.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    vec![
        row.name.clone(),
        row.side.clone().unwrap_or_else(|| "not used".into()),
        or_dash(Some(addresses).filter(|text| !text.is_empty())),
        or_dash(row.mtu),
        or_dash(row.vlan),
        row.mac.clone(),
        row.rx_packets.to_string(),
        row.rx_bytes.to_string(),
        row.tx_packets.to_string(),
        row.tx_bytes.to_string(),
        row.device.clone(),
    ]
}

pub(super) async fn workers(client: &Client, out: &Output, interval: f64) -> Result<(), CliError> {
    let columns = [
        text("worker"),
        text("cpu"),
        number("load"),
        number("received"),
        number("transmitted"),
        number("sealed"),
        number("opened"),
        number("dropped"),
        number("held"),
        number("sleeps"),
    ];
    let before: WorkersBody = client.list("/v1/workers").await?;
    tokio::time::sleep(Duration::from_secs_f64(interval)).await;
    let after: WorkersBody = client.list("/v1/workers").await?;
    let rows = loads(&before, after);
    out.either(&rows, |rows| table(&columns, rows.iter().map(worker_cells).collect(), "no workers"))
}

/// The workers as they are `after`, with their load since `before`.
pub(super) fn loads(before: &WorkersBody, after: WorkersBody) -> Vec<LoadRow> {
    let row = |row: WorkerRow| {
        let earlier = before.workers.iter().find(|earlier| earlier.worker == row.worker);
        let grown =
            |name| rates::growth(earlier.map_or(0, |earlier| counter(earlier, name)), counter(&row, name));
        LoadRow { load: rates::load(grown("busy_cycles"), grown("total_cycles")), row }
    };
    after.workers.into_iter().map(row).collect()
}

pub(super) fn counter(row: &WorkerRow, name: &str) -> u64 {
    row.counters.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn worker_cells(row: &LoadRow) -> Vec<String> {
    let mut cells =
        vec![row.row.worker.to_string(), row.row.cpu.to_string(), format!("{:.1} %", row.load * 100.0)];
    let names = ["received", "transmitted", "sealed", "opened", "dropped", "held", "sleeps"];
    cells.extend(names.map(|name| counter(&row.row, name).to_string()));
    cells
}

pub(super) async fn drops(client: &Client, out: &Output, all: bool, workers: bool) -> Result<(), CliError> {
    let rows: Vec<DropRow> = client.list(if all { "/v1/drops?all=true" } else { "/v1/drops" }).await?;
    out.either(&rows, |rows| drops_text(rows, workers))
}

fn drops_text(rows: &[DropRow], workers: bool) -> String {
    let columns = if workers {
        vec![text("reason"), number("packets"), text("by worker"), text("meaning")]
    } else {
        vec![text("reason"), number("packets"), text("meaning")]
    };
    let cells = |row: &DropRow| {
        let mut cells = vec![row.reason.clone(), row.packets.to_string()];
        if workers {
            let each = row.workers.iter().enumerate().map(|(worker, packets)| format!("{worker}: {packets}"));
            cells.push(each.collect::<Vec<_>>().join("  "));
        }
        cells.push(row.meaning.clone());
        cells
    };
    table(&columns, rows.iter().map(cells).collect(), "nothing was dropped")
}

pub(super) async fn events(client: &Client, out: &Output, since: u64) -> Result<(), CliError> {
    let columns = [number("number"), text("time (UTC)"), text("about"), text("event")];
    let answer: Since = client.list(&format!("/v1/events?since={since}")).await?;
    let cells = |entry: &crate::history::Entry| {
        let kind = serde_json::to_value(entry.kind).ok();
        let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        vec![entry.number.to_string(), time_of_day(entry.unix_ms), kind, entry.text.clone()]
    };
    out.either(&answer, |answer| {
        table(&columns, answer.events.iter().map(cells).collect(), "nothing happened")
    })
}

/// Hours, minutes, seconds of the day in UTC.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn load_is_the_share_of_busy_cycles_between_two_looks() {
        let body = |busy: u64, total: u64| -> WorkersBody {
            let worker =
                json!({"worker": 0, "cpu": 3, "counters": {"busy_cycles": busy, "total_cycles": total}});
            serde_json::from_value(json!({"cycles_per_second": 1, "workers": [worker]})).unwrap()
        };
        assert_eq!(loads(&body(100, 1000), body(350, 2000))[0].load, 0.25);
        assert_eq!(loads(&body(900, 1000), body(10, 100))[0].load, 0.1, "after a restart");
        let row = serde_json::to_value(&loads(&body(0, 0), body(1, 2))[0]).unwrap();
        assert_eq!(
            (&row["worker"], &row["load"], &row["counters"]["busy_cycles"]),
            (&json!(0), &json!(0.5), &json!(1))
        );
    }

    #[test]
    fn selectors_that_are_absent_are_any() {
        let row = json!({"order": 1, "name": "ike", "port": "wan", "protocol": "udp", "action": "protect", "protection": "p"});
        assert_eq!(policy_cells(&row), ["wan", "1", "ike", "any", "any", "udp", "any", "any", "protect p"]);
    }

    #[test]
    fn the_time_of_day_is_utc() {
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20");
    }
}
