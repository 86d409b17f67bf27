// SPDX-License-Identifier: Apache-2.0
//! The way in of plain ESP packets: SA → open the burst → GRE → a plain packet inside → route → onward.
//!
//! [`Arrival::find`] changes nothing. Once a packet is open, [`Inner::find`] looks whether what was inside is plain, and
//! [`Inner::onward`] whether it goes a common way; if not, [`crate::inbound::take_out`] goes on with it.

use arrayvec::ArrayVec;
use esp::{OpenError, Opened};
use messages::{DropReason, EspMode, PortIndex, ProtectionIndex, SaIndex};
use pktbuf::{BURST, Batch, Packet};
use tables::{Leaf, NextStep, ShortcutIn};
use wire::{Ecn, IpProtocol, ecn, ethernet, ipv4};

use super::Sorter;
use super::exit::Exit;
use super::framing::Framing;
use super::headers::spend_hop;
use super::outbound::{self, Departure};
use super::plain::{self, Plain};
use crate::context::Context;
use crate::dispatch::Lanes;
use crate::inbound::{self, EspNote};
use crate::lane::Lane;
use crate::outgoing::Outgoing;
use crate::sad::InboundEntry;
use crate::stopwatch::Stage;
use crate::{ingress, link};

/// Where ESP begins in the frame of a plain packet.
const ESP_OFFSET: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;

/// Carries a burst that came in by an unprotected port.
pub(super) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    let tables = ctx.tables;
    let mut last_spi = 0;
    let plains = plain::parse_burst(batch, ctx.mac(port), |plain| {
        if plain.ports != last_spi {
            last_spi = plain.ports;
            tables.sas.prefetch_inbound(last_spi);
        }
    });
    ctx.stopwatch.lap(Stage::Parse);
    // Mostly the next packet has the SA of the one before. No SA has the SPI 0 (RFC 4303 §2.1).
    let mut last_found = (0, None);
    let found: ArrayVec<_, BURST> = plains
        .iter()
        .map(|plain| {
            let spi = if plain.protocol == IpProtocol::ESP { plain.ports } else { 0 };
            if spi != last_found.0 {
                last_found = (spi, find_sa(ctx, spi));
            }
            last_found.1
        })
        .collect();
    ctx.stopwatch.lap(Stage::Lookup);
    let mut arrivals = Lane::default();
    let mut last_ends = None;
    for ((packet, plain), found) in batch.drain(..).zip(&plains).zip(&found) {
        match found.and_then(|found| Arrival::find(ctx, &mut last_ends, plain, found)) {
            // The lane has room for a whole burst.
            Some(arrival) => drop(arrivals.push(packet, arrival)),
            None => ingress::receive(ctx, port, packet, lanes),
        }
    }
    ctx.stopwatch.lap(Stage::Adjacency);
    open(ctx, port, &mut arrivals, lanes);
}

/// What an SPI means; and asks for what it leads to.
#[inline(always)]
fn find_sa(ctx: &Context<'_>, spi: u32) -> Option<(SaIndex, ProtectionIndex)> {
    let (sa, protection) = ctx.tables.sas.inbound(spi)?;
    ctx.tables.tunnels.prefetch_in(protection);
    ctx.sad.prefetch_inbound(sa);
    Some((sa, protection))
}

/// What all packets under one SA share.
#[derive(Clone, Copy)]
struct Ends<'a> {
    sa: SaIndex,
    protection: ProtectionIndex,
    entry: &'a InboundEntry,
    shortcut: &'a ShortcutIn,
}

/// An ESP packet of an SA of ours.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    tos: u8,
    total_bytes: u16,
    protection: ProtectionIndex,
    entry: &'a InboundEntry,
    shortcut: &'a ShortcutIn,
}

impl<'a> Arrival<'a> {
    /// The SA of a plain ESP packet, if this worker owns it and the packet goes between its ends. No end is ours that
    /// is not an address of ours, and none is the other's that cannot be another host's: the tables see to that.
    #[inline(always)]
    fn find(
        ctx: &Context<'a>,
        last: &mut Option<Ends<'a>>,
        plain: &Plain,
        (sa, protection): (SaIndex, ProtectionIndex),
    ) -> Option<Self> {
        if last.is_none_or(|last| last.sa != sa) {
            let shortcut = ctx.tables.tunnels.shortcut_in(protection)?;
            let entry = ctx.sad.inbound(sa)?;
            *last = Some(Ends { sa, protection, entry, shortcut });
        }
        let Ends { entry, shortcut, protection, .. } = (*last)?;
        let is_ours = entry.owner == ctx.worker
            && shortcut.remote == plain.source
            && shortcut.local == plain.destination;
        let Plain { tos, total_bytes, .. } = *plain;
        is_ours.then_some(Self { tos, total_bytes, protection, entry, shortcut })
    }

