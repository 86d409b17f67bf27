// SPDX-License-Identifier: Apache-2.0
//! What both headends are configured with, and a headend made of pipelines alone.

use core::net::IpAddr;
use std::sync::Arc;

use aead::Engine;
use dataplane::installer::Installer;
use dataplane::store::SequenceStore;
use greyhound_simulation::topology::{LAN, WAN};
use greyhound_simulation::wanted::{ANY, host, ip, policy, prefix, route_by, route_into};
use messages::{
    Address, Base, ClassGroups, ClassMap, ClassMapIndex, ColourAware, Criterion, DfPolicy, Direction,
    DscpMap, DscpMapIndex, DscpSet, EspMode, GreOptions, IvPrefix, Key, LifetimeLimits, MssClamp, Object,
    Police, PoliceAction, PolicyAction, PolicyClass, PolicyMap, PolicyMapIndex, PortIndex, PortSettings,
    PortSide, Protection, ProtectionIndex, ReceivedDscp, Sa, SaIndex, SecondBucket, Secret, Selector,
    Service, ServicePolicy, ServiceTarget, TosPolicy, TrafficProfile, Tunnel, TunnelIndex, TunnelMarks,
    WorkerId,
};
use pipeline::{HandedOver, Pipeline, PipelineConfig};
use pktbuf::{Batch, Pool};
use tables::{Limits, Neighbors, PortLimits};

/// What fits every tunnel and port.
pub(crate) const COMMON_BYTES: usize = 1_200;
/// A second protected port, with a small MTU.
pub(crate) const LAB: PortIndex = PortIndex(2);
pub(crate) const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
pub(crate) const TUNNELS: u32 = 12;
pub(crate) const WORKERS: u16 = 2;
/// The protection that the SPD names, without GRE.
pub(crate) const BARE: u32 = 9;
/// The tunnel whose neighbour seldom answers, and the one whose SA is nearly used up.
pub(crate) const UNANSWERED: u32 = 8;
pub(crate) const UNANSWERED_MAC: [u8; 6] = [2, 0, 0, 0, 9, 10];
pub(crate) const NEARLY_EXHAUSTED: u32 = 11;
/// Protections with class groups: transport and tunnel mode under tunnels, and one without GRE.
const GROUPED: [u32; 3] = [0, 1, BARE];
/// The tunnel without protection.
pub(crate) const IN_CLEAR: u32 = 10;
/// Our address on the untrusted network, and the ends inside tunnel mode.
pub(crate) const OURS: &str = "192.0.2.1";
pub(crate) const INNER: [&str; 2] = ["203.0.113.1", "203.0.113.3"];

/// Objects, and the SAs among them.
pub(crate) struct Network {
    pub objects: Vec<Object>,
    pub tunnels: Vec<Tunnel>,
    pub protections: Vec<Protection>,
    pub sas: Vec<Sa>,
}

/// The far end of a protection, or of a tunnel in clear.
pub(crate) fn far(index: u32) -> IpAddr {
    ip(&format!("192.0.2.{}", 2 + index))
}

/// A host behind a tunnel.
pub(crate) fn branch(tunnel: u32, host: u8) -> IpAddr {
    ip(&format!("10.100.{tunnel}.{host}"))
}

