// SPDX-License-Identifier: Apache-2.0
//! The way in of plain ESP packets: SA → open the burst → GRE → a plain packet inside → route → onward.
//!
//! [`Ends::find`] and [`Ends::arrival`] change nothing. Once a packet is open, [`plain_inside`] looks whether what was inside is
//! plain, and [`onward`] whether it goes a common way.

use arrayvec::ArrayVec;
use esp::{OpenError, Opened};
use messages::{EspMode, PortIndex, ProtectionIndex, SaIndex};
use pktbuf::{BURST, Batch};
use tables::ShortcutIn;
use wire::{Ecn, IpProtocol, ecn, ethernet, ipv4};

use super::onward;
use super::plain::{self, Plain};
use crate::context::Context;
use crate::dispatch::Lanes;
use crate::inbound::{self, Refused};
use crate::ingress;
use crate::lane::Lane;
use crate::sad::InboundEntry;
use crate::stopwatch::Stage;

/// Where ESP begins in the frame of a plain packet; and where its payload does.
const ESP_OFFSET: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;
pub(super) const PAYLOAD_OFFSET: usize = ESP_OFFSET + esp::HEADER_BYTES;

/// Carries a burst that came in by an unprotected port.
pub(super) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    let tables = ctx.tables;
    let mut last_spi = 0;
    let mut plains = ArrayVec::new();
    plain::parse_burst(batch, ctx.mac(port), &mut plains, |plain| {
        if plain.ports != last_spi {
            last_spi = plain.ports;
            tables.sas.prefetch_inbound(last_spi);
        }
    });
    ctx.stopwatch.lap(Stage::Parse);
    let mut sas = ArrayVec::<_, BURST>::new();
    sas.extend(runs(&plains).map(|run| find_sa(ctx, run)));
    for (sa, _) in sas.iter().flatten() {
        ctx.sad.inbound(*sa).into_iter().for_each(|entry| entry.sa.prefetch());
    }
    ctx.stopwatch.lap(Stage::Lookup);
    let mut ends = ArrayVec::<_, BURST>::new();
    ends.extend(sas.iter().map(|sa| sa.and_then(|sa| Ends::find(ctx, sa))));
    let mut arrivals = Lane::default();
    let mut packets = batch.drain(..);
    for (mut run, ends) in runs(&plains).zip(&ends) {
        while !run.is_empty() {
            let mut ahead = run.iter();
            let common = arrivals.extend(&mut packets, || ends.as_ref()?.arrival(ahead.next()?));
            if common < run.len()
                && let Some(packet) = packets.next()
            {
                ingress::receive(ctx, port, packet, lanes);
            }
            run = run.get(common + 1..).unwrap_or_default();
        }
    }
    drop(packets);
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
pub(super) struct Ends<'a> {
    pub(super) protection: ProtectionIndex,
    entry: &'a InboundEntry,
    pub(super) shortcut: &'a ShortcutIn,
}

impl<'a> Ends<'a> {
    /// An SA that this worker owns.
    #[inline(always)]
    fn find(ctx: &Context<'a>, (sa, protection): (SaIndex, ProtectionIndex)) -> Option<Self> {
        let shortcut = ctx.tables.tunnels.shortcut_in(protection)?;
        let entry = ctx.sad.inbound(sa).filter(|entry| entry.owner == ctx.worker)?;
        entry.sa.prefetch_window();
        shortcut.counts.prefetch(ctx.worker);
        Some(Self { protection, entry, shortcut })
    }

    /// A packet that goes between the ends. No end is ours that is not an address of ours, and none is the other's that
    /// cannot be another host's: the tables see to that.
    #[inline(always)]
    fn arrival(&self, plain: &Plain) -> Option<Arrival<'_>> {
        let is_ours = plain.protocol() == IpProtocol::ESP
            && self.shortcut.remote == plain.source()
            && self.shortcut.local == plain.destination;
        is_ours.then_some(Arrival { ends: self, tos: plain.tos(), total_bytes: plain.total_bytes })
    }
}

/// An ESP packet of an SA of ours.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) ends: &'a Ends<'a>,
    tos: u8,
    pub(super) total_bytes: u16,
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
    let mut refused = Refused::default();
    inbound::open(
        ctx,
        lane,
        &mut refused,
        |_, arrival: &Arrival<'s>| Some((ESP_OFFSET..arrival.frame_bytes(), &arrival.ends.entry.sa)),
        |arrival, outcome, payload| {
            inners.push(Inner::of(arrival, outcome, payload));
        },
    );
    if !refused.places().is_empty() {
        lane.remove(refused.places(), |packet, error| ctx.drop(packet, inbound::drop_reason(error)));
    }
    ctx.stopwatch.lap(Stage::Decapsulate);
    let leaves = routes.lookup_v4_burst(inners.iter().map(|inner| inner.plain.destination));
    ctx.stopwatch.lap(Stage::Lookup);
    onward::carry(ctx, port, lane, (&inners, &leaves), lanes);
}

/// What an opened packet carries.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    pub(super) bytes: usize,
    pub(super) next_header: IpProtocol,
}

/// A packet that was opened, or not.
pub(super) struct Inner {
    pub(super) payload: Result<Payload, OpenError>,
    /// Where the plain packet begins in its frame that came out of a tunnel; nothing plain is [`Plain::NONE`].
    pub(super) offset: usize,
    pub(super) plain: Plain,
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
}

/// The plain packet in a payload, behind the tunnel's GRE header, and where it begins in the frame.
#[inline(always)]
fn plain_inside(arrival: &Arrival<'_>, payload: &[u8], next_header: IpProtocol) -> Option<(usize, Plain)> {
    let shortcut = arrival.ends.shortcut;
    let (gre_offset, outer_ecn) = delivery_header(arrival, payload, next_header)?;
    let offset = gre_offset + gre_header_bytes(payload.get(gre_offset..)?, shortcut)?;
    let plain = Plain::parse(payload.get(offset..)?)?;
    let is_common = ecn::is_kept(outer_ecn, Ecn::of_tos(plain.tos()))
        && plain.ttl() > 1
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
        (EspMode::Transport, IpProtocol::GRE) => Some((0, outer_ecn)),
        (EspMode::Tunnel, IpProtocol::IPV4) => {
            let delivery = Plain::parse(payload)?;
            let is_its_own = delivery.protocol() == IpProtocol::GRE
                && shortcut.source == delivery.destination
                && shortcut.destination == delivery.source()
                && usize::from(delivery.total_bytes) == payload.len();
            is_its_own.then_some(())?;
            let combined = ecn::decapsulate(outer_ecn, Ecn::of_tos(delivery.tos())).ok()?;
            Some((ipv4::HEADER_BYTES, combined))
        }
        _ => None,
    }
}

/// Length of a GRE header that has nothing but the tunnel's key, if it has one.
#[inline(always)]
fn gre_header_bytes(gre: &[u8], shortcut: &ShortcutIn) -> Option<usize> {
    let (word, rest) = gre.split_first_chunk()?;
    (Some(u32::from_be_bytes(*word)) == shortcut.gre_word).then_some(())?;
    match shortcut.gre_key {
        None => Some(4),
        Some(key) => (u32::from_be_bytes(*rest.first_chunk()?) == key).then_some(8),
    }
}
