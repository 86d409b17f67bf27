// SPDX-License-Identifier: Apache-2.0
//! Packet I/O: ports and their queues, in memory or over DPDK.
//!
//! A [`Port`] is opened by its owner and gives out each [`Queue`] once, to the one worker that polls it. Which kind of
//! port it is, is asked once for each burst.
//!
//! ```text
//!   Port::open("net_af_packet0,iface=eth1") ── Port ── queue(0) → worker 0
//!   memory::pair(2, 1024) ── Port, Port            └── queue(1) → worker 1
//! ```
//!
//! [`memory`] connects ports inside a process; [`link`] puts a wire between two of them that loses, doubles,
//! reorders and damages frames by a seed ([`fault`]) and can be traced ([`pcap`]). [`dpdk`] starts EAL.
//!
//! Not here: packet memory (`pktbuf`), what is in a packet (`wire`, `pipeline`), offloads (none are used).
//!
//! # Invariants
//! The `SAFETY` comments cite these by number.
//!
//! 1. A queue of a port is in at most one `Queue` at a time, and receiving and transmitting take `&mut Queue`: no
//!    two threads are in the same queue.
//! 2. A DPDK port is stopped and closed only when the `Port` and all of its `Queue`s are gone.
//! 3. What `receive` leaves in a batch are packets of one segment to which nobody else refers.
//! 4. Only mbufs are handed to a DPDK driver, at least one at a time, each no longer than the MTU allows (drivers
//!    copy them unchecked into frames of that size). What it accepted it owns: the batch forgets it.
//! 5. No function of DPDK but `rte_eal_init` is called before EAL has been initialised.

#![allow(unsafe_code, reason = "drivers take and give raw packets; every block says why it holds")]

pub mod dpdk;
mod error;
pub mod fault;
pub mod link;
pub mod memory;
pub mod pcap;

pub use error::PortError;

use pktbuf::{Batch, Pool};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A MAC address.
pub type MacAddress = [u8; 6];

/// How a port is to be opened.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Name of the port in configuration, messages and counters.
    pub name: String,
    /// Number of queues, the same for receiving and transmitting: one for each worker.
    pub queues: u16,
    /// Descriptors of each receive queue; the device's limits apply.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; the device's limits apply.
    pub tx_descriptors: u16,
    /// Longest IP packet in bytes.
    pub mtu: u16,
    /// Where received packets live; a DPDK pool. It must hold what the receive descriptors hold, and more.
    pub pool: Pool,
    /// Whether frames to other MAC addresses are received too.
    pub promiscuous: bool,
}

impl PortConfig {
    /// One queue, 1,024 descriptors each way, an MTU of 1,500, not promiscuous.
    #[must_use]
    pub fn new(name: &str, pool: &Pool) -> PortConfig {
        PortConfig {
            name: name.to_owned(),
            queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            pool: pool.clone(),
            promiscuous: false,
        }
    }
}

/// What a port has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, without FCS.
    pub rx_bytes: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Bytes transmitted, without FCS.
    pub tx_bytes: u64,
    /// Frames that the device lost because the receive queue was full.
    pub rx_missed: u64,
    /// Frames received with an error.
    pub rx_errors: u64,
    /// Packets that the device took and could not send.
    pub tx_errors: u64,
    /// Frames lost because the pool was empty.
    pub rx_no_buffer: u64,
    /// Frames longer than a buffer, which are dropped.
    pub rx_multi_segment: u64,
    /// Packets of a memory pool given to a DPDK port, which are dropped.
    pub tx_foreign: u64,
    /// Frames longer than the MTU and a tagged Ethernet header, which a DPDK port drops.
    pub tx_too_long: u64,
}

/// What the device under a port is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The driver's name.
    pub driver: String,
    /// Most queues for receiving and for transmitting.
    pub max_queues: u16,
    /// Longest IP packet that the device can be set to.
    pub max_mtu: u16,
    /// Whether the device spreads flows over its queues. If not, all frames arrive at queue 0 or wherever
    /// the other side put them.
    pub spreads_flows: bool,
}

/// An open port.
pub struct Port {
    name: String,
    claims: Arc<Claims>,
    kind: PortKind,
}

enum PortKind {
    Memory(memory::End),
    #[cfg(have_dpdk)]
    Dpdk(Arc<dpdk::Device>),
}