/// The protection of a tunnel: 2 and 3 share one.
fn protection_of(tunnel: u32) -> Option<u32> {
    match tunnel {
        IN_CLEAR => None,
        3 => Some(2),
        other => Some(other),
    }
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let tunnels: Vec<_> = (0..TUNNELS).map(tunnel).collect();
        let protections: Vec<_> =
            (0..TUNNELS).filter(|p| ![3, IN_CLEAR].contains(p)).map(protection).collect();
        let grouped = protections.iter().filter(|p| !p.class_groups.is_one());
        let group_sas = grouped.flat_map(|p| group_sas(p, seed));
        let sas = protections.iter().flat_map(|p| sas(p, seed)).chain(group_sas).collect();
        let mut network = Self { objects: frame(), tunnels, protections, sas };
        network.objects.extend(network.protections.iter().copied().map(Object::Protection));
        let changes = vec![(0, 8), (34, 10), (46, 40)];
        network.objects.push(Object::DscpMap(DscpMap { dscp_map: DSCPS, changes }));
        network.objects.extend(network.tunnels.iter().copied().map(Object::Tunnel));
        network.objects.extend(network.sas.iter().cloned().map(Object::Sa));
        network.objects.extend(marks(seed));
        network
    }

    /// What changes while packets flow: a protected port turns unprotected, a tunnel's checks and sizes, and back.
    pub(crate) fn changes(&self, number: usize) -> Vec<Object> {
        let is_odd = number % 2 == 1;
        let side = if is_odd { PortSide::Unprotected } else { PortSide::Protected };
        let lab = Object::Port(PortSettings { port: LAB, mtu: 1_280, side, answer_ping: true });
        let tunnel = Tunnel {
            strict_source: is_odd,
            mss: if is_odd { MssClamp::Fixed(900) } else { MssClamp::Off },
            mtu: is_odd.then_some(COMMON_BYTES as u16),
            ..self.tunnels[number % 3]
        };
        if number % 5 < 3 { vec![Object::Tunnel(tunnel)] } else { vec![lab, Object::Tunnel(tunnel)] }
    }

    pub(crate) fn sa(&self, protection: u32, direction: Direction) -> Option<&Sa> {
        self.sas.iter().find(|sa| sa.protection.0 == protection && sa.direction == direction)
    }
}

/// Ports, addresses, routes and the SPD.
fn frame() -> Vec<Object> {
    let mut objects = Vec::new();
    for (port, mtu, side) in [
        (LAN, 9_216, PortSide::Protected),
        (WAN, 1_500, PortSide::Unprotected),
        (LAB, 1_280, PortSide::Protected),
    ] {
        objects.push(Object::Port(PortSettings { port, mtu, side, answer_ping: true }));
    }
    for (port, address, length) in [
        (Some(LAN), "10.1.0.1", 24),
        (Some(LAN), "2001:db8:1::1", 64),
        (Some(WAN), OURS, 24),
        (Some(WAN), "2001:db8:ffff::1", 64),
        (Some(LAB), "10.9.0.1", 24),
        (None, INNER[0], 32),
    ] {
        objects.push(Object::Address(Address { port, address: ip(address), length }));
    }
    for tunnel in 0..TUNNELS {
        objects.push(route_into(prefix(&format!("10.100.{tunnel}.0/24")), tunnel));
        objects.push(route_into(prefix(&format!("2001:db8:100:{tunnel}::/64")), tunnel));
    }
    objects.push(route_by(prefix("10.7.0.0/16"), LAN, ip("10.1.0.7")));
    objects.push(route_by(prefix("198.51.100.0/24"), WAN, far(BARE)));
    let gre = Selector { protocol: Some(47), remote: Some(host(far(IN_CLEAR))), ..ANY };
    let bare = Selector { remote: Some(prefix("198.51.100.0/25")), ..ANY };
    objects.push(policy(1, gre, PolicyAction::Bypass));
    objects.push(policy(2, bare, PolicyAction::Protect(ProtectionIndex(BARE))));
    objects.push(policy(3, Selector { protocol: Some(1), ..ANY }, PolicyAction::Bypass));
    objects
}

const DSCPS: DscpMapIndex = DscpMapIndex(0);

