// SPDX-License-Identifier: Apache-2.0
//! What a stock Linux kernel sealed, opened by us: every capture of `tests/linux-peer/golden`, both directions.
//!
//! For each direction a headend is made that is the receiving end of the capture: its addresses, keys, SPIs and GRE
//! options are those of the sidecar, its port has the Ethernet address that the frames were sent to. The frames go in as
//! they are on disk; what comes out at the site must be the packet that Linux put in, one hop older, its ECN as
//! RFC 6040 §4.2 says for the headers around it. A packet that came with its last hop ends in `ttl_exceeded`.

#![expect(clippy::unwrap_used, reason = "tests")]

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aead::Engine;
use dataplane::store::SequenceStore;
use greyhound_simulation::packets::{ip_in, is_esp};
use greyhound_simulation::topology::{LAN, WAN};
use greyhound_simulation::{Headend, HeadendConfig, Site};
use messages::{
    Address, Base, DfPolicy, Direction, DropReason, EspMode, GreOptions, IpPrefix, IvPrefix, Key,
    LifetimeLimits, MssClamp, Object, Policy, PolicyAction, PolicyIndex, PortIndex, PortSettings, PortSide,
    Protection, ProtectionIndex, Route, RouteTarget, Sa, SaIndex, Secret, Selector, StaticNeighbor,
    TosPolicy, Tunnel, TunnelIndex, WorkerCounter,
};
use port::memory::{self, PairConfig};
use port::pcap;
use serde::Deserialize;
use wire::{IpProtocol, checksum};

const SITE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xff];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MTU: u16 = 9_216;
const CE: u8 = 3;

#[derive(Deserialize)]
struct Sidecar {
    name: String,
    payload_family: u8,
    mode: Option<String>,
    gre: Option<Gre>,
    directions: [Way; 2],
    packets: Vec<Listed>,
}

#[derive(Deserialize)]
struct Gre {
    key: Option<u32>,
    checksum: bool,
    sequence: bool,
}

#[derive(Deserialize)]
struct Way {
    source: IpAddr,
    destination: IpAddr,
    gre_source: Option<IpAddr>,
    gre_destination: Option<IpAddr>,
    esp: Option<Esp>,
}

#[derive(Deserialize)]
struct Esp {
    spi: u32,
    key_salt: String,
    icv_octets: u8,
    esn: bool,
    first_sequence_number: u64,
}

#[derive(Deserialize)]
struct Listed {
    frame: usize,
    direction: usize,
    inner: String,
}

/// A capture and what is known of it.
struct Golden {
    sidecar: Sidecar,
    frames: Vec<Vec<u8>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../linux-peer/golden")
}

fn goldens() -> Vec<Golden> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    names.sort();
    names.iter().map(|path| golden(path)).collect()
}

fn golden(path: &Path) -> Golden {
    let sidecar: Sidecar = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let capture = fs::File::open(path.with_extension("pcap")).unwrap();
    let frames = pcap::read(capture).unwrap().into_iter().map(|frame| frame.bytes).collect();
    Golden { sidecar, frames }
}

impl Golden {
    /// Frames of a direction and the packets in them.
    fn packets(&self, direction: usize) -> Vec<(&[u8], Vec<u8>)> {
        let listed = self.sidecar.packets.iter().filter(|packet| packet.direction == direction);
        listed
            .map(|packet| (self.frames[packet.frame].as_slice(), hex::decode(&packet.inner).unwrap()))
            .collect()
    }

    /// Source and destination of the packets inside.
    fn hosts(&self, direction: usize) -> (IpAddr, IpAddr) {
        let (_, inner) = &self.packets(direction)[0];
        let parsed = wire::flow::parse(inner).unwrap();
        (parsed.source, parsed.destination)
    }
}

/// The receiving end of one direction of a capture.
struct Receiver {
    headend: Headend,
    site: Site,
    untrusted: Site,
    now_ns: u64,
    _home: tempfile::TempDir,
}

