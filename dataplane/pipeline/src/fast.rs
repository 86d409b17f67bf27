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
//! Flows keep their order: exceptions gather in the lanes, and before a common packet behind them goes its way, the common
//! packets ahead of them go theirs, then they. What was dropped on the spot is in no lane: junk between good packets does
//! not cut a burst into pieces, each with a call of the cipher.

mod inbound;
mod outbound;
mod plain;

use core::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex, PortSide, ProtectionIndex, SaIndex, TunnelIndex};
use pktbuf::{BURST, Batch, Packet};
use tables::{Link, NeighborIndex, NextHop, NextStep};
use wire::{IpProtocol, MacAddr, ethernet, ipv4};

use crate::context::Context;
use crate::dispatch::Lanes;
use crate::lane::Lane;
use crate::{ingress, whole_way};
use inbound::Arrival;
use outbound::Departure;
use plain::Plain;

/// How many packets ahead of its turn a packet's memory is asked for: its header first, then where it points.
const HEADER_AHEAD: usize = 8;
const DATA_AHEAD: usize = 4;

/// Carries a burst that came in by `port` to its end; the last exceptions are still in the lanes then.
pub(crate) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    let from = Ingress::new(ctx, port);
    let glances = from.glance_at_all(ctx, batch);
    let mut sorter = Sorter::default();
    let mut arrivals = Lane::default();
    for (mut packet, glance) in batch.drain(..).zip(glances) {
        match from.look_at(ctx, &glance) {
            Look::Departure(departure) => {
                to_network_header(&mut packet, glance.plain.total_bytes);
                sorter.common(ctx, lanes);
                sorter.depart(ctx, packet, departure);
            }
            Look::Arrival(arrival) => {
                to_network_header(&mut packet, glance.plain.total_bytes);
                if let Err(packet) = arrivals.push(packet, arrival) {
                    ctx.drop(packet, DropReason::NoBuffer);
                }
            }
            Look::Exception => ingress::receive(ctx, port, packet, lanes),
        }
    }
    inbound::open(ctx, &mut sorter, &mut arrivals, lanes);
    outbound::send(ctx, &mut sorter.departures);
}

/// What a packet's own headers say, and the first table.
struct Glance {
    plain: Plain,
    towards: Towards,
}

enum Towards {
    Tunnel(TunnelIndex),
    Sa(SaIndex, ProtectionIndex),
    Elsewhere,
}

/// What a packet looks like.
enum Look<'a> {
    Departure(Departure<'a>),
    Arrival(Arrival<'a>),
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
        let is_protected = side == Some(PortSide::Protected);
        Self { port, mac: ctx.mac(port), is_up: side.is_some(), is_protected }
    }

    /// Reads every packet of a burst, then its first table, and asks for the memory that [`look_at`](Self::look_at)
    /// needs. Each loop is short, so that the CPU waits for several packets' memory at once.
    #[inline(always)]
    fn glance_at_all(&self, ctx: &Context<'_>, batch: &Batch) -> ArrayVec<Glance, BURST> {
        let mut glances: ArrayVec<Glance, BURST> = ArrayVec::new();
        for (place, packet) in batch.iter().enumerate() {
            if let Some(ahead) = batch.get(place + HEADER_AHEAD) {
                ahead.prefetch_header();
            }
            if let Some(ahead) = batch.get(place + DATA_AHEAD) {
                ahead.prefetch_data();
                ahead.prefetch_headroom();
            }
            let plain = plain::ipv4_in(packet.data(), self.mac).and_then(Plain::parse);
            glances.push(Glance { plain: plain.unwrap_or(Plain::NONE), towards: Towards::Elsewhere });
        }
        if self.is_protected {
            ctx.tables.routes.prefetch_v4(glances.iter().map(|glance| glance.plain.destination));
        }
        for glance in &mut glances {
            glance.towards = self.first_table(ctx, &glance.plain);
        }
        glances
    }

    #[inline(always)]
    fn first_table(&self, ctx: &Context<'_>, plain: &Plain) -> Towards {
        if plain.protocol == IpProtocol::ESP && self.is_up {
            return match ctx.tables.sas.inbound(plain.spi()) {
                Some((sa, protection)) => {
                    Arrival::prefetch(ctx, sa, protection);
                    Towards::Sa(sa, protection)
                }
                None => Towards::Elsewhere,
            };
        }
        let may_pass = self.is_protected
            && inbound::is_foreign_host(ctx, plain.source)
            && inbound::is_foreign_host(ctx, plain.destination);
        match may_pass.then(|| ctx.tables.routes.lookup_v4(plain.destination)).flatten() {
            Some(NextStep::Tunnel(tunnel)) => {
                ctx.tables.tunnels.prefetch(tunnel);
                Towards::Tunnel(tunnel)
            }
            _ => Towards::Elsewhere,
        }
    }

    #[inline(always)]
    fn look_at<'a>(&self, ctx: &Context<'a>, glance: &Glance) -> Look<'a> {
        let found = match glance.towards {
            Towards::Tunnel(tunnel) => Departure::find(ctx, glance.plain, tunnel).map(Look::Departure),
            Towards::Sa(sa, protection) => {
                Arrival::find(ctx, self.port, &glance.plain, (sa, protection)).map(Look::Arrival)
            }
            Towards::Elsewhere => None,
        };
        found.unwrap_or(Look::Exception)
    }
}

/// Keeps common packets and exceptions in order.
#[derive(Default)]
struct Sorter<'a> {
    departures: Lane<Departure<'a>>,
}

impl<'a> Sorter<'a> {
    /// A common packet comes next: the exceptions ahead of it go first.
    #[inline(always)]
    fn common(&mut self, ctx: &mut Context<'a>, lanes: &mut Lanes) {
        if !lanes.is_empty() || !ctx.originated.is_empty() {
            self.finish(ctx, lanes);
        }
    }

    /// Queues a packet, its IP header in front, to leave by a tunnel.
    #[inline(always)]
    fn depart(&mut self, ctx: &mut Context<'a>, packet: Packet, departure: Departure<'a>) {
        if self.departures.is_full() {
            outbound::send(ctx, &mut self.departures);
        }
        if let Err(packet) = self.departures.push(packet, departure) {
            ctx.drop(packet, DropReason::NoBuffer);
        }
    }

    /// Lets everything go.
    #[inline(never)]
    fn finish(&mut self, ctx: &mut Context<'a>, lanes: &mut Lanes) {
        outbound::send(ctx, &mut self.departures);
        whole_way(ctx, lanes);
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

/// The Ethernet address of a neighbour that is known, fresh, and that no packet waits for.
#[inline(always)]
fn resolved(ctx: &Context<'_>, neighbor: NeighborIndex) -> Option<MacAddr> {
    match ctx.neighbors.link(neighbor)? {
        Link { mac, stale: false } if !ctx.waiting.is_awaited(neighbor) => Some(MacAddr(mac)),
        _ => None,
    }
}

/// As [`resolved`], of a route's next hop.
#[inline(always)]
fn resolved_hop(ctx: &Context<'_>, port: PortIndex, hop: NextHop, destination: u32) -> Option<MacAddr> {
    match hop {
        NextHop::Slot(neighbor) => resolved(ctx, neighbor),
        NextHop::Connected => {
            let address = IpAddr::V4(Ipv4Addr::from_bits(destination));
            resolved(ctx, ctx.neighbors.find(port, &address)?)
        }
    }
}
