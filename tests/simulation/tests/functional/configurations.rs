// SPDX-License-Identifier: Apache-2.0
//! The four configurations of one machine: GRE alone, ESP tunnel mode alone, GRE in ESP with one pair of addresses, and
//! with two, in one headend or in two behind each other; and transport mode by policy.

use core::net::IpAddr;

use aead::Engine;
use greyhound_simulation::packets::{Udp, ip_in, is_esp, is_link_local_chatter};
use greyhound_simulation::topology::{End, LAN, Shape, Topology, WAN};
use greyhound_simulation::wanted::{ANY, host, ip, policy, prefix, protection, route_by, sa, tunnel};
use greyhound_simulation::{Headend, HeadendConfig, Site};
use messages::{
    Address, Base, Direction, DropReason, EspMode, GreOptions, Object, PolicyAction, PortRange, PortSettings,
    PortSide, ProtectionIndex, Selector, TunnelIndex,
};
use pktbuf::Pool;
use port::link::Link;
use port::memory::{self, PairConfig};
use wire::{Dscp, Ecn, IpProtocol};

use crate::support::{gre_in_clear, hosts, ping, pong, sized};

const PROTECT: PolicyAction = PolicyAction::Protect(ProtectionIndex(0));

/// Two headends, each with the objects that `change` makes of its own.
fn pair(shape: Shape, change: impl Fn(End, &mut Vec<Object>)) -> Topology {
    let mut net = Topology::unconfigured(shape);
    for end in [End::A, End::B] {
        let mut objects = net.objects(end, 0);
        change(end, &mut objects);
        net.headend(end).put(Base::Empty, &objects, 0).expect("a valid configuration");
    }
    net.settle();
    net
}

/// Packets of both families go both ways and arrive two hops on; nothing is dropped.
fn carries(net: &mut Topology) {
    for from in [End::A, End::B] {
        for v6 in [false, true] {
            for total in [60, 577, 1_200] {
                let packet = Udp { tos: Dscp::EF.tos(Ecn::Ect0), ..sized(from, v6, total) };
                net.site(from).send(&packet.to_bytes());
                net.settle();
                let arrived = net.site(from.other()).take();
                let drops = [net.headend(End::A).drops(), net.headend(End::B).drops()];
                assert_eq!(
                    arrived,
                    [Udp { ttl: 62, ..packet }.to_bytes()],
                    "{from:?} {v6} {total} {drops:?}"
                );
            }
        }
    }
    for end in [End::A, End::B] {
        assert_eq!(net.headend(end).drops(), []);
        assert_eq!(net.headend(end).unaccounted(), 0);
    }
}

/// The IP packets on the untrusted link.
fn on_the_link(net: &Topology) -> Vec<(wire::flow::Parsed, Vec<u8>)> {
    let seen = net.seen.lock().expect("no panic");
    seen.iter().filter(|frame| !is_link_local_chatter(frame)).filter_map(|frame| ip_in(frame)).collect()
}

#[test]
fn gre_alone() {
    for delivery_v6 in [false, true] {
        for key in [None, Some(77)] {
            let gre = GreOptions { key, checksum: key.is_some(), sequence: false };
            let shape = Shape { esp: None, gre, delivery_v6, ..Shape::default() };
            let mut net = pair(shape, |_, objects| objects.push(gre_in_clear()));
            carries(&mut net);
            let packets = on_the_link(&net);
            assert_eq!(packets.len(), 12);
            assert!(packets.iter().all(|(parsed, _)| parsed.protocol == IpProtocol::GRE));
        }
    }
}

/// Without tunnels: what goes between the sites is protected by the SPD.
fn without_tunnels(end: End, objects: &mut Vec<Object>) {
    objects.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
    let far = end.other();
    objects.push(route_by(host(far.host()), WAN, far.wan()));
    objects.push(route_by(host(far.host_v6()), WAN, far.wan_v6()));
}

