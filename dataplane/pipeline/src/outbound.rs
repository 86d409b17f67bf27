// SPDX-License-Identifier: Apache-2.0
//! The way out: route → size → \[scheduler\] → GRE → SPD → ESP → link.
//!
//! The order is `docs/packet-walk.md`'s. Sequence numbers are given in [`seal`], after everything that could
//! still drop or reorder, so that one SA's packets leave in order (RFC 4301 §4.1).

use arrayvec::ArrayVec;
use esp::{OutboundSa, SealBurst, SealError};
use messages::{DropReason, EspMode, ProtectionIndex, SaIndex, WorkerCounter};
use pktbuf::{BURST, Packet};
use tables::{Encapsulation, SpdVerdict, Tunnel, Verdict};
use wire::IpProtocol;

use crate::context::{Context, Note};
use crate::encapsulate::{self, EncapsulateError, Inside};
use crate::forward::{self, Routed};
use crate::fragment::{self, Fits};
use crate::lane::{Lane, run_length};
use crate::link::Hop;
use crate::outgoing::{ClearancePass, Outgoing};
use crate::{icmp, link, mss, policy, scheduled};

/// A packet with its delivery headers on, ready for ESP.
#[derive(Clone, Copy)]
pub(crate) struct SealNote<'a> {
    sa: &'a OutboundSa,
    esp_offset: usize,
    next_header: IpProtocol,
    hop: Hop,
}

/// Sends a burst on its way out.
pub(crate) fn run(ctx: &mut Context<'_>, lane: &mut Lane<Note>) {
    let mut routed = Routed::default();
    let mut to_seal = Lane::default();
    forward::route(ctx, lane, &mut routed);
    for (packet, (note, tunnel)) in routed.tunnel.drain() {
        match ctx.tables.tunnels.get(tunnel) {
            Some(tunnel) => into_tunnel(ctx, packet, note, tunnel, &mut to_seal),
            None => ctx.drop(packet, DropReason::NoEgress),
        }
    }
    for (packet, (note, hop)) in routed.port.drain() {
        out_of_port(ctx, packet, note, hop, &mut to_seal);
    }
    seal(ctx, &mut to_seal);
}

/// Payload packet → GRE, cut to the tunnel's MTU first if need be.
fn into_tunnel<'a>(
    ctx: &mut Context<'a>,
    mut packet: Packet,
    note: Note,
    tunnel: &'a Tunnel,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    if mss::clamp(&mut packet, &note.parsed, tunnel.mss) {
        ctx.counters.add(WorkerCounter::MssClamped, 1);
    }
    fitted(ctx, packet, note, tunnel.encapsulation.mtu, |ctx, packet, mut note| {
        if let Some(packet) = scheduled::into_tunnel(ctx, packet, &mut note, tunnel) {
            enter(ctx, packet, &note, tunnel, to_seal);
        }
    });
}

/// A packet that fits → GRE.
pub(crate) fn enter<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: &Note,
    tunnel: &'a Tunnel,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    tunnel.state.counts().count_out(ctx.worker, 1, packet.len() as u64);
    deliver(ctx, packet, note, tunnel.way(note.parsed.tos), Some(tunnel), to_seal);
}

/// Packet → the SPD of the port it leaves by; and its turn, if the port has a service policy.
fn out_of_port<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: Note,
    hop: Hop,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let verdict = policy::outbound(ctx, hop.port, &note.parsed);
    scheduled::out_of_port(ctx, packet, note, (hop.port, verdict), |ctx, packet, note| {
        go_out(ctx, packet, note, hop, verdict, to_seal);
    });
}

/// A packet whose turn it is, if it had to wait → what the SPD says of it.
pub(crate) fn go_out<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: Note,
    hop: Hop,
    verdict: SpdVerdict,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    match verdict {
        SpdVerdict::Bypass => in_clear(ctx, packet, note, hop),
        SpdVerdict::Protect(protection) => protected(ctx, packet, note, protection, hop, to_seal),
        SpdVerdict::Discard => ctx.drop(packet, DropReason::PolicyDiscard),
        SpdVerdict::NoMatch => ctx.drop(packet, DropReason::PolicyNone),
    }
}