    /// Where its frame ends; what follows is padding of the link.
    fn frame_bytes(&self) -> usize {
        ethernet::HEADER_BYTES + usize::from(self.total_bytes)
    }
}

/// Opens packets, and carries on with what was inside.
fn open<'a>(ctx: &mut Context<'a>, port: PortIndex, lane: &mut Lane<Arrival<'a>>, lanes: &mut Lanes) {
    if lane.is_empty() {
        return;
    }
    let outcomes =
        inbound::open(ctx, lane, |_, arrival| Some((ESP_OFFSET..arrival.frame_bytes(), &arrival.entry.sa)));
    let inners = look_inside(ctx, lane, &outcomes);
    ctx.stopwatch.lap(Stage::Decapsulate);
    let leaves = ctx.tables.routes.lookup_v4_burst(inners.iter().map(|inner| inner.plain.destination));
    ctx.stopwatch.lap(Stage::Lookup);
    let mut sorter = Sorter::default();
    sorter.departures.ingress = port;
    sorter.exception();
    for ((((packet, arrival), outcome), inner), leaf) in lane.drain().zip(&outcomes).zip(&inners).zip(leaves)
    {
        match (outcome, inner.onward(ctx, &mut sorter, &arrival, leaf)) {
            (Ok(_), Some(onward)) => {
                sorter.common(ctx, lanes);
                let bytes = u64::from(inner.plain.total_bytes);
                arrival.shortcut.counts.count_in(ctx.worker, bytes);
                onward.carry_out(ctx, &mut sorter, packet, inner);
            }
            (Ok(opened), None) => {
                sorter.exception();
                the_whole_way(ctx, port, packet, (&arrival, opened.clone()), lanes);
            }
            (Err(error), _) => ctx.drop(packet, inbound::drop_reason(*error)),
        }
    }
    ctx.stopwatch.lap(Stage::Transmit);
    outbound::send(ctx, &mut sorter.departures);
}

/// Reads what was inside each packet, and asks for the memory that its way needs.
#[inline(always)]
fn look_inside(
    ctx: &Context<'_>,
    lane: &Lane<Arrival<'_>>,
    outcomes: &[Result<Opened, OpenError>],
) -> ArrayVec<Inner, BURST> {
    let mut inners = ArrayVec::new();
    for ((packet, arrival), outcome) in lane.iter().zip(outcomes) {
        let found = outcome.as_ref().ok().and_then(|opened| Inner::find(packet, arrival, opened));
        let inner = found.unwrap_or(Inner::NONE);
        arrival.shortcut.counts.prefetch(ctx.worker);
        ctx.tables.routes.prefetch_v4(inner.plain.destination);
        inners.push(inner);
    }
    inners
}

