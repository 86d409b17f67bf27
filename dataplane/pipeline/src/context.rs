// SPDX-License-Identifier: Apache-2.0
//! What every stage may consult and count, and what is known of a packet between stages.

use messages::{DropReason, PortIndex, ProtectionIndex, TunnelIndex, WorkerCounter, WorkerId};
use pktbuf::{Packet, Pool};
use qos::classify::FlowCache;
use tables::{Generation, Neighbors};
use wire::MacAddr;
use wire::flow::Parsed;

use crate::counters::Counters;
use crate::identification::Identification;
use crate::lane::Lane;
use crate::limiter::Limiter;
use crate::outgoing::Transmission;
use crate::queues::Queues;
use crate::sad::Sad;
use crate::stopwatch::Stopwatch;
use crate::waiting::Waiting;

/// Where a packet came from, as far as policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Through a port, as it is.
    Port,
    /// Out of a GRE tunnel.
    Tunnel(TunnelIndex),
    /// Out of ESP, without GRE.
    Protection(ProtectionIndex),
    /// Made here.
    Own,
}

/// What is known of an IP packet that lies at the front of its buffer.
#[derive(Clone, Copy)]
pub(crate) struct Note {
    /// The parsed original headers: what QoS pre-classify keeps through encapsulation.
    pub parsed: Parsed,
    /// The port it came in by; for packets made here, the port of the packet they answer.
    pub port: PortIndex,
    /// Where it came from.
    pub origin: Origin,
}

/// The worker's fixtures for one burst: what stages consult, and where they count, send and wait.
pub(crate) struct Context<'a> {
    pub tables: &'a Generation,
    pub sad: &'a Sad,
    pub neighbors: &'a Neighbors,
    pub pool: &'a Pool,
    pub macs: &'a [MacAddr],
    pub worker: WorkerId,
    pub now_ns: u64,
    pub counters: &'a mut Counters,
    pub transmission: &'a mut Transmission,
    pub waiting: &'a mut Waiting,
    /// Classes of flows that were asked for lately.
    pub flows: &'a mut FlowCache,
    /// What waits for its turn.
    pub queues: &'a mut Queues,
    pub limiter: &'a mut Limiter,
    pub identification: &'a mut Identification,
    /// Packets for other workers, with the worker each goes to.
    pub handovers: &'a mut Lane<(WorkerId, PortIndex)>,
    /// ICMP messages made in this burst; they are forwarded after it.
    pub originated: &'a mut Lane<Note>,
    pub stopwatch: &'a mut Stopwatch,
}

impl Context<'_> {
    /// Ends a packet's way for a reason.
    #[inline(always)]
    pub(crate) fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.counters.drop_packets(reason, 1);
        drop(packet);
    }

    /// Ends a packet's way because it did what it came for.
    #[inline(always)]
    pub(crate) fn consume(&mut self, packet: Packet) {
        self.counters.add(WorkerCounter::Consumed, 1);
        drop(packet);
    }

    pub(crate) fn mac(&self, port: PortIndex) -> MacAddr {
        self.macs.get(port.index()).copied().unwrap_or(MacAddr([0; 6]))
    }
}
