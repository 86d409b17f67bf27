// SPDX-License-Identifier: Apache-2.0
//! Seeded random configurations, each run by the headend it is for and, mirrored, by one at the far end of each of its
//! tunnels: what goes in arrives intact or is dropped for one reason, and nothing is in clear that policy wants protected.
//!
//! ```text
//!   host ── lan, hub, wan0 … wanN ── the untrusted network: this test ── wan, far, lan ── hosts of one site
//! ```
//!
//! What policy and routes say of a packet is found here a second time, by going through the objects one by one.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use aead::Engine;
use config::sample::{self, Keys};
use config::{Action, Indices, PolicyEntry, compile};
use greyhound_simulation::packets::{Udp, is_link_local_chatter, reassemble};
use greyhound_simulation::wanted::{ANY, host, ip, prefix, route_by, route_into};
use greyhound_simulation::{Headend, HeadendConfig, Site};
use messages::{
    Address, Base, ClassGroups, DfPolicy, Direction, DropReason, DscpSet, EspMode, IpPrefix, IvPrefix,
    LifetimeLimits, MssClamp, Object, Policy, PolicyAction, PolicyIndex, PortIndex, PortRange, PortSettings,
    PortSide, Protection, ProtectionIndex, Route, RouteTarget, Sa, Selector, StaticNeighbor, TosPolicy,
    Tunnel, WorkerCounter,
};
use port::memory::{self, PairConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::IpProtocol;
use wire::flow::{self, Parsed};

const LAN: PortIndex = PortIndex(0);
const WAN: PortIndex = PortIndex(1);
const MTU: u16 = 9_000;
const WORKERS: u16 = 2;
/// Probes for each site and configuration.
const PROBES: usize = 24;
/// A packet of at most so many bytes fits into every tunnel (RFC 791).
const ALWAYS_FITS_BYTES: usize = 68;

/// One headend with the hosts and routers at its ports.
struct Node {
    headend: Headend,
    sites: Vec<Site>,
    workers: u16,
    /// ARP and neighbour discovery that it sent.
    questions: u64,
    _home: tempfile::TempDir,
}

/// Drops, and packets of ours that are neither ARP nor neighbour discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Books {
    dropped: u64,
    originated: u64,
    fragments: u64,
}

impl Node {
    /// With a host or router at each port that has these addresses.
    fn new(workers: u16, addresses: &[Vec<IpAddr>], objects: &[Object]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mac = |side: u8, port: usize| [2, side, 0, 0, 0, port as u8];
        let mut ports = Vec::new();
        let mut sites = Vec::new();
        for (number, addresses) in addresses.iter().enumerate() {
            let (port, wire) = memory::wire_with(&PairConfig {
                macs: [mac(1, number), mac(2, number)],
                mtu: MTU,
                ..PairConfig::new(workers, 512)
            });
            let site = Site::new(wire, mac(2, number), mac(1, number), addresses);
            sites.push(site.with_buffers(1_200).keeping_frames());
            ports.push(port);
        }
        let (state, engine) = (home.path().to_path_buf(), Engine::best());
        let mut headend =
            Headend::new(HeadendConfig { ports, vlans: Vec::new(), workers, state, packets: 1_024, engine });
        headend.put(Base::Empty, objects, 1_000_000_000).expect("a valid configuration");
        Self { headend, sites, workers, questions: 0, _home: home }
    }

    /// Drops over all reasons, which is the counter of drops.
    fn books(&mut self) -> Books {
        let dropped = self.headend.counter(WorkerCounter::Dropped);
        let by_reason: u64 = self.headend.drops().iter().map(|(_, count)| count).sum();
        assert_eq!(dropped, by_reason, "each drop has one reason");
        let frames = self.sites.iter_mut().flat_map(Site::take_frames);
        self.questions += frames.filter(|frame| is_link_local_chatter(frame)).count() as u64;
        Books {
            dropped,
            originated: self.headend.counter(WorkerCounter::Originated) - self.questions,
            fragments: self.headend.counter(WorkerCounter::FragmentsMade),
        }
    }
}

/// What the hub is told, and what it must do by that.
struct Told {
    objects: Vec<Object>,
}

impl Told {
    fn all<'a, T: 'a>(&'a self, pick: impl Fn(&'a Object) -> Option<&'a T>) -> impl Iterator<Item = &'a T> {
        self.objects.iter().filter_map(pick)
    }

    fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.all(|object| if let Object::Tunnel(tunnel) = object { Some(tunnel) } else { None })
    }

    fn routes(&self) -> impl Iterator<Item = &Route> {
        self.all(|object| if let Object::Route(route) = object { Some(route) } else { None })
    }

    fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.all(|object| if let Object::Policy(policy) = object { Some(policy) } else { None })
    }

    fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.all(|object| if let Object::Address(address) = object { Some(address) } else { None })
    }

    fn protection(&self, index: ProtectionIndex) -> &Protection {
        self.all(|object| if let Object::Protection(it) = object { Some(it) } else { None })
            .find(|protection| protection.protection == index)
            .expect("a protection that is named")
    }

    fn sas(&self, protection: ProtectionIndex, direction: Direction) -> impl Iterator<Item = &Sa> {
        self.all(|object| if let Object::Sa(sa) = object { Some(sa) } else { None })
            .filter(move |sa| (sa.protection, sa.direction) == (protection, direction))
    }

    /// Longest prefix, connected ones among them.
    fn route(&self, to: IpAddr) -> Option<RouteTarget> {
        let connected = self.addresses().filter_map(|address| {
            let port = address.port?;
            let prefix = IpPrefix { address: address.address, length: address.length };
            Some((prefix, RouteTarget::Port { port, next_hop: None }))
        });
        self.routes()
            .map(|route| (route.prefix, route.target))
            .chain(connected)
            .filter(|(prefix, _)| covers(prefix, to))
            .max_by_key(|(prefix, _)| prefix.length)
            .map(|(_, target)| target)
    }

    /// The first entry that matches; none means discard.
    fn spd(&self, port: PortIndex, packet: &Seen) -> Option<PolicyAction> {
        let mut matching: Vec<_> =
            self.policies().filter(|it| it.port == port && packet.matches(&it.selector)).collect();
        matching.sort_by_key(|policy| policy.order);
        matching.first().map(|policy| policy.action)
    }

    /// The port that has an address of ours.
    fn home(&self, address: IpAddr) -> PortIndex {
        self.addresses().find(|own| own.address == address).and_then(|own| own.port).unwrap_or(WAN)
    }
}

fn covers(prefix: &IpPrefix, address: IpAddr) -> bool {
    let bits = |address| match address {
        IpAddr::V4(address) => (u128::from(Ipv4Addr::to_bits(address)) << 96, 32),
        IpAddr::V6(address) => (Ipv6Addr::to_bits(address), 128),
    };
    let ((wanted, width), (found, found_width)) = (bits(prefix.address), bits(address));
    width == found_width && (prefix.length == 0 || (wanted ^ found) >> (128 - u32::from(prefix.length)) == 0)
}

/// A packet as a selector sees it.
struct Seen {
    local: IpAddr,
    remote: IpAddr,
    protocol: IpProtocol,
    ports: Option<(u16, u16)>,
}

impl Seen {
    fn outbound(packet: &Udp) -> Self {
        let ports = Some((packet.source_port, packet.destination_port));
        Self { local: packet.source, remote: packet.destination, protocol: IpProtocol::UDP, ports }
    }

    fn inbound(packet: &Udp) -> Self {
        let ports = Some((packet.destination_port, packet.source_port));
        Self { local: packet.destination, remote: packet.source, protocol: IpProtocol::UDP, ports }
    }

    fn gre(tunnel: &Tunnel) -> Self {
        let (local, remote) = (tunnel.source, tunnel.destination);
        Self { local, remote, protocol: IpProtocol::GRE, ports: None }
    }

    fn matches(&self, selector: &Selector) -> bool {
        let within = |prefix: &Option<IpPrefix>, address| prefix.is_none_or(|it| covers(&it, address));
        let among = |range: &Option<PortRange>, port: Option<u16>| match (range, port) {
            (None, _) => true,
            (Some(range), Some(port)) => (range.first..=range.last).contains(&port),
            (Some(_), None) => false,
        };
        within(&selector.local, self.local)
            && within(&selector.remote, self.remote)
            && selector.protocol.is_none_or(|protocol| protocol == self.protocol.0)
            && among(&selector.local_ports, self.ports.map(|ports| ports.0))
            && among(&selector.remote_ports, self.ports.map(|ports| ports.1))
    }
}

/// How a site hangs on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    GreAlone,
    EspAlone,
    OnePair,
    TwoPairs,
}

