// SPDX-License-Identifier: Apache-2.0
//! site A — headend A — untrusted link — headend B — site B, and the objects that make it work.
//!
//! Addresses are by default those of the documentation ranges; nothing in the code under test knows them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aead::Engine;
use dataplane::store::SequenceStore;
use messages::{
    Address, Base, DfPolicy, Direction, EspMode, GreOptions, IpPrefix, IvPrefix, Key, LifetimeLimits,
    MssClamp, Object, PortIndex, PortSettings, PortSide, Protection, ProtectionIndex, Refusal, Route,
    RouteTarget, Sa, SaIndex, Secret, TosPolicy, Tunnel, TunnelIndex,
};
use pktbuf::Pool;
use port::link::{self, Link};
use port::memory::{self, PairConfig};
use wire::VlanId;

use crate::{Ending, Headend, HeadendConfig, Site, esp};

/// The protected port of each headend.
pub const LAN: PortIndex = PortIndex(0);
/// The unprotected port of each headend.
pub const WAN: PortIndex = PortIndex(1);

const WIRE_PACKETS: usize = 4_096;
/// What a headend makes itself: ARP, ICMP, fragments. What it forwards is in buffers of the site that sent it.
const HEADEND_PACKETS: usize = 1_024;
/// Duplicates, and what is injected.
const LINK_PACKETS: usize = 4_608;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Site and headend A.
    A,
    /// Site and headend B.
    B,
}

impl End {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The way of the untrusted link that leads away from this end.
    #[must_use]
    pub fn outward(self) -> link::Direction {
        match self {
            Self::A => link::Direction::AToB,
            Self::B => link::Direction::BToA,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// The headend's address on the untrusted link.
    #[must_use]
    pub fn wan(self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, self.number()).into()
    }

    /// The same, IPv6.
    #[must_use]
    pub fn wan_v6(self) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, u16::from(self.number())).into()
    }

    /// The headend's address at the site.
    #[must_use]
    pub fn gateway(self) -> IpAddr {
        Ipv4Addr::new(10, self.number(), 0, 1).into()
    }

    /// The same, IPv6.
    #[must_use]
    pub fn gateway_v6(self) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, u16::from(self.number()), 0, 0, 0, 0, 1).into()
    }

    /// The host at the site.
    #[must_use]
    pub fn host(self) -> IpAddr {
        Ipv4Addr::new(10, self.number(), 0, 2).into()
    }

    /// The same, IPv6.
    #[must_use]
    pub fn host_v6(self) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, u16::from(self.number()), 0, 0, 0, 0, 2).into()
    }

    /// Ethernet address of one of the headend's ports.
    #[must_use]
    pub fn mac(self, port: PortIndex) -> [u8; 6] {
        [2, 0, 0, 0, self.number(), 1 + port.0 as u8]
    }

    /// Ethernet address of the host.
    #[must_use]
    pub fn host_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, self.number(), 0xff]
    }
}

/// How the tunnel between the headends is to be.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Workers of each headend.
    pub workers: u16,
    /// The VLANs of the headends' protected and unprotected ports.
    pub vlans: [Option<VlanId>; 2],
    /// MTU of the untrusted link.
    pub wan_mtu: u16,
    /// ESP mode; none for GRE in clear (then the SPD must let it).
    pub esp: Option<EspMode>,
    /// GRE options.
    pub gre: GreOptions,
    /// Extended sequence numbers.
    pub esn: bool,
    /// AES key length in bytes.
    pub key_bytes: usize,
    /// ICV length in bytes.
    pub icv_bytes: u8,
    /// Anti-replay window.
    pub replay_window: u16,
    /// IPv6 between the headends.
    pub delivery_v6: bool,
    /// Seed of faults.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            workers: 1,
            vlans: [None; 2],
            wan_mtu: 1_500,
            esp: Some(EspMode::Transport),
            gre: GreOptions { key: None, checksum: false, sequence: false },
            esn: false,
            key_bytes: 16,
            icv_bytes: 16,
            replay_window: 1_024,
            delivery_v6: false,
            seed: 1,
        }
    }
}

