// SPDX-License-Identifier: Apache-2.0
//! Last stage: the Ethernet header, once the neighbour is known.

use core::net::IpAddr;

use messages::{DropReason, PortIndex, WorkerCounter};
use pktbuf::Packet;
use tables::{Egress, Link, NeighborIndex, NextHop};
use wire::{EtherType, MacAddr, ethernet, ipv4, ipv6};

use crate::context::Context;
use crate::neighbor;
use crate::outgoing::Outgoing;

/// The port and the neighbour that a packet goes to next.
#[derive(Clone, Copy)]
pub(crate) struct Hop {
    pub port: PortIndex,
    pub neighbor: NextHop,
}

impl From<Egress> for Hop {
    fn from(egress: Egress) -> Self {
        Self { port: egress.port, neighbor: egress.neighbor }
    }
}

/// Sends a complete IP packet to its next hop, or lets it wait until that is resolved.
#[inline]
pub(crate) fn send(ctx: &mut Context<'_>, hop: Hop, outgoing: Outgoing) {
    match find_neighbor(ctx, hop, &outgoing) {
        Ok(neighbor) => match ctx.neighbors.link(neighbor) {
            Some(Link { mac, stale }) => {
                if stale {
                    neighbor::ask(ctx, hop.port, neighbor);
                }
                // Another worker, or a commit, may have resolved it: what waits goes first.
                if ctx.waiting.is_awaited(neighbor) {
                    neighbor::release(ctx);
                }
                transmit(ctx, hop.port, MacAddr(mac), outgoing);
            }
            None => neighbor::wait(ctx, hop.port, neighbor, outgoing),
        },
        Err(reason) => ctx.drop(outgoing.into_packet(), reason),
    }
}

/// Puts the Ethernet header on and queues the frame.
#[inline]
pub(crate) fn transmit(ctx: &mut Context<'_>, port: PortIndex, destination: MacAddr, mut outgoing: Outgoing) {
    let source = ctx.mac(port);
    let packet = outgoing.packet_mut();
    let ether_type = if packet.data().first().is_some_and(|byte| byte >> 4 == 6) {
        EtherType::IPV6
    } else {
        EtherType::IPV4
    };
    let header = ethernet::Repr { destination, source, ether_type };
    let framed = packet.prepend(ethernet::HEADER_BYTES).is_ok_and(|front| header.emit(front).is_ok());
    if framed {
        queue(ctx, port, outgoing);
    } else {
        ctx.drop(outgoing.into_packet(), DropReason::NoHeadroom);
    }
}

/// Queues a complete frame.
pub(crate) fn queue(ctx: &mut Context<'_>, port: PortIndex, frame: Outgoing) {
    if let Err(packet) = ctx.transmission.push(port, frame) {
        ctx.drop(packet, DropReason::TransmitFull);
    }
}

/// Queues complete frames for one port, in order.
#[inline(always)]
pub(crate) fn queue_run(ctx: &mut Context<'_>, port: PortIndex, frames: impl Iterator<Item = Outgoing>) {
    let refused = ctx.transmission.extend(port, frames);
    if refused > 0 {
        ctx.counters.drop_packets(DropReason::TransmitFull, refused);
    }
}

/// Sends a complete frame of ours that never leaves the link: ARP or neighbour discovery.
pub(crate) fn send_own(ctx: &mut Context<'_>, port: PortIndex, frame: Packet) {
    ctx.counters.add(WorkerCounter::Originated, 1);
    queue(ctx, port, Outgoing::link_local(frame));
}

fn find_neighbor(ctx: &Context<'_>, hop: Hop, outgoing: &Outgoing) -> Result<NeighborIndex, DropReason> {
    match hop.neighbor {
        NextHop::Slot(neighbor) => Ok(neighbor),
        NextHop::Connected => {
            let destination = destination(outgoing.packet()).ok_or(DropReason::IpMalformed)?;
            ctx.neighbors.ensure(hop.port, &destination).map_err(|_| DropReason::NeighborTableFull)
        }
    }
}

fn destination(packet: &Packet) -> Option<IpAddr> {
    let data = packet.data();
    match data.first()? >> 4 {
        4 => Some(IpAddr::V4(ipv4::Header::split(data).ok()?.0.destination())),
        6 => Some(IpAddr::V6(ipv6::Header::split(data).ok()?.0.destination())),
        _ => None,
    }
}
