// SPDX-License-Identifier: Apache-2.0
//! Packets for our own addresses that are neither ESP nor GRE: echo requests are answered, the rest is dropped.
//!
//! Not here yet: the exception port, which will give what is left to the kernel.

use messages::{DropReason, WorkerCounter};
use pktbuf::Packet;
use wire::{Family, IpProtocol, icmpv4, icmpv6};

use crate::context::{Context, Note, Origin};
use crate::ingress;

/// Hops that an echo reply may make.
const REPLY_TTL: u8 = 64;

/// Ends the way of a packet that is for us.
pub(crate) fn deliver(ctx: &mut Context<'_>, packet: Packet, note: Note) {
    match (note.parsed.family, note.parsed.protocol) {
        (Family::Ipv4, IpProtocol::ICMP) | (Family::Ipv6, IpProtocol::ICMPV6) => echo(ctx, packet, note),
        _ => ctx.drop(packet, DropReason::LocalProtocol),
    }
}

/// Turns an echo request into its reply, in place.
fn echo(ctx: &mut Context<'_>, mut packet: Packet, note: Note) {
    if !answers_ping(ctx, &note) {
        return ctx.drop(packet, DropReason::LocalIcmp);
    }
    let replied = match note.parsed.family {
        Family::Ipv4 => icmpv4::reply_to_echo(packet.data_mut(), REPLY_TTL, ctx.identification.next()),
        Family::Ipv6 => icmpv6::reply_to_echo(packet.data_mut(), REPLY_TTL),
    };
    if replied.is_err() {
        return ctx.drop(packet, DropReason::LocalIcmp);
    }
    match ingress::parse(packet) {
        Ok((reply, parsed)) => {
            ctx.counters.add(WorkerCounter::Consumed, 1);
            originate(ctx, reply, Note { parsed, port: note.port, origin: Origin::Own });
        }
        Err((packet, reason)) => ctx.drop(packet, reason),
    }
}

/// The port that has the address decides; for a loopback address the one that the request came in by.
fn answers_ping(ctx: &Context<'_>, note: &Note) -> bool {
    let home = ctx.tables.addresses.local(&note.parsed.destination).and_then(|local| local.port);
    ctx.tables.ports.get(home.unwrap_or(note.port)).is_some_and(|port| port.answer_ping)
}

/// Sends an IP packet of ours on its way after this burst.
pub(crate) fn originate(ctx: &mut Context<'_>, packet: Packet, note: Note) {
    ctx.counters.add(WorkerCounter::Originated, 1);
    if let Err(packet) = ctx.originated.push(packet, note) {
        ctx.drop(packet, DropReason::NoBuffer);
    }
}