impl Shape {
    /// Everything an end is configured with, its SAs under generation `generation` of the keys.
    #[must_use]
    pub fn objects(&self, end: End, generation: u32) -> Vec<Object> {
        let mut objects = self.network(end);
        if self.esp.is_some() {
            objects.extend([Direction::Inbound, Direction::Outbound].map(|d| self.sa(end, d, generation)));
        }
        objects
    }

    /// The same without SAs.
    #[must_use]
    pub fn network(&self, end: End) -> Vec<Object> {
        let shape = self;
        let (near, far) = self.endpoints(end);
        let side = [PortSide::Protected, PortSide::Unprotected];
        let mut objects: Vec<Object> = [LAN, WAN]
            .map(|port| {
                let mtu = if port == LAN { 9_216 } else { shape.wan_mtu };
                let side = side[port.index()];
                Object::Port(PortSettings { port, mtu, side, answer_ping: true })
            })
            .into();
        for (port, address, length) in [
            (LAN, end.gateway(), 24),
            (LAN, end.gateway_v6(), 64),
            (WAN, end.wan(), 24),
            (WAN, end.wan_v6(), 64),
        ] {
            objects.push(Object::Address(Address { port: Some(port), address, length }));
        }
        let remote = end.other();
        let protection = shape.esp.map(|_| ProtectionIndex(0));
        if let Some(mode) = shape.esp {
            objects.push(Object::Protection(Protection {
                protection: ProtectionIndex(0),
                mode,
                local: near,
                remote: far,
                tos: TosPolicy::Copy,
                df: DfPolicy::Copy,
                ttl: 64,
                class_groups: messages::ClassGroups::default(),
            }));
        }
        objects.push(Object::Tunnel(Tunnel {
            tunnel: TunnelIndex(0),
            source: near,
            destination: far,
            gre: shape.gre,
            protection,
            tos: TosPolicy::Copy,
            df: DfPolicy::Copy,
            ttl: 64,
            mtu: None,
            mss: MssClamp::Automatic,
            strict_source: false,
            marks: messages::TunnelMarks::default(),
        }));
        for (address, length) in [(remote.host(), 32), (remote.host_v6(), 128)] {
            let prefix = IpPrefix { address, length };
            objects.push(Object::Route(Route { prefix, target: RouteTarget::Tunnel(TunnelIndex(0)) }));
        }
        objects
    }

    /// One SA of an end. Generations have SPIs and keys of their own; the other end's opposite SA matches.
    ///
    /// # Panics
    /// If the shape's key length is none.
    #[must_use]
    pub fn sa(&self, end: End, direction: Direction, generation: u32) -> Object {
        let sender = if direction == Direction::Outbound { end } else { end.other() };
        let way = u32::from(sender.number());
        let keymat = keymat(u64::from(way) << 32 | u64::from(generation), self.key_bytes + 4);
        let index = generation * 2 + u32::from(direction == Direction::Outbound);
        Object::Sa(Sa {
            sa: SaIndex(index),
            protection: ProtectionIndex(0),
            direction,
            spi: 0x1000 * way + generation,
            key: Key { secret: Secret::from_keymat(&keymat).expect("a key"), icv_bytes: self.icv_bytes },
            esn: self.esn,
            replay_window: if direction == Direction::Inbound { self.replay_window } else { 0 },
            class_group: 0,
            owner: None,
            iv_prefix: IvPrefix::default(),
            lifetime: LifetimeLimits::default(),
        })
    }

    /// The ESP and GRE endpoints of an end, near and far.
    #[must_use]
    pub fn endpoints(&self, end: End) -> (IpAddr, IpAddr) {
        if self.delivery_v6 { (end.wan_v6(), end.other().wan_v6()) } else { (end.wan(), end.other().wan()) }
    }
}

/// The whole network.
pub struct Topology {
    /// How it was made.
    pub shape: Shape,
    /// Headends A and B.
    pub headends: [Headend; 2],
    /// Hosts A and B.
    pub sites: [Site; 2],
    /// The untrusted link.
    pub link: Link,
    /// Every frame seen on it, as transmitted.
    pub seen: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The clock.
    pub now_ns: u64,
    pool: Pool,
    directories: [PathBuf; 2],
    _home: tempfile::TempDir,
}

