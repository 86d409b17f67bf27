// SPDX-License-Identifier: Apache-2.0
//! ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861 §7.2): answering, learning, asking, and letting packets wait.
//!
//! Not here: router discovery, redirects, and the ageing of what is known (`tables::Neighbors`).

use core::net::{IpAddr, Ipv6Addr};

use messages::{DropReason, PortIndex};
use pktbuf::Packet;
use tables::{Ask, NeighborIndex, NextHop, NextStep};
use wire::flow::Fragment;
use wire::ndp::{self, Message};
use wire::{EtherType, Family, IpProtocol, MacAddr, arp, ethernet, icmpv6};

use crate::context::{Context, Note, Origin};
use crate::outgoing::Outgoing;
use crate::waiting::Waiter;
use crate::{icmp, link, policy};

/// Answers a request for an address of the port, and learns from what is meant for us. The link header is off.
pub(crate) fn arp(ctx: &mut Context<'_>, port: PortIndex, packet: Packet) {
    let Ok(message) = arp::Repr::parse(packet.data()) else {
        return ctx.drop(packet, DropReason::ArpMalformed);
    };
    let sender = IpAddr::V4(message.sender_protocol);
    let for_us = ctx.tables.addresses.on_port(port, &IpAddr::V4(message.target_protocol));
    if ctx.tables.addresses.is_local(&sender) {
        return ctx.drop(packet, DropReason::SourceInvalid);
    }
    learn(ctx, port, sender, message.sender_hardware, for_us && !message.sender_protocol.is_unspecified());
    if for_us && message.operation == arp::Operation::REQUEST {
        send_arp(ctx, port, &message.reply(ctx.mac(port)));
    }
    ctx.consume(packet);
}

/// Whether this is neighbour discovery, which the SPD has no say in.
pub(crate) fn is_discovery(packet: &Packet, note: &Note) -> bool {
    let may_be = note.parsed.family == Family::Ipv6
        && note.parsed.protocol == IpProtocol::ICMPV6
        && note.origin == Origin::Port
        && note.parsed.fragment != Fragment::Later;
    if !may_be {
        return false;
    }
    let kind = note.parsed.upper_layer(packet.data()).first().map(|kind| icmpv6::Type(*kind));
    matches!(kind, Some(icmpv6::Type::NEIGHBOR_SOLICITATION | icmpv6::Type::NEIGHBOR_ADVERTISEMENT))
}

/// Answers a solicitation for an address of the port, and learns from advertisements.
pub(crate) fn discovery(ctx: &mut Context<'_>, packet: Packet, note: &Note) {
    let Ok(message) = Message::parse(packet.data()) else {
        return ctx.drop(packet, DropReason::NdMalformed);
    };
    let source = IpAddr::V6(message.source);
    if ctx.tables.addresses.is_local(&source) {
        return ctx.drop(packet, DropReason::SourceInvalid);
    }
    match message.repr {
        ndp::Repr::NeighborSolicitation { target, source_link_layer } => {
            if ctx.tables.addresses.on_port(note.port, &IpAddr::V6(target)) {
                answer_solicitation(ctx, note.port, &message, source_link_layer);
            }
        }
        ndp::Repr::NeighborAdvertisement { target, target_link_layer: Some(mac), overrides, .. } => {
            // Without the override flag it may fill in an address, not change one (RFC 4861 §7.2.5).
            if overrides || known_mac(ctx, note.port, target).is_none_or(|known| known == mac) {
                learn(ctx, note.port, IpAddr::V6(target), mac, false);
            }
        }
        ndp::Repr::NeighborAdvertisement { target_link_layer: None, .. } => {}
    }
    ctx.consume(packet);
}

/// Holds a packet until its neighbour answers, and asks if it is time to.
pub(crate) fn wait(ctx: &mut Context<'_>, port: PortIndex, neighbor: NeighborIndex, outgoing: Outgoing) {
    if ask(ctx, port, neighbor) == Ask::GaveUp {
        return icmp::neighbor_unresolved(ctx, port, outgoing);
    }
    let since = (ctx.tables.number, ctx.now_ns);
    if let Err(outgoing) = ctx.waiting.hold(port, neighbor, outgoing, since) {
        ctx.drop(outgoing.into_packet(), DropReason::NeighborPending);
    }
}

/// Sends what has been answered, drops what waited too long, and asks again.
pub(crate) fn tick(ctx: &mut Context<'_>) {
    if ctx.waiting.is_empty() {
        return;
    }
    release(ctx);
    let now_ns = ctx.now_ns;
    while let Some(waiter) = ctx.waiting.take(|waiter| waiter.is_overdue(now_ns)) {
        icmp::neighbor_unresolved(ctx, waiter.port, waiter.outgoing);
    }
    for place in 0..ctx.waiting.len() {
        if let Some((port, neighbor)) = ctx.waiting.awaited(place) {
            ask(ctx, port, neighbor);
        }
    }
}

/// Sends every packet whose neighbour is known by now, oldest first.
pub(crate) fn release(ctx: &mut Context<'_>) {
    let neighbors = ctx.neighbors;
    while let Some(waiter) = ctx.waiting.take(|waiter| neighbors.mac(waiter.neighbor).is_some()) {
        let mac = neighbors.mac(waiter.neighbor).ok_or(DropReason::NeighborUnresolved);
        match mac.and_then(|mac| may_still_leave(ctx, &waiter).map(|()| mac)) {
            Ok(mac) => link::transmit(ctx, waiter.port, MacAddr(mac), waiter.outgoing),
            Err(reason) => ctx.drop(waiter.outgoing.into_packet(), reason),
        }
    }
}

