// SPDX-License-Identifier: Apache-2.0
//! The way in of plain ESP packets: SA → open the burst → GRE → a plain packet inside → route → onward.
//!
//! [`Ends::find`] and [`Ends::arrival`] change nothing. Once a packet is open, [`plain_inside`] looks whether what was inside is
//! plain, and [`Inner::onward`] whether it goes a common way; if not, [`crate::inbound::take_out`] goes on with it.

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
use crate::inbound::{self, Carried, EspNote};
use crate::lane::Lane;
use crate::outgoing::Outgoing;
use crate::sad::InboundEntry;
use crate::stopwatch::Stage;
use crate::{ingress, link};

/// Where ESP begins in the frame of a plain packet; and where its payload does.
const ESP_OFFSET: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;
const PAYLOAD_OFFSET: usize = ESP_OFFSET + esp::HEADER_BYTES;

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
    let runs: ArrayVec<_, BURST> = runs(&plains).map(|run| find_sa(ctx, run)).collect();
    ctx.stopwatch.lap(Stage::Lookup);
    let ends: ArrayVec<_, BURST> = runs.iter().map(|sa| sa.and_then(|sa| Ends::find(ctx, sa))).collect();
    let mut arrivals = Lane::default();
    let mut packets = batch.drain(..);
    for (run, ends) in self::runs(&plains).zip(&ends) {
        for (plain, packet) in run.iter().zip(packets.by_ref()) {
            match ends.as_ref().and_then(|ends| ends.arrival(plain)) {
                // The lane has room for a whole burst.
                Some(arrival) => drop(arrivals.push(packet, arrival)),
                None => ingress::receive(ctx, port, packet, lanes),
            }
        }
    }
    ctx.stopwatch.lap(Stage::Adjacency);
    open(ctx, port, &mut arrivals, lanes);
}

/// Packets in a row with one SPI, run by run: mostly the next packet has the SA of the one before.
#[inline(always)]
fn runs(plains: &[Plain]) -> impl Iterator<Item = &[Plain]> {
    plains.chunk_by(|a, b| a.ports == b.ports)
}

/// What the SPI of a run means; and asks for what it leads to.
#[inline(always)]
fn find_sa(ctx: &Context<'_>, run: &[Plain]) -> Option<(SaIndex, ProtectionIndex)> {
    // No SA has the SPI 0 (RFC 4303 §2.1).
    let spi = run.first().map(|plain| plain.ports).filter(|spi| *spi != 0)?;
    let (sa, protection) = ctx.tables.sas.inbound(spi)?;
    ctx.tables.tunnels.prefetch_in(protection);
    ctx.sad.prefetch_inbound(sa);
    Some((sa, protection))
}

/// What all packets under one SA share.
struct Ends<'a> {
    protection: ProtectionIndex,
    entry: &'a InboundEntry,
    shortcut: &'a ShortcutIn,
}

impl<'a> Ends<'a> {
    /// An SA that this worker owns.
    #[inline(always)]
    fn find(ctx: &Context<'a>, (sa, protection): (SaIndex, ProtectionIndex)) -> Option<Self> {
        let shortcut = ctx.tables.tunnels.shortcut_in(protection)?;
        let entry = ctx.sad.inbound(sa).filter(|entry| entry.owner == ctx.worker)?;
        shortcut.counts.prefetch(ctx.worker);
        Some(Self { protection, entry, shortcut })
    }

    /// A packet that goes between the ends. No end is ours that is not an address of ours, and none is the other's that
    /// cannot be another host's: the tables see to that.
    #[inline(always)]
    fn arrival(&self, plain: &Plain) -> Option<Arrival<'_>> {
        let is_ours = plain.protocol == IpProtocol::ESP
            && self.shortcut.remote == plain.source
            && self.shortcut.local == plain.destination;
        is_ours.then_some(Arrival { ends: self, tos: plain.tos, total_bytes: plain.total_bytes })
    }
}

/// An ESP packet of an SA of ours.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    ends: &'a Ends<'a>,
    tos: u8,
    total_bytes: u16,
}

impl Arrival<'_> {
    /// Where its frame ends; what follows is padding of the link.
    fn frame_bytes(&self) -> usize {
        ethernet::HEADER_BYTES + usize::from(self.total_bytes)
    }
}

