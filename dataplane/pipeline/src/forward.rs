// SPDX-License-Identifier: Apache-2.0
//! Routing of one packet: hop limit, longest prefix, and where it leaves.

use messages::{DropReason, TunnelIndex};
use pktbuf::Packet;
use tables::NextStep;
use wire::{Family, ipv4, ipv6};

use crate::context::{Context, Note, Origin};
use crate::icmp;
use crate::lane::Lane;
use crate::link::Hop;

/// The ways on from here, each with what the routes said.
#[derive(Default)]
pub(crate) struct Routed {
    /// Into a tunnel.
    pub tunnel: Lane<(Note, TunnelIndex)>,
    /// Out of a port, as it is or under its SPD.
    pub port: Lane<(Note, Hop)>,
}

/// Routes a burst.
pub(crate) fn route(ctx: &mut Context<'_>, lane: &mut Lane<Note>, routed: &mut Routed) {
    for (packet, note) in lane.drain() {
        route_one(ctx, packet, note, routed);
    }
}

fn route_one(ctx: &mut Context<'_>, mut packet: Packet, mut note: Note, routed: &mut Routed) {
    if note.origin != Origin::Own && !spend_hop(&mut packet, &mut note) {
        return icmp::time_exceeded(ctx, packet, &note);
    }
    let pushed = match ctx.tables.routes.lookup(&note.parsed.destination) {
        Some(NextStep::Port { port, neighbor }) => routed.port.push(packet, (note, Hop { port, neighbor })),
        Some(NextStep::Tunnel(tunnel)) => routed.tunnel.push(packet, (note, tunnel)),
        Some(NextStep::Discard) => return ctx.drop(packet, DropReason::RouteDiscard),
        None => return icmp::unreachable(ctx, packet, &note),
    };
    if let Err(packet) = pushed {
        ctx.drop(packet, DropReason::NoBuffer);
    }
}

/// Takes one hop off TTL or hop limit (RFC 1812 §5.3.1); false if there is none to take.
pub(crate) fn spend_hop(packet: &mut Packet, note: &mut Note) -> bool {
    let data = packet.data_mut();
    let spent = match note.parsed.family {
        Family::Ipv4 => ipv4::Header::split_mut(data).is_ok_and(|(header, _)| header.decrement_ttl().is_ok()),
        Family::Ipv6 => {
            ipv6::Header::split_mut(data).is_ok_and(|(header, _)| header.decrement_hop_limit().is_ok())
        }
    };
    note.parsed.ttl = note.parsed.ttl.saturating_sub(u8::from(spent));
    spent
}
