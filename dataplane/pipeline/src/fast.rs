// SPDX-License-Identifier: Apache-2.0
//! The fast path: plain packets between protected ports and GRE tunnels under ESP, a burst at a time.
//!
//! ```text
//!   frame ─ plain? ─┬─ to forward ─ route ─ tunnel, SA, next hop ─→ outbound::send
//!                   ├─ ESP for us ─ SA ─→ inbound::open ─ GRE ─ plain? ─ route ─→ port, or outbound::send
//!                   └─ anything else ─→ the whole way: ingress, dispatch, inbound, outbound
//! ```
//!
//! A packet is first *looked at*: nothing changes, neither the packet nor a counter, until its whole way is known. What
//! is not common in any respect (options, fragments, IPv6, ARP, too big, a hop limit at its end, a neighbour not
//! resolved, …) takes the whole way instead, untouched. So the fast path decides nothing of its own: it is the whole
//! way for packets that pass every check on it, and tests compare the two.
//!
//! Packets keep their order: before an exception goes its way, the common packets ahead of it go theirs.

mod inbound;
mod outbound;
mod plain;

use core::net::{IpAddr, Ipv4Addr};

use messages::{PortIndex, PortSide};
use pktbuf::{Batch, Packet};
use tables::{Link, NextHop};
use wire::{IpProtocol, MacAddr, ethernet, ipv4};

use crate::context::Context;
use crate::dispatch::Lanes;
use crate::lane::Lane;
use crate::{ingress, whole_way};
use inbound::Arrival;
use outbound::Departure;
use plain::Plain;

/// Carries a burst that came in by `port` to its end.
pub(crate) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    let mut sorter = Sorter::default();
    let mut arrivals = Lane::default();
    let from = Ingress::new(ctx, port);
    for mut packet in batch.drain(..) {
        match from.look_at(ctx, &packet) {
            Look::Departure(departure) => {
                to_network_header(&mut packet, departure.total_bytes());
                sorter.common(ctx, lanes);
                sorter.depart(ctx, packet, departure);
            }
            Look::Arrival(arrival, total_bytes) => {
                to_network_header(&mut packet, total_bytes);
                sorter.common(ctx, lanes);
                if let Err(packet) = arrivals.push(packet, arrival) {
                    ctx.drop(packet, messages::DropReason::NoBuffer);
                }
            }
            Look::Exception => {
                inbound::open(ctx, &mut sorter, &mut arrivals, lanes);
                sorter.exception(ctx, lanes, |ctx, lanes| ingress::receive(ctx, port, packet, lanes));
            }
        }
    }
    inbound::open(ctx, &mut sorter, &mut arrivals, lanes);
    sorter.finish(ctx, lanes);
}

/// What a packet looks like.
enum Look<'a> {
    Departure(Departure<'a>),
    /// With the length of the packet.
    Arrival(Arrival<'a>, u16),
    Exception,
}

/// A port, as far as packets that come in by it are concerned.
struct Ingress {
    port: PortIndex,
    mac: MacAddr,
    is_up: bool,
    /// Nothing that comes in by it has to pass an SPD.
    is_protected: bool,
}

impl Ingress {
    fn new(ctx: &Context<'_>, port: PortIndex) -> Self {
        let side = ctx.tables.ports.get(port).map(|entry| entry.side);
        Self { port, mac: ctx.mac(port), is_up: side.is_some(), is_protected: side == Some(PortSide::Protected) }
    }

    #[inline(always)]
    fn look_at<'a>(&self, ctx: &Context<'a>, packet: &Packet) -> Look<'a> {
        let plain = plain::ipv4_in(packet.data(), self.mac).and_then(Plain::parse);
        let Some(plain) = plain.filter(|_| self.is_up) else { return Look::Exception };
        if !inbound::is_foreign_host(ctx, plain.source) {
            return Look::Exception;
        }
        let found = if plain.protocol == IpProtocol::ESP && inbound::is_local(ctx, plain.destination) {
            Arrival::find(ctx, self.port, &plain).map(|arrival| Look::Arrival(arrival, plain.total_bytes))
        } else if self.is_protected && inbound::is_foreign_host(ctx, plain.destination) {
            let step = ctx.tables.routes.lookup_v4(plain.destination);
            Departure::find(ctx, plain, step).map(Look::Departure)
        } else {
            None
        };
        found.unwrap_or(Look::Exception)
    }
}

/// Keeps common packets and exceptions in order.
#[derive(Default)]
struct Sorter<'a> {
    departures: Lane<Departure<'a>>,
    /// Exceptions are on their way in the lanes.
    has_exceptions: bool,
}

impl<'a> Sorter<'a> {
    /// A common packet comes next: the exceptions ahead of it go first.
    #[inline(always)]
    fn common(&mut self, ctx: &mut Context<'a>, lanes: &mut Lanes) {
        if self.has_exceptions {
            self.finish(ctx, lanes);
        }
    }

    /// Lets an exception go its way, once the common packets ahead of it have gone theirs.
    #[cold]
    fn exception(
        &mut self,
        ctx: &mut Context<'a>,
        lanes: &mut Lanes,
        go: impl FnOnce(&mut Context<'a>, &mut Lanes),
    ) {
        outbound::send(ctx, &mut self.departures);
        self.has_exceptions = true;
        go(ctx, lanes);
    }

    /// Queues a packet, its IP header in front, to leave by a tunnel.
    #[inline(always)]
    fn depart(&mut self, ctx: &mut Context<'a>, packet: Packet, departure: Departure<'a>) {
        if self.departures.is_full() {
            outbound::send(ctx, &mut self.departures);
        }
        if let Err(packet) = self.departures.push(packet, departure) {
            ctx.drop(packet, messages::DropReason::NoBuffer);
        }
    }

    /// Lets everything go.
    fn finish(&mut self, ctx: &mut Context<'a>, lanes: &mut Lanes) {
        outbound::send(ctx, &mut self.departures);
        if core::mem::take(&mut self.has_exceptions) {
            whole_way(ctx, lanes);
        }
    }
}

/// Cuts the link header in front and the padding behind; the packet was seen to be long enough.
#[inline(always)]
fn to_network_header(packet: &mut Packet, total_bytes: u16) {
    let cut = packet.trim_front(ethernet::HEADER_BYTES);
    debug_assert!(cut.is_ok());
    packet.truncate(usize::from(total_bytes));
}

/// Takes one hop off a TTL that was seen to be more than 1 (RFC 1812 §5.3.1).
#[inline(always)]
fn spend_hop(packet: &mut Packet) {
    if let Ok((header, _)) = ipv4::Header::split_mut(packet.data_mut()) {
        let spent = header.decrement_ttl();
        debug_assert!(spent.is_ok());
    }
}

/// The Ethernet address of a next hop that is known, fresh, and that no packet waits for.
#[inline(always)]
fn resolved(ctx: &Context<'_>, port: PortIndex, hop: NextHop, destination: u32) -> Option<MacAddr> {
    let neighbor = match hop {
        NextHop::Slot(neighbor) => neighbor,
        NextHop::Connected => ctx.neighbors.find(port, &IpAddr::V4(Ipv4Addr::from_bits(destination)))?,
    };
    match ctx.neighbors.link(neighbor)? {
        Link { mac, stale: false } if !ctx.waiting.is_awaited(neighbor) => Some(MacAddr(mac)),
        _ => None,
    }
}
