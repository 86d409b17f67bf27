// SPDX-License-Identifier: Apache-2.0
//! Questions to the SPD (RFC 4301 §4.4.1, §5.1, §5.2).

use messages::{DropReason, PortIndex, ProtectionIndex};
use pktbuf::Packet;
use tables::{PacketSelectors, SpdVerdict};
use wire::flow::{self, Fragment, Parsed};
use wire::{IpProtocol, gre};

use crate::context::{Context, Note, Origin};

/// Checks a packet that came in without ESP, or the packet that was inside: may it have come this way?
///
/// Packets out of GRE tunnels were checked with their delivery header; packets made here were never outside.
pub(crate) fn inbound(ctx: &Context<'_>, note: &Note) -> Result<(), DropReason> {
    match note.origin {
        Origin::Own | Origin::Tunnel(_) => Ok(()),
        Origin::Port => in_clear(lookup_inbound(ctx, note.port, &note.parsed)),
        Origin::Protection(protection) => under(protection, lookup_inbound(ctx, note.port, &note.parsed)),
    }
}

/// Checks the delivery header of a GRE packet that came in clear.
pub(crate) fn inbound_clear(ctx: &Context<'_>, port: PortIndex, parsed: &Parsed) -> Result<(), DropReason> {
    in_clear(lookup_inbound(ctx, port, parsed))
}

/// What the SPD of the egress port says of a packet that is to leave.
pub(crate) fn outbound(ctx: &Context<'_>, port: PortIndex, parsed: &Parsed) -> SpdVerdict {
    let ports = ports(parsed);
    let (local, remote) = (parsed.source, parsed.destination);
    ctx.tables.spds.lookup(port, &PacketSelectors { local, remote, protocol: parsed.protocol.0, ports })
}

/// Whether a packet that an older generation let out in clear may leave so still.
pub(crate) fn still_clear(ctx: &Context<'_>, port: PortIndex, packet: &Packet) -> Result<(), DropReason> {
    let parsed = flow::parse(packet.data()).map_err(|_| DropReason::IpMalformed)?;
    in_clear(outbound(ctx, port, &parsed))?;
    if parsed.protocol != IpProtocol::GRE || parsed.fragment != Fragment::None {
        return Ok(());
    }
    let key = gre::Packet::parse(parsed.upper_layer(packet.data())).ok().and_then(|gre| gre.key());
    let tunnels = &ctx.tables.tunnels;
    match tunnels.by_delivery(&parsed.source, &parsed.destination, key).ok().and_then(|t| tunnels.get(t)) {
        Some(tunnel) if tunnel.protection.is_some() => Err(DropReason::ClearButProtected),
        _ => Ok(()),
    }
}

fn lookup_inbound(ctx: &Context<'_>, port: PortIndex, parsed: &Parsed) -> SpdVerdict {
    let ports = ports(parsed).map(|(source, destination)| (destination, source));
    let (local, remote) = (parsed.destination, parsed.source);
    ctx.tables.spds.lookup(port, &PacketSelectors { local, remote, protocol: parsed.protocol.0, ports })
}

fn in_clear(verdict: SpdVerdict) -> Result<(), DropReason> {
    match verdict {
        SpdVerdict::Bypass => Ok(()),
        SpdVerdict::Protect(_) => Err(DropReason::ClearButProtected),
        SpdVerdict::Discard => Err(DropReason::PolicyDiscard),
        SpdVerdict::NoMatch => Err(DropReason::PolicyNone),
    }
}

fn under(protection: ProtectionIndex, verdict: SpdVerdict) -> Result<(), DropReason> {
    match verdict {
        SpdVerdict::Protect(demanded) if demanded == protection => Ok(()),
        _ => Err(DropReason::SelectorMismatch),
    }
}

/// Source and destination port, where the packet has them: a later fragment has none (RFC 4301 §7).
fn ports(parsed: &Parsed) -> Option<(u16, u16)> {
    let carries = matches!(parsed.protocol, IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP);
    (carries && parsed.fragment != Fragment::Later).then_some((parsed.source_port, parsed.destination_port))
}
