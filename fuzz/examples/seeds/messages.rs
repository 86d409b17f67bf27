// SPDX-License-Identifier: Apache-2.0
//! Messages of every variant, alone, in transactions, and between the steps of a ring.

use core::net::IpAddr;

use messages::{
    Address, Base, CountersLayout, DfPolicy, Digest, Direction, EspMode, Event, Field, Fingerprint,
    GreOptions, Greeting, Hello, HelloPort, InboundState, IpPrefix, IvPrefix, Key, LifetimeLimits, List,
    MESSAGE_BYTES_MAX, MssClamp, Neighbor, NeighborState, Object, ObjectId, OutboundState, PROTOCOL_VERSION,
    Policy, PolicyAction, PolicyIndex, PortIndex, PortRange, PortSettings, PortSide, Protection,
    ProtectionIndex, Refusal, Request, Route, RouteTarget, Sa, SaIndex, SaState, Secret, Selector,
    StaticNeighbor, TosPolicy, Tunnel, TunnelIndex, TunnelState, WorkerId, encode,
};
use serde::Serialize;

use super::Seed;
use super::frames::hex;

pub(super) fn codec() -> Vec<Seed> {
    let requests = requests().into_iter().map(|(name, request)| (name, 0, bytes(&request)));
    let events = events().into_iter().map(|(name, event)| (name, 1, bytes(&event)));
    let objects = objects().into_iter().enumerate();
    let objects = objects.map(|(number, object)| (format!("object-{number}"), 4, bytes(&object)));
    let ids = self::objects().into_iter().enumerate();
    let ids = ids.map(|(number, object)| (format!("id-{number}"), 5, bytes(&object.id())));
    let whole: Vec<_> = greetings().iter().filter_map(|greeting| greeting.to_bytes().ok()).collect();
    let bodies = whole
        .iter()
        .enumerate()
        .map(|(number, whole)| (format!("greeting-{number}"), 2, whole[12..].to_vec()));
    let preambles = whole
        .iter()
        .enumerate()
        .map(|(number, whole)| (format!("preamble-{number}"), 3, whole[..12].to_vec()));
    let all = requests.chain(events).chain(objects).chain(ids).chain(bodies).chain(preambles);
    all.map(|(name, kind, bytes)| (name, [&[kind], &bytes[..]].concat())).collect()
}

/// The whole state at once, then changes of it.
pub(super) fn transactions() -> Vec<Seed> {
    let begin = |base| Request::Begin { transaction: 1, base };
    let commit = || Request::Commit { transaction: 1, digest: Digest([7; 32]) };
    let puts = || objects().into_iter().map(Request::Put);
    let whole: Vec<_> = [begin(Base::Empty)].into_iter().chain(puts()).chain([commit()]).collect();
    let change = |requests: Vec<Request>| -> Vec<u8> {
        let more = [begin(Base::Running)].into_iter().chain(requests).chain([commit()]);
        whole.iter().cloned().chain(more).flat_map(|request| framed(&request)).collect()
    };
    let mut seeds = vec![("whole".to_owned(), change(vec![]))];
    for (number, object) in objects().into_iter().enumerate() {
        seeds.push((format!("without-{number}"), change(vec![Request::Delete(object.id())])));
    }
    seeds
}

/// Pushes and pops of a message, then what a hostile peer does.
pub(super) fn ring() -> Vec<Seed> {
    let push = |message: &[u8]| {
        let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
        [&[0], &length[..], message].concat()
    };
    let messages: Vec<u8> =
        requests().iter().take(4).flat_map(|(_, request)| push(&bytes(request))).collect();
    let pops = [2; 5];
    let seed = |name: &str, capacity: u8, rest: &str| {
        (name.to_owned(), [&[capacity], &messages[..], &pops, &hex(rest)].concat())
    };
    vec![
        seed("queue", 3, "00 0001 61 05 02 05"),
        seed("full", 1, "00 0000 00 0000 00 0000 02 00 0000"),
        seed("tail-ahead", 2, "06 00 82 00 02 05 02"),
        seed("tail-back", 2, "00 0001 61 06 00 70 00 02"),
        seed("head-ahead", 2, "06 01 90 00 00 0001 61 05"),
        seed("record", 2, "00 0001 61 07 00 01 00 00ff 02 02"),
        seed("payload", 2, "00 0001 61 07 00 02 01 01 ffffffffffffffff 02 02"),
        ("attach".to_owned(), hex("00 03 00 00")),
        ("attach-other".to_owned(), hex("00 03 00 00 01 0000000000000002")),
        ("attach-garbage".to_owned(), hex("00 03 00 01 00 475245595249 4e47")),
    ]
}

/// With the length that `transaction` wants in front.
fn framed(request: &Request) -> Vec<u8> {
    let bytes = bytes(request);
    [&[u8::try_from(bytes.len()).unwrap_or(0)], &bytes[..]].concat()
}

