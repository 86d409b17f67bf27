// SPDX-License-Identifier: Apache-2.0
//! ICMP errors about packets that end here (RFC 792, RFC 1812 §4.3, RFC 4443): the packet is dropped for its reason,
//! and its sender told, within the rate limit.

use core::net::IpAddr;

use messages::{DropReason, PortIndex, PortSide, WorkerCounter};
use pktbuf::Packet;
use tables::PortEntry;
use wire::{Family, flow, icmpv4, icmpv6, ipv6};

use crate::context::{Context, Note, Origin};
use crate::local::originate;
use crate::outgoing::Outgoing;

/// Hops that an error may make.
const TTL: u8 = 64;

/// What an error says, in both families.
#[derive(Clone, Copy)]
enum Complaint {
    TimeExceeded,
    NoRoute,
    NoAnswer,
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

/// The neighbour on `port` that the packet goes to did not answer (RFC 4861 §7.2.2, RFC 1812 §5.2.7.1). Its sender is
/// told unless it was sealed or made here, be it the delivery header only.
pub(crate) fn neighbor_unresolved(ctx: &mut Context<'_>, port: PortIndex, outgoing: Outgoing) {
    let is_in_clear = outgoing.is_in_clear();
    let packet = outgoing.into_packet();
    match flow::parse(packet.data()) {
        Ok(parsed) if is_in_clear && !ctx.tables.addresses.is_local(&parsed.source) => {
            let note = Note { parsed, port, origin: Origin::Port };
            complain(ctx, packet, &note, Complaint::NoAnswer, DropReason::NeighborUnresolved);
        }
        _ => ctx.drop(packet, DropReason::NeighborUnresolved),
    }
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
    if note.origin == Origin::Own || !complaint.may_be_about(packet, note) {
        return None;
    }
    let source = source(ctx, note)?;
    if !ctx.limiter.allow(ctx.now_ns) {
        return None;
    }
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

/// The address to complain from. A packet out of a tunnel has seen the inside only: an address of a protected port,
/// if there is one. Otherwise one of the port that the packet came in by, or else of any (RFC 1812 §4.3.2.4).
fn source(ctx: &Context<'_>, note: &Note) -> Option<IpAddr> {
    let family = note.parsed.family;
    let of = |port: &PortEntry| match family {
        Family::Ipv4 => port.v4_source.map(IpAddr::V4),
        Family::Ipv6 => port.v6_source.map(IpAddr::V6),
    };
    let ports = &ctx.tables.ports;
    let inside =
        || ports.iter().filter(|(_, port)| port.side == PortSide::Protected).find_map(|(_, p)| of(p));
    let near = || ctx.tables.addresses.source_for(note.port, &note.parsed.source);
    let any = || ports.iter().find_map(|(_, port)| of(port));
    if note.origin == Origin::Port { near().or_else(any) } else { inside().or_else(near).or_else(any) }
}

impl Complaint {
    /// Whether the RFCs allow it (RFC 1812 §4.3.2.7, RFC 4443 §2.4 e).
    fn may_be_about(self, packet: &Packet, note: &Note) -> bool {
        match note.parsed.family {
            Family::Ipv4 => icmpv4::may_send_error(packet.data()),
            Family::Ipv6 => icmpv6::may_send_error(packet.data(), self.v6()),
        }
    }

    fn v4(self) -> icmpv4::Error {
        match self {
            Self::TimeExceeded => icmpv4::Error::TimeExceeded,
            Self::NoRoute => icmpv4::Error::DestinationUnreachable { code: icmpv4::unreachable::NET },
            Self::NoAnswer => icmpv4::Error::DestinationUnreachable { code: icmpv4::unreachable::HOST },
            Self::TooBig { mtu } => icmpv4::Error::FragmentationNeeded { next_hop_mtu: mtu },
        }
    }

    fn v6(self) -> icmpv6::Error {
        match self {
            Self::TimeExceeded => icmpv6::Error::TimeExceeded,
            Self::NoRoute => icmpv6::Error::DestinationUnreachable { code: icmpv6::unreachable::NO_ROUTE },
            Self::NoAnswer => icmpv6::Error::DestinationUnreachable { code: icmpv6::unreachable::ADDRESS },
            // RFC 8200 §5: no IPv6 link is below 1,280; below that the tunnel fragments or drops.
            Self::TooBig { mtu } => icmpv6::Error::PacketTooBig { mtu: u32::from(mtu.max(ipv6::MIN_MTU)) },
        }
    }
}