#[test]
fn esp_tunnel_mode_alone() {
    for delivery_v6 in [false, true] {
        let shape = Shape { esp: Some(EspMode::Tunnel), delivery_v6, ..Shape::default() };
        let mut net = pair(shape, |end, objects| {
            without_tunnels(end, objects);
            let far = end.other();
            for (order, (local, remote)) in
                (0..).zip([(end.host(), far.host()), (end.host_v6(), far.host_v6())])
            {
                let selector = Selector { local: Some(host(local)), remote: Some(host(remote)), ..ANY };
                objects.push(policy(order, selector, PROTECT));
            }
        });
        carries(&mut net);
        assert_eq!(net.frames_in_clear(), 0);
        assert_eq!(on_the_link(&net).len(), 12);
        // From another host of the site there is no entry.
        let stranger = Udp::new(ip("10.1.0.9"), End::B.host(), b"");
        net.site(End::A).send(&stranger.to_bytes());
        net.settle();
        assert_eq!(net.headend(End::A).drops(), [(DropReason::PolicyNone, 1)]);
        assert_eq!(net.frames_in_clear(), 0);
    }
}

#[test]
fn esp_by_ports_with_a_bypass_and_a_discard_behind_it() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let mut net = pair(shape, |end, objects| {
        without_tunnels(end, objects);
        let udp = Selector { protocol: Some(IpProtocol::UDP.0), ..ANY };
        let range = |first, last| Some(PortRange { first, last });
        // What site A's clients ask of site B's servers, and the answers, as each end sees it.
        let (clients, servers) = (range(4_000, 4_999), range(5_000, 5_000));
        let selector = match end {
            End::A => Selector { local_ports: clients, remote_ports: servers, ..udp },
            End::B => Selector { local_ports: servers, remote_ports: clients, ..udp },
        };
        objects.push(policy(10, selector, PROTECT));
        objects.push(policy(20, Selector { remote_ports: range(53, 53), ..udp }, PolicyAction::Discard));
        objects.push(policy(30, udp, PolicyAction::Bypass));
    });
    let ask = |source_port, destination_port| {
        let (source, destination) = hosts(End::A, false);
        Udp { source_port, destination_port, ..Udp::new(source, destination, b"question") }
    };
    for (ports, is_protected) in [((4_000, 5_000), true), ((4_999, 5_000), true), ((5_000, 5_000), false)] {
        let before = net.frames_in_clear();
        net.site(End::A).send(&ask(ports.0, ports.1).to_bytes());
        net.settle();
        assert_eq!(net.site(End::B).take().len(), 1);
        assert_eq!(net.frames_in_clear() - before, usize::from(!is_protected));
    }
    let answer = Udp { source_port: 5_000, destination_port: 4_000, ..sized(End::B, false, 100) };
    let before = net.frames_in_clear();
    net.site(End::B).send(&answer.to_bytes());
    net.settle();
    assert_eq!((net.site(End::A).take().len(), net.frames_in_clear() - before), (1, 0));
    net.site(End::A).send(&ask(4_000, 53).to_bytes());
    net.settle();
    assert_eq!(net.headend(End::A).drops(), [(DropReason::PolicyDiscard, 1)]);
    // A packet that should have come under ESP and comes in clear.
    let forged = ask(4_000, 5_000).to_bytes();
    net.inject(
        End::B,
        0,
        &greyhound_simulation::packets::frame(
            wire::MacAddr(End::B.mac(WAN)),
            wire::MacAddr(End::A.mac(WAN)),
            &forged,
        ),
    );
    net.settle();
    assert_eq!(net.headend(End::B).drops(), [(DropReason::ClearButProtected, 1)]);
}