impl Receiver {
    fn new(golden: &Golden, direction: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        remember_edge(golden, direction, home.path());
        let (frame, _) = golden.packets(direction)[0];
        let [ours, theirs]: [[u8; 6]; 2] = [0, 6].map(|at| frame[at..at + 6].try_into().unwrap());
        let pair = |macs| PairConfig { macs, mtu: MTU, ..PairConfig::new(1, 256) };
        let (lan, lan_wire) = memory::wire_with(&pair([GATEWAY_MAC, SITE_MAC]));
        let (wan, wan_wire) = memory::wire_with(&pair([ours, theirs]));
        let (_, host) = golden.hosts(direction);
        let site = Site::new(lan_wire, SITE_MAC, GATEWAY_MAC, &[host]);
        let untrusted = Site::new(wan_wire, theirs, ours, &[golden.sidecar.directions[direction].source]);
        let mut headend = Headend::new(HeadendConfig {
            ports: vec![lan, wan],
            vlans: Vec::new(),
            workers: 1,
            state: home.path().to_owned(),
            packets: 1_024,
            engine: Engine::best(),
        });
        headend.put(Base::Empty, &objects(golden, direction, theirs), 0).expect("a valid configuration");
        Self { headend, site, untrusted, now_ns: 1_000_000_000, _home: home }
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            quiet = if self.headend.turn(self.now_ns) { 0 } else { quiet + 1 };
            self.site.poll();
            self.untrusted.poll();
            self.now_ns += 10_000;
        }
    }
}

/// An SA may begin anywhere: the store says that everything before its first packet has been seen.
fn remember_edge(golden: &Golden, direction: usize, state: &Path) {
    let Some(esp) = &golden.sidecar.directions[direction].esp else { return };
    if esp.first_sequence_number == 1 {
        return;
    }
    let mut store = SequenceStore::init(state, false).unwrap();
    store.write_edges([(secret(esp).fingerprint(), esp.first_sequence_number - 1)]).unwrap();
}

fn secret(esp: &Esp) -> Secret {
    Secret::from_keymat(&hex::decode(&esp.key_salt).unwrap()).expect("key and salt")
}

/// Everything the receiver of a direction is configured with.
fn objects(golden: &Golden, direction: usize, peer_mac: [u8; 6]) -> Vec<Object> {
    let sidecar = &golden.sidecar;
    let way = &sidecar.directions[direction];
    let (remote_host, local_host) = golden.hosts(direction);
    let mut objects = ports();
    let mut ours = vec![(WAN, way.destination)];
    ours.extend(way.gre_destination.filter(|address| *address != way.destination).map(|a| (WAN, a)));
    for (port, address) in ours {
        objects.push(Object::Address(Address { port: Some(port), address, length: 24 }));
    }
    objects.push(Object::Neighbor(StaticNeighbor { port: WAN, address: way.source, mac: peer_mac }));
    let to_site = RouteTarget::Port { port: LAN, next_hop: None };
    objects.push(Object::Route(Route { prefix: host_prefix(local_host), target: to_site }));
    if let Some(mode) = &sidecar.mode {
        objects.push(protection(way, mode));
        objects.push(sa(&sidecar.directions[direction], Direction::Inbound));
        objects.push(sa(&sidecar.directions[1 - direction], Direction::Outbound));
    }
    let back = if let Some(gre) = &sidecar.gre {
        objects.push(tunnel(way, gre, sidecar.mode.is_some()));
        RouteTarget::Tunnel(TunnelIndex(0))
    } else {
        // Packets of the other family are neighbours to the table; the SPD sends them into ESP before anyone asks.
        let next_hop = Some(way.source).filter(|peer| peer.is_ipv4() == remote_host.is_ipv4());
        RouteTarget::Port { port: WAN, next_hop }
    };
    objects.push(Object::Route(Route { prefix: host_prefix(remote_host), target: back }));
    objects.extend(policy(sidecar, way, remote_host));
    objects
}

/// Both ports, with an address of each family that no capture uses: a port carries families that it has addresses of.
fn ports() -> Vec<Object> {
    let address = |port: PortIndex, address: &str, length| {
        Object::Address(Address { port: Some(port), address: address.parse().unwrap(), length })
    };
    [
        (LAN, PortSide::Protected, "192.0.2.1", "2001:db8::1"),
        (WAN, PortSide::Unprotected, "198.51.100.1", "2001:db8:1::1"),
    ]
    .into_iter()
    .flat_map(|(port, side, v4, v6)| {
        let settings = Object::Port(PortSettings { port, mtu: MTU, side, answer_ping: true });
        [settings, address(port, v4, 24), address(port, v6, 64)]
    })
    .collect()
}

