// SPDX-License-Identifier: Apache-2.0
//! The way on of what came out of tunnels: out of a port in clear, or into another tunnel.
//!
//! [`Insides::onward`] changes nothing; what it finds no way for, [`crate::inbound::take_out`] goes on with.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex};
use pktbuf::{BURST, Packet};
use tables::{Leaf, NextStep, ShortcutIn};
use wire::ethernet;

use super::Sorter;
use super::exit::Exit;
use super::framing::Framing;
use super::headers::spend_hop;
use super::inbound::{Arrival, Inner, PAYLOAD_OFFSET, Payload};
use super::outbound;
use super::ways::Departure;
use crate::context::Context;
use crate::dispatch::Lanes;
use crate::inbound::{self, Carried, EspNote};
use crate::lane::Lane;
use crate::outgoing::Outgoing;
use crate::stopwatch::Stage;
use crate::{ingress, link};

/// Carries opened packets to where they go: each has what was inside, and what the lookup of its destination ended in.
pub(super) fn carry(
    ctx: &mut Context<'_>,
    port: PortIndex,
    lane: &mut Lane<Arrival<'_>>,
    (inners, leaves): (&[Inner], &[Leaf]),
    lanes: &mut Lanes,
) {
    let mut sorter = Sorter::default();
    sorter.departures.ingress = port;
    sorter.exception();
    let (mut packets, arrivals) = lane.drain_packets();
    let mut ahead = Insides { arrivals, inners, leaves };
    while packets.len() > 0 {
        let onward = ahead.onward(ctx, &mut sorter);
        if onward.is_some() {
            sorter.common(ctx, lanes);
        }
        let run = match onward {
            Some(Onward::Port(exit)) => ahead.first(ahead.run_length(ctx, &exit)),
            _ => ahead.first(1),
        };
        ahead = ahead.behind(run.inners.len().max(1));
        match onward {
            Some(Onward::Port(exit)) => run.leave(ctx, &exit, &mut packets),
            Some(Onward::Tunnel(departure)) => run.depart(ctx, &mut sorter, departure, packets.next()),
            None => run.the_whole_way(ctx, port, &mut sorter, packets.next(), lanes),
        }
    }
    drop(packets);
    lane.clear();
    ctx.stopwatch.lap(Stage::Transmit);
    outbound::send(ctx, &mut sorter.departures);
}

/// Where a packet goes.
#[derive(Clone, Copy)]
enum Onward<'a> {
    /// Out of a protected port, in clear.
    Port(Exit),
    /// From branch to branch: into another tunnel.
    Tunnel(Departure<'a>),
}

/// Packets of a burst whose turn it is.
#[derive(Clone, Copy)]
struct Insides<'a, 's> {
    arrivals: &'s [Arrival<'s>],
    inners: &'a [Inner],
    leaves: &'a [Leaf],
}

