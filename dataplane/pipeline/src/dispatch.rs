// SPDX-License-Identifier: Apache-2.0
//! Where an IP packet goes next: to us (ESP, GRE, ICMP), or onward. The SPD of an unprotected port is asked
//! here for whatever came in by it in clear (RFC 4301 §5.2).

use core::net::IpAddr;

use messages::DropReason;
use pktbuf::Packet;
use wire::address::is_host;
use wire::flow::{Fragment, Parsed};
use wire::{Family, IpProtocol, ipv6};

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

impl Lanes {
    /// Whether no packet is on its way.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.esp.is_empty() && self.gre.is_empty() && self.forward.is_empty()
    }
}

/// Sorts one packet into the lanes, or ends its way.
pub(crate) fn dispatch(ctx: &mut Context<'_>, packet: Packet, note: Note, lanes: &mut Lanes) {
    let parsed = &note.parsed;
    if has_ipv4_options(parsed) {
        return ctx.drop(packet, DropReason::IpOptions);
    }
    if neighbor::is_discovery(&packet, &note) {
        return neighbor::discovery(ctx, packet, &note);
    }
    if !is_unicast(ctx, &parsed.source) || ctx.tables.addresses.is_local(&parsed.source) {
        return ctx.drop(packet, DropReason::SourceInvalid);
    }
    if ctx.tables.addresses.is_local(&parsed.destination) {
        return for_us(ctx, packet, note, lanes);
    }
    if !is_unicast(ctx, &parsed.destination) || is_link_local(&parsed.destination) {
        return ctx.drop(packet, DropReason::DestinationInvalid);
    }
    if is_link_local(&parsed.source) {
        return ctx.drop(packet, DropReason::SourceInvalid);
    }
    match policy::inbound(ctx, &note) {
        Ok(()) => onward(ctx, packet, note, lanes),
        Err(reason) => ctx.drop(packet, reason),
    }
}

/// Whether a packet has what nothing here takes.
pub(crate) fn has_ipv4_options(parsed: &Parsed) -> bool {
    parsed.family == Family::Ipv4 && parsed.has_options
}

/// Whether an address is one host's: not a group, nor a broadcast address of a prefix that we are connected to.
pub(crate) fn is_unicast(ctx: &Context<'_>, address: &IpAddr) -> bool {
    is_host(*address) && !ctx.tables.addresses.is_broadcast(address)
}

/// What stays on its link and is never forwarded (RFC 4291 §2.5.6, RFC 3927 §7).
fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn for_us(ctx: &mut Context<'_>, packet: Packet, note: Note, lanes: &mut Lanes) {
    if has_segments_left(&packet, &note.parsed) {
        return ctx.drop(packet, DropReason::IpExtensionHeaders);
    }
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

/// Whether a Routing header names more nodes to go to: a kind that we do not know, so that the packet ends here
/// (RFC 8200 §4.4, RFC 5095).
fn has_segments_left(packet: &Packet, parsed: &Parsed) -> bool {
    let has_extensions =
        parsed.family == Family::Ipv6 && usize::from(parsed.header_bytes) != ipv6::HEADER_BYTES;
    has_extensions && !ipv6::upper_layer(packet.data()).is_ok_and(|upper| upper.segments_left == 0)
}

fn onward(ctx: &mut Context<'_>, packet: Packet, note: Note, lanes: &mut Lanes) {
    if let Err(packet) = lanes.forward.push(packet, note) {
        ctx.drop(packet, DropReason::NoBuffer);
    }
}
