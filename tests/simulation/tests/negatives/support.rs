// SPDX-License-Identifier: Apache-2.0
//! A headend under attack: what goes in by either port, and what may change when it does.

use std::cell::RefCell;
use std::collections::BTreeSet;

use greyhound_simulation::bench::{Bench, Seen};
use greyhound_simulation::packets::{self, Udp, ip_with};
use greyhound_simulation::sealer::Sealer;
use greyhound_simulation::topology::{End, LAN, Shape, WAN};
use greyhound_simulation::wanted::{ANY, host, policy, route_by};
use messages::{DropReason, EspMode, GreOptions, Object, PolicyAction, PortIndex, Selector, WorkerCounter};
use wire::{IpProtocol, MacAddr, checksum};

thread_local! {
    static PROVOKED: RefCell<BTreeSet<DropReason>> = const { RefCell::new(BTreeSet::new()) };
}

/// The reasons that were provoked on this thread so far.
pub(crate) fn provoked() -> BTreeSet<DropReason> {
    PROVOKED.with_borrow(BTreeSet::clone)
}

pub(crate) fn note(reason: DropReason) {
    PROVOKED.with_borrow_mut(|reasons| reasons.insert(reason));
}

/// GRE without options.
pub(crate) const PLAIN: GreOptions = GreOptions { key: None, checksum: false, sequence: false };
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// A headend, and the peer's end of its inbound SA.
pub(crate) struct Attack {
    pub(crate) bench: Bench,
    pub(crate) sealer: Sealer,
    pub(crate) sequence: u64,
}

impl Attack {
    pub(crate) fn on(shape: &Shape) -> Self {
        Self::with(shape, |_| {})
    }

    pub(crate) fn with(shape: &Shape, change: impl FnOnce(&mut Vec<Object>)) -> Self {
        let bench = Bench::with(shape, change);
        let sealer = bench.peer_sealer(0);
        Self { bench, sealer, sequence: 0 }
    }

    /// ESP in transport mode around a GRE tunnel, all defaults.
    pub(crate) fn transport() -> Self {
        Self::on(&Shape::default())
    }

    /// The same in tunnel mode.
    pub(crate) fn tunnel() -> Self {
        Self::on(&Shape { esp: Some(EspMode::Tunnel), ..Shape::default() })
    }

    /// GRE in clear, which the SPD lets pass.
    pub(crate) fn clear(gre: GreOptions) -> Self {
        Self::with(&Shape { esp: None, gre, ..Shape::default() }, |objects| {
            let gre = Selector { protocol: Some(IpProtocol::GRE.0), ..ANY };
            objects.push(policy(0, gre, PolicyAction::Bypass));
        })
    }

    /// ESP tunnel mode alone: whatever goes between the two sites' hosts.
    pub(crate) fn by_policy() -> Self {
        Self::with(&Shape { esp: Some(EspMode::Tunnel), ..Shape::default() }, |objects| {
            objects.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
            for (local, remote) in [(End::A.host(), End::B.host()), (End::A.host_v6(), End::B.host_v6())] {
                let selector = Selector { local: Some(host(local)), remote: Some(host(remote)), ..ANY };
                let order = u32::from(host(local).length);
                objects.push(policy(order, selector, PolicyAction::Protect(messages::ProtectionIndex(0))));
                let next_hop = if local.is_ipv4() { End::B.wan() } else { End::B.wan_v6() };
                objects.push(route_by(host(remote), WAN, next_hop));
            }
        })
    }

    /// The next sequence number.
    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// An IP packet of the peer with a whole ESP packet in it, under the next sequence number.
    pub(crate) fn esp(&mut self, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let sequence = self.next();
        self.outer(&self.sealer.seal(sequence, next_header.0, payload))
    }

    /// The same around a plaintext with whatever trailer.
    pub(crate) fn esp_text(&mut self, text: &[u8]) -> Vec<u8> {
        let sequence = self.next();
        self.outer(&self.sealer.seal_text(sequence, text))
    }

    /// The peer's IP header in front of ESP.
    pub(crate) fn outer(&self, esp: &[u8]) -> Vec<u8> {
        let (near, far) = self.bench.shape.endpoints(End::A);
        ip_with(&Udp::new(far, near, &[]), IpProtocol::ESP, esp)
    }

    /// A packet that is all right, as the peer would send it.
    pub(crate) fn genuine(&mut self) -> Vec<u8> {
        let inner = inner().to_bytes();
        let has_tunnel = self.has_tunnel();
        match self.bench.shape.esp {
            Some(EspMode::Transport) => self.esp(IpProtocol::GRE, &gre(0, IPV4, &inner)),
            Some(EspMode::Tunnel) if has_tunnel => {
                let delivery = delivery(&gre(0, IPV4, &inner));
                self.esp(IpProtocol::IPV4, &delivery)
            }
            Some(EspMode::Tunnel) => self.esp(IpProtocol::IPV4, &inner),
            None => delivery(&gre(0, IPV4, &inner)),
        }
    }

    fn has_tunnel(&mut self) -> bool {
        self.bench.headend.installer().tables().tunnels.iter().next().is_some()
    }

    /// The peer sends an IP packet, which is dropped for this reason and changes nothing else.
    pub(crate) fn drops(&mut self, reason: DropReason, packet: &[u8]) {
        self.drops_at(WAN, reason, packet);
    }

    /// The host does.
    pub(crate) fn drops_from_host(&mut self, reason: DropReason, packet: &[u8]) {
        self.drops_at(LAN, reason, packet);
    }

    pub(crate) fn drops_at(&mut self, port: PortIndex, reason: DropReason, packet: &[u8]) {
        let frame = frame_to(port, packet);
        self.drops_frame(port, reason, &frame);
    }