#[test]
fn esp_transport_mode_by_policy_for_our_own_packets() {
    for delivery_v6 in [false, true] {
        let shape = Shape { esp: Some(EspMode::Transport), delivery_v6, ..Shape::default() };
        let mut net = pair(shape, |end, objects| {
            without_tunnels(end, objects);
            let protocol = if delivery_v6 { IpProtocol::ICMPV6 } else { IpProtocol::ICMP };
            objects.push(policy(0, Selector { protocol: Some(protocol.0), ..ANY }, PROTECT));
        });
        // The peer's ping to our address on the untrusted link, sealed by its stack: here by hand.
        let (ours, theirs) = net.endpoints(End::A);
        let request = ping(theirs, ours);
        let header = if delivery_v6 { 40 } else { 20 };
        let kind = if delivery_v6 { IpProtocol::ICMPV6 } else { IpProtocol::ICMP };
        let sealer = greyhound_simulation::sealer::Sealer::new(&sa(net.sa(End::A, Direction::Inbound, 0)));
        let esp = sealer.seal(1, kind.0, &request[header..]);
        let addresses = Udp::new(theirs, ours, &[]);
        let frame = |packet: &[u8]| {
            greyhound_simulation::packets::frame(
                wire::MacAddr(End::A.mac(WAN)),
                wire::MacAddr(End::B.mac(WAN)),
                packet,
            )
        };
        let sealed = greyhound_simulation::packets::ip_with(&addresses, IpProtocol::ESP, &esp);
        net.inject(End::A, 0, &frame(&sealed));
        net.settle();
        assert_eq!(net.headend(End::A).drops(), []);
        let packets = on_the_link(&net);
        assert_eq!((packets.len(), net.frames_in_clear()), (1, 0), "the reply, under ESP");
        let (parsed, bytes) = &packets[0];
        assert_eq!((parsed.source, parsed.destination), (ours, theirs));
        let opener = greyhound_simulation::sealer::Sealer::new(&sa(net.sa(End::A, Direction::Outbound, 0)));
        let plain = opener.open(parsed.upper_layer(bytes), 0).expect("a right ICV");
        assert_eq!(plain.next_header, kind.0);
        let expected = pong(ours, theirs, 64, 0);
        assert_eq!(plain.payload, expected[header..]);
        // The other end opens it, and has nobody who waits for a reply.
        assert_eq!(net.headend(End::B).drops(), [(DropReason::LocalIcmp, 1)]);
        // In clear it is not taken.
        net.inject(End::A, 0, &frame(&request));
        net.settle();
        assert_eq!(net.headend(End::A).drops(), [(DropReason::ClearButProtected, 1)]);
    }
}

#[test]
fn gre_in_esp_with_equal_addresses() {
    for esp in [EspMode::Transport, EspMode::Tunnel] {
        for by_policy in [false, true] {
            let mut net = pair(Shape { esp: Some(esp), ..Shape::default() }, |end, objects| {
                if by_policy {
                    tunnel(objects).protection = None;
                    let selector = Selector {
                        local: Some(host(end.wan())),
                        remote: Some(host(end.other().wan())),
                        protocol: Some(IpProtocol::GRE.0),
                        ..ANY
                    };
                    objects.push(policy(0, selector, PROTECT));
                }
            });
            carries(&mut net);
            assert_eq!(net.frames_in_clear(), 0);
            assert_eq!(on_the_link(&net).len(), 12);
        }
    }
}

/// The inner pair of addresses: loopbacks, unknown to the untrusted network.
fn loopback(end: End) -> IpAddr {
    ip(if end == End::A { "172.16.0.1" } else { "172.16.0.2" })
}

#[test]
fn gre_in_esp_with_different_addresses() {
    for by_policy in [false, true] {
        for delivery_v6 in [false, true] {
            let shape = Shape { esp: Some(EspMode::Tunnel), delivery_v6, ..Shape::default() };
            let mut net = pair(shape, |end, objects| {
                let far = end.other();
                objects.push(Object::Address(Address { port: None, address: loopback(end), length: 32 }));
                let gre = tunnel(objects);
                (gre.source, gre.destination) = (loopback(end), loopback(far));
                if by_policy {
                    gre.protection = None;
                    let selector = Selector {
                        local: Some(host(loopback(end))),
                        remote: Some(host(loopback(far))),
                        ..ANY
                    };
                    objects.push(policy(0, selector, PROTECT));
                    objects.push(route_by(host(loopback(far)), WAN, far.wan()));
                }
            });
            carries(&mut net);
            assert_eq!(net.frames_in_clear(), 0);
            for (parsed, _) in on_the_link(&net) {
                assert_ne!(parsed.source, loopback(End::A), "the inner pair is not seen outside");
                assert_ne!(parsed.source, loopback(End::B));
            }
        }
    }
}

/// Site A, a GRE headend, an inner network, a crypto headend, the untrusted link, and headend B, which does both.
///
/// ```text
/// host A ─ gre ──10.0.0.0/24── crypto ══192.0.2.0/24══ B ─ host B
///          .1                  .2   .1               .2
/// ```
struct DualTier {
    gre: Headend,
    crypto: Headend,
    b: Headend,
    links: [Link; 2],
    sites: [Site; 2],
    untrusted: std::sync::Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
    now_ns: u64,
    _home: tempfile::TempDir,
}

