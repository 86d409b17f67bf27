// SPDX-License-Identifier: Apache-2.0
//! The headend of `pipeline_inbound`: two ports, two workers, and each way to carry a site.
//!
//! ```text
//! protection  mode       peer            ESN  ICV  owner   site
//! 0           transport  198.51.100.7    no   16   0       10.2.0.0/16, fd00:2::/64  tunnel 0: GRE
//! 1           tunnel     198.51.100.8    no   12   1       10.3.0.0/16               tunnel 1: GRE, 10.255.0.1 → .8, all options
//! 2           tunnel     198.51.100.9    yes  16   0       10.4.0.0/16               by policy, without GRE
//! 3           transport  2001:db8:1::7   yes  8    1       10.5.0.0/16, fd00:5::/64  tunnel 3: GRE with a key
//! none                   198.51.100.10                     10.6.0.0/16               tunnel 2: GRE with a key, strict source
//! ```

use core::net::IpAddr;
use std::sync::{Arc, LazyLock};

use aead::{Engine, IcvLength, Key};
use esp::{
    InboundParameters, InboundSa, IvPrefix, Lifetime, OutboundParameters, OutboundSa, Salt, SequenceNumber,
    Spi,
};
use messages::{
    Address, DfPolicy, Direction, EspMode, GreOptions, IpPrefix, LifetimeLimits, MssClamp, Object, Policy,
    PolicyAction, PolicyIndex, PortIndex, PortSettings, PortSide, Protection, ProtectionIndex, Route,
    RouteTarget, Sa, SaIndex, Secret, Selector, StaticNeighbor, TosPolicy, Tunnel, TunnelIndex, WorkerId,
};
use pipeline::{Handoff, InboundEntry, Sad, State};
use tables::{Generation, Limits, Neighbors, PortLimits, Shadow};

use crate::sealing::Known;

pub(super) const WAN: PortIndex = PortIndex(0);
pub(super) const LAN: PortIndex = PortIndex(1);
pub(super) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];
pub(super) const WORKERS: u16 = 2;
pub(super) const PROTECTIONS: usize = 4;
pub(super) const MTU: u16 = 1500;

/// One protection with its two SAs.
pub(super) struct Pair {
    pub(super) mode: EspMode,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    /// What our peer seals with.
    pub(super) inbound: Known,
    /// What it opens with.
    pub(super) outbound: Known,
    /// Both directions' key; the salts differ.
    pub(super) key: Key,
    owner: WorkerId,
    keymat: [u8; 16],
}

pub(super) static PAIRS: LazyLock<[Pair; PROTECTIONS]> = LazyLock::new(|| {
    let pair = |index: u8, mode, local: &str, remote: &str, esn, icv| {
        let keymat = [index + 1; 16];
        let known = |direction: u8| Known {
            spi: u32::from(direction) << 12 | u32::from(index),
            salt: [index, direction, 0xbe, 0xef],
            esn,
        };
        Pair {
            mode,
            local: address(local),
            remote: address(remote),
            inbound: known(1),
            outbound: known(2),
            key: engine().key(&keymat, icv).expect("a length that AES has"),
            owner: WorkerId(u16::from(index) % WORKERS),
            keymat,
        }
    };
    let ours = "192.0.2.1";
    [
        pair(0, EspMode::Transport, ours, "198.51.100.7", false, IcvLength::Sixteen),
        pair(1, EspMode::Tunnel, ours, "198.51.100.8", false, IcvLength::Twelve),
        pair(2, EspMode::Tunnel, ours, "198.51.100.9", true, IcvLength::Sixteen),
        pair(3, EspMode::Transport, "2001:db8::1", "2001:db8:1::7", true, IcvLength::Eight),
    ]
});

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    sas_max: 16,
    tunnels_max: 8,
    workers: WORKERS,
    ports: vec![PortLimits { mtu_max: MTU, is_tagged: false }; 2],
});