    /// A frame is dropped for this reason: one packet in, one out of mind, nothing sent.
    pub(crate) fn drops_frame(&mut self, port: PortIndex, reason: DropReason, frame: &[u8]) {
        let seen = self.bench.observe(|bench| {
            let site = if port == LAN { &bench.lan } else { &bench.wan };
            site.send_frame(0, frame);
        });
        self.only_dropped(reason, &seen);
    }

    /// What was seen is one drop for this reason, and nothing else.
    pub(crate) fn only_dropped(&self, reason: DropReason, seen: &Seen) {
        assert_eq!(seen.drops, [(reason, 1)]);
        let none: [Vec<u8>; 0] = [];
        assert_eq!((&seen.lan[..], &seen.wan[..]), (&none[..], &none[..]), "{reason}: nothing is sent");
        for counter in WorkerCounter::ALL {
            use WorkerCounter::{BusyCycles, Dropped, Opened, Received, Sleeps, TotalCycles, Turns};
            let risen = seen.counter(*counter);
            match counter {
                Received | Dropped => assert_eq!(risen, 1, "{reason}: {}", counter.name()),
                // A packet with a valid ICV has been opened, whatever was inside.
                Opened => assert!(risen <= 1),
                BusyCycles | TotalCycles | Turns | Sleeps => {}
                _ => assert_eq!(risen, 0, "{reason}: {}", counter.name()),
            }
        }
        assert!(self.bench.buffers_are_home(), "{reason}: all buffers are back");
        note(reason);
    }

    /// A packet is dropped for this reason and its sender told: the one frame that goes back by the same port.
    pub(crate) fn drops_and_tells(&mut self, port: PortIndex, reason: DropReason, packet: &[u8]) -> Vec<u8> {
        let seen = self.bench.observe(|bench| {
            let site = if port == LAN { &bench.lan } else { &bench.wan };
            site.send(packet);
        });
        assert_eq!(seen.drops, [(reason, 1)]);
        let (back, other) = if port == LAN { (seen.lan, seen.wan) } else { (seen.wan, seen.lan) };
        assert_eq!((back.len(), other.len()), (1, 0), "{reason}: an answer");
        assert!(self.bench.buffers_are_home(), "{reason}: all buffers are back");
        note(reason);
        back.into_iter().next().unwrap_or_default()
    }

    /// The peer sends a packet that comes out at the host as `expected`.
    pub(crate) fn passes(&mut self, packet: &[u8], expected: &[u8]) {
        let seen = self.bench.observe(|bench| bench.wan.send(packet));
        assert_eq!(seen.drops, []);
        let arrived: Vec<_> = seen.lan.iter().filter_map(|frame| packets::ip_in(frame)).collect();
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].1, expected);
        assert!(self.bench.buffers_are_home());
    }

    /// After all this, genuine packets still pass both ways.
    pub(crate) fn is_alive(&mut self) {
        let genuine = self.genuine();
        self.passes(&genuine, &forwarded(&inner()));
        let seen = self.bench.observe(|bench| bench.lan.send(&outbound().to_bytes()));
        assert_eq!((seen.drops.len(), seen.wan.len()), (0, 1));
    }
}

/// From the far host to ours.
pub(crate) fn inner() -> Udp {
    Udp::new(End::B.host(), End::A.host(), b"from afar")
}

/// From our host to the far one.
pub(crate) fn outbound() -> Udp {
    Udp::new(End::A.host(), End::B.host(), b"to afar")
}

/// A packet one hop on.
pub(crate) fn forwarded(packet: &Udp) -> Vec<u8> {
    Udp { ttl: packet.ttl - 1, ..packet.clone() }.to_bytes()
}

/// The peer's delivery header, IPv4, in front of GRE.
pub(crate) fn delivery(gre: &[u8]) -> Vec<u8> {
    ip_with(&Udp::new(End::B.wan(), End::A.wan(), &[]), IpProtocol::GRE, gre)
}

/// A GRE packet without optional fields but those whose words are in `flags`' way: RFC 2784 §2.1.
pub(crate) fn gre(flags: u16, protocol: u16, payload: &[u8]) -> Vec<u8> {
    gre_with(flags, protocol, &[], payload)
}

/// A GRE packet with these flags and these optional words behind the first one.
pub(crate) fn gre_with(flags: u16, protocol: u16, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let mut packet = flags.to_be_bytes().to_vec();
    packet.extend(protocol.to_be_bytes());
    words.iter().for_each(|word| packet.extend(word.to_be_bytes()));
    packet.extend(payload);
    packet
}

pub(crate) const CHECKSUM_PRESENT: u16 = 0x8000;
pub(crate) const KEY_PRESENT: u16 = 0x2000;
pub(crate) const SEQUENCE_PRESENT: u16 = 0x1000;

/// Writes the checksum of a GRE packet whose first optional word is there for it.
pub(crate) fn sum_gre(mut packet: Vec<u8>) -> Vec<u8> {
    packet[4..8].fill(0);
    let sum = checksum::checksum(&packet);
    packet[4..6].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A frame to one of the headend's ports from the host or peer behind it.
pub(crate) fn frame_to(port: PortIndex, packet: &[u8]) -> Vec<u8> {
    packets::frame(MacAddr(End::A.mac(port)), far_mac(port), packet)
}

pub(crate) fn far_mac(port: PortIndex) -> MacAddr {
    MacAddr(if port == LAN { End::A.host_mac() } else { End::B.mac(WAN) })
}

/// Writes the header checksum of an IPv4 packet whose header was changed.
pub(crate) fn resum(mut packet: Vec<u8>) -> Vec<u8> {
    let bytes = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let sum = checksum::checksum(&packet[..bytes]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}