impl Port {
    /// Opens a DPDK device: a PCI address (`0000:3b:00.0`) or a virtual device with its arguments
    /// (`net_af_packet0,iface=eth1,framecnt=4096`), passed through as DPDK knows them.
    ///
    /// A device that EAL was not started with is probed here.
    ///
    /// # Errors
    /// Whatever the device refuses; the message says what would be right.
    #[cfg(have_dpdk)]
    pub fn open(device: &str, config: &PortConfig) -> Result<Port, PortError> {
        let device = dpdk::Device::open(device, config)?;
        let kind = PortKind::Dpdk(Arc::new(device));
        Ok(Port { name: config.name.clone(), claims: Claims::new(config.queues), kind })
    }

    /// Opens a DPDK device: not in this build.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(have_dpdk))]
    pub fn open(device: &str, config: &PortConfig) -> Result<Port, PortError> {
        Err(PortError::NoDpdk { name: config.name.clone(), device: device.to_owned() })
    }

    pub(crate) fn over_memory(name: &str, end: memory::End) -> Port {
        let claims = Claims::new(end.queues());
        Port { name: name.to_owned(), claims, kind: PortKind::Memory(end) }
    }

    /// Queue `index`, unless there is none or somebody has it. It can be taken again once it was dropped.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<Queue> {
        let claim = Claim::new(&self.claims, index)?;
        let kind = match &self.kind {
            PortKind::Memory(end) => QueueKind::Memory(end.queue(index)?),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => QueueKind::Dpdk(dpdk::Queue::new(device, index)),
        };
        Some(Queue { kind, claim })
    }

    /// The port's name, from its configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of queues.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.claims.count()
    }

    /// The port's own MAC address.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        match &self.kind {
            PortKind::Memory(end) => end.mac(),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => device.mac(),
        }
    }

    /// Longest IP packet in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        match &self.kind {
            PortKind::Memory(end) => end.mtu(),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => device.mtu(),
        }
    }

    /// Whether the link is up. Not for the packet path: it may ask the device.
    #[must_use]
    pub fn link_up(&self) -> bool {
        match &self.kind {
            PortKind::Memory(end) => end.link_up(),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => device.link_up(),
        }
    }

    /// The port's counters. Not for the packet path.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match &self.kind {
            PortKind::Memory(end) => end.statistics(),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => device.statistics(),
        }
    }

    /// The device's own counters, by the names that its driver gives them. Not for the packet path.
    #[must_use]
    pub fn named_statistics(&self) -> Vec<(String, u64)> {
        match &self.kind {
            PortKind::Memory(_) => Vec::new(),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => device.named_statistics(),
        }
    }

    /// What the device is and can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        match &self.kind {
            PortKind::Memory(end) => end.capabilities(),
            #[cfg(have_dpdk)]
            PortKind::Dpdk(device) => device.capabilities(),
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("name", &self.name).field("queues", &self.queues()).finish()
    }
}

/// One receive and one transmit queue of a port, for one worker.
pub struct Queue {
    kind: QueueKind,
    claim: Claim,
}

enum QueueKind {
    Memory(memory::Queue),
    #[cfg(have_dpdk)]
    Dpdk(dpdk::Queue),
}

impl Queue {
    /// Appends received packets to the batch, as many as it has room for, and returns how many they are.
    #[inline]
    pub fn receive(&mut self, batch: &mut Batch) -> usize {
        match &mut self.kind {
            QueueKind::Memory(queue) => queue.receive(batch),
            #[cfg(have_dpdk)]
            QueueKind::Dpdk(queue) => queue.receive(batch),
        }
    }

    /// Takes from the front of the batch what the device accepts and returns how many packets that is; the rest
    /// stays in the batch, in order. What no device could send is taken, dropped and counted in the statistics.
    #[inline]
    pub fn transmit(&mut self, batch: &mut Batch) -> usize {
        match &mut self.kind {
            QueueKind::Memory(queue) => queue.transmit(batch),
            #[cfg(have_dpdk)]
            QueueKind::Dpdk(queue) => queue.transmit(batch),
        }
    }

    /// The queue's number in its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.claim.index
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("index", &self.claim.index).finish()
    }
}

/// Which queues of a port are out.
struct Claims(Box<[AtomicBool]>);

impl Claims {
    fn new(queues: u16) -> Arc<Claims> {
        Arc::new(Claims((0..queues).map(|_| AtomicBool::new(false)).collect()))
    }

    fn count(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }
}

/// The right to one queue of a port (invariant 1), given back when dropped.
struct Claim {
    claims: Arc<Claims>,
    index: u16,
}

impl Claim {
    fn new(claims: &Arc<Claims>, index: u16) -> Option<Claim> {
        let taken = claims.0.get(usize::from(index))?.swap(true, Ordering::Acquire);
        (!taken).then(|| Claim { claims: claims.clone(), index })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(taken) = self.claims.0.get(usize::from(self.index)) {
            taken.store(false, Ordering::Release);
        }
    }
}