/// A site: the mirror image of a tunnel, of a protection, or of both.
struct Far {
    kind: Kind,
    tunnel: Option<Tunnel>,
    protection: Option<Protection>,
    inside: Vec<IpPrefix>,
}

impl Far {
    /// Every site that the hub has a way to.
    fn all(hub: &Told) -> Vec<Self> {
        let by_tunnel = hub.tunnels().map(|tunnel| {
            let leads_there = |route: &&Route| route.target == RouteTarget::Tunnel(tunnel.tunnel);
            let protection = tunnel.protection.map(|index| *hub.protection(index));
            let kind = match &protection {
                None => Kind::GreAlone,
                Some(protection) if protection.remote == tunnel.destination => Kind::OnePair,
                Some(_) => Kind::TwoPairs,
            };
            let inside = hub.routes().filter(leads_there).map(|route| route.prefix).collect();
            Self { kind, tunnel: Some(*tunnel), protection, inside }
        });
        let by_policy = hub.policies().filter_map(|policy| {
            let PolicyAction::Protect(index) = policy.action else { return None };
            let inside = policy.selector.remote.into_iter().collect();
            let protection = Some(*hub.protection(index));
            Some(Self { kind: Kind::EspAlone, tunnel: None, protection, inside })
        });
        by_tunnel.chain(by_policy).filter(|far| !far.inside.is_empty()).collect()
    }

    /// The SA that the hub must have for a packet to here: that of the group of the DSCP that the outermost header gets.
    fn sa_towards<'a>(&self, hub: &'a Told, packet: &Udp) -> Option<&'a Sa> {
        let protection = self.protection.as_ref()?;
        let inner = self.tunnel.as_ref().map(|tunnel| tunnel.tos);
        let outer = (protection.mode == EspMode::Tunnel).then_some(protection.tos);
        let dscp = [inner, outer].into_iter().flatten().fold(packet.tos >> 2, |dscp, tos| match tos {
            TosPolicy::Copy => dscp,
            TosPolicy::Dscp(fixed) => fixed,
        });
        let holds = |set: &&DscpSet| set.0 >> dscp & 1 == 1;
        let group = protection.class_groups.0.iter().find(holds);
        let group = group.and_then(|set| protection.class_groups.0.iter().position(|other| other == set));
        let class_group = group.map_or(0, |place| place as u8 + 1);
        hub.sas(protection.protection, Direction::Outbound).find(|sa| sa.class_group == class_group)
    }

    /// The address that the hub sends to.
    fn outer(&self) -> IpAddr {
        let tunnel = self.tunnel.as_ref().map(|tunnel| tunnel.destination);
        self.protection.as_ref().map(|protection| protection.remote).or(tunnel).expect("one of both")
    }

    /// The hub's address that it sends to.
    fn hub(&self) -> IpAddr {
        let tunnel = self.tunnel.as_ref().map(|tunnel| tunnel.source);
        self.protection.as_ref().map(|protection| protection.local).or(tunnel).expect("one of both")
    }

    fn objects(&self, hub: &Told) -> Vec<Object> {
        let mut objects = self.network();
        if let Some(protection) = &self.protection {
            objects.push(Object::Protection(Protection {
                local: protection.remote,
                remote: protection.local,
                tos: TosPolicy::Copy,
                df: DfPolicy::Clear,
                ttl: 64,
                class_groups: ClassGroups::default(),
                ..*protection
            }));
            // It sends by one SA, and takes whatever comes under any.
            let sending = hub.sas(protection.protection, Direction::Inbound).take(1);
            let taking = hub.sas(protection.protection, Direction::Outbound);
            objects.extend(sending.chain(taking).map(|sa| Object::Sa(mirrored(sa))));
        }
        let lan = [prefix("10.0.0.0/16"), prefix("2001:db8:ffff::/64")];
        if let Some(tunnel) = &self.tunnel {
            objects.push(Object::Tunnel(Tunnel {
                source: tunnel.destination,
                destination: tunnel.source,
                tos: TosPolicy::Copy,
                df: DfPolicy::Clear,
                ttl: 64,
                mtu: None,
                mss: MssClamp::Off,
                strict_source: true,
                marks: messages::TunnelMarks::default(),
                ..*tunnel
            }));
            objects.extend(lan.map(|lan| route_into(lan, tunnel.tunnel.0)));
        }
        let policy =
            |selector, action| Policy { policy: PolicyIndex(0), port: WAN, order: 0, selector, action };
        match (self.kind, &self.protection) {
            (Kind::EspAlone, Some(protection)) => {
                let selector = Selector { local: Some(self.inside[0]), remote: Some(lan[0]), ..ANY };
                let action = PolicyAction::Protect(protection.protection);
                objects.push(Object::Policy(policy(selector, action)));
            }
            (Kind::GreAlone, _) => {
                let selector = Selector { protocol: Some(IpProtocol::GRE.0), ..ANY };
                objects.push(Object::Policy(policy(selector, PolicyAction::Bypass)));
            }
            _ => {}
        }
        objects
    }

    /// Ports, addresses, neighbours and routes.
    fn network(&self) -> Vec<Object> {
        let mut objects = Vec::new();
        for (port, side) in [(LAN, PortSide::Protected), (WAN, PortSide::Unprotected)] {
            objects.push(Object::Port(PortSettings { port, mtu: MTU, side, answer_ping: true }));
        }
        for (port, ours, length, neighbor) in [
            (LAN, "198.18.0.1", 24, "198.18.0.2"),
            (LAN, "2001:db8:cafe:1::1", 64, "2001:db8:cafe:1::2"),
            (WAN, "203.0.113.1", 24, "203.0.113.2"),
            (WAN, "2001:db8:cafe:2::1", 64, "2001:db8:cafe:2::2"),
        ] {
            let (address, mac) = (ip(neighbor), [2, 2, 0, 0, 0, port.0 as u8]);
            objects.push(Object::Neighbor(StaticNeighbor { port, address, mac }));
            objects.push(Object::Address(Address { port: Some(port), address: ip(ours), length }));
            if port == WAN {
                let all =
                    IpPrefix { length: 0, address: if length == 24 { ip("0.0.0.0") } else { ip("::") } };
                objects.push(route_by(all, port, address));
            } else {
                let of_family = |prefix: &&IpPrefix| prefix.address.is_ipv4() == address.is_ipv4();
                let inside = self.inside.iter().filter(of_family);
                objects.extend(inside.map(|prefix| route_by(*prefix, port, address)));
            }
        }
        let mut own = vec![self.outer()];
        own.extend(self.tunnel.as_ref().map(|tunnel| tunnel.destination));
        own.dedup();
        let loopback =
            |address| Object::Address(Address { port: None, address, length: host(address).length });
        objects.extend(own.into_iter().map(loopback));
        objects
    }

    /// Some address inside, of the family that is asked for if there is one.
    fn host(&self, random: &mut ChaCha8Rng, v6: bool) -> IpAddr {
        let prefix =
            self.inside.iter().find(|prefix| prefix.address.is_ipv6() == v6).unwrap_or(&self.inside[0]);
        match prefix.address {
            IpAddr::V4(address) => {
                let free = u32::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
                Ipv4Addr::from(address.to_bits() | random.random::<u32>() & free).into()
            }
            IpAddr::V6(address) => {
                let free = u128::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
                Ipv6Addr::from(address.to_bits() | random.random::<u128>() & free).into()
            }
        }
    }
}