/// The wanted state; it is the same in every run.
static WANTED: LazyLock<Shadow> = LazyLock::new(|| {
    let mut shadow = Shadow::default();
    for object in objects() {
        shadow.put(&object, &LIMITS).expect("a valid object");
    }
    shadow
});

/// The portable engine: an input does the same on every machine.
pub(super) fn engine() -> Engine {
    Engine::named("aes-gcm").expect("the reference is always there")
}

/// Fresh tables, neighbours and SAs.
pub(super) fn state() -> (Arc<State>, Arc<Neighbors>) {
    let neighbors = Arc::new(Neighbors::with_seed(64, 1));
    let previous = Generation::empty();
    let tables = WANTED.compile(1, &LIMITS, Some(&previous), &neighbors).expect("a valid state");
    tables.switch_neighbors(Some(&previous), &neighbors);
    let mut sad = Sad::default();
    for (index, pair) in (0..).zip(PAIRS.iter()) {
        sad.set_inbound(SaIndex(index), Some(pair.inbound()));
        sad.set_outbound(SaIndex(PROTECTIONS as u32 + index), Some(Arc::new(pair.outbound())));
    }
    (Arc::new(State { tables: Arc::new(tables), sad, handoff: Handoff::default() }), neighbors)
}

impl Pair {
    fn fresh_key(&self) -> Key {
        engine().key(&self.keymat, self.key.icv_length()).expect("a length that AES has")
    }

    fn inbound(&self) -> InboundEntry {
        let sa = InboundSa::new(InboundParameters {
            spi: Spi(self.inbound.spi),
            key: self.fresh_key(),
            salt: Salt::new(self.inbound.salt),
            esn: self.inbound.esn,
            window: Some(64),
            lifetime: Lifetime::default(),
        });
        InboundEntry { sa: Arc::new(sa.expect("a window that is allowed")), owner: self.owner }
    }

    fn outbound(&self) -> OutboundSa {
        let sa = OutboundSa::new(OutboundParameters {
            spi: Spi(self.outbound.spi),
            key: self.fresh_key(),
            salt: Salt::new(self.outbound.salt),
            esn: self.outbound.esn,
            iv_prefix: IvPrefix::EMPTY,
            lifetime: Lifetime::default(),
        });
        sa.sequence().raise_limit(SequenceNumber(1 << 20));
        sa
    }
}