fn in_clear(ctx: &mut Context<'_>, packet: Packet, note: Note, hop: Hop) {
    let Some(port) = ctx.tables.ports.get(hop.port) else {
        return ctx.drop(packet, DropReason::PortDown);
    };
    fitted(ctx, packet, note, port.mtu, |ctx, packet, _| {
        let outgoing = Outgoing::clear(packet, ClearancePass::from_bypass());
        link::send(ctx, hop, outgoing);
    });
}

/// A packet that the SPD protects without GRE.
fn protected<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: Note,
    protection: ProtectionIndex,
    hop: Hop,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let Some(entry) = ctx.tables.protections.get(protection) else {
        return ctx.drop(packet, DropReason::NoSa);
    };
    let mtu = entry.encapsulation.mtu;
    let between_the_ends = note.parsed.source == entry.local && note.parsed.destination == entry.remote;
    match entry.mode {
        EspMode::Tunnel => fitted(ctx, packet, note, mtu, |ctx, packet, note| {
            deliver(ctx, packet, &note, entry.way(note.parsed.tos), None, to_seal);
        }),
        // RFC 4301 §4.1: a gateway's transport mode is for packets of its own.
        EspMode::Transport if !between_the_ends => ctx.drop(packet, DropReason::SaAddress),
        // RFC 4303 §3.3.4: whole datagrams only, so what does not fit is not cut here.
        EspMode::Transport if fragment::fits(&packet, &note.parsed, mtu) != Fits::Whole => {
            icmp::too_big(ctx, packet, &note, mtu);
        }
        EspMode::Transport => {
            transport(ctx, packet, &note, entry.outbound(note.parsed.tos), hop, to_seal);
        }
    }
}

/// Gives the packet, or its fragments, to `go_on`; or tells its sender that it is too big.
pub(crate) fn fitted<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: Note,
    mtu: u16,
    mut go_on: impl FnMut(&mut Context<'a>, Packet, Note),
) {
    match fragment::fits(&packet, &note.parsed, mtu) {
        Fits::Whole => go_on(ctx, packet, note),
        Fits::InFragments => fragment::fragment(ctx, packet, &note, mtu, go_on),
        Fits::TooBig => icmp::too_big(ctx, packet, &note, mtu),
    }
}

/// Puts the template on, and sends the packet to be sealed or, where the SPD says BYPASS, to its port.
fn deliver<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: &Note,
    encapsulation: &Encapsulation,
    tunnel: Option<&Tunnel>,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let Some(hop) = encapsulation.egress.map(Hop::from) else {
        return ctx.drop(packet, DropReason::NoEgress);
    };
    match encapsulation.verdict {
        Verdict::Drop(reason) => ctx.drop(packet, reason),
        Verdict::Protect { sa: None, .. } => ctx.drop(packet, DropReason::NoSa),
        Verdict::Protect { sa: Some(sa), .. } => {
            let Some(sa) = ctx.sad.outbound(sa) else {
                return ctx.drop(packet, DropReason::NoSa);
            };
            let template = &encapsulation.template;
            let esp_offset = usize::from(template.esp_offset.unwrap_or(0));
            let next_header = encapsulate::esp_next_header(template, note.parsed.family);
            let sealed_bytes = |payload| sa.sealed_bytes(payload);
            if let Some(packet) = dressed(ctx, packet, note, encapsulation, tunnel, sealed_bytes) {
                push_to_seal(ctx, packet, SealNote { sa, esp_offset, next_header, hop }, to_seal);
            }
        }
        Verdict::Clear => {
            if let Some(packet) = dressed(ctx, packet, note, encapsulation, tunnel, |payload| payload) {
                let outgoing = Outgoing::clear(packet, ClearancePass::from_bypass());
                link::send(ctx, hop, outgoing);
            }
        }
    }
}

/// The packet with its delivery headers, GRE complete; dropped if there is no room.
fn dressed(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    note: &Note,
    encapsulation: &Encapsulation,
    tunnel: Option<&Tunnel>,
    sealed_bytes: impl Fn(usize) -> usize,
) -> Option<Packet> {
    let template = &encapsulation.template;
    let mut inside = Inside::from(&note.parsed);
    inside.tos = tunnel.map_or(inside.tos, |tunnel| tunnel.outward(inside.tos));
    let done = encapsulate::encapsulate(&mut packet, inside, template, sealed_bytes, ctx.identification)
        .and_then(|()| number_gre(&mut packet, template.gre_offset, tunnel));
    match done {
        Ok(()) => Some(packet),
        Err(_) => {
            ctx.drop(packet, DropReason::NoHeadroom);
            None
        }
    }
}

