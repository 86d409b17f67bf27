// SPDX-License-Identifier: Apache-2.0
//! What the lists of the API contain, row by row: configuration, live state and counters put together.

use std::collections::HashMap;
use std::net::IpAddr;

use config::{PolicyEntry, PortEntry, RouteEntry, SaEntry, SaName, TunnelEntry};
use ipnet::IpNet;
use messages::{
    DropReason, Event, Neighbor, NeighborState, PortCounter, PortIndex, SaState, TunnelState, WorkerCounter,
    WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::core::{Listing, MANUAL_KEYING_WARNING, RetiringSa, unix_ms};
use crate::view::{Dataplane, Phase, View};

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusBody {
    /// Name of the instance.
    pub instance: String,
    /// Version of control.
    pub version: String,
    /// Process id of control.
    pub pid: u32,
    /// The configuration.
    pub configuration: ConfigurationBody,
    /// The dataplane, while it is connected.
    pub dataplane: Option<DataplaneBody>,
    /// SAs that go by themselves.
    pub retiring: Vec<RetiringSa>,
    /// What should be known.
    pub warnings: Vec<String>,
}

/// The configuration in numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigurationBody {
    /// Whether the dataplane runs it.
    pub phase: Phase,
    /// Why not.
    pub trouble: Vec<String>,
    /// Number of ports that are used.
    pub ports: usize,
    /// Number of routes.
    pub routes: usize,
    /// Number of tunnels.
    pub tunnels: usize,
    /// Number of protections.
    pub protections: usize,
    /// Number of policies.
    pub policies: usize,
    /// Number of SAs.
    pub sas: usize,
    /// Number of static neighbours.
    pub neighbors: usize,
}

/// The dataplane that is connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataplaneBody {
    /// Its process id.
    pub pid: u32,
    /// The generation that it runs.
    pub generation: Option<u64>,
    /// Its AEAD engine.
    pub engine: String,
    /// CPUs of its workers.
    pub worker_cpus: Vec<u32>,
    /// Names of its ports.
    pub ports: Vec<String>,
    /// How many SAs it has room for.
    pub sas_max: u32,
    /// How many tunnels.
    pub tunnels_max: u32,
    /// Since when it is connected, in seconds.
    pub connected_seconds: u64,
}

/// `GET /v1/sas`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SaRow {
    /// "inbound" or "outbound".
    pub direction: String,
    /// The SPI.
    pub spi: u32,
    /// Both, as in "outbound 0x00001001".
    pub name: String,
    /// The protection it belongs to; none for an SA that is not configured.
    pub protection: Option<String>,
    /// The class group of its protection; none for the default group.
    pub group: Option<String>,
    /// Its algorithm.
    pub algorithm: Option<String>,
    /// Extended sequence numbers.
    pub esn: Option<bool>,
    /// Inbound: anti-replay window in packets; none if it is at its default.
    pub replay_window: Option<u16>,
    /// Where its key comes from.
    pub key: Option<String>,
    /// Whether the dataplane has it.
    pub installed: bool,
    /// Fingerprint of key ‖ salt.
    pub fingerprint: Option<String>,
    /// Packets sealed or opened.
    pub packets: Option<u64>,
    /// Their payload bytes.
    pub bytes: Option<u64>,
    /// Seconds since this dataplane installed it.
    pub age_seconds: Option<u64>,
    /// Outbound: the next sequence number.
    pub next_sequence: Option<u64>,
    /// Outbound: the first one that is not reserved on disk.
    pub sequence_limit: Option<u64>,
    /// Inbound: the right edge of the anti-replay window.
    pub right_edge: Option<u64>,
    /// Inbound: the worker that owns the window.
    pub owner: Option<u16>,
    /// When it goes by itself.
    pub retiring_in_seconds: Option<u64>,
}

/// `GET /v1/tunnels`: the fields of `[[tunnel]]`, and what the dataplane says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TunnelRow {
    /// As configured.
    #[serde(flatten)]
    pub tunnel: TunnelEntry,
    /// Whether the dataplane has it.
    pub installed: bool,
    /// Largest payload packet in force, in bytes.
    pub effective_mtu: Option<u16>,
    /// The port its packets leave by; none while no route leads to the peer.
    pub egress: Option<String>,
    /// Payload packets sent into it.
    pub packets_out: Option<u64>,
    /// Their bytes.
    pub bytes_out: Option<u64>,
    /// Payload packets that came out of it.
    pub packets_in: Option<u64>,
    /// Their bytes.
    pub bytes_in: Option<u64>,
}