fn objects() -> Vec<Object> {
    let mut objects = vec![
        settings(WAN, PortSide::Unprotected),
        settings(LAN, PortSide::Protected),
        own(Some(WAN), "192.0.2.1", 24),
        own(Some(WAN), "2001:db8::1", 64),
        own(Some(LAN), "10.1.0.1", 16),
        own(Some(LAN), "fd00:1::1", 64),
        own(None, "10.255.0.1", 32),
        static_neighbor(WAN, "192.0.2.254"),
        static_neighbor(WAN, "2001:db8::fe"),
        static_neighbor(LAN, "10.1.0.2"),
        route("0.0.0.0", 0, out(WAN, "192.0.2.254")),
        route("::", 0, out(WAN, "2001:db8::fe")),
        route("10.7.0.0", 16, RouteTarget::Discard),
        route("10.8.0.0", 16, out(LAN, "10.1.0.9")),
        policy(0, "10.1.0.0/16", "10.4.0.0/16", None, PolicyAction::Protect(ProtectionIndex(2))),
        policy(1, "192.0.2.1/32", "198.51.100.10/32", Some(47), PolicyAction::Bypass),
        policy(2, "0.0.0.0/0", "0.0.0.0/0", Some(1), PolicyAction::Bypass),
        policy(3, "::/0", "::/0", Some(58), PolicyAction::Bypass),
        policy(4, "0.0.0.0/0", "0.0.0.0/0", Some(17), PolicyAction::Discard),
        tunnel(0, "192.0.2.1", "198.51.100.7", Some(0)),
        tunnel(1, "10.255.0.1", "10.255.0.8", Some(1)),
        tunnel(2, "192.0.2.1", "198.51.100.10", None),
        tunnel(3, "2001:db8::1", "2001:db8:1::7", Some(3)),
    ];
    for (prefix, length, index) in [
        ("10.2.0.0", 16, 0),
        ("10.3.0.0", 16, 1),
        ("10.6.0.0", 16, 2),
        ("10.5.0.0", 16, 3),
        ("fd00:2::", 64, 0),
        ("fd00:5::", 64, 3),
    ] {
        objects.push(route(prefix, length, RouteTarget::Tunnel(TunnelIndex(index))));
    }
    for (pair, index) in PAIRS.iter().zip(0..) {
        objects.push(protection(index, pair));
        objects.push(sa(index, Direction::Inbound, index, pair));
        objects.push(sa(index + PROTECTIONS as u32, Direction::Outbound, index, pair));
    }
    objects
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> IpPrefix {
    let (prefix, length) = text.split_once('/').expect("a prefix");
    IpPrefix { address: address(prefix), length: length.parse().expect("a length") }
}

fn settings(port: PortIndex, side: PortSide) -> Object {
    Object::Port(PortSettings { port, mtu: MTU, side, answer_ping: true })
}

fn own(port: Option<PortIndex>, text: &str, length: u8) -> Object {
    Object::Address(Address { port, address: address(text), length })
}

fn static_neighbor(port: PortIndex, text: &str) -> Object {
    Object::Neighbor(StaticNeighbor { port, address: address(text), mac: [2, 0, 0, 0, 0, 0x20] })
}

fn route(text: &str, length: u8, target: RouteTarget) -> Object {
    Object::Route(Route { prefix: IpPrefix { address: address(text), length }, target })
}

fn out(port: PortIndex, next_hop: &str) -> RouteTarget {
    RouteTarget::Port { port, next_hop: Some(address(next_hop)) }
}

fn policy(index: u32, local: &str, remote: &str, protocol: Option<u8>, action: PolicyAction) -> Object {
    let (local, remote) = (Some(prefix(local)), Some(prefix(remote)));
    let selector = Selector { local, remote, protocol, local_ports: None, remote_ports: None };
    Object::Policy(Policy { policy: PolicyIndex(index), port: WAN, order: index, selector, action })
}

fn tunnel(index: u32, source: &str, destination: &str, protection: Option<u32>) -> Object {
    Object::Tunnel(Tunnel {
        tunnel: TunnelIndex(index),
        source: address(source),
        destination: address(destination),
        gre: GreOptions { key: (index > 0).then_some(index), checksum: index == 1, sequence: index == 1 },
        protection: protection.map(ProtectionIndex),
        tos: TosPolicy::Copy,
        df: [DfPolicy::Copy, DfPolicy::Clear, DfPolicy::Set][index as usize % 3],
        ttl: 64,
        mtu: None,
        mss: MssClamp::Automatic,
        strict_source: index == 2,
            marks: messages::TunnelMarks::default(),
    })
}

fn protection(index: u32, pair: &Pair) -> Object {
    Object::Protection(Protection {
        protection: ProtectionIndex(index),
        mode: pair.mode,
        local: pair.local,
        remote: pair.remote,
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        class_groups: messages::ClassGroups::default(),
    })
}

fn sa(index: u32, direction: Direction, protection: u32, pair: &Pair) -> Object {
    let known = if direction == Direction::Inbound { &pair.inbound } else { &pair.outbound };
    let secret =
        Secret::from_keymat(&[&pair.keymat[..], &known.salt].concat()).expect("a length that AES has");
    let icv_bytes = u8::try_from(pair.key.icv_length().bytes()).expect("8, 12 or 16");
    Object::Sa(Sa {
        sa: SaIndex(index),
        protection: ProtectionIndex(protection),
        direction,
        spi: known.spi,
        key: messages::Key { secret, icv_bytes },
        esn: known.esn,
        replay_window: 64,
        class_group: 0,
        owner: (direction == Direction::Inbound).then_some(pair.owner),
        iv_prefix: messages::IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
    })
}