/// The other end of an SA.
fn mirrored(sa: &Sa) -> Sa {
    let inbound = sa.direction == Direction::Outbound;
    Sa {
        direction: if inbound { Direction::Inbound } else { Direction::Outbound },
        replay_window: if inbound { 1_024 } else { 0 },
        owner: None,
        class_group: 0,
        iv_prefix: IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
        ..sa.clone()
    }
}

/// What may come of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It arrives at the other host.
    Arrives,
    /// Policy lets it out in clear, to nobody.
    LeavesInClear,
    /// It is dropped.
    Dropped,
}

/// Hub and one site.
struct World<'a> {
    told: &'a Told,
    hub: Node,
    far: Node,
    far_addresses: Vec<IpAddr>,
    /// The hub's port that the site's packets come in by.
    uplink: PortIndex,
    /// IP packets that left the hub for somewhere else, and by which port.
    elsewhere: Vec<(PortIndex, Vec<u8>)>,
    /// Packets on the untrusted network between the two.
    between: Vec<Vec<u8>>,
    now_ns: u64,
}

impl<'a> World<'a> {
    fn new(told: &'a Told, far: &Far) -> Self {
        let hub = Node::new(WORKERS, &neighbors_of(told), &told.objects);
        let objects = far.objects(told);
        let far_addresses =
            objects.iter().filter_map(|o| if let Object::Address(a) = o { Some(a.address) } else { None });
        let far_addresses = far_addresses.collect();
        let routers = [vec![ip("198.18.0.2")], vec![ip("203.0.113.2")]];
        let uplink = told.home(far.hub());
        let far = Node::new(1, &routers, &objects);
        let (elsewhere, between) = (Vec::new(), Vec::new());
        let mut world =
            Self { told, hub, far, far_addresses, uplink, elsewhere, between, now_ns: 2_000_000_000 };
        world.rest();
        world
    }