fn bytes<T: Serialize>(message: &T) -> Vec<u8> {
    encode(message, &mut [0; MESSAGE_BYTES_MAX]).map(<[u8]>::to_vec).unwrap_or_default()
}

fn requests() -> Vec<(String, Request)> {
    let named = |name: &str, request| (name.to_owned(), request);
    let mut requests = vec![
        named("begin-running", Request::Begin { transaction: 300, base: Base::Running }),
        named("begin-empty", Request::Begin { transaction: 1, base: Base::Empty }),
        named("commit", Request::Commit { transaction: 1, digest: Digest([7; 32]) }),
        named("check", Request::Check { transaction: 1 }),
        named("abort", Request::Abort),
        named("list-sas", Request::List { request: 1, list: List::Sas }),
        named("list-neighbors", Request::List { request: 70_000, list: List::Neighbors }),
    ];
    for (number, object) in objects().into_iter().enumerate() {
        requests.push((format!("delete-{number}"), Request::Delete(object.id())));
        requests.push((format!("put-{number}"), Request::Put(object)));
    }
    requests
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0; 4]))
}

fn prefix(text: &str, length: u8) -> IpPrefix {
    IpPrefix { address: address(text), length }
}

fn objects() -> Vec<Object> {
    let settings =
        |port, side| Object::Port(PortSettings { port: PortIndex(port), mtu: 1500, side, answer_ping: true });
    let own = |port: Option<u16>, text, length| {
        Object::Address(Address { port: port.map(PortIndex), address: address(text), length })
    };
    let route = |text, length, target| Object::Route(Route { prefix: prefix(text, length), target });
    let port =
        |next_hop: Option<&str>| RouteTarget::Port { port: PortIndex(0), next_hop: next_hop.map(address) };
    vec![
        settings(0, PortSide::Unprotected),
        settings(1, PortSide::Protected),
        own(Some(0), "192.0.2.1", 24),
        own(Some(0), "2001:db8::1", 64),
        own(Some(1), "10.1.0.1", 16),
        own(None, "10.255.0.1", 32),
        Object::Neighbor(StaticNeighbor {
            port: PortIndex(0),
            address: address("192.0.2.254"),
            mac: [2, 0, 0, 0, 0, 9],
        }),
        route("0.0.0.0", 0, port(Some("192.0.2.254"))),
        route("2001:db8:1::", 48, port(None)),
        route("10.2.0.0", 16, RouteTarget::Tunnel(TunnelIndex(0))),
        route("10.3.0.0", 16, RouteTarget::Tunnel(TunnelIndex(1))),
        route("10.9.0.0", 16, RouteTarget::Discard),
        tunnel(0, "192.0.2.1", "198.51.100.7", Some(0)),
        tunnel(1, "10.255.0.1", "10.255.0.8", Some(1)),
        tunnel(2, "2001:db8::1", "2001:db8:1::7", None),
        protection(0, EspMode::Transport, "198.51.100.7"),
        protection(1, EspMode::Tunnel, "198.51.100.8"),
        policy(0, Some(17), PolicyAction::Bypass),
        policy(1, None, PolicyAction::Protect(ProtectionIndex(1))),
        policy(2, Some(6), PolicyAction::Discard),
        sa(0, 0, Direction::Inbound),
        sa(1, 0, Direction::Outbound),
        sa(2, 1, Direction::Outbound),
    ]
}

fn tunnel(index: u32, source: &str, destination: &str, protection: Option<u32>) -> Object {
    let key = (index > 0).then_some(index);
    Object::Tunnel(Tunnel {
        tunnel: TunnelIndex(index),
        source: address(source),
        destination: address(destination),
        gre: GreOptions { key, checksum: index > 0, sequence: index > 1 },
        protection: protection.map(ProtectionIndex),
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        mtu: key.map(|_| 1400),
        mss: [MssClamp::Automatic, MssClamp::Fixed(1300), MssClamp::Off][index as usize % 3],
        strict_source: index == 1,
            marks: messages::TunnelMarks::default(),
    })
}

fn protection(index: u32, mode: EspMode, remote: &str) -> Object {
    Object::Protection(Protection {
        protection: ProtectionIndex(index),
        mode,
        local: address("192.0.2.1"),
        remote: address(remote),
        tos: TosPolicy::Dscp(46),
        df: DfPolicy::Set,
        ttl: 255,
        class_groups: messages::ClassGroups::default(),
    })
}

fn policy(index: u32, protocol: Option<u8>, action: PolicyAction) -> Object {
    let ports = protocol.map(|_| PortRange { first: 500, last: 4500 });
    Object::Policy(Policy {
        policy: PolicyIndex(index),
        port: PortIndex(0),
        order: index * 10,
        selector: Selector {
            local: Some(prefix("10.1.0.0", 16)),
            remote: Some(prefix("10.4.0.0", 16)),
            protocol,
            local_ports: ports,
            remote_ports: ports,
        },
        action,
    })
}

