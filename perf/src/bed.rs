// SPDX-License-Identifier: Apache-2.0
//! The test bed: a headend that seals and a headend that opens what the first has sealed, `tunnels` tunnels between them.
//!
//! ```text
//!   frames → LAN [sealer] WAN → sealed frames → WAN [opener] LAN → frames
//! ```

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use aead::Engine;
use anyhow::{Context as _, anyhow};
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
use wire::{EtherType, IpProtocol, MacAddr, ethernet, ipv4};

/// The port towards the sites.
pub const LAN: PortIndex = PortIndex(0);
/// The port between the headends.
pub const WAN: PortIndex = PortIndex(1);

const MTU: u16 = 9_216;
const REPLAY_WINDOW: u16 = 1_024;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Tunnels, each with an SA of its own each way.
    pub tunnels: u32,
    /// Transport or tunnel mode.
    pub mode: EspMode,
    /// AES key length in bits.
    pub key_bits: u16,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The engine.
    pub engine: Engine,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Sealer,
    Opener,
}

/// Both headends.
pub struct Bed {
    /// Takes frames at [`LAN`], sends sealed ones at [`WAN`].
    pub sealer: Pipeline,
    /// Takes those at [`WAN`], sends frames at [`LAN`].
    pub opener: Pipeline,
    /// Buffers for the frames.
    pub pool: Pool,
    installers: [Installer; 2],
    _state: tempfile::TempDir,
}

impl Bed {
    /// Builds and configures both.
    ///
    /// # Errors
    /// Memory, disk, or a configuration that is refused.
    pub fn new(setting: &Setting, buffers: usize) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let pool = Pool::memory(buffers + 512, usize::from(MTU) + 64)?;
        let (sealer, a) = headend(Role::Sealer, setting, &pool, &state.path().join("a"))?;
        let (opener, b) = headend(Role::Opener, setting, &pool, &state.path().join("b"))?;
        Ok(Self { sealer, opener, pool, installers: [a, b], _state: state })
    }

    /// What housekeeping does beside the workers: reserves sequence numbers ahead.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn housekeep(&mut self) -> anyhow::Result<()> {
        for installer in &mut self.installers {
            installer.extend_limits()?;
        }
        Ok(())
    }
}

/// A UDP frame of `bytes` bytes of IP towards tunnel `tunnel`, of flow `flow`.
///
/// # Errors
/// If `bytes` is shorter than the headers.
pub fn frame(tunnel: u32, flow: u16, bytes: usize) -> anyhow::Result<Vec<u8>> {
    let mut frame = vec![0; ethernet::HEADER_BYTES + bytes];
    let link = ethernet::Repr {
        destination: mac(Role::Sealer, LAN),
        source: MacAddr([2, 9, 9, 9, 9, 9]),
        ether_type: EtherType::IPV4,
    };
    link.emit(&mut frame).map_err(|error| anyhow!("{error}"))?;
    let payload =
        bytes.checked_sub(ipv4::HEADER_BYTES + 8).context("an IP packet here has at least 28 bytes")?;
    let ip = ipv4::Repr {
        payload_bytes: u16::try_from(payload + 8)?,
        ttl: 64,
        ..ipv4::Repr::new(Ipv4Addr::new(172, 16, 0, 2), site(tunnel), IpProtocol::UDP)
    };
    let body = &mut frame[ethernet::HEADER_BYTES..];
    ip.emit(body).map_err(|error| anyhow!("{error}"))?;
    let ports = [4_000 + flow, 5_000, u16::try_from(payload + 8)?, 0];
    for (word, bytes) in ports.iter().zip(body[ipv4::HEADER_BYTES..].chunks_exact_mut(2)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Ok(frame)
}

fn headend(
    role: Role,
    setting: &Setting,
    pool: &Pool,
    state: &std::path::Path,
) -> anyhow::Result<(Pipeline, Installer)> {
    std::fs::create_dir(state)?;
    let neighbors = Arc::new(Neighbors::new(1 << 16));
    let limits = Limits {
        sas_max: setting.tunnels.max(1) * 2,
        tunnels_max: setting.tunnels,
        workers: 1,
        ports: vec![PortLimits { mtu_max: MTU }; 2],
    };
    let store = SequenceStore::init(state, false)?;
    let mut installer = Installer::new(setting.engine, limits, Arc::clone(&neighbors), Some(store));
    installer.begin(1, Base::Empty);
    objects(role, setting)?.iter().for_each(|object| installer.put(object));
    let state = installer.commit(1, 0)?;
    let pipeline = Pipeline::new(PipelineConfig {
        worker: WorkerId(0),
        workers: 1,
        macs: [LAN, WAN].map(|port| mac(role, port).0).into(),
        pool: pool.clone(),
        neighbors,
        state,
    });
    Ok((pipeline, installer))
}

fn objects(role: Role, setting: &Setting) -> anyhow::Result<Vec<Object>> {
    let peer = if role == Role::Sealer { Role::Opener } else { Role::Sealer };
    let mut objects = Vec::new();
    for (port, side) in [(LAN, PortSide::Protected), (WAN, PortSide::Unprotected)] {
        objects.push(Object::Port(PortSettings { port, mtu: MTU, side, answer_ping: false }));
    }
    for (port, address, length) in [(LAN, lan(role), 24), (WAN, wan(role), 24)] {
        objects.push(Object::Address(Address { port: Some(port), address: address.into(), length }));
    }
    let far = lan_neighbor(role);
    objects.push(Object::Neighbor(StaticNeighbor {
        port: LAN,
        address: far.into(),
        mac: [2, 9, 9, 9, 9, 9],
    }));
    objects.push(Object::Neighbor(StaticNeighbor {
        port: WAN,
        address: wan(peer).into(),
        mac: mac(peer, WAN).0,
    }));
    let everything_at_home = IpPrefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };
    let home = RouteTarget::Port { port: LAN, next_hop: Some(far.into()) };
    objects.push(Object::Route(Route { prefix: everything_at_home, target: home }));
    let to_peer = RouteTarget::Port { port: WAN, next_hop: Some(wan(peer).into()) };
    objects.push(Object::Route(Route {
        prefix: IpPrefix { address: Ipv4Addr::from(endpoints(peer)).into(), length: 8 },
        target: to_peer,
    }));
    for tunnel in 0..setting.tunnels {
        objects.extend(tunnel_objects(role, peer, setting, tunnel)?);
    }
    Ok(objects)
}