impl Topology {
    /// Builds and configures it, with one SA each way under generation 0 of the keys.
    ///
    /// # Panics
    /// If something cannot be had or is refused.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let mut topology = Self::unconfigured(shape);
        topology.configure(0);
        topology
    }

    /// Configures both ends from nothing, with SAs of this generation.
    ///
    /// # Panics
    /// If it is refused.
    pub fn configure(&mut self, generation: u32) {
        for end in [End::A, End::B] {
            let (objects, now_ns) = (self.objects(end, generation), self.now_ns);
            self.headend(end).put(Base::Empty, &objects, now_ns).expect("a valid configuration");
        }
        self.settle();
    }

    /// Builds it without any configuration.
    ///
    /// # Panics
    /// If something cannot be had.
    #[must_use]
    pub fn unconfigured(shape: Shape) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directories = ["a", "b"].map(|name| home.path().join(name));
        let pool = Pool::memory(LINK_PACKETS, 9_216 + 64).expect("packet memory");
        let config = PairConfig {
            macs: [End::A.mac(WAN), End::B.mac(WAN)],
            mtu: shape.wan_mtu,
            ..PairConfig::new(shape.workers, WIRE_PACKETS)
        };
        let (wan_a, wan_b, mut link) = Link::new(&config, shape.seed, &pool);
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let trace = Arc::clone(&seen);
        link.set_trace(Box::new(move |_, frame| trace.lock().expect("no panic").push(frame.to_vec())));
        let mut sites = Vec::new();
        let mut headends = Vec::new();
        for (end, wan, state) in [(End::A, wan_a, &directories[0]), (End::B, wan_b, &directories[1])] {
            std::fs::create_dir(state).expect("a state directory");
            let pair = PairConfig {
                macs: [end.mac(LAN), end.host_mac()],
                mtu: 9_216,
                ..PairConfig::new(shape.workers, WIRE_PACKETS)
            };
            let (lan, wire) = memory::wire_with(&pair);
            sites.push(Site::new(wire, end.host_mac(), end.mac(LAN), &[end.host(), end.host_v6()]));
            headends.push(Headend::new(HeadendConfig {
                ports: vec![lan, wan],
                vlans: shape.vlans.into(),
                workers: shape.workers,
                state: state.clone(),
                packets: HEADEND_PACKETS,
                engine: Engine::best(),
            }));
        }
        let [a, b]: [Headend; 2] = headends.try_into().ok().expect("two headends");
        let sites: [Site; 2] = sites.try_into().ok().expect("two sites");
        Self {
            shape,
            headends: [a, b],
            sites,
            link,
            seen,
            now_ns: 1_000_000_000,
            pool,
            directories,
            _home: home,
        }
    }

    /// A headend.
    pub fn headend(&mut self, end: End) -> &mut Headend {
        &mut self.headends[end as usize]
    }

    /// A site.
    pub fn site(&mut self, end: End) -> &mut Site {
        &mut self.sites[end as usize]
    }

    /// Where a headend keeps its sequence store.
    #[must_use]
    pub fn directory(&self, end: End) -> &PathBuf {
        &self.directories[end as usize]
    }

    /// Ends a headend's process as told and starts it again on the same state directory, with nothing configured.
    pub fn restart(&mut self, end: End, ending: Ending) {
        self.headend(end).restart(ending);
    }

    /// Before anything is configured: lets `from` give its first packet under a key the number `next`, and the other end
    /// take it for the next one. Both processes start anew for that.
    ///
    /// # Panics
    /// If a store cannot be written.
    pub fn begin_at(&mut self, from: End, generation: u32, next: u64) {
        let Object::Sa(sa) = self.sa(from, Direction::Outbound, generation) else { unreachable!("an SA") };
        let key = sa.key.secret.fingerprint();
        for end in [from, from.other()] {
            let mut store = SequenceStore::open(self.directory(end)).expect("a store");
            if end == from {
                store.write_limits([(key, next)]).expect("a directory that can be written");
            } else {
                store.write_edges([(key, next - 1)]).expect("a directory that can be written");
            }
            self.restart(end, Ending::Crash);
        }
    }

    /// Puts a frame on the untrusted link towards a headend's queue, as an attacker or a slow path would: the link's
    /// faults and trace do not see it.
    ///
    /// # Panics
    /// If the wire is full: a simulation turns the headend before that.
    pub fn inject(&self, to: End, queue: u16, frame: &[u8]) {
        let packet = self.pool.copy_of(frame).expect("a buffer");
        let injected = self.link.inject(to.other().outward(), queue, packet);
        assert!(injected.is_ok(), "the wire is full");
    }

    /// As [`Shape::objects`].
    #[must_use]
    pub fn objects(&self, end: End, generation: u32) -> Vec<Object> {
        self.shape.objects(end, generation)
    }

    /// As [`Shape::network`].
    #[must_use]
    pub fn network(&self, end: End) -> Vec<Object> {
        self.shape.network(end)
    }

    /// As [`Shape::sa`].
    #[must_use]
    pub fn sa(&self, end: End, direction: Direction, generation: u32) -> Object {
        self.shape.sa(end, direction, generation)
    }

    /// As [`Shape::endpoints`].
    #[must_use]
    pub fn endpoints(&self, end: End) -> (IpAddr, IpAddr) {
        self.shape.endpoints(end)
    }

    /// Commits a change to one end.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn commit(&mut self, end: End, objects: &[Object]) -> Result<(), Refusal> {
        let now_ns = self.now_ns;
        self.headend(end).put(Base::Running, objects, now_ns)
    }

    /// One step: both headends turn, the link carries, the sites answer, time goes on by 10 µs.
    pub fn step(&mut self) -> bool {
        let now_ns = self.now_ns;
        let mut busy = false;
        for headend in &mut self.headends {
            busy |= headend.turn(now_ns);
        }
        busy |= self.link.carry() > 0;
        self.sites.iter_mut().for_each(Site::poll);
        self.now_ns += 10_000;
        busy
    }

    /// Steps until nothing moves any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            quiet = if self.step() { 0 } else { quiet + 1 };
        }
    }

    /// Lets time pass, with a step every millisecond.
    pub fn pass(&mut self, ns: u64) {
        let until = self.now_ns + ns;
        while self.now_ns < until {
            self.step();
            self.now_ns += 1_000_000;
        }
        self.settle();
    }

    /// What an eavesdropper has read off the ESP packets on the untrusted link, as transmitted.
    ///
    /// # Panics
    /// If the trace panicked.
    #[must_use]
    pub fn esp_seen(&self) -> Vec<esp::Clear> {
        esp::read_all(&self.seen.lock().expect("no panic"))
    }

    /// Buffers that are out of any pool: none once everything has settled.
    #[must_use]
    pub fn buffers_out(&self) -> usize {
        let headends = self.headends.iter().map(Headend::buffers_out);
        let sites = self.sites.iter().map(Site::buffers_out);
        headends.chain(sites).sum::<usize>() + self.pool.capacity() - self.pool.available()
    }

    /// Frames seen on the untrusted link that are neither ESP nor ARP nor neighbour discovery.
    ///
    /// # Panics
    /// If the trace panicked.
    #[must_use]
    pub fn frames_in_clear(&self) -> usize {
        let seen = self.seen.lock().expect("no panic");
        let fine =
            |frame: &&Vec<u8>| crate::packets::is_esp(frame) || crate::packets::is_link_local_chatter(frame);
        seen.len() - seen.iter().filter(fine).count()
    }
}

/// Keying material of its own for each seed (SplitMix64: a bijection of the seed, so no two first words are equal).
fn keymat(seed: u64, bytes: usize) -> Vec<u8> {
    let word = |place: u64| {
        let mut word = seed.wrapping_add((place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    };
    (0..).flat_map(word).take(bytes).collect()
}
