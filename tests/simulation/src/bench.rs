// SPDX-License-Identifier: Apache-2.0
//! One headend between a host and a peer that are the test itself: every frame that goes in is chosen, every frame that
//! comes out is seen, and every counter is compared.

use core::net::IpAddr;

use aead::Engine;
use messages::{Base, Direction, DropReason, Object, PortIndex, StaticNeighbor, WorkerCounter};
use port::memory::{self, PairConfig};

use crate::sealer::Sealer;
use crate::topology::{End, LAN, Shape, WAN};
use crate::wanted::sa;
use crate::{Headend, HeadendConfig, Site};

/// Frames that a wire holds.
pub const WIRE_PACKETS: usize = 256;
/// Buffers of the host and of the peer, each.
const SITE_PACKETS: usize = 2_048;
/// Buffers of the headend.
const PACKETS: usize = 256;

/// The headend is [`End::A`]; its host is at `lan`, and at `wan` is what would be headend B.
pub struct Bench {
    /// How it was made.
    pub shape: Shape,
    /// The headend.
    pub headend: Headend,
    /// The host.
    pub lan: Site,
    /// The peer.
    pub wan: Site,
    /// The clock.
    pub now_ns: u64,
    _home: tempfile::TempDir,
}

/// What happened between two looks.
#[derive(Debug)]
pub struct Seen {
    /// Drops by reason.
    pub drops: Vec<(DropReason, u64)>,
    /// Frames that the host received.
    pub lan: Vec<Vec<u8>>,
    /// Frames that the peer received.
    pub wan: Vec<Vec<u8>>,
    counters: Vec<u64>,
}

impl Seen {
    /// By how much a counter rose.
    #[must_use]
    pub fn counter(&self, counter: WorkerCounter) -> u64 {
        self.counters[counter as usize]
    }
}

