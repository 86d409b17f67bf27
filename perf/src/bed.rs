// SPDX-License-Identifier: Apache-2.0
//! The test bed: a headend that seals and a headend that opens what the first has sealed, each loaded with the whole
//! [`profile`](crate::profile).
//!
//! ```text
//!   frames → LAN [sealer] WAN → sealed frames → WAN [opener] LAN → frames
//! ```
//!
//! Not here: packets ([`traffic`](crate::traffic)), clocks ([`path`](crate::path)).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aead::Engine;
use anyhow::Context as _;
use dataplane::installer::Installer;
use dataplane::store::SequenceStore;
use messages::{
    Address, Base, DfPolicy, Direction, EspMode, GreOptions, IpPrefix, IvPrefix, Key, LifetimeLimits,
    MssClamp, Object, PortIndex, PortSettings, PortSide, Protection, ProtectionIndex, Route, RouteTarget, Sa,
    SaIndex, Secret, StaticNeighbor, TosPolicy, Tunnel, TunnelIndex, WorkerId,
};
use pipeline::{Pipeline, PipelineConfig};
use pktbuf::Pool;
use tables::{Limits, Neighbors, PortLimits};
use wire::{Family, MacAddr};

use crate::profile::{self, PROTECTED_BY_POLICY, REPLAY_WINDOW, Routes};

/// The port towards the sites.
pub const LAN: PortIndex = PortIndex(0);
/// The port between the headends.
pub const WAN: PortIndex = PortIndex(1);
/// Longest IP packet of both ports, as `dataplane.toml` has it by default.
pub const MTU: u16 = 1_500;

/// Buffers for packets that a headend makes itself: here none.
const ORIGINATED: usize = 64;

/// How the headends are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Tunnels, each with an SA of its own each way.
    pub tunnels: u32,
    /// Transport or tunnel mode.
    pub mode: EspMode,
    /// AES key length in bits.
    pub key_bits: u16,
    /// Extended sequence numbers.
    pub esn: bool,
    /// IPv4 or IPv6 inside.
    pub family: Family,
    /// Workers that the headends are made for.
    pub workers: u16,
    /// The engine.
    pub engine: Engine,
    /// What the sealer sends has a class of eight and goes through the scheduler of its port, which is not congested.
    pub scheduled: bool,
    /// What the sealer sends has a class of so many, the first of them policed, and does not wait; 0: it has none.
    pub classes: u8,
}

impl Setting {
    /// What is measured unless something else is asked for: AES-128 without ESN in transport mode, IPv4.
    #[must_use]
    pub const fn usual(tunnels: u32, workers: u16, engine: Engine) -> Self {
        let (mode, family) = (EspMode::Transport, Family::Ipv4);
        Self {
            tunnels,
            mode,
            key_bits: 128,
            esn: false,
            family,
            workers,
            engine,
            scheduled: false,
            classes: 0,
        }
    }
}

/// Which of the two headends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Clear in at [`LAN`], sealed out at [`WAN`].
    Sealer,
    /// Sealed in at [`WAN`], clear out at [`LAN`].
    Opener,
}

impl Role {
    fn peer(self) -> Self {
        if self == Self::Sealer { Self::Opener } else { Self::Sealer }
    }
}

/// One headend without ports: what runs on it, and what keeps it running.
pub struct Headend {
    /// Builds its states and looks after its SAs.
    pub installer: Installer,
    /// What a worker's pipeline is made from, once for each worker.
    configs: Vec<PipelineConfig>,
    neighbors: Arc<Neighbors>,
    /// How long staging and compiling took.
    pub built_in: Duration,
    /// By how much building it made the process grow; less than it takes where memory freed before was used again.
    pub growth_bytes: u64,
    directory: tempfile::TempDir,
}

impl Headend {
    /// Builds it and commits the whole profile.
    ///
    /// # Errors
    /// Memory, disk, or a configuration that is refused.
    pub fn new(role: Role, setting: &Setting) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let before = resident_bytes();
        let start = Instant::now();
        let neighbors = Arc::new(Neighbors::new(1 << 16));
        let limits = Limits {
            sas_max: setting.tunnels.max(1) * 2,
            tunnels_max: setting.tunnels,
            workers: setting.workers,
            ports: vec![PortLimits { mtu_max: MTU, is_tagged: false }; 2],
        };
        let store = SequenceStore::init(directory.path(), false)?;
        let mut installer = Installer::new(setting.engine, limits, Arc::clone(&neighbors), Some(store));
        installer.begin(1, Base::Empty);
        objects(role, setting)?.iter().for_each(|object| installer.put(object));
        let state = installer.commit(1, 0)?;
        let built_in = start.elapsed();
        let pool = Pool::memory(ORIGINATED, usize::from(MTU) + 64)?;
        let config = |worker| PipelineConfig {
            worker: WorkerId(worker),
            workers: setting.workers,
            macs: [LAN, WAN].map(|port| mac(role, port).0).into(),
            vlans: Vec::new(),
            pool: pool.clone(),
            neighbors: Arc::clone(&neighbors),
            state: Arc::clone(&state),
        };
        Ok(Self {
            configs: (0..setting.workers).map(config).collect(),
            built_in,
            growth_bytes: resident_bytes().saturating_sub(before),
            installer,
            neighbors,
            directory,
        })
    }

    /// What the next worker's pipeline is to be made from; none when every worker has its own.
    pub fn next_config(&mut self) -> Option<PipelineConfig> {
        (!self.configs.is_empty()).then(|| self.configs.remove(0))
    }

    /// What housekeeping looks after; the directory holds the sequence store.
    #[must_use]
    pub fn into_parts(self) -> (Installer, Arc<Neighbors>, tempfile::TempDir) {
        (self.installer, self.neighbors, self.directory)
    }

    fn pipeline(&mut self) -> anyhow::Result<Pipeline> {
        Ok(Pipeline::new(self.next_config().context("a worker")?))
    }
}

