// SPDX-License-Identifier: Apache-2.0
//! ICMP errors about packets that end here (RFC 792, RFC 1812 §4.3, RFC 4443): the packet is dropped for its reason,
//! and its sender told, within the rate limit.

use core::net::IpAddr;

use messages::{DropReason, WorkerCounter};
use pktbuf::Packet;
use wire::{Family, flow, icmpv4, icmpv6, ipv6};

use crate::context::{Context, Note, Origin};
use crate::local::originate;

/// Hops that an error may make.
const TTL: u8 = 64;

/// What an error says, in both families.
#[derive(Clone, Copy)]
enum Complaint {
    TimeExceeded,
    NoRoute,
    TooBig { mtu: u16 },
}

/// TTL or hop limit ran out.
pub(crate) fn time_exceeded(ctx: &mut Context<'_>, packet: Packet, note: &Note) {
    complain(ctx, packet, note, Complaint::TimeExceeded, DropReason::TtlExceeded);
}

/// No route leads to the destination.
pub(crate) fn unreachable(ctx: &mut Context<'_>, packet: Packet, note: &Note) {
    complain(ctx, packet, note, Complaint::NoRoute, DropReason::NoRoute);
}

/// The packet is larger than `mtu`, what its way carries at most, and may not be cut.
pub(crate) fn too_big(ctx: &mut Context<'_>, packet: Packet, note: &Note, mtu: u16) {
    complain(ctx, packet, note, Complaint::TooBig { mtu }, DropReason::TooBig);
}

fn complain(ctx: &mut Context<'_>, packet: Packet, note: &Note, complaint: Complaint, reason: DropReason) {
    match error_about(ctx, &packet, note, complaint) {
        Some((error, note)) => originate(ctx, error, note),
        None => ctx.counters.add(WorkerCounter::IcmpSuppressed, 1),
    }
    ctx.drop(packet, reason);
}

/// The error as a packet of its own; `None` if the RFCs or the rate limit forbid one, or no buffer is left.
fn error_about(
    ctx: &mut Context<'_>,
    packet: &Packet,
    note: &Note,
    complaint: Complaint,
) -> Option<(Packet, Note)> {
    if note.origin == Origin::Own || !ctx.limiter.allow(ctx.now_ns) {
        return None;
    }
    let source = ctx.tables.addresses.source_for(note.port, &note.parsed.source)?;
    let identification = ctx.identification.next();
    let mut error = ctx.pool.alloc()?;
    let room = error.append(icmpv6::MAX_ERROR_BYTES).ok()?;
    let bytes = match (note.parsed.family, source) {
        (Family::Ipv4, IpAddr::V4(source)) => {
            icmpv4::emit_error(packet.data(), complaint.v4(), source, TTL, identification, room).ok()?
        }
        (Family::Ipv6, IpAddr::V6(source)) => {
            icmpv6::emit_error(packet.data(), complaint.v6(), source, TTL, room).ok()?
        }
        _ => return None,
    };
    error.truncate(bytes);
    let parsed = flow::parse(error.data()).ok()?;
    Some((error, Note { parsed, port: note.port, origin: Origin::Own }))
}

impl Complaint {
    fn v4(self) -> icmpv4::Error {
        match self {
            Self::TimeExceeded => icmpv4::Error::TimeExceeded,
            Self::NoRoute => icmpv4::Error::DestinationUnreachable { code: icmpv4::unreachable::NET },
            Self::TooBig { mtu } => icmpv4::Error::FragmentationNeeded { next_hop_mtu: mtu },
        }
    }

    fn v6(self) -> icmpv6::Error {
        match self {
            Self::TimeExceeded => icmpv6::Error::TimeExceeded,
            Self::NoRoute => icmpv6::Error::DestinationUnreachable { code: icmpv6::unreachable::NO_ROUTE },
            // RFC 8200 §5: no IPv6 link is below 1,280; below that the tunnel fragments or drops.
            Self::TooBig { mtu } => icmpv6::Error::PacketTooBig { mtu: u32::from(mtu.max(ipv6::MIN_MTU)) },
        }
    }
}
