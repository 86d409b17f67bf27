// SPDX-License-Identifier: Apache-2.0
//! Where an IP packet goes next: to us (ESP, GRE, ICMP), or onward. The SPD of an unprotected port is asked
//! here for whatever came in by it in clear (RFC 4301 §5.2).

use messages::DropReason;
use pktbuf::Packet;
use wire::address::is_host;
use wire::flow::Fragment;
use wire::{Family, IpProtocol};

use crate::context::{Context, Note, Origin};
use crate::gre::GreNote;
use crate::inbound::EspNote;
use crate::lane::Lane;
use crate::{local, neighbor, policy};

/// The ways on from here.
#[derive(Default)]
pub(crate) struct Lanes {
    /// ESP packets for us, outer IP header in front.
    pub esp: Lane<EspNote>,
    /// GRE packets for us, delivery header in front.
    pub gre: Lane<GreNote>,
    /// Packets to route.
    pub forward: Lane<Note>,
}

/// Sorts one packet into the lanes, or ends its way.
pub(crate) fn dispatch(ctx: &mut Context<'_>, packet: Packet, note: Note, lanes: &mut Lanes) {
    let parsed = &note.parsed;
    if parsed.family == Family::Ipv4 && parsed.has_options {
        return ctx.drop(packet, DropReason::IpOptions);
    }
    if neighbor::is_discovery(&packet, &note) {
        return neighbor::discovery(ctx, packet, &note);
    }
    if !is_host(parsed.source) || ctx.tables.addresses.is_local(&parsed.source) {
        return ctx.drop(packet, DropReason::SourceInvalid);
    }
    if ctx.tables.addresses.is_local(&parsed.destination) {
        return for_us(ctx, packet, note, lanes);
    }
    if !is_host(parsed.destination) || ctx.tables.addresses.is_broadcast(&parsed.destination) {
        return ctx.drop(packet, DropReason::DestinationInvalid);
    }
    match policy::inbound(ctx, &note) {
        Ok(()) => onward(ctx, packet, note, lanes),
        Err(reason) => ctx.drop(packet, reason),
    }
}

fn for_us(ctx: &mut Context<'_>, packet: Packet, note: Note, lanes: &mut Lanes) {
    let from_port = note.origin == Origin::Port;
    match note.parsed.protocol {
        IpProtocol::ESP if note.parsed.fragment != Fragment::None => {
            ctx.drop(packet, DropReason::EspFragment)
        }
        _ if note.parsed.fragment != Fragment::None => ctx.drop(packet, DropReason::LocalFragment),
        IpProtocol::ESP if from_port => {
            if let Err(packet) = lanes.esp.push(packet, EspNote::new(&note)) {
                ctx.drop(packet, DropReason::NoBuffer);
            }
        }
        IpProtocol::GRE if from_port => {
            if let Err(packet) = lanes.gre.push(packet, GreNote::clear(&note)) {
                ctx.drop(packet, DropReason::NoBuffer);
            }
        }
        _ => match policy::inbound(ctx, &note) {
            Ok(()) => local::deliver(ctx, packet, note),
            Err(reason) => ctx.drop(packet, reason),
        },
    }
}

fn onward(ctx: &mut Context<'_>, packet: Packet, note: Note, lanes: &mut Lanes) {
    if let Err(packet) = lanes.forward.push(packet, note) {
        ctx.drop(packet, DropReason::NoBuffer);
    }
}
