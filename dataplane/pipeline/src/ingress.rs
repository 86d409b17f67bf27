// SPDX-License-Identifier: Apache-2.0
//! First stage: Ethernet. ARP is answered here; IP packets lose their link header and trailing padding.

use messages::{DropReason, PortIndex};
use pktbuf::Packet;
use wire::flow::{self, Parsed};
use wire::{EtherType, Family, MacAddr, ParseError, ethernet, vlan};

use crate::context::{Context, Note, Origin};
use crate::dispatch::Lanes;
use crate::{dispatch, neighbor};

/// Takes a frame as the device gave it.
pub(crate) fn receive(ctx: &mut Context<'_>, port: PortIndex, frame: Packet, lanes: &mut Lanes) {
    match link_header(ctx, port, frame) {
        Some((packet, EtherType::ARP, _)) => neighbor::arp(ctx, port, packet),
        Some((packet, ether_type, to_group)) => {
            network_header(ctx, port, packet, (ether_type, to_group), lanes);
        }
        None => {}
    }
}

/// Takes packets at their IP header, as another worker handed them over.
pub(crate) fn take_over(ctx: &mut Context<'_>, port: PortIndex, packet: Packet, lanes: &mut Lanes) {
    match parse(packet) {
        Ok((packet, parsed)) => {
            dispatch::dispatch(ctx, packet, Note { parsed, port, origin: Origin::Port }, lanes);
        }
        Err((packet, reason)) => ctx.drop(packet, reason),
    }
}

/// Strips the link header of a frame that is for us; tells the type of what it carries, and whether it was sent to a
/// group.
fn link_header(
    ctx: &mut Context<'_>,
    port: PortIndex,
    mut packet: Packet,
) -> Option<(Packet, EtherType, bool)> {
    let link = match vlan::parse_link(packet.data()) {
        Ok(link) => link,
        Err(error) => {
            let reason = link_drop_reason(error, packet.data());
            ctx.drop(packet, reason);
            return None;
        }
    };
    if ctx.tables.ports.get(port).is_none() {
        ctx.drop(packet, DropReason::PortDown);
        return None;
    }
    let to_group = is_group(link.destination);
    if link.destination != ctx.mac(port) && !to_group {
        ctx.drop(packet, DropReason::NotForUs);
        return None;
    }
    if link.vlan != wire::VlanId::NONE {
        ctx.drop(packet, DropReason::VlanUnknown);
        return None;
    }
    if let Some(priority) = link.priority {
        packet.note_vlan_priority(priority);
    }
    let is_known = matches!(link.ether_type, EtherType::ARP | EtherType::IPV4 | EtherType::IPV6);
    if !is_known || packet.trim_front(usize::from(link.header_bytes)).is_err() {
        ctx.drop(packet, DropReason::EthertypeUnknown);
        return None;
    }
    Some((packet, link.ether_type, to_group))
}

/// An 802.3 length stands where an EtherType should, a tag has the VLAN id 4095, or the frame ends too soon.
pub(crate) fn link_drop_reason(error: ParseError, frame: &[u8]) -> DropReason {
    match (error, ethernet::Header::split(frame)) {
        (ParseError::BadValue, Ok((header, payload))) if header.ether_type() == EtherType::VLAN => {
            match vlan::Header::split(payload) {
                Ok((tag, _)) if wire::VlanId::new(tag.id()).is_none() => DropReason::VlanUnknown,
                _ => DropReason::EthertypeUnknown,
            }
        }
        (ParseError::BadValue, _) => DropReason::EthertypeUnknown,
        _ => DropReason::EthernetTruncated,
    }
}

fn network_header(
    ctx: &mut Context<'_>,
    port: PortIndex,
    packet: Packet,
    (ether_type, to_group): (EtherType, bool),
    lanes: &mut Lanes,
) {
    let (packet, parsed) = match parse(packet) {
        Ok(parsed) => parsed,
        Err((packet, reason)) => return ctx.drop(packet, reason),
    };
    if (ether_type == EtherType::IPV6) != (parsed.family == Family::Ipv6) {
        return ctx.drop(packet, DropReason::IpMalformed);
    }
    let note = Note { parsed, port, origin: Origin::Port };
    // What was sent to everybody on the link is nobody's to forward (RFC 1812 §5.3.4, RFC 1122 §3.3.6).
    if to_group && dispatch::is_unicast(ctx, &parsed.destination) && !neighbor::is_discovery(&packet, &note) {
        return ctx.drop(packet, DropReason::NotForUs);
    }
    dispatch::dispatch(ctx, packet, note, lanes);
}

/// Parses the IP packet at the front of the buffer and cuts what follows it.
#[inline]
pub(crate) fn parse(mut packet: Packet) -> Result<(Packet, Parsed), (Packet, DropReason)> {
    match flow::parse(packet.data()) {
        Ok(parsed) => {
            packet.truncate(usize::from(parsed.total_bytes));
            Ok((packet, parsed))
        }
        Err(error) => Err((packet, drop_reason(error))),
    }
}

fn drop_reason(error: ParseError) -> DropReason {
    match error {
        ParseError::BadChecksum => DropReason::IpChecksum,
        ParseError::TooManyExtensionHeaders | ParseError::MisplacedExtensionHeader => {
            DropReason::IpExtensionHeaders
        }
        _ => DropReason::IpMalformed,
    }
}

fn is_group(address: MacAddr) -> bool {
    address.0[0] & 1 != 0
}