impl DualTier {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let pool = Pool::memory(512, 9_216 + 64).expect("packet memory");
        let cable = |a: u8, b: u8| {
            let macs = [[2, 0, 0, 0, 1, a], [2, 0, 0, 0, 1, b]];
            Link::new(&PairConfig { macs, mtu: 1_500, ..PairConfig::new(1, 256) }, 1, &pool)
        };
        let (gre_wan, crypto_lan, inner) = cable(1, 2);
        let (crypto_wan, b_wan, mut outer) = cable(3, 4);
        let untrusted = std::sync::Arc::<std::sync::Mutex<Vec<Vec<u8>>>>::default();
        let trace = untrusted.clone();
        outer.set_trace(Box::new(move |_, frame| trace.lock().expect("no panic").push(frame.to_vec())));
        let site = |end: End| {
            let macs = [end.mac(LAN), end.host_mac()];
            let (port, wire) = memory::wire_with(&PairConfig { macs, mtu: 9_216, ..PairConfig::new(1, 256) });
            let addresses = [end.host(), end.host_v6()];
            (port, Site::new(wire, end.host_mac(), end.mac(LAN), &addresses).with_buffers(512))
        };
        let (gre_lan, site_a) = site(End::A);
        let (b_lan, site_b) = site(End::B);
        let headend = |name: &str, ports| {
            let state = home.path().join(name);
            std::fs::create_dir(&state).expect("a state directory");
            Headend::new(HeadendConfig {
                ports,
                vlans: Vec::new(),
                workers: 1,
                state,
                packets: 256,
                engine: Engine::best(),
            })
        };
        Self {
            gre: headend("gre", vec![gre_lan, gre_wan]),
            crypto: headend("crypto", vec![crypto_lan, crypto_wan]),
            b: headend("b", vec![b_lan, b_wan]),
            links: [inner, outer],
            sites: [site_a, site_b],
            untrusted,
            now_ns: 1_000_000,
            _home: home,
        }
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 6 {
            let now_ns = self.now_ns;
            let mut busy = false;
            for headend in [&mut self.gre, &mut self.crypto, &mut self.b] {
                busy |= headend.turn(now_ns);
            }
            self.links.iter_mut().for_each(|link| busy |= link.carry() > 0);
            self.sites.iter_mut().for_each(Site::poll);
            self.now_ns += 10_000;
            quiet = if busy { 0 } else { quiet + 1 };
        }
    }
}

fn port_object(port: u16, side: PortSide) -> Object {
    let port = messages::PortIndex(port);
    Object::Port(PortSettings { port, mtu: 1_500, side, answer_ping: true })
}

fn own(port: u16, address: &str, length: u8) -> Object {
    Object::Address(Address { port: Some(messages::PortIndex(port)), address: ip(address), length })
}

