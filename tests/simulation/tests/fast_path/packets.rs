// SPDX-License-Identifier: Apache-2.0
//! Frames of every kind that a headend may get, from a seed.

use core::net::IpAddr;

use greyhound_simulation::packets::{Udp, frame, ip_with};
use greyhound_simulation::sealer::{Sealer, padded, trailed};
use greyhound_simulation::topology::{LAN, WAN};
use greyhound_simulation::wanted::ip;
use messages::{Direction, EspMode, PortIndex, Tunnel, WorkerId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::{IpProtocol, MacAddr, arp, ipv4};

use crate::network::{
    BARE, COMMON_BYTES, IN_CLEAR, LAB, MACS, NEARLY_EXHAUSTED, Network, OURS, TUNNELS, UNANSWERED, branch,
    far,
};

const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 8, 8]);
const FRAMES_MAX: usize = 64;
const GRE: u8 = 47;
const ESP_GOOD_BEFORE: usize = 6;
/// Addresses that no host has, and some that a host has but must not here.
const SPECIAL: [&str; 14] = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.9.9.9",
    "169.254.1.1",
    "224.0.0.5",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "10.1.0.255",
    "10.1.0.0",
    "10.9.0.255",
    "192.0.2.255",
    "203.0.113.1",
];

/// What the network around the headends sends.
pub(crate) struct Source {
    random: ChaCha8Rng,
    tunnels: Vec<Tunnel>,
    sealers: Vec<Option<Sealer>>,
    modes: Vec<EspMode>,
    next: Vec<u64>,
    gre_sequence: u32,
    owner_of_six: WorkerId,
    sent: Vec<Vec<u8>>,
}