fn host_prefix(address: IpAddr) -> IpPrefix {
    IpPrefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
}

fn protection(way: &Way, mode: &str) -> Object {
    Object::Protection(Protection {
        protection: ProtectionIndex(0),
        mode: if mode == "tunnel" { EspMode::Tunnel } else { EspMode::Transport },
        local: way.destination,
        remote: way.source,
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        class_groups: messages::ClassGroups::default(),
    })
}

fn tunnel(way: &Way, gre: &Gre, protected: bool) -> Object {
    Object::Tunnel(Tunnel {
        tunnel: TunnelIndex(0),
        source: way.gre_destination.expect("a tunnel has delivery addresses"),
        destination: way.gre_source.expect("a tunnel has delivery addresses"),
        gre: GreOptions { key: gre.key, checksum: gre.checksum, sequence: gre.sequence },
        protection: protected.then_some(ProtectionIndex(0)),
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        mtu: None,
        mss: MssClamp::Automatic,
        strict_source: true,
        marks: messages::TunnelMarks::default(),
    })
}

/// GRE alone must be let through, packets under ESP alone must have an entry that protects them. It says nothing of local
/// addresses, so that answers of the headend itself are protected too.
fn policy(sidecar: &Sidecar, way: &Way, remote_host: IpAddr) -> Option<Object> {
    let (local, remote, protocol, action) = match (&sidecar.gre, &sidecar.mode) {
        (Some(_), Some(_)) => return None,
        (Some(_), None) => (Some(way.destination), way.source, Some(IpProtocol::GRE.0), PolicyAction::Bypass),
        (None, _) => (None, remote_host, None, PolicyAction::Protect(ProtectionIndex(0))),
    };
    let (local, remote) = (local.map(host_prefix), Some(host_prefix(remote)));
    let selector = Selector { local, remote, protocol, local_ports: None, remote_ports: None };
    Some(Object::Policy(Policy { policy: PolicyIndex(0), port: WAN, order: 1, selector, action }))
}

fn sa(way: &Way, direction: Direction) -> Object {
    let esp = way.esp.as_ref().expect("a mode comes with SAs");
    Object::Sa(Sa {
        sa: SaIndex(u32::from(direction == Direction::Outbound)),
        protection: ProtectionIndex(0),
        direction,
        spi: esp.spi,
        key: Key { secret: secret(esp), icv_bytes: esp.icv_octets },
        esn: esp.esn,
        replay_window: if direction == Direction::Inbound { 1_024 } else { 0 },
        class_group: 0,
        owner: None,
        iv_prefix: IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
    })
}