    /// Turns both and carries packets over the untrusted network until nothing moves.
    fn rest(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            // Longer than a tick: a worker looks after packets whose neighbour answered to another.
            self.now_ns += 11_000_000;
            let mut busy = self.hub.headend.turn(self.now_ns) | self.far.headend.turn(self.now_ns);
            for port in 1..self.hub.sites.len() {
                for packet in self.hub.sites[port].take() {
                    busy = true;
                    let to = flow::parse(&packet).expect("an IP packet").destination;
                    if self.far_addresses.contains(&to) {
                        self.far.sites[WAN.index()].send(&packet);
                        self.between.push(packet);
                    } else {
                        self.elsewhere.push((PortIndex(port as u16), packet));
                    }
                }
            }
            for packet in self.far.sites[WAN.index()].take() {
                busy = true;
                let queue = (packet.len() % usize::from(self.hub.workers)) as u16;
                self.hub.sites[self.uplink.index()].send_to_queue(queue, &packet);
                self.between.push(packet);
            }
            self.hub.sites[LAN.index()].poll();
            self.far.sites[LAN.index()].poll();
            quiet = if busy { 0 } else { quiet + 1 };
        }
    }

    /// Sends one packet, and says what came of it. However that ends, the books of both headends balance.
    fn probe(&mut self, from_hub: bool, packet: &Udp, queue: u16) -> (Fate, Vec<(DropReason, u64)>) {
        let before = [self.hub.books(), self.far.books()];
        let drops_before = self.drops();
        let (near, other) = if from_hub { (&self.hub, LAN) } else { (&self.far, LAN) };
        near.sites[other.index()].send_to_queue(queue % near.workers, &packet.to_bytes());
        self.rest();
        let (mut near, mut other) = (self.hub.sites[0].take(), self.far.sites[0].take());
        if !from_hub {
            (near, other) = (other, near);
        }
        let arrived = self.whole(packet, &other, 2);
        let left = self.leaves_in_clear(packet);
        assert!(!(arrived && left), "{} went two ways", brief(packet));
        let after = [self.hub.books(), self.far.books()];
        let risen = |of: fn(&Books) -> u64| -> u64 {
            after.iter().map(of).sum::<u64>() - before.iter().map(of).sum::<u64>()
        };
        // An error about the packet comes back, or is itself dropped.
        let answers_lost = risen(|books| books.originated) - near.len() as u64;
        let drops = self.drops_since(&drops_before);
        let dropped = risen(|books| books.dropped) - answers_lost;
        // A packet that was cut is as many packets.
        let pieces = risen(|books| books.fragments).max(1);
        let expected = if arrived || left { 0 } else { pieces };
        assert_eq!(dropped, expected, "{}: {drops:?}", brief(packet));
        assert_eq!(self.hub.headend.unaccounted() + self.far.headend.unaccounted(), 0);
        let fate = match (arrived, left) {
            (true, _) => Fate::Arrives,
            (_, true) => Fate::LeavesInClear,
            _ => Fate::Dropped,
        };
        (fate, drops)
    }

    /// Whether these packets are the one that was sent, so many hops on.
    fn whole(&self, sent: &Udp, packets: &[Vec<u8>], hops: u8) -> bool {
        if packets.is_empty() {
            return false;
        }
        let arrived = if packets.len() > 1 { reassemble(packets) } else { packets[0].clone() };
        let expected = Udp { ttl: sent.ttl - hops, ..sent.clone() }.to_bytes();
        assert!(arrived == expected, "{} was changed on its way", brief(sent));
        true
    }

    /// Whether the packet left the hub for somewhere else, as policy lets it.
    fn leaves_in_clear(&mut self, packet: &Udp) -> bool {
        let elsewhere = std::mem::take(&mut self.elsewhere);
        let Some((port, _)) = elsewhere.first() else { return false };
        assert_eq!(
            self.told.spd(*port, &Seen::outbound(packet)),
            Some(PolicyAction::Bypass),
            "{}",
            brief(packet)
        );
        let packets: Vec<_> = elsewhere.into_iter().map(|(_, packet)| packet).collect();
        self.whole(packet, &packets, 1)
    }

    fn drops(&mut self) -> [BTreeMap<DropReason, u64>; 2] {
        [&mut self.hub, &mut self.far].map(|node| node.headend.drops().into_iter().collect())
    }

    fn drops_since(&mut self, before: &[BTreeMap<DropReason, u64>; 2]) -> Vec<(DropReason, u64)> {
        let after = self.drops();
        let risen = after.iter().zip(before).flat_map(|(after, before)| {
            after.iter().map(|(reason, count)| (*reason, count - before.get(reason).unwrap_or(&0)))
        });
        risen.filter(|(_, count)| *count > 0).collect()
    }

    /// Between hub and site was ESP only, or GRE only where the tunnel has no protection and the hub's SPD says BYPASS.
    fn assert_nothing_in_clear(&self, far: &Far) {
        for packet in &self.between {
            let parsed: Parsed = flow::parse(packet).expect("an IP packet");
            let expected = if far.kind == Kind::GreAlone { IpProtocol::GRE } else { IpProtocol::ESP };
            assert_eq!(parsed.protocol, expected, "{:?}", far.kind);
        }
    }
}