/// Both headends, one worker each.
pub struct Bed {
    /// Takes frames at [`LAN`], sends sealed ones at [`WAN`].
    pub sealer: Pipeline,
    /// Takes those at [`WAN`], sends frames at [`LAN`].
    pub opener: Pipeline,
    /// Their tables and SAs: sealer, opener.
    pub headends: [Headend; 2],
}

impl Bed {
    /// Builds and configures both.
    ///
    /// # Errors
    /// Memory, disk, or a configuration that is refused.
    pub fn new(setting: &Setting) -> anyhow::Result<Self> {
        let mut sealer = Headend::new(Role::Sealer, setting)?;
        let mut opener = Headend::new(Role::Opener, setting)?;
        Ok(Self { sealer: sealer.pipeline()?, opener: opener.pipeline()?, headends: [sealer, opener] })
    }

    /// What housekeeping does beside the workers: reserves sequence numbers ahead.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn housekeep(&mut self) -> anyhow::Result<()> {
        for headend in &mut self.headends {
            headend.installer.extend_limits()?;
        }
        Ok(())
    }
}

/// What this process has in memory (Linux, proc(5): the second number of statm, in pages).
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Everything a headend is configured with.
///
/// # Errors
/// A key of an impossible length.
pub fn objects(role: Role, setting: &Setting) -> anyhow::Result<Vec<Object>> {
    let mut objects = links(role, setting.family);
    objects.extend(routes(role, setting));
    for tunnel in 0..setting.tunnels {
        objects.extend(tunnel_objects(role, setting, tunnel)?);
    }
    let ends = |tunnel| (endpoint(role, tunnel).into(), endpoint(role.peer(), tunnel).into());
    objects.extend(profile::policies(WAN, setting.tunnels, ends).into_iter().map(Object::Policy));
    if setting.scheduled && role == Role::Sealer {
        objects.extend(profile::scheduled(WAN));
    } else if setting.classes > 0 && role == Role::Sealer {
        objects.extend(profile::conditioned(WAN, setting.classes));
    }
    Ok(objects)
}

/// Ports, their addresses and neighbours.
fn links(role: Role, family: Family) -> Vec<Object> {
    let port = |port, side| Object::Port(PortSettings { port, mtu: MTU, side, answer_ping: false });
    let address = |port, address, length| Object::Address(Address { port: Some(port), address, length });
    let neighbor = |port, address, mac| Object::Neighbor(StaticNeighbor { port, address, mac });
    let peer = role.peer();
    let inside = if family == Family::Ipv4 { 24 } else { 64 };
    vec![
        port(LAN, PortSide::Protected),
        port(WAN, PortSide::Unprotected),
        address(LAN, lan(role, family, 1), inside),
        address(WAN, wan(role).into(), 24),
        neighbor(LAN, lan(role, family, 9), core_mac().0),
        neighbor(WAN, wan(peer).into(), mac(peer, WAN).0),
    ]
}

/// The way to the other headend, and the profile's routes: into the tunnels at the sealer, to the core at the opener.
fn routes(role: Role, setting: &Setting) -> Vec<Object> {
    let Setting { family, tunnels, .. } = *setting;
    let core = RouteTarget::Port { port: LAN, next_hop: Some(lan(role, family, 9)) };
    let peer = RouteTarget::Port { port: WAN, next_hop: Some(wan(role.peer()).into()) };
    let route = |prefix, target| Object::Route(Route { prefix, target });
    let delivery = IpPrefix { address: Ipv4Addr::from(endpoints(role.peer())).into(), length: 8 };
    let mut objects = vec![route(delivery, peer)];
    let into = |tunnel: Option<u32>| match (role, tunnel) {
        (Role::Sealer, Some(tunnel)) => RouteTarget::Tunnel(TunnelIndex(tunnel)),
        _ => core,
    };
    let scattered = Routes::new(tunnels);
    let own = (0..tunnels).map(|tunnel| (Routes::own(tunnel), Some(tunnel)));
    let all = scattered.scattered().chain(own);
    objects.extend(all.map(|(prefix, tunnel)| route(profile::prefix(family, prefix), into(tunnel))));
    objects
}