#[test]
fn gre_and_esp_in_two_headends_behind_each_other() {
    let shape = Shape { esp: Some(EspMode::Tunnel), ..Shape::default() };
    let mut net = DualTier::new();
    let of = |end: End, wanted: fn(&Object) -> bool| -> Vec<Object> {
        shape.objects(end, 0).into_iter().filter(wanted).collect()
    };
    let (gre_end, b_end) = (ip("10.0.0.1"), ip("172.16.0.2"));

    // The GRE headend: no ESP, its inner network is inside the boundary.
    let mut objects = of(End::A, |object| matches!(object, Object::Tunnel(_) | Object::Route(_)));
    let gre = tunnel(&mut objects);
    (gre.source, gre.destination, gre.protection) = (gre_end, b_end, None);
    // The inner network carries what ESP leaves of 1,500 bytes.
    gre.mtu = Some(1_390);
    objects.extend([port_object(0, PortSide::Protected), port_object(1, PortSide::Protected)]);
    objects.extend([own(0, "10.1.0.1", 24), own(0, "2001:db8:1::1", 64), own(1, "10.0.0.1", 24)]);
    objects.push(route_by(host(b_end), WAN, ip("10.0.0.2")));
    net.gre.put(Base::Empty, &objects, 0).expect("the GRE headend");

    // The crypto headend: no GRE, ESP for protocol 47 between the two ends.
    let mut objects = of(End::A, |object| matches!(object, Object::Protection(_) | Object::Sa(_)));
    objects.extend([port_object(0, PortSide::Protected), port_object(1, PortSide::Unprotected)]);
    objects.extend([own(0, "10.0.0.2", 24), own(1, "192.0.2.1", 24)]);
    objects.push(route_by(host(b_end), WAN, End::B.wan()));
    let selector = Selector {
        local: Some(host(gre_end)),
        remote: Some(host(b_end)),
        protocol: Some(IpProtocol::GRE.0),
        ..ANY
    };
    objects.push(policy(0, selector, PROTECT));
    net.crypto.put(Base::Empty, &objects, 0).expect("the crypto headend");

    // Headend B: GRE from a loopback, inside ESP tunnel mode.
    let mut objects = shape.objects(End::B, 0);
    objects.push(Object::Address(Address { port: None, address: b_end, length: 32 }));
    let gre = tunnel(&mut objects);
    (gre.source, gre.destination) = (b_end, gre_end);
    protection(&mut objects).ttl = 60;
    net.b.put(Base::Empty, &objects, 0).expect("headend B");
    net.settle();

    for (from, v6) in [(End::A, false), (End::B, false), (End::A, true), (End::B, true)] {
        for total in [60, 1_000, 1_390] {
            let packet = sized(from, v6, total).dont_fragment();
            net.sites[from as usize].send(&packet.to_bytes());
            net.settle();
            let arrived = net.sites[from.other() as usize].take();
            let drops = [net.gre.drops(), net.crypto.drops(), net.b.drops()];
            assert_eq!(arrived, [Udp { ttl: 62, ..packet }.to_bytes()], "{from:?} {v6} {total} {drops:?}");
        }
    }
    let seen = net.untrusted.lock().expect("no panic");
    assert_eq!(seen.iter().filter(|frame| is_esp(frame)).count(), 12);
    assert!(seen.iter().all(|frame| is_esp(frame) || is_link_local_chatter(frame)));
    drop(seen);

    // GRE between other ends is nobody's business.
    let other = Udp { destination: ip("198.51.100.1"), ..sized(End::A, false, 100) };
    net.sites[0].send(&other.to_bytes());
    net.settle();
    assert_eq!(net.gre.drops(), [(DropReason::NoRoute, 1)]);
    for headend in [&mut net.gre, &mut net.crypto, &mut net.b] {
        assert_eq!(headend.unaccounted(), 0);
    }
}

/// Two tunnels of one headend, to two peers: each packet under its own tunnel's SA.
#[test]
fn tunnels_with_keys_share_a_pair_of_addresses_and_a_protection() {
    let gre = GreOptions { key: Some(1), checksum: false, sequence: false };
    let mut net = pair(Shape { gre, ..Shape::default() }, |end, objects| {
        let mut second = *tunnel(objects);
        second.tunnel = TunnelIndex(1);
        second.gre.key = Some(2);
        objects.push(Object::Tunnel(second));
        let target = messages::RouteTarget::Tunnel(TunnelIndex(1));
        let far = if end == End::A { "10.22.0.0/16" } else { "10.11.0.0/16" };
        objects.push(Object::Route(messages::Route { prefix: prefix(far), target }));
    });
    carries(&mut net);
    // By the second tunnel one way: from A's host to a host that B has a route for.
    let packet = Udp::new(End::A.host(), ip("10.22.0.9"), b"second");
    net.site(End::A).send(&packet.to_bytes());
    net.settle();
    assert_eq!(net.headend(End::B).drops(), [(DropReason::NoRoute, 1)], "it came out at B");
    assert_eq!(net.frames_in_clear(), 0);
    let counters = |net: &mut Topology, end: End, index: u32| {
        net.headend(end)
            .installer()
            .tables()
            .tunnels
            .get(TunnelIndex(index))
            .map(|tunnel| tunnel.state.counts().sum())
    };
    assert_eq!(counters(&mut net, End::A, 1).expect("a tunnel").packets_out, 1);
    assert_eq!(counters(&mut net, End::B, 1).expect("a tunnel").packets_in, 1);
}
