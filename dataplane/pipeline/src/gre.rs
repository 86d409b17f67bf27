// SPDX-License-Identifier: Apache-2.0
//! GRE on receipt: to which tunnel a packet belongs, whether it may have come this way, and what it carries
//! (RFC 2784 §2, RFC 2890 §2; RFC 4301 §5.2; RFC 6040 §4.2 with RFC 9601).

use core::net::IpAddr;

use messages::{DropReason, PortIndex, ProtectionIndex, TunnelIndex, WorkerCounter};
use pktbuf::Packet;
use tables::{NextStep, NoTunnel, SequenceOrder, Tunnel};
use wire::flow::Parsed;
use wire::{Dscp, Ecn, EtherType, Family, ParseError, dscp, ecn, gre};

use crate::context::{Context, Note, Origin};
use crate::dispatch::{Lanes, dispatch};
use crate::lane::Lane;
use crate::{ingress, mss, policy};

/// A GRE packet for us, wherever its delivery header lies.
#[derive(Clone, Copy)]
pub(crate) struct GreNote {
    /// The delivery header.
    delivery: Parsed,
    /// Where GRE begins in the buffer.
    gre_offset: u16,
    /// ECN as it arrives here, congestion met on the way included.
    ecn: Ecn,
    port: PortIndex,
    /// The protection it came under, none in clear.
    via: Option<ProtectionIndex>,
}

impl GreNote {
    /// GRE that came in clear, delivery header in front.
    pub(crate) fn clear(note: &Note) -> Self {
        Self {
            delivery: note.parsed,
            gre_offset: note.parsed.header_bytes,
            ecn: Ecn::of_tos(note.parsed.tos),
            port: note.port,
            via: None,
        }
    }

    /// GRE that ESP carried.
    pub(crate) fn protected(
        delivery: Parsed,
        gre_offset: u16,
        ecn: Ecn,
        port: PortIndex,
        via: ProtectionIndex,
    ) -> Self {
        Self { delivery, gre_offset, ecn, port, via: Some(via) }
    }
}

/// Takes the payload packets out of a burst of GRE packets.
pub(crate) fn decapsulate(ctx: &mut Context<'_>, lane: &mut Lane<GreNote>, lanes: &mut Lanes) {
    for (packet, note) in lane.drain() {
        decapsulate_one(ctx, packet, &note, lanes);
    }
}

fn decapsulate_one(ctx: &mut Context<'_>, mut packet: Packet, note: &GreNote, lanes: &mut Lanes) {
    let (header, tunnel) = match admit(ctx, &packet, note) {
        Ok(admitted) => admitted,
        Err(reason) => return ctx.drop(packet, reason),
    };
    if packet.trim_front(usize::from(note.gre_offset) + header.header_bytes()).is_err() {
        return ctx.drop(packet, DropReason::GreMalformed);
    }
    let (mut packet, mut parsed) = match ingress::parse(packet) {
        Ok(inside) => inside,
        Err((packet, reason)) => return ctx.drop(packet, reason),
    };
    if let Err(reason) = check_payload(ctx, tunnel, &header, &parsed) {
        return ctx.drop(packet, reason);
    }
    match ecn::decapsulate(note.ecn, Ecn::of_tos(parsed.tos)) {
        Ok(combined) => apply_ecn(ctx, &mut packet, &mut parsed, combined),
        Err(ecn::Drop) => return ctx.drop(packet, DropReason::EcnInvalid),
    }
    if let Some(mark) = &tunnel.receipt {
        set_dscp(&mut packet, &mut parsed, mark.apply(Dscp::of_tos(note.delivery.tos)));
    }
    if mss::clamp(&mut packet, &parsed, tunnel.mss) {
        ctx.counters.add(WorkerCounter::MssClamped, 1);
    }
    tunnel.state.counts().count_in(ctx.worker, 1, packet.len() as u64);
    let origin = Origin::Tunnel(tunnel.tunnel);
    dispatch(ctx, packet, Note { parsed, port: note.port, origin }, lanes);
}