fn tunnel_objects(role: Role, setting: &Setting, number: u32) -> anyhow::Result<Vec<Object>> {
    let near: IpAddr = endpoint(role, number).into();
    let far: IpAddr = endpoint(role.peer(), number).into();
    let (tunnel, protection) = (TunnelIndex(number), ProtectionIndex(number));
    let mut objects = vec![
        Object::Address(Address { port: None, address: near, length: 32 }),
        Object::Protection(Protection {
            protection,
            mode: setting.mode,
            local: near,
            remote: far,
            tos: TosPolicy::Copy,
            df: DfPolicy::Copy,
            ttl: 64,
            class_groups: messages::ClassGroups::default(),
        }),
        Object::Tunnel(Tunnel {
            tunnel,
            source: near,
            destination: far,
            gre: GreOptions { key: None, checksum: false, sequence: false },
            // The first ones are led to their protection by the SPD.
            protection: (number >= PROTECTED_BY_POLICY).then_some(protection),
            tos: TosPolicy::Copy,
            df: DfPolicy::Copy,
            ttl: 64,
            mtu: None,
            mss: MssClamp::Off,
            strict_source: false,
            marks: messages::TunnelMarks::default(),
        }),
    ];
    for direction in [Direction::Inbound, Direction::Outbound] {
        objects.push(Object::Sa(sa(role, setting, number, direction)?));
    }
    Ok(objects)
}

/// One of a tunnel's SAs.
pub(crate) fn sa(role: Role, setting: &Setting, number: u32, direction: Direction) -> anyhow::Result<Sa> {
    let sealed_by = if direction == Direction::Outbound { role } else { role.peer() };
    Ok(Sa {
        sa: SaIndex(number * 2 + u32::from(direction == Direction::Outbound)),
        protection: ProtectionIndex(number),
        direction,
        spi: spi(number),
        key: Key { secret: secret(setting.key_bits, sealed_by, number)?, icv_bytes: 16 },
        esn: setting.esn,
        replay_window: if direction == Direction::Inbound { REPLAY_WINDOW } else { 0 },
        class_group: 0,
        owner: None,
        iv_prefix: IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
    })
}

/// An SA in the place of the sealer's, with a key that no other update has.
///
/// # Errors
/// A key length that AES does not have.
pub fn replacement(setting: &Setting, tunnel: u32, direction: Direction, update: u32) -> anyhow::Result<Sa> {
    let mut sa = sa(Role::Sealer, setting, tunnel, direction)?;
    // The keys of the bed begin with 0 or 1.
    let mut keymat = vec![0x80; usize::from(setting.key_bits / 8) + 4];
    if let Some(number) = keymat.get_mut(1..5) {
        number.copy_from_slice(&update.to_be_bytes());
    }
    sa.key.secret = Secret::from_keymat(&keymat).context("a key of 128, 192 or 256 bits")?;
    Ok(sa)
}

/// The SPI of both SAs of a tunnel.
#[must_use]
pub fn spi(tunnel: u32) -> u32 {
    0x1_0000 + tunnel
}

/// Key and salt of what `sealed_by` sends through a tunnel. They protect nothing: the packets never leave the process.
///
/// # Errors
/// A key length that AES does not have.
pub fn secret(key_bits: u16, sealed_by: Role, tunnel: u32) -> anyhow::Result<Secret> {
    let mut keymat = vec![u8::from(sealed_by == Role::Sealer); usize::from(key_bits / 8) + 4];
    if let Some(number) = keymat.get_mut(1..5) {
        number.copy_from_slice(&tunnel.to_be_bytes());
    }
    Secret::from_keymat(&keymat).context("a key of 128, 192 or 256 bits")
}

/// The Ethernet address of a headend's port.
#[must_use]
pub fn mac(role: Role, port: PortIndex) -> MacAddr {
    MacAddr([2, 0, 0, 0, role as u8, port.0 as u8])
}

/// The Ethernet address of the router behind either [`LAN`].
#[must_use]
pub fn core_mac() -> MacAddr {
    MacAddr([2, 9, 9, 9, 9, 9])
}

fn lan(role: Role, family: Family, host: u8) -> IpAddr {
    match profile::address(family, Ipv4Addr::new(172, 16, role as u8, 0).to_bits()) {
        IpAddr::V4(network) => IpAddr::V4(Ipv4Addr::from(network.to_bits() + u32::from(host))),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from(first.to_bits() - 1 + u128::from(host))),
    }
}

fn wan(role: Role) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 0, 1 + role as u8)
}

/// The /8 of one headend's delivery addresses.
fn endpoints(role: Role) -> u32 {
    if role == Role::Sealer { 100 << 24 } else { 101 << 24 }
}

/// Each tunnel has delivery addresses of its own, scattered.
fn endpoint(role: Role, tunnel: u32) -> Ipv4Addr {
    // A permutation of 21 bits, so that neighbouring tunnels have nothing in common.
    let scattered = tunnel.wrapping_mul(0x9_e375) & 0x1f_ffff;
    Ipv4Addr::from(endpoints(role) | 1 | scattered << 3)
}