/// Policies without queues: one for what leaves by a port, another for a tunnel, and a tunnel that does not pre-classify.
/// Their class is UDP, or half of the code points for an odd seed.
/// Nothing is dropped, as that would depend on the order of packets within a burst.
fn marks(seed: u64) -> Vec<Object> {
    const SOME: ClassMapIndex = ClassMapIndex(0);
    let anything = Criterion::anything(SOME, 0);
    let some = match seed % 2 {
        0 => Criterion { protocol: Some(17), ..anything },
        _ => Criterion { dscps: Some(DscpSet(0x5555_5555_5555_5555)), ..anything },
    };
    let mut objects =
        vec![Object::ClassMap(ClassMap { class_map: SOME, match_any: false }), Object::Criterion(some)];
    let police = Police {
        aware: Some(ColourAware { yellow: DscpSet(1 << 46), red: DscpSet(1 << 10) }),
        exceed: PoliceAction::SetDscp(12),
        violate: PoliceAction::SetDscp(14),
        second: SecondBucket::ExcessBurst(1 << 30),
        ..Police::dropping(TrafficProfile { rate_bps: 1_000_000_000_000, burst_bytes: None })
    };
    for (map, police, set_dscp) in [(0, Some(police), Some(18)), (1, None, Some(34))] {
        let policy_map = PolicyMapIndex(map);
        objects.push(Object::PolicyMap(PolicyMap { policy_map, shape: None }));
        for (place, class_map) in [(0, Some(SOME)), (1, None)] {
            objects.push(Object::PolicyClass(PolicyClass {
                police: police.filter(|_| place == 0),
                set_dscp: set_dscp.filter(|_| place == 0),
                ..PolicyClass::plain(policy_map, place, class_map, Service::Unqueued)
            }));
        }
    }
    for (target, map, pre_classify) in [
        (ServiceTarget::Port(WAN), Some(0), true),
        (ServiceTarget::Tunnel(TunnelIndex(2)), Some(1), true),
        (ServiceTarget::Tunnel(TunnelIndex(1)), None, false),
    ] {
        let policy_map = map.map(PolicyMapIndex);
        objects.push(Object::ServicePolicy(ServicePolicy { target, policy_map, pre_classify }));
    }
    objects
}

fn tunnel(index: u32) -> Tunnel {
    let plain = GreOptions { key: None, checksum: false, sequence: false };
    let gre = match index {
        1 => GreOptions { key: Some(7), ..plain },
        2 | 3 => GreOptions { key: Some(100 * index), ..plain },
        4 => GreOptions { checksum: true, ..plain },
        5 => GreOptions { sequence: true, key: Some(5), ..plain },
        _ => plain,
    };
    let inside = index == 1;
    let protection = protection_of(index);
    Tunnel {
        tunnel: TunnelIndex(index),
        source: ip(if inside { INNER[0] } else { OURS }),
        destination: if inside { ip(INNER[1]) } else { far(protection.unwrap_or(index)) },
        gre,
        protection: protection.map(ProtectionIndex),
        tos: if index == 6 { TosPolicy::Dscp(46) } else { TosPolicy::Copy },
        df: [DfPolicy::Copy, DfPolicy::Clear, DfPolicy::Set][index as usize % 3],
        ttl: 61,
        mtu: (index == 6).then_some(1_200),
        mss: match index {
            1 | 2 => MssClamp::Automatic,
            6 => MssClamp::Fixed(1_100),
            _ => MssClamp::Off,
        },
        strict_source: index % 2 == 1,
        marks: TunnelMarks {
            outward: [2, 6].contains(&index).then_some(DSCPS),
            receipt: if index == 1 { ReceivedDscp::Map(DSCPS) } else { ReceivedDscp::Keep },
        },
    }
}

fn protection(index: u32) -> Protection {
    let tunnel_mode = index == 1 || index == BARE;
    Protection {
        protection: ProtectionIndex(index),
        mode: if tunnel_mode { EspMode::Tunnel } else { EspMode::Transport },
        local: ip(OURS),
        remote: far(index),
        tos: TosPolicy::Copy,
        df: if index == 1 { DfPolicy::Clear } else { DfPolicy::Copy },
        ttl: 62,
        class_groups: if GROUPED.contains(&index) { groups() } else { ClassGroups::default() },
    }
}