fn sa(index: u32, protection: u32, direction: Direction) -> Object {
    let keymat: Vec<u8> = (0..[20, 28, 36][index as usize % 3]).map(|byte| byte ^ 0x5a).collect();
    let Some(secret) = Secret::from_keymat(&keymat) else {
        return Object::Route(Route { prefix: prefix("10.8.0.0", 16), target: RouteTarget::Discard });
    };
    Object::Sa(Sa {
        sa: SaIndex(index),
        protection: ProtectionIndex(protection),
        direction,
        spi: 0x1000 + index,
        key: Key { secret, icv_bytes: [16, 12, 8][index as usize % 3] },
        esn: index > 0,
        replay_window: 1024,
        class_group: 0,
        owner: (index == 0).then_some(WorkerId(1)),
        iv_prefix: IvPrefix { bits: 8, value: 3 },
        lifetime: LifetimeLimits { soft_packets: 1000, hard_packets: 2000, ..LifetimeLimits::default() },
    })
}

fn events() -> Vec<(String, Event)> {
    let named = |name: &str, event| (name.to_owned(), event);
    let mut events = vec![
        named("committed", Event::Committed { transaction: 1, generation: 1 << 40, skew_ns: 1234 }),
        named("checked", Event::Checked { transaction: 1 }),
        named("end-of-list", Event::EndOfList { request: 9 }),
        named("soft", Event::SaSoftLimit(SaIndex(1))),
        named("hard", Event::SaHardLimit(SaIndex(1))),
        named("failing", Event::StoreFailing),
        named("recovered", Event::StoreRecovered),
        named("sa-outbound", Event::Sa(1, sa_state(Direction::Outbound))),
        named("sa-inbound", Event::Sa(1, sa_state(Direction::Inbound))),
        named(
            "tunnel",
            Event::Tunnel(
                1,
                TunnelState {
                    tunnel: TunnelIndex(7),
                    mtu: 1400,
                    egress: Some(PortIndex(0)),
                    packets_out: 1,
                    bytes_out: 2,
                    packets_in: 3,
                    bytes_in: 4,
                },
            ),
        ),
        named(
            "neighbor",
            Event::Neighbor(
                1,
                Neighbor {
                    port: PortIndex(0),
                    address: address("2001:db8::9"),
                    mac: [2, 0, 0, 0, 0, 9],
                    state: NeighborState::Stale,
                },
            ),
        ),
    ];
    let refused = refusals().into_iter().enumerate();
    events.extend(
        refused.map(|(number, refusal)| {
            (format!("refused-{number}"), Event::Refused { transaction: 1, refusal })
        }),
    );
    events
}

fn refusals() -> Vec<Refusal> {
    let (tunnel, sa) = (ObjectId::Tunnel(TunnelIndex(1)), ObjectId::Sa(SaIndex(2)));
    let route = ObjectId::Route(prefix("2001:db8::", 32));
    vec![
        Refusal::Malformed,
        Refusal::NoTransaction,
        Refusal::BeyondLimit(sa, 8192),
        Refusal::Unknown(route),
        Refusal::Dangling(tunnel, ObjectId::Protection(ProtectionIndex(1))),
        Refusal::Conflict(tunnel, tunnel),
        Refusal::OutOfRange(sa, Field::ReplayWindow),
        Refusal::KeyReused(sa, sa),
        Refusal::KeyRefused(sa),
        Refusal::NoSequenceStore(sa),
        Refusal::StoreWrite(sa),
        Refusal::NoRoom(tunnel),
        Refusal::OutOfMemory(tunnel),
        Refusal::WorkerStuck(WorkerId(3)),
    ]
}

fn sa_state(direction: Direction) -> SaState {
    let is_outbound = direction == Direction::Outbound;
    SaState {
        sa: SaIndex(1),
        protection: ProtectionIndex(1),
        direction,
        spi: 0x1001,
        fingerprint: Fingerprint([9; 32]),
        packets: 1 << 33,
        bytes: 1 << 43,
        age_ns: 1 << 50,
        outbound: is_outbound.then_some(OutboundState { next_sequence: 5, limit: 1 << 22 }),
        inbound: (!is_outbound).then_some(InboundState { right_edge: 5, owner: WorkerId(1) }),
    }
}

fn greetings() -> Vec<Greeting> {
    let port = |name: &str, device: &str| HelloPort {
        name: name.into(),
        device: device.into(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu_max: 1500,
        vlan: (name == "wan").then_some(100),
    };
    vec![
        Greeting::Refused { reason: "another control is connected".into() },
        Greeting::Hello(Hello {
            version: PROTOCOL_VERSION,
            pid: 4242,
            generation: 17,
            digest: Some(Digest([7; 32])),
            engine: "ipsec-mb".into(),
            worker_cpus: vec![2, 3],
            cycles_per_second: 2_600_000_000,
            ports: vec![port("wan", "0000:3b:00.0"), port("lan", "net_af_packet0,iface=eth1")],
            sas_max: 8192,
            tunnels_max: 4096,
            ring_records: 4096,
            counters: CountersLayout { workers: 2, ports: 2 },
        }),
    ]
}