/// A packet that waited while tables were switched leaves as the tables in force would let it.
fn may_still_leave(ctx: &Context<'_>, waiter: &Waiter) -> Result<(), DropReason> {
    if waiter.generation == ctx.tables.number {
        return Ok(());
    }
    let port = ctx.tables.ports.get(waiter.port).ok_or(DropReason::PortDown)?;
    if waiter.outgoing.packet().len() > usize::from(port.mtu) {
        return Err(DropReason::MtuChanged);
    }
    if waiter.outgoing.is_in_clear() {
        policy::still_clear(ctx, waiter.port, waiter.outgoing.packet())?;
    }
    Ok(())
}

/// RFC 826: an address that is known is updated by anyone; a new one is taken only from who speaks to us.
fn learn(ctx: &mut Context<'_>, port: PortIndex, address: IpAddr, mac: MacAddr, create: bool) {
    let known = ctx.neighbors.update(port, &address, mac.0, ctx.now_ns);
    if !known
        && create
        && is_on_link(ctx, port, &address)
        && let Ok(neighbor) = ctx.neighbors.ensure(port, &address)
    {
        ctx.neighbors.learn(neighbor, mac.0, ctx.now_ns);
    }
    if known && !ctx.waiting.is_empty() {
        release(ctx);
    }
}

/// Whether the port leads to this address without a router: others are nobody's neighbours, and would fill the table.
fn is_on_link(ctx: &Context<'_>, port: PortIndex, address: &IpAddr) -> bool {
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let step = ctx.tables.routes.lookup(address);
    is_link_local
        || matches!(step, Some(NextStep::Port { port: by, neighbor: NextHop::Connected }) if by == port)
}

/// Sends a question if it is time to; says what the table thinks of the neighbour.
pub(crate) fn ask(ctx: &mut Context<'_>, port: PortIndex, neighbor: NeighborIndex) -> Ask {
    let answer = ctx.neighbors.ask(neighbor, ctx.now_ns);
    if let (Ask::Now { .. }, Some((_, target))) = (answer, ctx.neighbors.address(neighbor)) {
        send_question(ctx, port, target);
    }
    answer
}

fn send_question(ctx: &mut Context<'_>, port: PortIndex, target: IpAddr) {
    match (target, ctx.tables.addresses.source_for(port, &target)) {
        (IpAddr::V4(target), Some(IpAddr::V4(source))) => {
            send_arp(ctx, port, &arp::Repr::request(ctx.mac(port), source, target));
        }
        (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
            let message = Message::solicit(source, ctx.mac(port), target);
            send_discovery(ctx, port, MacAddr::of_ipv6_multicast(message.destination), &message);
        }
        _ => {}
    }
}

fn send_arp(ctx: &mut Context<'_>, port: PortIndex, message: &arp::Repr) {
    let Some(mut frame) = ctx.pool.alloc() else { return };
    let written = frame.append(ethernet::MIN_FRAME_BYTES).is_ok_and(|bytes| {
        bytes.fill(0);
        let (header, body) = bytes.split_at_mut(ethernet::HEADER_BYTES);
        message.ethernet().emit(header).is_ok() && message.emit(body).is_ok()
    });
    if written {
        link::send_own(ctx, port, frame);
    }
}

fn answer_solicitation(
    ctx: &mut Context<'_>,
    port: PortIndex,
    message: &Message,
    source_link_layer: Option<MacAddr>,
) {
    let Some(answer) = message.answer(ctx.mac(port)) else { return };
    let destination = match source_link_layer {
        Some(mac) => {
            learn(ctx, port, IpAddr::V6(message.source), mac, true);
            mac
        }
        None if answer.destination == ndp::ALL_NODES => MacAddr::of_ipv6_multicast(ndp::ALL_NODES),
        // A solicitation from a known neighbour may leave its address out (RFC 4861 §4.3).
        None => match known_mac(ctx, port, answer.destination) {
            Some(mac) => mac,
            None => return,
        },
    };
    send_discovery(ctx, port, destination, &answer);
}

fn known_mac(ctx: &Context<'_>, port: PortIndex, address: Ipv6Addr) -> Option<MacAddr> {
    let neighbor = ctx.neighbors.find(port, &IpAddr::V6(address))?;
    ctx.neighbors.mac(neighbor).map(MacAddr)
}

fn send_discovery(ctx: &mut Context<'_>, port: PortIndex, destination: MacAddr, message: &Message) {
    let Some(mut frame) = ctx.pool.alloc() else { return };
    let header = ethernet::Repr { destination, source: ctx.mac(port), ether_type: EtherType::IPV6 };
    let written = frame.append(ethernet::HEADER_BYTES + ndp::MAX_PACKET_BYTES).ok().and_then(|bytes| {
        let (link, body) = bytes.split_at_mut(ethernet::HEADER_BYTES);
        header.emit(link).ok()?;
        message.emit(body).ok()
    });
    if let Some(bytes) = written {
        frame.truncate(ethernet::HEADER_BYTES + bytes);
        link::send_own(ctx, port, frame);
    }
}