impl Source {
    pub(crate) fn new(network: &Network, seed: u64) -> Self {
        let sealer = |p| network.sa(p, Direction::Inbound).map(Sealer::new);
        let mode = |p| {
            network.protections.iter().find(|q| q.protection.0 == p).map_or(EspMode::Transport, |q| q.mode)
        };
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            tunnels: network.tunnels.clone(),
            sealers: (0..TUNNELS).map(sealer).collect(),
            modes: (0..TUNNELS).map(mode).collect(),
            next: vec![0; TUNNELS as usize],
            gre_sequence: 0,
            owner_of_six: network.sa(6, Direction::Inbound).and_then(|sa| sa.owner).expect("an owner"),
            sent: Vec::new(),
        }
    }

    pub(crate) fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    pub(crate) fn owner_of_six(&self) -> WorkerId {
        self.owner_of_six
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.random_range(0..bound)
    }

    fn one_in(&mut self, bound: u32) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.random.random()).collect()
    }

    /// Seldom the answer that packets wait for.
    pub(crate) fn arp(&mut self, worker: u16, port: PortIndex) -> Vec<u8> {
        let answers = worker == 0 && self.one_in(4);
        let (ours, sender) = match port {
            LAN => ("10.1.0.1", if answers { ip("10.1.0.9") } else { ip("10.1.0.3") }),
            WAN => (OURS, if answers { far(UNANSWERED) } else { far(2) }),
            _ => ("10.9.0.1", ip("10.9.0.2")),
        };
        let v4 = |address: IpAddr| match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => panic!("IPv4"),
        };
        let asked = arp::Repr::request(MacAddr(MACS[port.index()]), v4(ip(ours)), v4(sender));
        let last = v4(sender).octets()[3];
        let reply = asked.reply(MacAddr([2, 0, 0, 0, 9, last]));
        let mut bytes = vec![0; 60];
        let (link, body) = bytes.split_at_mut(14);
        reply.ethernet().emit(link).expect("a header");
        reply.emit(body).expect("a message");
        bytes
    }

    /// Packets that are common in every respect, or meet an exception that changes nobody's order.
    pub(crate) fn common(&mut self, port: PortIndex) -> Vec<Vec<u8>> {
        let count = self.random.random_range(1..=FRAMES_MAX);
        (0..count)
            .map(|_| {
                let packet = if port == WAN {
                    let tunnel = self.pick(&[0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
                    self.common_esp(tunnel)
                } else {
                    let tunnel = self.below(TUNNELS);
                    self.common_plain(port, if tunnel == IN_CLEAR { 0 } else { tunnel })
                };
                self.framed(port, &packet)
            })
            .collect()
    }

    /// Of everything something.
    pub(crate) fn mixed(&mut self, port: PortIndex) -> Vec<Vec<u8>> {
        let count = self.random.random_range(1..=FRAMES_MAX);
        (0..count)
            .map(|_| {
                if self.one_in(12) {
                    return self.odd_frame(port);
                }
                let packet = match (port == WAN, self.below(5)) {
                    (true, 0) => self.plain_oddity(port),
                    (true, 1) => {
                        let tunnel = self.pick(&[0, 1, 2, 3, 4, 6]);
                        self.common_esp(tunnel)
                    }
                    (true, _) => self.odd_esp(),
                    (false, 0..=2) => self.plain_oddity(port),
                    (false, _) => {
                        let tunnel = self.below(NEARLY_EXHAUSTED);
                        self.common_plain(port, tunnel)
                    }
                };
                self.framed(port, &packet)
            })
            .collect()
    }

    fn framed(&mut self, port: PortIndex, packet: &[u8]) -> Vec<u8> {
        let mut bytes = frame(MacAddr(MACS[port.index()]), SENDER, packet);
        if self.one_in(3) {
            let padding = self.below(50) as usize;
            bytes.extend(self.bytes(padding));
        }
        bytes
    }

    /// A frame that is wrong, or to somebody else.
    fn odd_frame(&mut self, port: PortIndex) -> Vec<u8> {
        let packet = if port == WAN { self.common_esp(0) } else { self.common_plain(port, 0) };
        let mut bytes = frame(MacAddr(MACS[port.index()]), SENDER, &packet);
        match self.below(7) {
            0 => bytes[5] ^= 0x40,
            1 => bytes[..6].fill(0xff),
            2 => bytes[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 5]),
            3 => {
                let tag = [0x81, 0, 0, self.below(3) as u8];
                bytes.splice(12..12, tag);
            }
            4 => bytes.truncate(self.below(60) as usize),
            5 => bytes[12..14].copy_from_slice(&self.pick(&[[0x86, 0xdd], [0x88, 0x47], [0x00, 0x40]])),
            _ => bytes[14] = self.pick(&[0x44, 0x46, 0x55, 0x65, 0x05]),
        }
        bytes
    }

    fn host(&mut self, port: PortIndex) -> IpAddr {
        let last = 2 + self.below(3);
        ip(&if port == LAB { format!("10.9.0.{last}") } else { format!("10.1.0.{last}") })
    }

    /// From a site behind `port` into a tunnel.
    fn common_plain(&mut self, port: PortIndex, tunnel: u32) -> Vec<u8> {
        let (source, last) = (self.host(port), 2 + self.below(9) as u8);
        self.common_packet(source, branch(tunnel, last), 0x1000 + tunnel as u16)
    }

    fn common_packet(&mut self, source: IpAddr, destination: IpAddr, flow: u16) -> Vec<u8> {
        let mut udp = self.header(source, destination, flow);
        let bytes = match self.below(4) {
            0 => 4 + self.below(40) as usize,
            1 => COMMON_BYTES - 20 - self.below(8) as usize,
            _ => 4 + self.below(COMMON_BYTES as u32 - 24) as usize,
        };
        let protocol = self.pick(&[17, 17, 6, 6, 1, 132, 4, 89, 253]);
        let mut upper = self.bytes(bytes);
        upper[..2].copy_from_slice(&flow.to_be_bytes());
        upper[2..4].fill(0x33);
        if protocol == 6 && bytes > 13 {
            upper[13] &= !0x02;
        }
        udp.ttl = self.pick(&[2, 3, 64, 255]);
        ip_with(&udp, IpProtocol(protocol), &upper)
    }

    fn header(&mut self, source: IpAddr, destination: IpAddr, flow: u16) -> Udp {
        let mut udp = Udp::new(source, destination, &[]);
        (udp.tos, udp.identification) = (self.random.random(), flow);
        udp.dont_fragment = self.one_in(2);
        udp
    }

    /// A plain packet that something is the matter with.
    fn plain_oddity(&mut self, port: PortIndex) -> Vec<u8> {
        let tunnel = self.pick(&[0, 1, 2, 3, 4, 5, 6, 7, UNANSWERED, BARE, IN_CLEAR]);
        let (source, destination) = (self.host(port), branch(tunnel, 9));
        self.odd_packet(source, destination, 0x2000 + tunnel as u16)
    }

    fn odd_packet(&mut self, mut source: IpAddr, mut destination: IpAddr, flow: u16) -> Vec<u8> {
        let kind = self.below(18);
        match kind {
            0 => source = ip(self.pick(&SPECIAL)),
            1 => destination = ip(self.pick(&SPECIAL)),
            2 => source = self.pick(&[ip(OURS), ip("10.1.0.1"), branch(0, 4), far(0)]),
            3 => destination = self.pick(&[ip(OURS), ip("10.1.0.1"), ip("203.0.113.1"), ip("10.9.0.1")]),
            4 => {
                destination =
                    self.pick(&[ip("8.8.8.8"), ip("198.51.100.200"), ip("198.51.100.9"), ip("10.7.1.1")])
            }
            5 => {
                let tunnel = self.below(7);
                return self
                    .packet_v6(&format!("2001:db8:1::{tunnel}"), &format!("2001:db8:100:{tunnel}::7"));
            }
            6 => return self.syn(source, destination, flow),
            _ => {}
        }
        let mut packet = self.common_packet(source, destination, flow);
        let mut sum = true;
        match kind {
            7 => packet[8] = self.below(2) as u8,
            8 => packet[6] = self.pick(&[0x20, 0x60, 0x80, 0xa0]),
            9 => packet[7] = 3,
            10 => {
                packet[0] = 0x46;
                // Options that add nothing to the checksum.
                packet.splice(20..20, [0; 4]);
                let total = packet.len() as u16;
                packet[2..4].copy_from_slice(&total.to_be_bytes());
            }
            11 => {
                let place = self.below(20) as usize;
                packet[place] ^= 0x10;
                sum = false;
            }
            12 => {
                let total = self.pick(&[0, 19, 20, 21, 23, 24, packet.len() as u16 + 1, u16::MAX]);
                packet[2..4].copy_from_slice(&total.to_be_bytes());
            }
            13 | 14 => {
                let mut header = self.header(source, destination, flow);
                header.tos &= 0xfc;
                let more = 1_180 + self.below(1_300) as usize;
                let upper = self.bytes(more);
                packet = ip_with(&header, IpProtocol(253), &upper);
            }
            15 => {
                let total = 20 + self.below(4) as usize;
                packet.truncate(total);
                packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            }
            16 => {
                let echo = ip_with(&self.header(source, ip("10.1.0.1"), flow), IpProtocol::ICMP, &ECHO);
                return echo;
            }
            _ => {}
        }
        if sum && let Ok((header, _)) = ipv4::Header::split_mut(&mut packet) {
            header.fill_checksum();
        }
        packet
    }

    fn packet_v6(&mut self, source: &str, destination: &str) -> Vec<u8> {
        let mut udp = Udp::new(ip(source), ip(destination), b"sixteen and more");
        udp.ttl = self.pick(&[1, 2, 64]);
        udp.tos = self.pick(&[0, 1, 0xb8]);
        udp.to_bytes()
    }

    /// A SYN that announces 1,460 bytes; nobody here looks at its checksum.
    fn syn(&mut self, source: IpAddr, destination: IpAddr, flow: u16) -> Vec<u8> {
        let mut tcp = flow.to_be_bytes().to_vec();
        tcp.extend([0x33, 0x33, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, self.pick(&[0x02, 0x12]), 0x20, 0, 0, 0, 0, 0]);
        tcp.extend([2, 4, 0x05, 0xb4]);
        let mut header = self.header(source, destination, flow);
        header.tos &= 0xfc;
        ip_with(&header, IpProtocol::TCP, &tcp)
    }

    /// A good packet out of a branch: to a site, or to another branch.
    fn common_esp(&mut self, tunnel: u32) -> Vec<u8> {
        let host = 2 + self.below(9) as u8;
        let destination = match self.below(8) {
            0 => ip("10.7.3.3"),
            1 => self.host(LAB),
            2 | 3 => branch(self.pick(&[0, 1, 2, 6]), host),
            _ => self.host(LAN),
        };
        let payload = self.common_packet(branch(tunnel, host), destination, 0x3000 + tunnel as u16);
        let gre = self.gre(tunnel, &payload);
        let tos = self.outer_tos(payload[1]);
        self.carried(tunnel, &gre, tos)
    }

    /// One that changes nothing inside.
    fn outer_tos(&mut self, inner: u8) -> u8 {
        let dscp = self.random.random::<u8>() & 0xfc;
        dscp | inner & 3
    }

    /// GRE as the tunnel has it.
    fn gre(&mut self, tunnel: u32, payload: &[u8]) -> Vec<u8> {
        let gre = self.tunnels[tunnel as usize].gre;
        self.gre_sequence += 1;
        let sequence = gre.sequence.then_some(self.gre_sequence);
        gre_with(payload, gre.key, sequence, gre.checksum)
    }

    /// GRE under the tunnel's protection, between the right ends.
    fn carried(&mut self, tunnel: u32, gre: &[u8], tos: u8) -> Vec<u8> {
        let Tunnel { protection, source, destination, .. } = self.tunnels[tunnel as usize];
        let Some(protection) = protection else {
            return ip_with(&tos_between(destination, source, tos), IpProtocol::GRE, gre);
        };
        if self.modes[protection.index()] == EspMode::Transport {
            return self.esp(protection.0, GRE, gre, tos);
        }
        let delivery = ip_with(&tos_between(destination, source, tos), IpProtocol::GRE, gre);
        self.esp(protection.0, 4, &delivery, tos)
    }

    fn esp(&mut self, protection: u32, next_header: u8, payload: &[u8], tos: u8) -> Vec<u8> {
        let text = padded(payload, next_header);
        self.esp_text(protection, &text, tos)
    }

    fn esp_text(&mut self, protection: u32, text: &[u8], tos: u8) -> Vec<u8> {
        let next = &mut self.next[protection as usize];
        *next += 1;
        let sealed = self.sealers[protection as usize].as_ref().expect("an SA").seal_text(*next, text);
        let packet = ip_with(&tos_between(far(protection), ip(OURS), tos), IpProtocol::ESP, &sealed);
        if self.sent.len() > 200 {
            self.sent.clear();
        }
        self.sent.push(packet.clone());
        packet
    }

    /// ESP, or GRE in clear, that something is the matter with.
    fn odd_esp(&mut self) -> Vec<u8> {
        let tunnel = self.pick(&[0, 1, 0, 1, 2, 3, 4, 5, 6]);
        let kind = self.below(27);
        if kind < ESP_GOOD_BEFORE as u32 {
            // What is inside is odd.
            let destination =
                self.pick(&[ip("10.1.0.2"), ip("10.9.0.2"), branch(0, 3), branch(1, 3), branch(7, 3)]);
            let payload = match kind {
                0 => self.packet_v6(&format!("2001:db8:100:{tunnel}::7"), "2001:db8:1::5"),
                1 => self.common_packet(branch((tunnel + 1) % 3, 7), destination, 0x4000),
                _ => self.odd_packet(branch(tunnel, 7), destination, 0x4100 + tunnel as u16),
            };
            let mut gre = self.gre(tunnel, &payload);
            if payload[0] >> 4 == 6 {
                gre[2..4].copy_from_slice(&[0x86, 0xdd]);
            }
            let tos = if self.one_in(2) { self.random.random() } else { self.outer_tos(payload[1]) };
            return self.carried(tunnel, &gre, tos);
        }
        let payload = {
            let destination = self.host(LAN);
            self.common_packet(branch(tunnel, 8), destination, 0x5000 + tunnel as u16)
        };
        let tos = self.outer_tos(payload[1]);
        let key = self.tunnels[tunnel as usize].gre.key;
        let mut gre = self.gre(tunnel, &payload);
        match kind {
            6 => self.pick_sent(),
            7 => {
                let mut again = self.carried(tunnel, &gre, tos);
                let place = 20 + self.below(again.len() as u32 - 20) as usize;
                again[place] ^= 1 << self.below(8);
                again
            }
            8 => {
                let mut packet = self.carried(tunnel, &gre, tos);
                let place = self.pick(&[15, 19]);
                packet[place] ^= 1;
                resummed(packet)
            }
            9 => {
                // Behind the payload, inside ESP (RFC 4303 §2.7).
                gre.extend([0x77; 21]);
                self.carried(tunnel, &gre, tos)
            }
            10 => {
                gre.truncate(gre.len() - 1);
                self.carried(tunnel, &gre, tos)
            }
            11 => {
                let wrong = self.pick(&[None, Some(5), Some(7), Some(100), Some(200), Some(300)]);
                let gre = gre_with(&payload, wrong, None, false);
                self.carried(tunnel, &gre, tos)
            }
            12 => {
                let mut gre = gre_with(&payload, key, None, true);
                gre[4] ^= self.pick(&[0, 0, 1]);
                self.carried(tunnel, &gre, tos)
            }
            13 => {
                gre[0] |= self.pick(&[0x40, 0x08, 0x01, 0x10]);
                self.carried(tunnel, &gre, tos)
            }
            14 => {
                gre[1] |= self.pick(&[0x01, 0x80, 0x07]);
                self.carried(tunnel, &gre, tos)
            }
            15 => {
                gre[2..4].copy_from_slice(&self.pick(&[[0x86, 0xdd], [0x65, 0x58], [0x88, 0x0b]]));
                self.carried(tunnel, &gre, tos)
            }
            16 => {
                // Under another tunnel's SA.
                if self.one_in(2) {
                    let Tunnel { source, destination, .. } = self.tunnels[tunnel as usize];
                    let delivery = ip_with(&tos_between(destination, source, tos), IpProtocol::GRE, &gre);
                    let other = self.pick(&[1, BARE]);
                    return self.esp(other, 4, &delivery, tos);
                }
                let other = self.pick(&[0, 2, 4]);
                self.esp(other, GRE, &gre, tos)
            }
            17 => {
                let next_header = self.pick(&[59, 4, 41, 17, 47, 1, 99]);
                let protection = self.pick(&[0, 1, 2, BARE]);
                self.esp(protection, next_header, &payload, tos)
            }
            18 => {
                let text = trailed(&gre, self.pick(&[&[1, 2, 9][..], &[1], &[]]), GRE);
                self.esp_text(0, &text, tos)
            }
            19 => self.old(tos),
            20 => {
                let sealer = self.sealers[0].take().expect("an SA").with_spi(0x9999);
                let esp = sealer.seal(1, GRE, &gre);
                self.sealers[0] = Some(sealer.with_spi(0x1000));
                ip_with(&tos_between(far(0), ip(OURS), tos), IpProtocol::ESP, &esp)
            }
            21 => ip_with(&tos_between(far(tunnel), ip(OURS), tos), IpProtocol::GRE, &gre),
            22 => {
                let payload = self.common_packet(branch(IN_CLEAR, 8), ip("10.1.0.4"), 0x6000);
                let gre = self.gre(IN_CLEAR, &payload);
                let tos = self.outer_tos(payload[1]);
                self.carried(IN_CLEAR, &gre, tos)
            }
            23 => {
                // Without GRE, as the SPD wants it, or not.
                let source = self.pick(&["198.51.100.7", "198.51.100.200", "10.100.0.9"]);
                let payload = self.common_packet(ip(source), ip("10.1.0.4"), 0x6100);
                self.esp(BARE, 4, &payload, payload[1])
            }
            25 => {
                // To a host that seldom answers.
                let payload = self.common_packet(branch(0, 8), ip("10.1.0.9"), 0x7000);
                let gre = self.gre(0, &payload);
                let tos = self.outer_tos(payload[1]);
                self.carried(0, &gre, tos)
            }
            24 => self.odd_delivery(&payload, tos),
            _ => {
                let mut packet = self.carried(tunnel, &gre, tos);
                packet[6] = 0x20;
                resummed(packet)
            }
        }
    }

    /// Tunnel mode around a delivery header that is not quite the tunnel's.
    fn odd_delivery(&mut self, payload: &[u8], tos: u8) -> Vec<u8> {
        let Tunnel { source, destination, .. } = self.tunnels[1];
        let gre = gre_with(payload, Some(7), None, false);
        let ecn = self.below(4) as u8;
        let mut delivery =
            ip_with(&tos_between(destination, source, tos & 0xfc | ecn), IpProtocol::GRE, &gre);
        match self.below(7) {
            // The payload reaches beyond the delivery packet, yet not beyond ESP's.
            6 => {
                let total = delivery.len() as u16 - 3;
                delivery[2..4].copy_from_slice(&total.to_be_bytes());
            }
            0 => delivery[15] ^= 8,
            1 => delivery[19] ^= 8,
            2 => delivery[6] |= 0x20,
            3 => delivery.extend([0; 9]),
            4 => delivery[8] = 0,
            _ => {}
        }
        let delivery = resummed(delivery);
        self.esp(1, 4, &delivery, tos)
    }

    fn pick_sent(&mut self) -> Vec<u8> {
        match self.sent.len() {
            0 => self.common_esp(0),
            // The last ones, so that both may be in one burst.
            count => {
                let back = 1 + self.below(20.min(count as u32)) as usize;
                self.sent[count - back].clone()
            }
        }
    }

    /// A sequence number of 0, or from before the window.
    fn old(&mut self, tos: u8) -> Vec<u8> {
        let number = self.next[0].saturating_sub(u64::from(self.pick(&[200u32, 500, 1_000_000])));
        let sealed = self.sealers[0].as_ref().expect("an SA").seal(number, GRE, &[0; 44]);
        ip_with(&tos_between(far(0), ip(OURS), tos), IpProtocol::ESP, &sealed)
    }
}

const ECHO: [u8; 12] = [8, 0, 0x0d, 0x14, 0x12, 0x34, 0, 1, 0x61, 0x62, 0x63, 0x64];

fn tos_between(source: IpAddr, destination: IpAddr, tos: u8) -> Udp {
    Udp { tos, ..Udp::new(source, destination, &[]) }
}

fn resummed(mut packet: Vec<u8>) -> Vec<u8> {
    ipv4::Header::split_mut(&mut packet).expect("IPv4").0.fill_checksum();
    packet
}

fn gre_with(payload: &[u8], key: Option<u32>, sequence: Option<u32>, checksum: bool) -> Vec<u8> {
    let flags = u8::from(checksum) << 7 | u8::from(key.is_some()) << 5 | u8::from(sequence.is_some()) << 4;
    let mut bytes = vec![flags, 0, 0x08, 0];
    bytes.extend(if checksum { &[0u8; 4][..] } else { &[] });
    for word in key.into_iter().chain(sequence) {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    if checksum {
        wire::gre::fill_checksum(&mut bytes).expect("room");
    }
    bytes
}
