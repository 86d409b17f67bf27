// SPDX-License-Identifier: Apache-2.0
//! A headend with whole workers: the dataplane's own loop over memory ports, hand-overs and counters included.
//!
//! ```text
//!   wire[LAN] ⇄ queue i ⇄ worker i ⇄ queue i ⇄ wire[WAN]        mailboxes join the workers
//! ```

use std::sync::Arc;

use anyhow::Context as _;
use dataplane::counters::CountersMemory;
use dataplane::mailbox::Mailboxes;
use dataplane::worker::Worker;
use messages::{CountersLayout, PortIndex, WorkerId};
use pktbuf::Packet;
use port::Port;
use port::memory::{PairConfig, Wire, wire_with};

use crate::bed::{Headend, LAN, MTU, Role, Setting, WAN, mac};

/// Packets that a queue of a memory port holds.
const QUEUE_PACKETS: usize = 1_024;

/// A headend, its workers, and the wires at its ports.
pub struct Rig {
    /// Tables and SAs.
    pub headend: Headend,
    /// What the workers leave for each other.
    pub mailboxes: Arc<Mailboxes>,
    /// The memory that the workers count in.
    pub counters: CountersMemory,
    /// The workers, in order.
    pub workers: Vec<Worker>,
    /// The far sides of both ports.
    pub wires: Arc<[Wire; 2]>,
    _ports: [Port; 2],
}

impl Rig {
    /// Builds a headend with `setting.workers` workers.
    ///
    /// # Errors
    /// As [`Headend::new`].
    pub fn new(role: Role, setting: &Setting) -> anyhow::Result<Self> {
        let mut headend = Headend::new(role, setting)?;
        let (lan, lan_wire) = memory_port(role, LAN, setting.workers);
        let (wan, wan_wire) = memory_port(role, WAN, setting.workers);
        let ports = [lan, wan];
        let mailboxes = Mailboxes::new(setting.workers);
        let counters = CountersMemory::create(CountersLayout { workers: setting.workers, ports: 2 })?;
        let mut workers = Vec::new();
        for worker in 0..setting.workers {
            let config = headend.next_config().context("a worker")?;
            let queues = ports.iter().map(|port| port.queue(worker).context("a queue"));
            let queues = queues.collect::<anyhow::Result<_>>()?;
            let counters = counters.writer(WorkerId(worker))?;
            workers.push(Worker::new(config, queues, Arc::clone(&mailboxes), counters));
        }
        Ok(Self {
            headend,
            mailboxes,
            counters,
            workers,
            wires: Arc::new([lan_wire, wan_wire]),
            _ports: ports,
        })
    }
}

fn memory_port(role: Role, port: PortIndex, queues: u16) -> (Port, Wire) {
    let far = [2, 9, 9, 9, 9, 9];
    let config =
        PairConfig { macs: [mac(role, port).0, far], mtu: MTU, ..PairConfig::new(queues, QUEUE_PACKETS) };
    wire_with(&config)
}

/// The wire at a port.
#[must_use]
pub fn wire(wires: &[Wire; 2], port: PortIndex) -> &Wire {
    let [lan, wan] = wires;
    if port == LAN { lan } else { wan }
}

/// Gives a worker packets at a port; what its queue has no room for comes back.
pub fn inject(wires: &[Wire; 2], port: PortIndex, queue: u16, packets: &mut Vec<Packet>) {
    let wire = wire(wires, port);
    let mut left = Vec::new();
    for packet in packets.drain(..) {
        if let Err(packet) = wire.inject(queue, packet) {
            left.push(packet);
        }
    }
    *packets = left;
}

/// Takes what a worker has transmitted at a port.
pub fn collect(wires: &[Wire; 2], port: PortIndex, queue: u16, into: &mut Vec<Packet>) {
    let wire = wire(wires, port);
    into.extend(std::iter::from_fn(|| wire.collect_from(queue)));
}