/// `GET /v1/routes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteRow {
    /// As configured, or as a port's address implies.
    #[serde(flatten)]
    pub route: RouteEntry,
    /// "configured" or "connected".
    pub origin: String,
}

/// `GET /v1/policies`: the fields of `[[policy]]`, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Its place in its port's SPD, from 1.
    pub order: usize,
    /// As configured.
    #[serde(flatten)]
    pub policy: PolicyEntry,
}

/// `GET /v1/neighbors`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NeighborRow {
    /// The port it is on.
    pub port: String,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address; none while it is being asked for.
    pub mac: Option<String>,
    /// "incomplete", "reachable", "stale" or "static".
    pub state: String,
}

/// `GET /v1/ports`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortRow {
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// Its Ethernet address.
    pub mac: String,
    /// The largest IP packet it can carry, in bytes.
    pub mtu_max: u16,
    /// The VLAN whose 802.1Q tag its frames have, 0 for a tag with a priority and no VLAN; none if they are untagged.
    pub vlan: Option<u16>,
    /// The largest IP packet it carries; none for a port that is not configured.
    pub mtu: Option<u16>,
    /// "protected" or "unprotected".
    pub side: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets that the device took.
    pub tx_packets: u64,
    /// Bytes that the device took.
    pub tx_bytes: u64,
}

/// `GET /v1/workers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkersBody {
    /// Cycles of the time stamp counter a second.
    pub cycles_per_second: u64,
    /// The workers.
    pub workers: Vec<WorkerRow>,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: u16,
    /// Its CPU.
    pub cpu: u32,
    /// Its counters by name.
    pub counters: serde_json::Map<String, serde_json::Value>,
}

/// `GET /v1/drops`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DropRow {
    /// Name of the reason.
    pub reason: String,
    /// Packets, over all workers.
    pub packets: u64,
    /// Packets of each worker.
    pub workers: Vec<u64>,
    /// What it means.
    pub meaning: String,
}

pub(super) fn status(instance: &str, view: &View) -> StatusBody {
    let config = &view.saved.config;
    let configuration = ConfigurationBody {
        phase: view.phase,
        trouble: view.trouble.clone(),
        ports: config.ports.len(),
        routes: config.routes.len(),
        tunnels: config.tunnels.len(),
        protections: config.protections.len(),
        policies: config.policies.len(),
        sas: config.sas.len(),
        neighbors: config.neighbors.len(),
    };
    let warnings = if config.sas.is_empty() { Vec::new() } else { vec![MANUAL_KEYING_WARNING.to_owned()] };
    StatusBody {
        instance: instance.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        configuration,
        dataplane: view.dataplane.as_deref().map(|dataplane| dataplane_body(dataplane, view.generation)),
        retiring: retiring(view),
        warnings,
    }
}

fn dataplane_body(dataplane: &Dataplane, generation: Option<u64>) -> DataplaneBody {
    let hello = &dataplane.hello;
    DataplaneBody {
        pid: hello.pid,
        generation,
        engine: hello.engine.clone(),
        worker_cpus: hello.worker_cpus.clone(),
        ports: hello.ports.iter().map(|port| port.name.clone()).collect(),
        sas_max: hello.sas_max,
        tunnels_max: hello.tunnels_max,
        connected_seconds: dataplane.since.elapsed().as_secs(),
    }
}

fn retiring(view: &View) -> Vec<RetiringSa> {
    let now = unix_ms();
    let row =
        |(sa, at): (&SaName, &u64)| RetiringSa { sa: *sa, in_seconds: at.saturating_sub(now).div_ceil(1000) };
    view.saved.retiring.iter().map(row).collect()
}

pub(super) fn sas(view: &View, listing: &Listing) -> Vec<SaRow> {
    let mut states: HashMap<SaName, &SaState> = HashMap::new();
    for item in &listing.items {
        if let Event::Sa(_, state) = item {
            states.insert(SaName { direction: state.direction, spi: state.spi }, state);
        }
    }
    let mut rows: Vec<SaRow> = view
        .saved
        .config
        .sas
        .iter()
        .map(|sa| sa_row(sa.name(), Some(sa), states.remove(&sa.name()), view))
        .collect();
    let mut rest: Vec<_> = states.into_iter().collect();
    rest.sort_by_key(|(name, _)| *name);
    rows.extend(rest.into_iter().map(|(name, state)| sa_row(name, None, Some(state), view)));
    rows
}

