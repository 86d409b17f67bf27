// SPDX-License-Identifier: Apache-2.0
//! The way in: ESP for us → SPI → SA → owner worker → open the burst → what was inside → GRE → as any packet.
//!
//! The order is `docs/packet-walk.md`'s; RFC 4303 §3.4, RFC 4301 §5.2.

use core::ops::Range;

use arrayvec::ArrayVec;
use esp::{InboundSa, OpenBurst, OpenError, Opened, Outcomes};
use messages::{DropReason, EspMode, PortIndex, ProtectionIndex, SaIndex, WorkerCounter};
use pktbuf::{BURST, Packet};
use wire::flow::Parsed;
use wire::{Ecn, IpProtocol, ecn};

use crate::context::{Context, Note, Origin};
use crate::dispatch::{self, Lanes};
use crate::gre::{GreNote, apply_ecn};
use crate::handovers::HandedOver;
use crate::lane::Lane;
use crate::sad::InboundEntry;
use crate::stopwatch::Stage;
use crate::{encapsulate, gre, ingress};

/// An ESP packet for us, its outer header in front.
#[derive(Clone, Copy)]
pub(crate) struct EspNote {
    outer: Parsed,
    port: PortIndex,
    sa: SaIndex,
    protection: ProtectionIndex,
}

impl EspNote {
    /// A packet whose SA is not looked up yet.
    pub(crate) fn new(note: &Note) -> Self {
        Self { outer: note.parsed, port: note.port, sa: SaIndex(0), protection: ProtectionIndex(0) }
    }

    /// A packet whose protection is known; it is open already.
    pub(crate) fn known(outer: Parsed, port: PortIndex, protection: ProtectionIndex) -> Self {
        Self { outer, port, sa: SaIndex(0), protection }
    }

    fn esp_offset(&self) -> usize {
        usize::from(self.outer.header_bytes)
    }
}

/// Opens what is for us and takes out what it carries; the rest of its way is `lanes.forward`.
pub(crate) fn run(ctx: &mut Context<'_>, lanes: &mut Lanes) {
    if !lanes.esp.is_empty() {
        let mut ours = Lane::default();
        find_sa(ctx, &mut lanes.esp, &mut ours);
        let sad = ctx.sad;
        let mut outcomes = Outcomes::new();
        let mut refused = Refused::default();
        open(
            ctx,
            &mut ours,
            &mut refused,
            |packet, note| Some((note.esp_offset()..packet.len(), &sad.inbound(note.sa)?.sa)),
            |_, outcome, _| outcomes.push(outcome),
        );
        let mut outcomes = outcomes.into_iter();
        for (packet, note) in ours.drain() {
            match refused.next().map(Err).or_else(|| outcomes.next()) {
                Some(Ok(opened)) => take_out(ctx, packet, &note, &opened.into(), lanes),
                Some(Err(error)) => ctx.drop(packet, drop_reason(error)),
                None => ctx.drop(packet, DropReason::NoBuffer),
            }
        }
    }
    if !lanes.gre.is_empty() {
        let mut packets = std::mem::take(&mut lanes.gre);
        gre::decapsulate(ctx, &mut packets, lanes);
    }
}

/// SPI → SA; packets whose window belongs to another worker go there, unopened.
fn find_sa(ctx: &mut Context<'_>, lane: &mut Lane<EspNote>, ours: &mut Lane<EspNote>) {
    for (packet, mut note) in lane.drain() {
        match look_up(ctx, &packet, &mut note) {
            Ok(entry) if entry.owner == ctx.worker => {
                if let Err(packet) = ours.push(packet, note) {
                    ctx.drop(packet, DropReason::NoBuffer);
                }
            }
            Ok(entry) => {
                let handed = HandedOver::esp(packet, note.port);
                if let Err(packet) = ctx.handovers.push(entry.owner, handed) {
                    ctx.drop(packet, DropReason::HandoverFull);
                }
            }
            Err(reason) => ctx.drop(packet, reason),
        }
    }
}

