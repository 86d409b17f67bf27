// SPDX-License-Identifier: Apache-2.0
//! Questions to the SPD (RFC 4301 §4.4.1, §5.1, §5.2).

use messages::{DropReason, PortIndex, ProtectionIndex};
use tables::{PacketSelectors, SpdVerdict};
use wire::IpProtocol;
use wire::flow::{Fragment, Parsed};

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