fn sa_row(name: SaName, entry: Option<&SaEntry>, state: Option<&SaState>, view: &View) -> SaRow {
    let outbound = state.and_then(|state| state.outbound);
    let inbound = state.and_then(|state| state.inbound);
    let at = view.saved.retiring.get(&name);
    let key = |sa: &SaEntry| match (&sa.key_file, &sa.key_id) {
        (Some(file), _) => Some(format!("file {file}")),
        (None, Some(id)) => Some(format!("kept {id}")),
        _ => None,
    };
    SaRow {
        direction: name.to_string().split(' ').next().unwrap_or_default().to_owned(),
        spi: name.spi,
        name: name.to_string(),
        protection: entry.map(|sa| sa.protection.clone()),
        group: entry.and_then(|sa| sa.group.clone()),
        algorithm: entry.map(|sa| sa.algorithm.to_string()),
        esn: entry.map(|sa| sa.esn),
        replay_window: entry.and_then(|sa| sa.replay_window),
        key: entry.and_then(key),
        installed: state.is_some(),
        fingerprint: state.map(|state| hex::encode(state.fingerprint.0)),
        packets: state.map(|state| state.packets),
        bytes: state.map(|state| state.bytes),
        age_seconds: state.map(|state| state.age_ns / 1_000_000_000),
        next_sequence: outbound.map(|outbound| outbound.next_sequence),
        sequence_limit: outbound.map(|outbound| outbound.limit),
        right_edge: inbound.map(|inbound| inbound.right_edge),
        owner: inbound.map(|inbound| inbound.owner.0),
        retiring_in_seconds: at.map(|at| at.saturating_sub(unix_ms()).div_ceil(1000)),
    }
}

pub(super) fn tunnels(view: &View, listing: &Listing) -> Vec<TunnelRow> {
    let numbers = &listing.indices.tunnels;
    let states: HashMap<u32, &TunnelState> = listing.items.iter().filter_map(tunnel_state).collect();
    let row = |tunnel: &TunnelEntry| {
        let state = numbers.get(&tunnel.name).and_then(|number| states.get(number));
        tunnel_row(tunnel, state.copied(), view)
    };
    view.saved.config.tunnels.iter().map(row).collect()
}

fn tunnel_state(item: &Event) -> Option<(u32, &TunnelState)> {
    match item {
        Event::Tunnel(_, state) => Some((state.tunnel.0, state)),
        _ => None,
    }
}

fn tunnel_row(tunnel: &TunnelEntry, state: Option<&TunnelState>, view: &View) -> TunnelRow {
    let egress = state.and_then(|state| state.egress);
    let port_name = |port: PortIndex| view.dataplane.as_ref().map(|dataplane| port_name(dataplane, port));
    TunnelRow {
        tunnel: tunnel.clone(),
        installed: state.is_some(),
        effective_mtu: state.map(|state| state.mtu),
        egress: egress.and_then(port_name),
        packets_out: state.map(|state| state.packets_out),
        bytes_out: state.map(|state| state.bytes_out),
        packets_in: state.map(|state| state.packets_in),
        bytes_in: state.map(|state| state.bytes_in),
    }
}

pub(super) fn port_name(dataplane: &Dataplane, port: PortIndex) -> String {
    let name = dataplane.environment.ports.get(port.index()).map(|port| port.name.clone());
    name.unwrap_or_else(|| port.to_string())
}

pub(super) fn routes(view: &View) -> Vec<RouteRow> {
    let config = &view.saved.config;
    let connected = config.ports.iter().flat_map(connected_routes);
    let configured =
        config.routes.iter().map(|route| RouteRow { route: route.clone(), origin: "configured".into() });
    let mut rows: Vec<_> = connected.chain(configured).collect();
    rows.sort_by_key(|row| row.route.prefix);
    rows
}