/// The packet as it leaves the headend, or none if it had its last hop.
fn one_hop_older(packet: &[u8], outer_tos: u8) -> Option<Vec<u8>> {
    let mut packet = packet.to_vec();
    let is_v4 = packet[0] >> 4 == 4;
    let ttl_at = if is_v4 { 8 } else { 7 };
    if packet[ttl_at] <= 1 {
        return None;
    }
    packet[ttl_at] -= 1;
    let tos = tos_of(&packet);
    let ecn = leave_tunnel(tos & 3, outer_tos & 3);
    if is_v4 {
        packet[1] = tos & !3 | ecn;
        packet[10..12].fill(0);
        let sum = checksum::Sum::default().add_bytes(&packet[..20]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[1] = packet[1] & !0x30 | ecn << 4;
    }
    Some(packet)
}

fn tos_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

/// RFC 6040 §4.2, figure 4, the rows and columns that leave the packet alive.
fn leave_tunnel(inner: u8, outer: u8) -> u8 {
    match (inner, outer) {
        (0 | 3, _) => inner,
        (_, CE) => CE,
        (2, 1) => 1,
        _ => inner,
    }
}

/// Opens one direction of a capture with a headend of its own and compares every packet.
fn check_direction(golden: &Golden, direction: usize) {
    let name = &golden.sidecar.name;
    let mut receiver = Receiver::new(golden, direction);
    let packets = golden.packets(direction);
    assert!(packets.len() >= 5, "{name}");
    let mut expired = 0;
    for (number, (frame, inner)) in packets.iter().enumerate() {
        receiver.untrusted.send_frame(0, frame);
        receiver.settle();
        let (outer, _) = ip_in(frame).expect("an IP packet");
        let expected = one_hop_older(inner, outer.tos);
        expired += u64::from(expected.is_none());
        let arrived = receiver.site.take();
        let drops = receiver.headend.drops();
        assert_eq!(
            arrived,
            Vec::from_iter(expected),
            "{name}, direction {direction}, packet {number}: {drops:?}"
        );
    }
    check_counters(golden, &mut receiver, packets.len() as u64, expired);
}

fn check_counters(golden: &Golden, receiver: &mut Receiver, packets: u64, expired: u64) {
    let name = &golden.sidecar.name;
    let headend = &mut receiver.headend;
    let drops: BTreeMap<_, _> = headend.drops().into_iter().collect();
    let expected = BTreeMap::from_iter((expired > 0).then_some((DropReason::TtlExceeded, expired)));
    assert_eq!(drops, expected, "{name}");
    let opened = if golden.sidecar.mode.is_some() { packets } else { 0 };
    assert_eq!(headend.counter(WorkerCounter::Opened), opened, "{name}");
    assert_eq!(headend.unaccounted(), 0, "{name}");
    assert_eq!(headend.buffers_out(), 0, "{name}");
    let answers = receiver.untrusted.take();
    assert_eq!(answers.len() as u64, expired, "{name}: time exceeded goes back through the tunnel");
}

#[test]
fn the_captures_are_all_there() {
    let goldens = goldens();
    assert!(goldens.len() >= 25, "{}", goldens.len());
    assert!(goldens.iter().any(|golden| golden.sidecar.payload_family == 6));
    let alone = |golden: &&Golden| golden.sidecar.mode.is_none();
    for golden in goldens.iter().filter(|golden| !alone(golden)) {
        assert!(golden.frames.iter().all(|frame| is_esp(frame)), "{}", golden.sidecar.name);
    }
    assert!(goldens.iter().any(|golden| alone(&golden)));
}

#[test]
fn every_packet_that_linux_sent_comes_out_as_it_went_in() {
    for golden in goldens() {
        for direction in [0, 1] {
            check_direction(&golden, direction);
        }
    }
}

#[test]
fn a_capture_with_one_bit_wrong_ends_in_its_counter() {
    for golden in goldens().iter().filter(|golden| golden.sidecar.mode.is_some()) {
        let mut receiver = Receiver::new(golden, 0);
        let packets = golden.packets(0);
        for (number, (frame, _)) in packets.iter().enumerate() {
            let mut wrong = frame.to_vec();
            let last = wrong.len() - 1 - number % 8;
            wrong[last] ^= 1 << (number % 8);
            receiver.untrusted.send_frame(0, &wrong);
        }
        receiver.settle();
        let name = &golden.sidecar.name;
        assert_eq!(receiver.site.take(), Vec::<Vec<u8>>::new(), "{name}");
        let expected = [(DropReason::BadIcv, packets.len() as u64)];
        assert_eq!(receiver.headend.drops(), expected, "{name}");
    }
}

#[test]
fn a_capture_played_twice_passes_once() {
    for golden in goldens().iter().filter(|golden| golden.sidecar.mode.is_some()) {
        let mut receiver = Receiver::new(golden, 1);
        let packets = golden.packets(1);
        for _ in 0..2 {
            packets.iter().for_each(|(frame, _)| receiver.untrusted.send_frame(0, frame));
            receiver.settle();
        }
        let name = &golden.sidecar.name;
        let replayed = receiver.headend.dropped(DropReason::Replayed);
        assert_eq!(replayed, packets.len() as u64, "{name}: {:?}", receiver.headend.drops());
        assert_eq!(receiver.headend.counter(WorkerCounter::Opened), packets.len() as u64, "{name}");
    }
}