/// Finds the tunnel and checks everything up to the payload.
fn admit<'a>(
    ctx: &Context<'a>,
    packet: &Packet,
    note: &GreNote,
) -> Result<(gre::Repr, &'a Tunnel), DropReason> {
    let bytes = packet.data().get(usize::from(note.gre_offset)..).unwrap_or(&[]);
    let header = gre::Repr::parse(&gre::Packet::parse(bytes).map_err(malformed)?);
    let tunnels = &ctx.tables.tunnels;
    let index = tunnels.by_delivery(&note.delivery.destination, &note.delivery.source, header.key).map_err(
        |missing| match missing {
            NoTunnel::Addresses => DropReason::GreNoTunnel,
            NoTunnel::Key => DropReason::GreKey,
        },
    )?;
    let tunnel = tunnels.get(index).ok_or(DropReason::GreNoTunnel)?;
    check_protection(ctx, tunnel, note)?;
    if !matches!(header.protocol_type, EtherType::IPV4 | EtherType::IPV6) {
        return Err(DropReason::GreProtocol);
    }
    check_sequence(tunnel, header.sequence_number)?;
    Ok((header, tunnel))
}

fn malformed(error: ParseError) -> DropReason {
    match error {
        ParseError::BadVersion => DropReason::GreVersion,
        ParseError::ReservedBits => DropReason::GreReservedBits,
        ParseError::BadChecksum => DropReason::GreChecksum,
        _ => DropReason::GreMalformed,
    }
}

/// A tunnel's packets come under its own protection and no other; without one, as the SPD lets them in clear.
fn check_protection(ctx: &Context<'_>, tunnel: &Tunnel, note: &GreNote) -> Result<(), DropReason> {
    match (tunnel.protection, note.via) {
        (Some(demanded), Some(came)) if demanded == came => Ok(()),
        (_, Some(_)) => Err(DropReason::SaTunnelMismatch),
        (Some(_), None) => Err(DropReason::ClearButProtected),
        (None, None) => policy::inbound_clear(ctx, note.port, &note.delivery),
    }
}

fn check_sequence(tunnel: &Tunnel, sequence: Option<u32>) -> Result<(), DropReason> {
    match (tunnel.gre.sequence, sequence) {
        (true, Some(sequence)) => match tunnel.state.accept_sequence(sequence) {
            SequenceOrder::InOrder => Ok(()),
            SequenceOrder::OutOfOrder => Err(DropReason::GreSequence),
        },
        (true, None) => Err(DropReason::GreSequence),
        (false, _) => Ok(()),
    }
}

fn check_payload(
    ctx: &Context<'_>,
    tunnel: &Tunnel,
    header: &gre::Repr,
    parsed: &Parsed,
) -> Result<(), DropReason> {
    match (header.protocol_type, parsed.family) {
        (EtherType::IPV4, Family::Ipv4) | (EtherType::IPV6, Family::Ipv6) => {}
        _ => return Err(DropReason::IpMalformed),
    }
    // RFC 2784 §3.1: it would come back through this tunnel, and again.
    if parsed.destination == tunnel.destination {
        return Err(DropReason::DestinationInvalid);
    }
    if tunnel.strict_source && !routed_to(ctx, tunnel.tunnel, &parsed.source) {
        return Err(DropReason::StrictSource);
    }
    Ok(())
}

fn routed_to(ctx: &Context<'_>, tunnel: TunnelIndex, address: &IpAddr) -> bool {
    matches!(ctx.tables.routes.lookup(address), Some(NextStep::Tunnel(found)) if found == tunnel)
}

/// Writes the DSCP that a packet leaves the tunnel with.
fn set_dscp(packet: &mut Packet, parsed: &mut Parsed, dscp: Dscp) {
    if dscp != Dscp::of_tos(parsed.tos) && dscp::rewrite(packet.data_mut(), dscp).is_ok() {
        parsed.tos = dscp.tos(Ecn::of_tos(parsed.tos));
    }
}

/// Writes the ECN field that leaves the tunnel, if it differs from the one inside.
pub(crate) fn apply_ecn(ctx: &mut Context<'_>, packet: &mut Packet, parsed: &mut Parsed, ecn: Ecn) {
    if ecn == Ecn::of_tos(parsed.tos) {
        return;
    }
    if ecn::rewrite(packet.data_mut(), ecn).is_ok() {
        parsed.tos = ecn.in_tos(parsed.tos);
        ctx.counters.add(WorkerCounter::EcnCongested, u64::from(ecn == Ecn::Ce));
    }
}