/// Opens packets, and carries on with what was inside.
fn open<'s>(ctx: &mut Context<'_>, port: PortIndex, lane: &mut Lane<Arrival<'s>>, lanes: &mut Lanes) {
    if lane.is_empty() {
        return;
    }
    let routes = &ctx.tables.routes;
    let mut inners = ArrayVec::<Inner, BURST>::new();
    let mut refused = inbound::open(
        ctx,
        lane,
        |_, arrival: &Arrival<'s>| Some((ESP_OFFSET..arrival.frame_bytes(), &arrival.ends.entry.sa)),
        |arrival, outcome, payload| {
            let inner = Inner::of(arrival, outcome, payload);
            routes.prefetch_v4(inner.plain.destination);
            inners.push(inner);
        },
    );
    ctx.stopwatch.lap(Stage::Decapsulate);
    let leaves = routes.lookup_v4_burst(inners.iter().map(|inner| inner.plain.destination));
    ctx.stopwatch.lap(Stage::Lookup);
    let mut sorter = Sorter::default();
    sorter.departures.ingress = port;
    sorter.exception();
    let mut insides = inners.iter().zip(leaves);
    for (packet, arrival) in lane.drain() {
        if let Some(error) = refused.next() {
            ctx.drop(packet, inbound::drop_reason(error));
            continue;
        }
        let Some((inner, leaf)) = insides.next() else {
            ctx.drop(packet, DropReason::NoBuffer);
            continue;
        };
        match inner.onward(ctx, &mut sorter, arrival.ends.shortcut, leaf) {
            Some(onward) => {
                sorter.common(ctx, lanes);
                arrival.ends.shortcut.counts.count_in(ctx.worker, u64::from(inner.plain.total_bytes));
                onward.carry_out(ctx, &mut sorter, packet, inner);
            }
            None => match inner.payload {
                Ok(payload) => {
                    sorter.exception();
                    the_whole_way(ctx, port, packet, (&arrival, payload), lanes);
                }
                Err(error) => ctx.drop(packet, inbound::drop_reason(error)),
            },
        }
    }
    ctx.stopwatch.lap(Stage::Transmit);
    outbound::send(ctx, &mut sorter.departures);
}

/// What has no common way onward.
#[cold]
fn the_whole_way(
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

/// What an opened packet carries.
#[derive(Clone, Copy)]
struct Payload {
    bytes: usize,
    next_header: IpProtocol,
}

/// A packet that was opened, or not.
struct Inner {
    payload: Result<Payload, OpenError>,
    /// Where the plain packet begins in its frame that came out of a tunnel; nothing plain is [`Plain::NONE`].
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
    #[inline(always)]
    fn of(arrival: &Arrival<'_>, outcome: Result<Opened, OpenError>, payload: &[u8]) -> Self {
        match outcome {
            Ok(Opened { next_header, .. }) => {
                let found = plain_inside(arrival, payload, next_header);
                let (offset, plain) = found.unwrap_or((0, Plain::NONE));
                Self { payload: Ok(Payload { bytes: payload.len(), next_header }), offset, plain }
            }
            Err(error) => Self { payload: Err(error), offset: 0, plain: Plain::NONE },
        }
    }

    /// Its way, if it is a common one.
    #[inline(always)]
    fn onward<'a, 'c: 'a>(
        &'a self,
        ctx: &Context<'c>,
        sorter: &mut Sorter<'a>,
        shortcut: &ShortcutIn,
        leaf: Leaf,
    ) -> Option<Onward<'a>> {
        let Self { offset, plain, .. } = self;
        let addresses = &ctx.tables.addresses;
        let may_pass = addresses.is_foreign_host(plain.source)
            && addresses.is_foreign_host(plain.destination)
            && (!shortcut.strict_source || is_routed_to(ctx, shortcut, plain.source));
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

/// The plain packet in a payload, behind the tunnel's GRE header, and where it begins in the frame.
#[inline(always)]
fn plain_inside(arrival: &Arrival<'_>, payload: &[u8], next_header: IpProtocol) -> Option<(usize, Plain)> {
    let shortcut = arrival.ends.shortcut;
    let (gre_offset, outer_ecn) = delivery_header(arrival, payload, next_header)?;
    let offset = gre_offset + gre_header_bytes(payload.get(gre_offset..)?, shortcut)?;
    let plain = Plain::parse(payload.get(offset..)?)?;
    let is_common = ecn::is_kept(outer_ecn, Ecn::of_tos(plain.tos))
        && plain.ttl > 1
        && plain.destination != shortcut.destination
        && !(plain.is_syn && shortcut.clamps_mss);
    is_common.then_some((PAYLOAD_OFFSET + offset, plain))
}

/// Where GRE begins in a payload, and the ECN field around it: at its front in transport mode, behind a plain delivery
/// header in tunnel mode.
#[inline(always)]
fn delivery_header(arrival: &Arrival<'_>, payload: &[u8], next_header: IpProtocol) -> Option<(usize, Ecn)> {
    let shortcut = arrival.ends.shortcut;
    let outer_ecn = Ecn::of_tos(arrival.tos);
    match (shortcut.mode, next_header) {
        (EspMode::Transport, IpProtocol::GRE) => {
            let is_its_own = shortcut.source == shortcut.local && shortcut.destination == shortcut.remote;
            is_its_own.then_some((0, outer_ecn))
        }
        (EspMode::Tunnel, IpProtocol::IPV4) => {
            let delivery = Plain::parse(payload)?;
            let is_its_own = delivery.protocol == IpProtocol::GRE
                && shortcut.source == delivery.destination
                && shortcut.destination == delivery.source
                && usize::from(delivery.total_bytes) == payload.len();
            is_its_own.then_some(())?;
            let combined = ecn::decapsulate(outer_ecn, Ecn::of_tos(delivery.tos)).ok()?;
            Some((ipv4::HEADER_BYTES, combined))
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