/// The addresses that hosts and routers at the hub's ports must have.
fn neighbors_of(told: &Told) -> Vec<Vec<IpAddr>> {
    let ports = told.objects.iter().filter(|object| matches!(object, Object::Port(_))).count();
    let mut neighbors = vec![Vec::new(); ports];
    neighbors[LAN.index()] = vec![hub_host(false), hub_host(true)];
    for route in told.routes() {
        if let RouteTarget::Port { port, next_hop: Some(next_hop) } = route.target {
            neighbors[port.index()].push(next_hop);
        }
    }
    neighbors
}

fn hub_host(v6: bool) -> IpAddr {
    if v6 { ip("2001:db8:ffff::7") } else { ip("10.0.200.7") }
}

fn told(seed: u64, policies: u16) -> Told {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let shape = sample::Shape { sites: 4, uplinks: 1 + (seed % 2) as u8, policies, ipv6: true };
    let mut config = sample::config(&mut random, &shape);
    // Here packets arrive as they left; what maps make of DSCPs is shown by `functional` and `fast_path`.
    for tunnel in &mut config.tunnels {
        tunnel.inner_tos = config::InnerDscp::Keep;
        if matches!(tunnel.tos, config::DeliveryDscp::Map(_)) {
            tunnel.tos = config::DeliveryDscp::Copy;
        }
    }
    if seed % 2 == 1 {
        // Seldom does a random entry let GRE out in clear, and even more seldom in.
        let uplinks = config.ports.iter().filter(|port| port.side == PortSide::Unprotected);
        config.policies.extend(uplinks.map(|port| gre_in_clear(&port.name)));
    }
    let indices = Indices::default().allocate(&config);
    let compiled = compile(&config, &indices, &sample::environment(&config), &Keys);
    Told { objects: compiled.expect("a valid configuration").objects.into_values().collect() }
}

fn gre_in_clear(port: &str) -> PolicyEntry {
    PolicyEntry {
        name: format!("gre-{port}"),
        port: port.to_owned(),
        local: None,
        remote: None,
        protocol: Some(IpProtocol::GRE),
        local_ports: None,
        remote_ports: None,
        action: Action::Bypass,
        protection: None,
    }
}

/// A random packet between the hub's host and a host of the site.
fn packet(random: &mut ChaCha8Rng, far: &Far, from_hub: bool) -> Udp {
    let site = {
        let v6 = random.random();
        far.host(random, v6)
    };
    let ours = hub_host(site.is_ipv6());
    let sizes = [0, 11, 20, 100, 700, 1_400, 3_000];
    let data = vec![random.random(); sizes[random.random_range(0..sizes.len())]];
    let (source, destination) = if from_hub { (ours, site) } else { (site, ours) };
    Udp {
        source_port: random.random(),
        destination_port: random.random(),
        // Any DSCP; ECN as in a packet that met no congestion.
        tos: random.random::<u8>() & 0xfc | random.random_range(0..3),
        ttl: random.random_range(10..=255),
        dont_fragment: random.random_ratio(1, 4),
        identification: random.random(),
        ..Udp::new(source, destination, &data)
    }
}