/// EF and some others in group 1, a quarter in group 2, a few in group 3, which has no SA.
fn groups() -> ClassGroups {
    let mut groups = ClassGroups::default();
    groups.0[..3].copy_from_slice(&[DscpSet(1 << 46 | 0xf00), DscpSet(0xffff_0000), DscpSet(0xf << 60)]);
    groups
}

/// The outbound SAs of a protection's groups beside group 0.
fn group_sas(protection: &Protection, seed: u64) -> Vec<Sa> {
    let of_group_0 = sas(protection, seed).into_iter().find(|sa| sa.direction == Direction::Outbound);
    let of_group = |class_group: u8| {
        let sa = of_group_0.clone()?;
        let (index, group) = (protection.protection.0, u32::from(class_group));
        let mut keymat = [seed as u8 ^ 0x5a; 20];
        keymat[..2].copy_from_slice(&[index as u8, 1 + class_group]);
        // An ICV of another length, so that lengths tell groups apart.
        let key = Key { secret: Secret::from_keymat(&keymat).expect("a key"), icv_bytes: 12 };
        Some(Sa {
            sa: SaIndex(24 + 12 * (group - 1) + index),
            spi: sa.spi + 0x1000 * group,
            class_group,
            key,
            ..sa
        })
    };
    (1..=2).filter_map(of_group).collect()
}

/// Both SAs of a protection; 7 sends none, 5's end in time, 6's inbound one belongs to the second worker.
fn sas(protection: &Protection, seed: u64) -> Vec<Sa> {
    let index = protection.protection.0;
    let both = [Direction::Inbound, Direction::Outbound].map(|direction| {
        let outbound = u32::from(direction == Direction::Outbound);
        let mut keymat = [seed as u8 ^ 0x5a; 20];
        keymat[..2].copy_from_slice(&[index as u8, outbound as u8]);
        Sa {
            sa: SaIndex(2 * index + outbound),
            protection: protection.protection,
            direction,
            spi: 0x1000 + 0x1000 * outbound + index,
            key: Key {
                secret: Secret::from_keymat(&keymat).expect("a key"),
                icv_bytes: if index == 2 { 8 } else { 16 },
            },
            esn: index == 1,
            replay_window: if outbound == 0 { 128 } else { 0 },
            class_group: 0,
            owner: (outbound == 0).then_some(WorkerId(u16::from(index == 6))),
            iv_prefix: IvPrefix::default(),
            lifetime: LifetimeLimits {
                hard_seconds: if index == 5 { 300 } else { 0 },
                ..LifetimeLimits::default()
            },
        }
    });
    both.into_iter().filter(|sa| (index, sa.direction) != (7, Direction::Outbound)).collect()
}