fn look_up<'a>(
    ctx: &Context<'a>,
    packet: &Packet,
    note: &mut EspNote,
) -> Result<&'a InboundEntry, DropReason> {
    let esp = packet.data().get(note.esp_offset()..).unwrap_or(&[]);
    let (header, _) = wire::esp::Header::split(esp).map_err(|_| DropReason::EspTruncated)?;
    let (sa, protection) = ctx.tables.sas.inbound(header.spi().0).ok_or(DropReason::SpiUnknown)?;
    let ends = ctx.tables.protections.get(protection).ok_or(DropReason::SpiUnknown)?;
    if note.outer.source != ends.remote || note.outer.destination != ends.local {
        return Err(DropReason::SaAddress);
    }
    (note.sa, note.protection) = (sa, protection);
    ctx.sad.inbound(sa).ok_or(DropReason::SpiUnknown)
}

/// What an opened packet carries, and where in its data.
pub(crate) struct Carried {
    pub payload: Range<usize>,
    pub next_header: IpProtocol,
}

impl From<Opened> for Carried {
    fn from(opened: Opened) -> Self {
        Self { payload: opened.payload, next_header: opened.next_header }
    }
}

/// Checks, opens, checks again and strips. `at` tells where in a packet ESP is, and its SA; `each` is told what became of
/// each packet that passed the first check, in order, with its payload. Those that did not are added to `refused`.
#[inline(always)]
pub(crate) fn open<'s, N>(
    ctx: &mut Context<'_>,
    lane: &mut Lane<N>,
    refused: &mut Refused,
    at: impl Fn(&Packet, &N) -> Option<(Range<usize>, &'s InboundSa)>,
    mut each: impl FnMut(&N, Result<Opened, OpenError>, &[u8]),
) {
    let mut burst = OpenBurst::new(ctx.now_ns);
    let (packets, notes) = lane.parts_mut();
    for (place, (packet, note)) in packets.iter_mut().zip(notes).enumerate() {
        let staged = match at(packet, note) {
            Some((esp, sa)) => match packet.data_mut().get_mut(..esp.end) {
                Some(data) => burst.stage(data, esp.start, sa, note),
                None => Err(OpenError::TooShort),
            },
            None => Err(OpenError::Expired),
        };
        if let Err(error) = staged {
            refused.list.push((place, error));
        }
    }
    ctx.stopwatch.lap(Stage::Check);
    burst.decipher();
    ctx.stopwatch.lap(Stage::Cipher);
    let mut opened = 0;
    burst.finish(|note, outcome, payload| {
        opened += u64::from(outcome.is_ok());
        each(note, outcome, payload);
    });
    ctx.counters.add(WorkerCounter::Opened, opened);
}

/// Packets of a lane that did not pass the first check: their places there, in order, and why.
#[derive(Default)]
pub(crate) struct Refused {
    list: ArrayVec<(usize, OpenError), BURST>,
    seen: usize,
    place: usize,
}

impl Refused {
    /// Their places, and why.
    pub(crate) fn places(&self) -> &[(usize, OpenError)] {
        &self.list
    }

    /// Why the next packet of the lane did not pass, if it did not.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<OpenError> {
        let place = self.place;
        self.place += 1;
        let (_, error) = self.list.get(self.seen).filter(|(at, _)| *at == place)?;
        self.seen += 1;
        Some(*error)
    }
}

pub(crate) fn drop_reason(error: OpenError) -> DropReason {
    match error {
        OpenError::Expired => DropReason::SaExpired,
        OpenError::TooShort | OpenError::Misaligned => DropReason::EspTruncated,
        OpenError::SequenceZero => DropReason::SequenceZero,
        OpenError::Replayed => DropReason::Replayed,
        OpenError::TooOld => DropReason::ReplayTooOld,
        OpenError::BadIcv => DropReason::BadIcv,
        OpenError::BadPadLength => DropReason::PadLength,
        OpenError::BadPadding => DropReason::PadBytes,
        OpenError::Dummy => DropReason::DummyPacket,
        OpenError::BurstFull => DropReason::NoBuffer,
    }
}