/// What has no common way onward.
#[cold]
fn the_whole_way(
    ctx: &mut Context<'_>,
    port: PortIndex,
    mut packet: Packet,
    (arrival, mut opened): (&Arrival<'_>, Opened),
    lanes: &mut Lanes,
) {
    if packet.reframe(ethernet::HEADER_BYTES, 0, usize::from(arrival.total_bytes)).is_err() {
        return ctx.drop(packet, DropReason::IpMalformed);
    }
    opened.payload.start = opened.payload.start.saturating_sub(ethernet::HEADER_BYTES);
    opened.payload.end = opened.payload.end.saturating_sub(ethernet::HEADER_BYTES);
    match ingress::parse(packet) {
        Ok((packet, outer)) => {
            let note = EspNote::known(outer, port, arrival.protection);
            inbound::take_out(ctx, packet, &note, &opened, lanes);
        }
        Err((packet, reason)) => ctx.drop(packet, reason),
    }
}

/// A plain packet that came out of a tunnel.
#[derive(Clone, Copy)]
struct Inner {
    /// Where it begins in its frame.
    offset: usize,
    plain: Plain,
}

/// Where it goes.
enum Onward<'a> {
    /// Out of a protected port, in clear.
    Port(Exit),
    /// From branch to branch: into another tunnel.
    Tunnel(Departure<'a>),
}

impl Inner {
    /// Nothing that goes a common way.
    const NONE: Self = Self { offset: 0, plain: Plain::NONE };

    #[inline(always)]
    fn find(packet: &Packet, arrival: &Arrival<'_>, opened: &Opened) -> Option<Self> {
        let shortcut = arrival.shortcut;
        let data = packet.data().get(..opened.payload.end)?;
        let (gre_offset, outer_ecn) = delivery_header(data, arrival, opened)?;
        let offset = gre_offset + gre_header_bytes(data.get(gre_offset..)?, shortcut)?;
        let plain = Plain::parse(data.get(offset..)?)?;
        let ecn_stays = ecn::decapsulate(outer_ecn, Ecn::of_tos(plain.tos)) == Ok(Ecn::of_tos(plain.tos));
        let is_common = ecn_stays
            && plain.ttl > 1
            && plain.destination != shortcut.destination
            && !(plain.is_syn && shortcut.clamps_mss);
        is_common.then_some(Self { offset, plain })
    }

    /// Its way, if it is a common one.
    #[inline(always)]
    fn onward<'a, 'c: 'a>(
        &'a self,
        ctx: &Context<'c>,
        sorter: &mut Sorter<'a>,
        arrival: &Arrival<'_>,
        leaf: Leaf,
    ) -> Option<Onward<'a>> {
        let Self { offset, plain } = self;
        let addresses = &ctx.tables.addresses;
        let may_pass = addresses.is_foreign_host(plain.source)
            && addresses.is_foreign_host(plain.destination)
            && (!arrival.shortcut.strict_source || is_routed_to(ctx, arrival.shortcut, plain.source));
        may_pass.then_some(())?;
        match leaf.tunnel() {
            Some(tunnel) => sorter.departure(ctx, plain, *offset, tunnel).map(Onward::Tunnel),
            None => sorter.exit(ctx, plain, leaf).map(Onward::Port),
        }
    }
}

impl<'a> Onward<'a> {
    #[inline(always)]
    fn carry_out(self, ctx: &mut Context<'_>, sorter: &mut Sorter<'a>, mut packet: Packet, inner: &Inner) {
        match self {
            Self::Port(Exit { framing, pass, .. }) => {
                // More was in front of it than an Ethernet header; if not, what is in the buffer must not leave.
                match reframe(&mut packet, inner, &framing) {
                    Some(()) => link::queue(ctx, framing.port, Outgoing::clear(packet, pass)),
                    None => ctx.drop(packet, DropReason::NoHeadroom),
                }
            }
            Self::Tunnel(departure) => sorter.departures.push(ctx, packet, departure),
        }
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

/// Where GRE begins, and the ECN field around it: behind the outer header in transport mode, behind a plain delivery
/// header in tunnel mode.
#[inline(always)]
fn delivery_header(data: &[u8], arrival: &Arrival<'_>, opened: &Opened) -> Option<(usize, Ecn)> {
    let shortcut = arrival.shortcut;
    let outer_ecn = Ecn::of_tos(arrival.tos);
    match (shortcut.mode, opened.next_header) {
        (EspMode::Transport, IpProtocol::GRE) => {
            let is_its_own = shortcut.source == shortcut.local && shortcut.destination == shortcut.remote;
            is_its_own.then_some((opened.payload.start, outer_ecn))
        }
        (EspMode::Tunnel, IpProtocol::IPV4) => {
            let delivery = Plain::parse(data.get(opened.payload.start..)?)?;
            let is_its_own = delivery.protocol == IpProtocol::GRE
                && shortcut.source == delivery.destination
                && shortcut.destination == delivery.source
                && opened.payload.start + usize::from(delivery.total_bytes) == data.len();
            is_its_own.then_some(())?;
            let combined = ecn::decapsulate(outer_ecn, Ecn::of_tos(delivery.tos)).ok()?;
            Some((opened.payload.start + ipv4::HEADER_BYTES, combined))
        }
        _ => None,
    }
}

/// Length of a GRE header that has nothing but the tunnel's key, if it has one.
#[inline(always)]
fn gre_header_bytes(gre: &[u8], shortcut: &ShortcutIn) -> Option<usize> {
    let (word, rest) = gre.split_first_chunk()?;
    (u32::from_be_bytes(*word) == shortcut.gre_word).then_some(())?;
    match shortcut.gre_key {
        None => Some(4),
        Some(key) => (u32::from_be_bytes(*rest.first_chunk()?) == key).then_some(8),
    }
}

fn is_routed_to(ctx: &Context<'_>, shortcut: &ShortcutIn, address: u32) -> bool {
    matches!(ctx.tables.routes.lookup_v4(address), Some(NextStep::Tunnel(found)) if found == shortcut.tunnel)
}