impl Bench {
    /// A headend as `shape` says, its neighbours static.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        Self::with(shape, |_| {})
    }

    /// The same, its objects changed before they are committed.
    #[must_use]
    pub fn with(shape: &Shape, change: impl FnOnce(&mut Vec<Object>)) -> Self {
        Self::with_packets(shape, PACKETS, change)
    }

    /// The same with so many buffers.
    ///
    /// # Panics
    /// If the objects are refused.
    #[must_use]
    pub fn with_packets(shape: &Shape, packets: usize, change: impl FnOnce(&mut Vec<Object>)) -> Self {
        let mut bench = Self::unconfigured(shape, packets);
        let mut objects = shape.objects(End::A, 0);
        objects.extend(static_neighbors());
        change(&mut objects);
        bench.headend.put(Base::Empty, &objects, bench.now_ns).expect("a valid configuration");
        bench.settle();
        bench
    }

    /// A headend with nothing configured.
    ///
    /// # Panics
    /// If something cannot be had.
    #[must_use]
    pub fn unconfigured(shape: &Shape, packets: usize) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let wire = |port: PortIndex, far: [u8; 6], mtu| {
            memory::wire_with(&PairConfig {
                macs: [End::A.mac(port), far],
                mtu,
                ..PairConfig::new(shape.workers, WIRE_PACKETS)
            })
        };
        let (lan_port, lan) = wire(LAN, End::A.host_mac(), 9_216);
        let (wan_port, wan) = wire(WAN, End::B.mac(WAN), shape.wan_mtu);
        let site = |wire, mac, gateway, addresses: &[IpAddr]| {
            Site::new(wire, mac, gateway, addresses).with_buffers(SITE_PACKETS).keeping_frames()
        };
        let (a, b) = (End::A, End::B);
        Self {
            shape: shape.clone(),
            headend: Headend::new(HeadendConfig {
                ports: vec![lan_port, wan_port],
                vlans: shape.vlans.into(),
                workers: shape.workers,
                state: home.path().to_path_buf(),
                packets,
                engine: Engine::best(),
            }),
            lan: site(lan, a.host_mac(), a.mac(LAN), &[a.host(), a.host_v6()]),
            wan: site(wan, b.mac(WAN), a.mac(WAN), &[b.wan(), b.wan_v6()]),
            now_ns: 1_000_000_000,
            _home: home,
        }
    }

    /// What the peer seals with: the far end of the inbound SA of a generation.
    #[must_use]
    pub fn peer_sealer(&self, generation: u32) -> Sealer {
        Sealer::new(&sa(self.shape.sa(End::A, Direction::Inbound, generation)))
    }

    /// What opens the headend's packets: the far end of the outbound SA of a generation.
    #[must_use]
    pub fn peer_opener(&self, generation: u32) -> Sealer {
        Sealer::new(&sa(self.shape.sa(End::A, Direction::Outbound, generation)))
    }

    /// One turn of the headend; host and peer take what came out, and time goes on by 10 µs.
    pub fn step(&mut self) -> bool {
        let busy = self.headend.turn(self.now_ns);
        self.lan.poll();
        self.wan.poll();
        self.now_ns += 10_000;
        busy
    }

    /// Steps until nothing moves any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if self.step() { 0 } else { quiet + 1 };
        }
    }

    /// Lets time pass, with a step every 5 ms.
    pub fn pass(&mut self, ns: u64) {
        let until = self.now_ns + ns;
        while self.now_ns < until {
            self.step();
            self.now_ns += 5_000_000;
        }
        self.settle();
    }

    /// Commits a change.
    ///
    /// # Panics
    /// If it is refused.
    pub fn commit(&mut self, objects: &[Object]) {
        self.headend.put(Base::Running, objects, self.now_ns).expect("a valid change");
        self.settle();
    }

    /// Does something, lets it come to rest, and tells what happened. Every packet must be accounted for.
    ///
    /// # Panics
    /// If one is not.
    pub fn observe(&mut self, act: impl FnOnce(&mut Self)) -> Seen {
        let (drops, counters) = self.counts();
        act(self);
        self.settle();
        assert_eq!(self.headend.unaccounted(), 0, "every packet is accounted for");
        let (drops_after, counters_after) = self.counts();
        let risen = |before: &[u64], after: &[u64]| -> Vec<u64> {
            before.iter().zip(after).map(|(before, after)| after.wrapping_sub(*before)).collect()
        };
        let drops = DropReason::ALL.iter().copied().zip(risen(&drops, &drops_after));
        let seen = Seen {
            drops: drops.filter(|(_, count)| *count > 0).collect(),
            counters: risen(&counters, &counters_after),
            lan: self.lan.take_frames(),
            wan: self.wan.take_frames(),
        };
        let total: u64 = seen.drops.iter().map(|(_, count)| count).sum();
        assert_eq!(seen.counter(WorkerCounter::Dropped), total, "each drop has one reason");
        seen
    }

    /// Whether no buffer is anywhere but in its pool.
    #[must_use]
    pub fn buffers_are_home(&self) -> bool {
        self.headend.buffers_out() + self.lan.buffers_out() + self.wan.buffers_out() == 0
    }

    fn counts(&mut self) -> (Vec<u64>, Vec<u64>) {
        let drops = DropReason::ALL.iter().map(|reason| self.headend.dropped(*reason)).collect();
        let counters = WorkerCounter::ALL.iter().map(|counter| self.headend.counter(*counter)).collect();
        (drops, counters)
    }
}

/// Host and peer as static neighbours, so that no test but those about neighbours sees ARP.
#[must_use]
pub fn static_neighbors() -> Vec<Object> {
    let (a, b) = (End::A, End::B);
    let of = |port, address, mac| Object::Neighbor(StaticNeighbor { port, address, mac });
    vec![
        of(LAN, a.host(), a.host_mac()),
        of(LAN, a.host_v6(), a.host_mac()),
        of(WAN, b.wan(), b.mac(WAN)),
        of(WAN, b.wan_v6(), b.mac(WAN)),
    ]
}