/// What the next header says was inside, checked against the SA's mode.
pub(crate) fn take_out(
    ctx: &mut Context<'_>,
    packet: Packet,
    note: &EspNote,
    carried: &Carried,
    lanes: &mut Lanes,
) {
    let Some(protection) = ctx.tables.protections.get(note.protection) else {
        return ctx.drop(packet, DropReason::SpiUnknown);
    };
    match (protection.mode, carried.next_header) {
        (EspMode::Transport, IpProtocol::GRE) => carried_gre(ctx, packet, note, carried, lanes),
        (EspMode::Transport, IpProtocol::IPV4 | IpProtocol::IPV6) | (EspMode::Tunnel, IpProtocol::GRE) => {
            ctx.drop(packet, DropReason::EspNextHeader);
        }
        (EspMode::Transport, _) => carried_transport(ctx, packet, note, carried, lanes),
        (EspMode::Tunnel, IpProtocol::IPV4 | IpProtocol::IPV6) => {
            carried_packet(ctx, packet, note, carried, lanes);
        }
        (EspMode::Tunnel, _) => ctx.drop(packet, DropReason::EspNextHeader),
    }
}

/// Transport mode around GRE: the delivery header is the outer one.
fn carried_gre(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    note: &EspNote,
    carried: &Carried,
    lanes: &mut Lanes,
) {
    packet.truncate(carried.payload.end);
    let Ok(gre_offset) = u16::try_from(carried.payload.start) else {
        return ctx.drop(packet, DropReason::GreMalformed);
    };
    let ecn = Ecn::of_tos(note.outer.tos);
    push_gre(ctx, packet, GreNote::protected(note.outer, gre_offset, ecn, note.port, note.protection), lanes);
}

/// Transport mode around anything else: the IP header moves up to what it belongs to.
fn carried_transport(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    note: &EspNote,
    carried: &Carried,
    lanes: &mut Lanes,
) {
    packet.truncate(carried.payload.end);
    if encapsulate::remove_esp(&mut packet, &note.outer, carried.payload.start, carried.next_header).is_err()
    {
        return ctx.drop(packet, DropReason::EspNextHeader);
    }
    inner(ctx, packet, note, lanes);
}

/// Tunnel mode: a whole packet, which may be the delivery packet of a GRE tunnel.
fn carried_packet(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    note: &EspNote,
    carried: &Carried,
    lanes: &mut Lanes,
) {
    packet.truncate(carried.payload.end);
    if packet.trim_front(carried.payload.start).is_err() {
        return ctx.drop(packet, DropReason::EspTruncated);
    }
    let version = packet.data().first().map_or(0, |byte| byte >> 4);
    if version != if carried.next_header == IpProtocol::IPV4 { 4 } else { 6 } {
        return ctx.drop(packet, DropReason::IpMalformed);
    }
    inner(ctx, packet, note, lanes);
}

/// A packet that ESP carried, its IP header in front.
fn inner(ctx: &mut Context<'_>, packet: Packet, note: &EspNote, lanes: &mut Lanes) {
    let (mut packet, mut parsed) = match ingress::parse(packet) {
        Ok(inside) => inside,
        Err((packet, reason)) => return ctx.drop(packet, reason),
    };
    let outer = Ecn::of_tos(note.outer.tos);
    let Ok(combined) = ecn::decapsulate(outer, Ecn::of_tos(parsed.tos)) else {
        return ctx.drop(packet, DropReason::EcnInvalid);
    };
    let gre_for_us = parsed.protocol == IpProtocol::GRE
        && !parsed.is_fragment()
        && !dispatch::has_ipv4_options(&parsed)
        && ctx.tables.addresses.is_local(&parsed.destination);
    if gre_for_us {
        let gre = GreNote::protected(parsed, parsed.header_bytes, combined, note.port, note.protection);
        return push_gre(ctx, packet, gre, lanes);
    }
    apply_ecn(ctx, &mut packet, &mut parsed, combined);
    let origin = Origin::Protection(note.protection);
    dispatch::dispatch(ctx, packet, Note { parsed, port: note.port, origin }, lanes);
}

fn push_gre(ctx: &mut Context<'_>, packet: Packet, note: GreNote, lanes: &mut Lanes) {
    if let Err(packet) = lanes.gre.push(packet, note) {
        ctx.drop(packet, DropReason::NoBuffer);
    }
}