/// What must become of a packet by what the hub is told; nothing if its size decides.
fn fate(told: &Told, far: &Far, from_hub: bool, uplink: PortIndex, packet: &Udp) -> Option<Fate> {
    let site = if from_hub { packet.destination } else { packet.source };
    let way = told.route(site);
    let is_behind_tunnel =
        far.tunnel.as_ref().is_some_and(|tunnel| way == Some(RouteTarget::Tunnel(tunnel.tunnel)));
    let has_sa = match (&far.protection, from_hub) {
        (Some(_), true) => far.sa_towards(told, packet).is_some(),
        (Some(it), false) => told.sas(it.protection, Direction::Inbound).next().is_some(),
        (None, _) => false,
    };
    let protect = far.protection.as_ref().map(|protection| PolicyAction::Protect(protection.protection));
    let clear_way = if from_hub { told.route(far.outer()) } else { None };
    let passes = match (far.kind, from_hub) {
        (Kind::OnePair | Kind::TwoPairs, true) => is_behind_tunnel && has_sa,
        // An end of the tunnel that is strict takes only what it would send back there.
        (Kind::OnePair | Kind::TwoPairs, false) => {
            has_sa && (is_behind_tunnel || far.tunnel.as_ref().is_some_and(|tunnel| !tunnel.strict_source))
        }
        (Kind::GreAlone, true) => {
            let seen = far.tunnel.as_ref().map(Seen::gre);
            let bypass = |port| seen.is_some_and(|seen| told.spd(port, &seen) == Some(PolicyAction::Bypass));
            match clear_way {
                Some(RouteTarget::Port { port, .. }) => is_behind_tunnel && bypass(port),
                _ => false,
            }
        }
        (Kind::GreAlone, false) => {
            let tunnel = far.tunnel.as_ref()?;
            let bypasses = told.spd(uplink, &Seen::gre(tunnel)) == Some(PolicyAction::Bypass);
            bypasses && (is_behind_tunnel || !tunnel.strict_source)
        }
        (Kind::EspAlone, true) => match way {
            Some(RouteTarget::Port { port, .. }) => match told.spd(port, &Seen::outbound(packet)) {
                // The site has no entry for it either, so it counts as gone elsewhere.
                Some(PolicyAction::Bypass) => return Some(Fate::LeavesInClear).filter(|_| small(packet)),
                action => action == protect && has_sa,
            },
            _ => false,
        },
        (Kind::EspAlone, false) => has_sa && told.spd(uplink, &Seen::inbound(packet)) == protect,
    };
    match passes {
        false => Some(Fate::Dropped),
        true => Some(Fate::Arrives).filter(|_| small(packet)),
    }
}

/// The SPI of an ESP packet to this address.
fn spi_towards(packet: &[u8], to: IpAddr) -> Option<u32> {
    let parsed = flow::parse(packet).expect("an IP packet");
    let is_towards = parsed.protocol == IpProtocol::ESP && parsed.destination == to;
    let esp = is_towards.then(|| parsed.upper_layer(packet))?;
    Some(u32::from_be_bytes(*esp.first_chunk().expect("an SPI")))
}

fn brief(packet: &Udp) -> String {
    let bytes = packet.data.len();
    format!("{:?} and {bytes} bytes of data", Udp { data: Vec::new(), ..packet.clone() })
}

fn small(packet: &Udp) -> bool {
    packet.to_bytes().len() <= ALWAYS_FITS_BYTES
}

/// Probes one site in both directions; how many arrived from the hub and at it.
fn probe_site(told: &Told, far: &Far, random: &mut ChaCha8Rng) -> [u32; 2] {
    let mut world = World::new(told, far);
    let mut arrived = [0; 2];
    for number in 0..PROBES {
        let from_hub = number % 2 == 0;
        let packet = packet(random, far, from_hub);
        let queue = random.random_range(0..WORKERS);
        let seen_before = world.between.len();
        let (fate_seen, drops) = world.probe(from_hub, &packet, queue);
        if from_hub {
            let spi = far.sa_towards(told, &packet).map(|sa| sa.spi);
            let spis = world.between[seen_before..].iter().filter_map(|ip| spi_towards(ip, far.outer()));
            spis.for_each(|found| {
                assert_eq!(Some(found), spi, "the SA of its class group: {}", brief(&packet))
            });
        }
        if let Some(expected) = fate(told, far, from_hub, world.uplink, &packet) {
            let context = (far.kind, from_hub, brief(&packet), &drops, &far.tunnel, &far.protection);
            assert_eq!(fate_seen, expected, "{context:?}");
        } else {
            // Its size decides: it may come in pieces, or be too big.
            let too_big = fate_seen == Fate::Dropped && drops.iter().any(|(it, _)| *it == DropReason::TooBig);
            assert!(fate_seen != Fate::Dropped || too_big, "{}: {drops:?}", brief(&packet));
        }
        arrived[usize::from(!from_hub)] += u32::from(fate_seen == Fate::Arrives);
    }
    world.assert_nothing_in_clear(far);
    arrived
}