fn tunnel_objects(role: Role, peer: Role, setting: &Setting, number: u32) -> anyhow::Result<Vec<Object>> {
    // The opener holds the address of every branch; the sealer, as a hub, has one of its own for all of them.
    let near: IpAddr = endpoint(role, number).into();
    let far: IpAddr = endpoint(peer, number).into();
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
        }),
        Object::Tunnel(Tunnel {
            tunnel,
            source: near,
            destination: far,
            gre: GreOptions { key: None, checksum: false, sequence: false },
            protection: Some(protection),
            tos: TosPolicy::Copy,
            df: DfPolicy::Copy,
            ttl: 64,
            mtu: None,
            mss: MssClamp::Off,
            strict_source: false,
        }),
    ];
    if role == Role::Sealer {
        let prefix = IpPrefix { address: site(number).into(), length: 32 };
        objects.push(Object::Route(Route { prefix, target: RouteTarget::Tunnel(tunnel) }));
    }
    for direction in [Direction::Inbound, Direction::Outbound] {
        objects.push(Object::Sa(sa(role, setting, number, direction)?));
    }
    Ok(objects)
}

fn sa(role: Role, setting: &Setting, number: u32, direction: Direction) -> anyhow::Result<Sa> {
    let from_sealer = (role == Role::Sealer) == (direction == Direction::Outbound);
    let mut keymat = vec![u8::from(from_sealer); usize::from(setting.key_bits / 8) + 4];
    keymat[1..5].copy_from_slice(&number.to_be_bytes());
    let secret = Secret::from_keymat(&keymat).context("a key of 128, 192 or 256 bits")?;
    Ok(Sa {
        sa: SaIndex(number * 2 + u32::from(direction == Direction::Outbound)),
        protection: ProtectionIndex(number),
        direction,
        spi: 0x1_0000 + number,
        key: Key { secret, icv_bytes: 16 },
        esn: setting.esn,
        replay_window: if direction == Direction::Inbound { REPLAY_WINDOW } else { 0 },
        class_group: 0,
        owner: None,
        iv_prefix: IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
    })
}

fn mac(role: Role, port: PortIndex) -> MacAddr {
    MacAddr([2, 0, 0, 0, role as u8, port.0 as u8])
}

fn lan(role: Role) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, role as u8, 1)
}

fn lan_neighbor(role: Role) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, role as u8, 9)
}

fn wan(role: Role) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 0, 1 + role as u8)
}

/// Scattered hosts behind the tunnels.
fn site(tunnel: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0002 | scatter(tunnel) << 3)
}

/// The /8 of one headend's delivery addresses.
fn endpoints(role: Role) -> u32 {
    if role == Role::Sealer { 100 << 24 } else { 101 << 24 }
}

fn endpoint(role: Role, tunnel: u32) -> Ipv4Addr {
    Ipv4Addr::from(endpoints(role) | 1 | scatter(tunnel) << 3)
}

/// A permutation of 21 bits, so that neighbouring tunnels have nothing in common.
fn scatter(tunnel: u32) -> u32 {
    tunnel.wrapping_mul(0x9_e375) & 0x1f_ffff
}
