// SPDX-License-Identifier: Apache-2.0
//! First stage: Ethernet. ARP is answered here; IP packets lose their link header and trailing padding.

use messages::{DropReason, PortIndex};
use pktbuf::{Batch, Packet};
use wire::flow::{self, Parsed};
use wire::{EtherType, MacAddr, ParseError, vlan};

use crate::context::{Context, Note, Origin};
use crate::dispatch::Lanes;
use crate::{dispatch, neighbor};

/// Takes a burst as the device gave it.
pub(crate) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    for packet in batch.drain(..) {
        match link_header(ctx, port, packet) {
            Some((packet, EtherType::ARP)) => neighbor::arp(ctx, port, packet),
            Some((packet, _)) => network_header(ctx, port, packet, lanes),
            None => {}
        }
    }
}

/// Takes packets at their IP header, as another worker handed them over.
pub(crate) fn take_over(ctx: &mut Context<'_>, port: PortIndex, packet: Packet, lanes: &mut Lanes) {
    network_header(ctx, port, packet, lanes);
}

/// Strips the link header of a frame that is for us; ARP keeps the frame whole.
fn link_header(ctx: &mut Context<'_>, port: PortIndex, mut packet: Packet) -> Option<(Packet, EtherType)> {
    let Ok(link) = vlan::parse_link(packet.data()) else {
        ctx.drop(packet, DropReason::EthernetTruncated);
        return None;
    };
    if ctx.tables.ports.get(port).is_none() {
        ctx.drop(packet, DropReason::PortDown);
        return None;
    }
    if link.destination != ctx.mac(port) && !is_group(link.destination) {
        ctx.drop(packet, DropReason::NotForUs);
        return None;
    }
    if link.vlan != wire::VlanId::NONE {
        ctx.drop(packet, DropReason::VlanUnknown);
        return None;
    }
    match link.ether_type {
        EtherType::ARP => {}
        EtherType::IPV4 | EtherType::IPV6 if packet.trim_front(usize::from(link.header_bytes)).is_ok() => {}
        _ => {
            ctx.drop(packet, DropReason::EthertypeUnknown);
            return None;
        }
    }
    Some((packet, link.ether_type))
}

fn network_header(ctx: &mut Context<'_>, port: PortIndex, packet: Packet, lanes: &mut Lanes) {
    match parse(packet) {
        Ok((packet, parsed)) => {
            dispatch::dispatch(ctx, packet, Note { parsed, port, origin: Origin::Port }, lanes);
        }
        Err((packet, reason)) => ctx.drop(packet, reason),
    }
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