#[test]
fn what_goes_in_arrives_intact_or_is_dropped_once_whatever_the_configuration() {
    let mut arrived: BTreeMap<Kind, [u32; 2]> = BTreeMap::new();
    for seed in 0..16 {
        let told = told(seed, 6);
        let mut random = ChaCha8Rng::seed_from_u64(!seed);
        for far in Far::all(&told) {
            let of_site = probe_site(&told, &far, &mut random);
            let sum = arrived.entry(far.kind).or_default();
            *sum = [sum[0] + of_site[0], sum[1] + of_site[1]];
        }
    }
    // Each of the four configurations carried something each way.
    assert_eq!(arrived.len(), 4, "{arrived:?}");
    assert!(arrived.values().flatten().all(|count| *count >= 5), "{arrived:?}");
}

/// Packets between the hub's host and anybody, in clear: the SPD of the port decides, out and in.
#[test]
fn packets_to_and_from_anybody_pass_in_clear_only_where_policy_says_bypass() {
    let mut seen = BTreeMap::new();
    for seed in 100..130 {
        let told = told(seed, 60);
        let mut random = ChaCha8Rng::seed_from_u64(!seed);
        let mut hub = Node::new(WORKERS, &neighbors_of(&told), &told.objects);
        let mut now_ns = 2_000_000_000;
        for _ in 0..30 {
            let stranger = IpAddr::from(Ipv4Addr::new(198, 51, 100, random.random()));
            let near = hub_host(false);
            let outward: bool = random.random();
            let port = if outward { WAN } else { PortIndex(random.random_range(1..hub.sites.len() as u16)) };
            let (source, destination) = if outward { (near, stranger) } else { (stranger, near) };
            let packet = Udp {
                source_port: random.random(),
                destination_port: random.random(),
                ..Udp::new(source, destination, b"hello")
            };
            let selected = if outward { Seen::outbound(&packet) } else { Seen::inbound(&packet) };
            let action = told.spd(port, &selected);
            let entry = if outward { LAN } else { port };
            let before: BTreeMap<_, _> = hub.headend.drops().into_iter().collect();
            hub.sites[entry.index()].send_to_queue(random.random_range(0..WORKERS), &packet.to_bytes());
            for _ in 0..4 {
                now_ns += 11_000_000;
                hub.headend.turn(now_ns);
                hub.sites.iter_mut().for_each(Site::poll);
            }
            let exit = if outward { port } else { LAN };
            let expected = Udp { ttl: packet.ttl - 1, ..packet.clone() }.to_bytes();
            let reason = match (action, outward) {
                (Some(PolicyAction::Bypass), _) => None,
                (Some(PolicyAction::Discard), _) => Some(DropReason::PolicyDiscard),
                (None, _) => Some(DropReason::PolicyNone),
                (Some(PolicyAction::Protect(_)), _) => Some(DropReason::ClearButProtected),
            };
            for (number, site) in hub.sites.iter_mut().enumerate() {
                let is_exit = number == exit.index() && reason.is_none();
                let wanted = if is_exit { vec![expected.clone()] } else { Vec::new() };
                assert_eq!(site.take(), wanted, "seed {seed} port {number}: {packet:?} {action:?}");
            }
            let after: BTreeMap<_, _> = hub.headend.drops().into_iter().collect();
            for (drop, count) in &after {
                let risen = count - before.get(drop).unwrap_or(&0);
                assert_eq!(risen, u64::from(reason == Some(*drop)), "{drop}: {packet:?} {action:?}");
            }
            assert_eq!(hub.headend.unaccounted(), 0);
            *seen.entry((outward, reason)).or_insert(0) += 1;
        }
    }
    for outward in [false, true] {
        for reason in [None, Some(DropReason::PolicyDiscard), Some(DropReason::PolicyNone)] {
            assert!(seen.get(&(outward, reason)).is_some_and(|count| *count > 20), "{seen:?}");
        }
    }
}