/// A headend of pipelines, without threads and devices.
pub(crate) struct Rig {
    pub pipelines: Vec<Pipeline>,
    pub installer: Installer,
    neighbors: Arc<Neighbors>,
    pool: Pool,
    frames: Vec<Vec<Vec<u8>>>,
    ticked_ns: u64,
    _home: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(network: &Network, now_ns: u64) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut store = SequenceStore::init(home.path(), false).expect("a store");
        let nearly = network.sa(NEARLY_EXHAUSTED, Direction::Outbound).expect("an SA");
        let limit = (nearly.key.secret.fingerprint(), (1 << 32) - 200);
        store.write_limits([limit]).expect("a store that can be written");
        drop(store);
        let store = SequenceStore::open(home.path()).expect("a store");
        let neighbors = Arc::new(Neighbors::with_seed(256, 3));
        let limits = Limits {
            sas_max: 64,
            tunnels_max: 64,
            workers: WORKERS,
            ports: vec![PortLimits { mtu_max: 9_216, is_tagged: false }; MACS.len()],
        };
        let mut installer = Installer::new(Engine::best(), limits, Arc::clone(&neighbors), Some(store));
        installer.begin(1, Base::Empty);
        network.objects.iter().for_each(|object| installer.put(object));
        let state = installer.commit(1, now_ns).expect("a valid configuration");
        let pool = Pool::memory(2_048, 9_216 + 64).expect("packet memory");
        let pipelines = (0..WORKERS)
            .map(|worker| {
                Pipeline::new(PipelineConfig {
                    worker: WorkerId(worker),
                    workers: WORKERS,
                    macs: MACS.into(),
                    vlans: Vec::new(),
                    pool: pool.clone(),
                    neighbors: Arc::clone(&neighbors),
                    state: Arc::clone(&state),
                })
            })
            .collect();
        let frames = vec![Vec::new(); MACS.len() * usize::from(WORKERS)];
        Self { pipelines, installer, neighbors, pool, frames, ticked_ns: 0, _home: home }
    }

    /// Housekeeping, and the neighbours that answer.
    pub(crate) fn refresh(&mut self, now_ns: u64) {
        self.installer.extend_limits().expect("a store that can be written");
        self.neighbors.age(now_ns);
        let hosts = (2..=7).map(|host| (LAN, ip(&format!("10.1.0.{host}"))));
        let lab = (2..=4).map(|host| (LAB, ip(&format!("10.9.0.{host}"))));
        let far_ends = (0..TUNNELS).filter(|p| *p != UNANSWERED).map(|p| (WAN, far(p)));
        for (port, address) in hosts.chain(lab).chain(far_ends) {
            let neighbor = self.neighbors.ensure(port, &address).expect("room");
            let last = match address {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            };
            self.neighbors.learn(neighbor, [2, 0, 0, 0, 9, last], now_ns);
        }
    }

    /// Commits objects onto what runs; every worker switches.
    pub(crate) fn change(&mut self, objects: &[Object], now_ns: u64) {
        self.installer.begin(2, Base::Running);
        objects.iter().for_each(|object| self.installer.put(object));
        let state = self.installer.commit(2, now_ns).expect("a valid change");
        for pipeline in &mut self.pipelines {
            pipeline.switch(Arc::clone(&state), 0);
        }
    }

    pub(crate) fn receive(&mut self, worker: u16, port: PortIndex, frames: &[Vec<u8>], now_ns: u64) {
        let mut batch: Batch =
            frames.iter().map(|frame| self.pool.copy_of(frame).expect("a buffer")).collect();
        self.pipelines[usize::from(worker)].receive(port, &mut batch, now_ns);
        assert!(batch.is_empty());
    }

    /// Lets everything that is on its way out or to another worker arrive.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        for _ in 0..3 {
            for worker in 0..self.pipelines.len() {
                let mut handed: Vec<(WorkerId, HandedOver)> = Vec::new();
                self.pipelines[worker].hand_over(|owner, packet| {
                    handed.push((owner, packet));
                    Ok(())
                });
                for (owner, packet) in handed {
                    self.pipelines[owner.index()].take_over(core::iter::once(packet), now_ns);
                }
            }
        }
        if now_ns >= self.ticked_ns + 3_000_000_000 {
            self.ticked_ns = now_ns;
            self.pipelines.iter_mut().for_each(|pipeline| pipeline.tick(now_ns));
        }
        for (pipeline, queues) in self.pipelines.iter_mut().zip(self.frames.chunks_mut(MACS.len())) {
            for (port, frames) in (0..).map(PortIndex).zip(queues) {
                pipeline.transmit(port, |batch| {
                    let sent = batch.len();
                    frames.extend(batch.drain(..).map(|packet| packet.data().to_vec()));
                    sent
                });
            }
        }
    }

    /// What each worker sent by each port.
    pub(crate) fn take_frames(&mut self) -> Vec<Vec<Vec<u8>>> {
        self.frames.iter_mut().map(std::mem::take).collect()
    }
}