fn number_gre(
    packet: &mut Packet,
    gre_offset: Option<u8>,
    tunnel: Option<&Tunnel>,
) -> Result<(), EncapsulateError> {
    let (Some(offset), Some(tunnel)) = (gre_offset, tunnel) else { return Ok(()) };
    if !tunnel.gre.sequence && !tunnel.gre.checksum {
        return Ok(());
    }
    let sequence = tunnel.gre.sequence.then(|| tunnel.state.next_sequence());
    encapsulate::finish_gre(packet, usize::from(offset), sequence, tunnel.gre.checksum)
}

/// ESP in transport mode on the packet's own header.
fn transport<'a>(
    ctx: &mut Context<'a>,
    mut packet: Packet,
    note: &Note,
    sa: Option<SaIndex>,
    hop: Hop,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let Some(sa) = sa.and_then(|sa| ctx.sad.outbound(sa)) else {
        return ctx.drop(packet, DropReason::NoSa);
    };
    let sealed_bytes = |payload| sa.sealed_bytes(payload);
    match encapsulate::insert_esp(&mut packet, &note.parsed, sealed_bytes) {
        Ok(esp_offset) => {
            let note = SealNote { sa, esp_offset, next_header: note.parsed.protocol, hop };
            push_to_seal(ctx, packet, note, to_seal);
        }
        Err(EncapsulateError::NoRoom) => ctx.drop(packet, DropReason::NoHeadroom),
        Err(EncapsulateError::NotTransport) => ctx.drop(packet, DropReason::FragmentFailed),
    }
}

/// Fragments may make more than a burst: a full lane is sealed at once.
fn push_to_seal<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: SealNote<'a>,
    lane: &mut Lane<SealNote<'a>>,
) {
    if lane.is_full() {
        seal(ctx, lane);
    }
    if let Err(packet) = lane.push(packet, note) {
        ctx.drop(packet, DropReason::NoBuffer);
    }
}

/// Reserves sequence numbers for the burst, writes headers and nonces, then runs the cipher once.
pub(crate) fn seal<'a>(ctx: &mut Context<'a>, lane: &mut Lane<SealNote<'a>>) {
    if lane.is_empty() {
        return;
    }
    let outcomes = stage_and_seal(ctx, lane);
    for ((packet, note), outcome) in lane.drain().zip(outcomes) {
        match outcome {
            Ok(()) => {
                ctx.counters.add(WorkerCounter::Sealed, 1);
                link::send(ctx, note.hop, Outgoing::sealed(packet));
            }
            Err(error) => ctx.drop(packet, drop_reason(error)),
        }
    }
}

fn stage_and_seal(
    ctx: &Context<'_>,
    lane: &mut Lane<SealNote<'_>>,
) -> ArrayVec<Result<(), SealError>, BURST> {
    let mut burst = SealBurst::new();
    let mut outcomes = ArrayVec::new();
    for (packets, run) in lane.runs_mut(|notes| run_length(notes, |a, b| core::ptr::eq(a.sa, b.sa))) {
        let Some(SealNote { sa, .. }) = run.first() else { continue };
        let reservations = sa.reserve(run.len(), ctx.now_ns);
        for ((note, reservation), packet) in run.iter().zip(reservations).zip(packets) {
            outcomes.push(
                reservation.and_then(|number| burst.push(packet, note.esp_offset, number, note.next_header)),
            );
        }
    }
    burst.seal();
    outcomes
}

pub(crate) fn drop_reason(error: SealError) -> DropReason {
    match error {
        SealError::Expired => DropReason::SaExpired,
        SealError::NotReserved => DropReason::SequenceNotReserved,
        SealError::Exhausted => DropReason::SequenceExhausted,
        SealError::NoRoom => DropReason::NoHeadroom,
        SealError::BurstFull => DropReason::NoBuffer,
    }
}