impl<'a> Insides<'a, '_> {
    fn first(self, count: usize) -> Self {
        let Self { arrivals, inners, leaves } = self;
        Self {
            arrivals: arrivals.get(..count).unwrap_or(arrivals),
            inners: inners.get(..count).unwrap_or(inners),
            leaves: leaves.get(..count).unwrap_or(leaves),
        }
    }

    fn behind(self, count: usize) -> Self {
        let Self { arrivals, inners, leaves } = self;
        Self {
            arrivals: arrivals.get(count..).unwrap_or_default(),
            inners: inners.get(count..).unwrap_or_default(),
            leaves: leaves.get(count..).unwrap_or_default(),
        }
    }

    /// The way of the first, if it is a common one.
    #[inline(always)]
    fn onward<'c: 'a>(&self, ctx: &Context<'c>, sorter: &mut Sorter<'a>) -> Option<Onward<'a>> {
        let (arrival, inner, leaf) = (self.arrivals.first()?, self.inners.first()?, self.leaves.first()?);
        inner.may_pass(ctx, arrival.ends.shortcut).then_some(())?;
        match leaf.tunnel() {
            Some(tunnel) => sorter.departure(ctx, &inner.plain, inner.offset, tunnel).map(Onward::Tunnel),
            None => sorter.exit(ctx, &inner.plain, *leaf).map(Onward::Port),
        }
    }

    /// How many at the front leave by a port as the first does.
    #[inline(always)]
    fn run_length(&self, ctx: &Context<'_>, exit: &Exit) -> usize {
        let Some(first) = self.leaves.first().filter(|_| exit.is_shared) else { return 1 };
        let each = self.arrivals.iter().zip(self.inners).zip(self.leaves);
        let goes_with_it = |((arrival, inner), leaf): ((&Arrival<'_>, &Inner), &Leaf)| {
            leaf == first && exit.fits(&inner.plain) && inner.may_pass(ctx, arrival.ends.shortcut)
        };
        each.skip(1).take_while(|one| goes_with_it(*one)).count() + 1
    }

    /// Out of a port.
    #[inline(always)]
    fn leave(self, ctx: &mut Context<'_>, exit: &Exit, packets: &mut impl Iterator<Item = Packet>) {
        self.count(ctx);
        // More was in front of each than an Ethernet header; if not, what is in the buffer must not leave.
        let mut failed = ArrayVec::<Packet, BURST>::new();
        let frames = self.inners.iter().zip(packets).filter_map(|(inner, mut packet)| {
            match reframe(&mut packet, inner, &exit.framing) {
                Some(()) => Some(Outgoing::clear(packet, exit.pass)),
                None => {
                    failed.push(packet);
                    None
                }
            }
        });
        link::queue_run(ctx, exit.framing.port, frames);
        failed.drain(..).for_each(|packet| ctx.drop(packet, DropReason::NoHeadroom));
    }

    /// Into another tunnel.
    #[inline(always)]
    fn depart(
        self,
        ctx: &mut Context<'_>,
        sorter: &mut Sorter<'a>,
        departure: Departure<'a>,
        packet: Option<Packet>,
    ) {
        self.count(ctx);
        if let Some(packet) = packet {
            sorter.departures.push(ctx, packet, departure);
        }
    }

    /// Counts what came out of tunnels.
    #[inline(always)]
    fn count(self, ctx: &Context<'_>) {
        let mut inners = self.inners.iter();
        for run in self.arrivals.chunk_by(|a, b| core::ptr::eq(a.ends, b.ends)) {
            let bytes = inners.by_ref().take(run.len()).map(|inner| u64::from(inner.plain.total_bytes)).sum();
            if let Some(first) = run.first() {
                first.ends.shortcut.counts.count_in(ctx.worker, run.len() as u64, bytes);
            }
        }
    }

    /// What has no common way onward.
    #[cold]
    fn the_whole_way(
        self,
        ctx: &mut Context<'_>,
        port: PortIndex,
        sorter: &mut Sorter<'_>,
        packet: Option<Packet>,
        lanes: &mut Lanes,
    ) {
        let Some(packet) = packet else { return };
        match (self.arrivals, self.inners) {
            ([arrival, ..], [Inner { payload: Ok(payload), .. }, ..]) => {
                sorter.exception();
                take_out(ctx, port, packet, (arrival, *payload), lanes);
            }
            (_, [Inner { payload: Err(error), .. }, ..]) => ctx.drop(packet, inbound::drop_reason(*error)),
            _ => ctx.drop(packet, DropReason::NoBuffer),
        }
    }
}

impl Inner {
    /// Whether it is from a host to a host, and from where it may come.
    #[inline(always)]
    fn may_pass(&self, ctx: &Context<'_>, shortcut: &ShortcutIn) -> bool {
        let addresses = &ctx.tables.addresses;
        addresses.is_foreign_host(self.plain.source())
            && addresses.is_foreign_host(self.plain.destination)
            && (!shortcut.strict_source || is_routed_to(ctx, shortcut, self.plain.source()))
    }
}

/// Goes on with a payload that is nothing common.
fn take_out(
    ctx: &mut Context<'_>,
    port: PortIndex,
    mut packet: Packet,
    (arrival, payload): (&Arrival<'_>, Payload),
    lanes: &mut Lanes,
) {
    if packet.reframe(ethernet::HEADER_BYTES, 0, usize::from(arrival.total_bytes)).is_err() {
        return ctx.drop(packet, DropReason::IpMalformed);
    }
    let start = PAYLOAD_OFFSET - ethernet::HEADER_BYTES;
    let carried = Carried { payload: start..start + payload.bytes, next_header: payload.next_header };
    match ingress::parse(packet) {
        Ok((packet, outer)) => {
            let note = EspNote::known(outer, port, arrival.ends.protection);
            inbound::take_out(ctx, packet, &note, &carried, lanes);
        }
        Err((packet, reason)) => ctx.drop(packet, reason),
    }
}

/// Leaves of a frame the packet inside, one hop older, with a new link header.
#[inline(always)]
fn reframe(packet: &mut Packet, inner: &Inner, framing: &Framing) -> Option<()> {
    let bytes = ethernet::HEADER_BYTES + usize::from(inner.plain.total_bytes);
    let frame = packet.reframe(inner.offset, ethernet::HEADER_BYTES, bytes).ok()?;
    let (link, l3) = frame.split_first_chunk_mut()?;
    framing.write(link);
    spend_hop(l3)
}

fn is_routed_to(ctx: &Context<'_>, shortcut: &ShortcutIn, address: u32) -> bool {
    matches!(ctx.tables.routes.lookup_v4(address), Some(NextStep::Tunnel(found)) if found == shortcut.tunnel)
}