fn connected_routes(port: &PortEntry) -> impl Iterator<Item = RouteRow> {
    port.addresses.iter().map(|net| RouteRow {
        route: RouteEntry {
            prefix: net.trunc(),
            tunnel: None,
            port: Some(port.name.clone()),
            via: None,
            discard: false,
        },
        origin: "connected".into(),
    })
}

pub(super) fn policies(view: &View) -> Vec<PolicyRow> {
    let mut orders: HashMap<&str, usize> = HashMap::new();
    let row = |policy: &PolicyEntry, order: &mut usize| {
        *order += 1;
        PolicyRow { order: *order, policy: policy.clone() }
    };
    let policies = &view.saved.config.policies;
    policies.iter().map(|policy| row(policy, orders.entry(&policy.port).or_default())).collect()
}

pub(super) fn neighbors(dataplane: &Dataplane, listing: &Listing) -> Vec<NeighborRow> {
    let neighbor = |item: &Event| match item {
        Event::Neighbor(_, neighbor) => Some(neighbor_row(neighbor, dataplane)),
        _ => None,
    };
    let mut rows: Vec<_> = listing.items.iter().filter_map(neighbor).collect();
    rows.sort_by(|a, b| (&a.port, a.address).cmp(&(&b.port, b.address)));
    rows
}

fn neighbor_row(neighbor: &Neighbor, dataplane: &Dataplane) -> NeighborRow {
    let (state, is_known) = match neighbor.state {
        NeighborState::Incomplete => ("incomplete", false),
        NeighborState::Reachable => ("reachable", true),
        NeighborState::Stale => ("stale", true),
        NeighborState::Static => ("static", true),
    };
    NeighborRow {
        port: port_name(dataplane, neighbor.port),
        address: neighbor.address,
        mac: is_known.then(|| mac(neighbor.mac)),
        state: state.into(),
    }
}

fn mac(bytes: [u8; 6]) -> String {
    wire::MacAddr(bytes).to_string()
}

pub(super) fn ports(view: &View, dataplane: &Dataplane) -> Vec<PortRow> {
    let row = |(index, port): (u16, &messages::HelloPort)| {
        let count = |counter| dataplane.port(PortIndex(index), counter);
        let entry = view.saved.config.port(&port.name);
        PortRow {
            name: port.name.clone(),
            device: port.device.clone(),
            mac: mac(port.mac),
            mtu_max: port.mtu_max,
            vlan: port.vlan,
            mtu: entry.map(|entry| entry.mtu.unwrap_or(port.mtu_max)),
            side: entry.map(|entry| side(entry).into()),
            addresses: entry.map(|entry| entry.addresses.clone()).unwrap_or_default(),
            rx_packets: count(PortCounter::RxPackets),
            rx_bytes: count(PortCounter::RxBytes),
            tx_packets: count(PortCounter::TxPackets),
            tx_bytes: count(PortCounter::TxBytes),
        }
    };
    (0..).zip(&dataplane.hello.ports).map(row).collect()
}

fn side(entry: &PortEntry) -> &'static str {
    match entry.side {
        messages::PortSide::Protected => "protected",
        messages::PortSide::Unprotected => "unprotected",
    }
}

pub(super) fn workers(dataplane: &Dataplane) -> WorkersBody {
    let counters = |worker: WorkerId| {
        let value =
            |counter: &WorkerCounter| (counter.name().to_owned(), dataplane.worker(worker, *counter).into());
        WorkerCounter::ALL.iter().map(value).collect()
    };
    let row = |(worker, cpu): (WorkerId, &u32)| WorkerRow {
        worker: worker.0,
        cpu: *cpu,
        counters: counters(worker),
    };
    WorkersBody {
        cycles_per_second: dataplane.hello.cycles_per_second,
        workers: dataplane.workers().zip(&dataplane.hello.worker_cpus).map(row).collect(),
    }
}

pub(super) fn drops(dataplane: &Dataplane, all: bool) -> Vec<DropRow> {
    let row = |reason: &DropReason| {
        let workers: Vec<u64> = dataplane.workers().map(|worker| dataplane.drops(worker, *reason)).collect();
        DropRow {
            reason: reason.name().into(),
            packets: workers.iter().fold(0, |sum, packets| sum.wrapping_add(*packets)),
            workers,
            meaning: reason.meaning().into(),
        }
    };
    DropReason::ALL.iter().map(row).filter(|row| all || row.packets > 0).collect()
}
