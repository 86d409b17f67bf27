// SPDX-License-Identifier: Apache-2.0
//! The way in of a plain ESP packet: SA → open the burst → GRE → a plain packet inside → onward.
//!
//! [`Arrival::find`] changes nothing. Once a packet is open, [`Inner::find`] looks whether what was inside is plain, and
//! [`Inner::onward`] whether it goes a common way; if not, [`crate::inbound::take_out`] goes on with it.

use core::net::IpAddr;

use arrayvec::ArrayVec;
use esp::{OpenError, Opened};
use messages::{DropReason, EspMode, PortIndex, ProtectionIndex, SaIndex};
use pktbuf::{BURST, Packet, prefetch};
use tables::{NextStep, ProtectionEntry, Tunnel};
use wire::{Ecn, EtherType, IpProtocol, MacAddr, ecn, ipv4};

use super::outbound::Departure;
use super::plain::{Plain, is_ordinary};
use super::{Sorter, resolved_hop, spend_hop};
use crate::context::Context;
use crate::dispatch::Lanes;
use crate::inbound::{self, EspNote};
use crate::lane::Lane;
use crate::outgoing::{ClearancePass, Outgoing};
use crate::sad::InboundEntry;
use crate::{ingress, link};

/// GRE's first word without options, and with a key (RFC 2890 §2), both around IPv4.
const GRE_PLAIN: u32 = EtherType::IPV4.0 as u32;
const GRE_WITH_KEY: u32 = 0x2000_0000 | GRE_PLAIN;

/// An ESP packet of an SA of ours.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    tos: u8,
    port: PortIndex,
    entry: &'a InboundEntry,
    protection: &'a ProtectionEntry,
    /// The tunnel that the protection is for, if it is for one.
    tunnel: Option<&'a Tunnel>,
}

impl<'a> Arrival<'a> {
    /// Asks for the memory that [`find`](Self::find) needs.
    #[inline(always)]
    pub(crate) fn prefetch(ctx: &Context<'_>, sa: SaIndex, protection: ProtectionIndex) {
        ctx.tables.protections.prefetch(protection);
        ctx.tables.tunnels.prefetch_users(protection);
        ctx.sad.prefetch_inbound(sa);
    }

    /// The SA of a plain ESP packet, if this worker owns it and the packet goes between its ends. No end is ours that
    /// is not an address of ours, and none is the other's that cannot be another host's: the tables see to that.
    #[inline(always)]
    pub(crate) fn find(
        ctx: &Context<'a>,
        port: PortIndex,
        plain: &Plain,
        (sa, protection): (SaIndex, ProtectionIndex),
    ) -> Option<Self> {
        let protection = ctx.tables.protections.get(protection)?;
        let entry = ctx.sad.inbound(sa)?;
        let is_ours = entry.owner == ctx.worker
            && is(protection.remote, plain.source)
            && is(protection.local, plain.destination);
        is_ours.then_some(())?;
        let tunnel = ctx.tables.tunnels.only_one_of(protection.protection);
        if let Some(tunnel) = tunnel {
            prefetch(tunnel);
        }
        Some(Self { tos: plain.tos, port, entry, protection, tunnel })
    }
}

#[inline(always)]
fn is(address: IpAddr, bits: u32) -> bool {
    matches!(address, IpAddr::V4(address) if address.to_bits() == bits)
}

/// Opens packets, each with its outer header in front, and carries on with what was inside.
pub(crate) fn open<'a>(
    ctx: &mut Context<'a>,
    sorter: &mut Sorter<'a>,
    lane: &mut Lane<Arrival<'a>>,
    lanes: &mut Lanes,
) {
    if lane.is_empty() {
        return;
    }
    let outcomes = inbound::open(ctx, lane, |arrival| Some((ipv4::HEADER_BYTES, &arrival.entry.sa)));
    let inners = look_inside(ctx, lane, &outcomes);
    for (((packet, arrival), outcome), inner) in lane.drain().zip(outcomes).zip(inners) {
        match outcome {
            Ok(opened) => carry_on(ctx, sorter, packet, (&arrival, opened, inner), lanes),
            Err(error) => ctx.drop(packet, inbound::drop_reason(error)),
        }
    }
}

/// Reads what was inside each packet, and asks for the memory that its route needs.
#[inline]
fn look_inside<'a>(
    ctx: &Context<'a>,
    lane: &Lane<Arrival<'a>>,
    outcomes: &[Result<Opened, OpenError>],
) -> ArrayVec<Option<Inner<'a>>, BURST> {
    let mut inners = ArrayVec::new();
    for ((packet, arrival), outcome) in lane.iter().zip(outcomes) {
        let inner = outcome.as_ref().ok().and_then(|opened| Inner::find(packet, arrival, opened));
        if let Some(inner) = &inner {
            inner.tunnel.state.prefetch(ctx.worker);
        }
        inners.push(inner);
    }
    ctx.tables.routes.prefetch_v4(inners.iter().flatten().map(|inner: &Inner<'_>| inner.plain.destination));
    inners
}

#[inline]
fn carry_on<'a>(
    ctx: &mut Context<'a>,
    sorter: &mut Sorter<'a>,
    packet: Packet,
    (arrival, opened, inner): (&Arrival<'a>, Opened, Option<Inner<'a>>),
    lanes: &mut Lanes,
) {
    match inner.and_then(|inner| Some((inner, inner.onward(ctx)?))) {
        Some((inner, onward)) => {
            sorter.common(ctx, lanes);
            inner.carry_out(ctx, sorter, packet, onward);
        }
        None => the_whole_way(ctx, packet, arrival, opened, lanes),
    }
}

/// What has no common way onward.
#[cold]
fn the_whole_way(
    ctx: &mut Context<'_>,
    packet: Packet,
    arrival: &Arrival<'_>,
    opened: Opened,
    lanes: &mut Lanes,
) {
    match ingress::parse(packet) {
        Ok((packet, outer)) => {
            let note = EspNote::known(outer, arrival.port, arrival.protection.protection);
            inbound::take_out(ctx, packet, &note, opened, lanes);
        }
        Err((packet, reason)) => ctx.drop(packet, reason),
    }
}

/// A plain packet that came out of a tunnel.
#[derive(Clone, Copy)]
struct Inner<'a> {
    tunnel: &'a Tunnel,
    /// Where it begins.
    offset: usize,
    plain: Plain,
}

/// Where it goes.
enum Onward<'a> {
    /// Out of a protected port, in clear.
    Port(PortIndex, MacAddr, ClearancePass),
    /// From branch to branch: into another tunnel.
    Tunnel(Departure<'a>),
}

impl<'a> Inner<'a> {
    #[inline(always)]
    fn find(packet: &Packet, arrival: &Arrival<'a>, opened: &Opened) -> Option<Self> {
        let data = packet.data().get(..opened.payload.end)?;
        let tunnel = arrival.tunnel?;
        let (gre_offset, outer_ecn) = delivery_header(data, tunnel, arrival, opened)?;
        let offset = gre_offset + gre_header_bytes(data.get(gre_offset..)?, tunnel)?;
        let plain = Plain::parse(data.get(offset..)?)?;
        let ecn_stays = ecn::decapsulate(outer_ecn, Ecn::of_tos(plain.tos)) == Ok(Ecn::of_tos(plain.tos));
        let is_common = ecn_stays
            && plain.ttl > 1
            && !is(tunnel.destination, plain.destination)
            && !(plain.is_syn && tunnel.mss.is_some());
        is_common.then_some(Self { tunnel, offset, plain })
    }

    /// Its way, if it is a common one.
    #[inline(always)]
    fn onward(&self, ctx: &Context<'a>) -> Option<Onward<'a>> {
        let Self { tunnel, plain, .. } = self;
        let may_pass = is_foreign_host(ctx, plain.source)
            && is_foreign_host(ctx, plain.destination)
            && (!tunnel.strict_source || is_routed_to(ctx, tunnel, plain.source));
        may_pass.then_some(())?;
        match ctx.tables.routes.lookup_v4(plain.destination)? {
            NextStep::Port { port, neighbor } => {
                let entry = ctx.tables.ports.get(port)?;
                let pass = ClearancePass::for_side(entry.side)?;
                (plain.total_bytes <= entry.mtu).then_some(())?;
                let destination = resolved_hop(ctx, port, neighbor, plain.destination)?;
                Some(Onward::Port(port, destination, pass))
            }
            NextStep::Tunnel(tunnel) => Departure::find(ctx, *plain, tunnel).map(Onward::Tunnel),
            NextStep::Discard => None,
        }
    }

    #[inline(always)]
    fn carry_out(
        self,
        ctx: &mut Context<'a>,
        sorter: &mut Sorter<'a>,
        mut packet: Packet,
        onward: Onward<'a>,
    ) {
        self.tunnel.state.count_in(ctx.worker, u64::from(self.plain.total_bytes));
        if packet.trim_front(self.offset).is_err() {
            return ctx.drop(packet, DropReason::GreMalformed);
        }
        packet.truncate(usize::from(self.plain.total_bytes));
        match onward {
            Onward::Port(port, destination, pass) => {
                spend_hop(&mut packet);
                let outgoing = Outgoing::clear(packet, pass);
                link::transmit(ctx, port, destination, outgoing);
            }
            Onward::Tunnel(departure) => sorter.depart(ctx, packet, departure),
        }
    }
}

/// Where GRE begins, and the ECN field around it: behind the outer header in transport mode, behind a plain delivery
/// header in tunnel mode.
#[inline(always)]
fn delivery_header(
    data: &[u8],
    tunnel: &Tunnel,
    arrival: &Arrival<'_>,
    opened: &Opened,
) -> Option<(usize, Ecn)> {
    let ProtectionEntry { local, remote, .. } = arrival.protection;
    let outer_ecn = Ecn::of_tos(arrival.tos);
    match (arrival.protection.mode, opened.next_header) {
        (EspMode::Transport, IpProtocol::GRE) => {
            let is_its_own = tunnel.source == *local && tunnel.destination == *remote;
            is_its_own.then_some((opened.payload.start, outer_ecn))
        }
        (EspMode::Tunnel, IpProtocol::IPV4) => {
            let delivery = Plain::parse(data.get(opened.payload.start..)?)?;
            let is_its_own = delivery.protocol == IpProtocol::GRE
                && is(tunnel.source, delivery.destination)
                && is(tunnel.destination, delivery.source)
                && opened.payload.start + usize::from(delivery.total_bytes) == data.len();
            is_its_own.then_some(())?;
            let combined = ecn::decapsulate(outer_ecn, Ecn::of_tos(delivery.tos)).ok()?;
            Some((opened.payload.start + ipv4::HEADER_BYTES, combined))
        }
        _ => None,
    }
}

/// Length of a GRE header that has nothing but the tunnel's key, if it has one.
#[inline(always)]
fn gre_header_bytes(gre: &[u8], tunnel: &Tunnel) -> Option<usize> {
    let (word, rest) = gre.split_first_chunk()?;
    match (u32::from_be_bytes(*word), tunnel.gre.key) {
        _ if tunnel.gre.sequence => None,
        (GRE_PLAIN, None) => Some(4),
        (GRE_WITH_KEY, Some(key)) => (u32::from_be_bytes(*rest.first_chunk()?) == key).then_some(8),
        _ => None,
    }
}

#[inline(always)]
pub(super) fn is_foreign_host(ctx: &Context<'_>, address: u32) -> bool {
    is_ordinary(address) && ctx.tables.addresses.is_surely_foreign(address)
}

fn is_routed_to(ctx: &Context<'_>, tunnel: &Tunnel, address: u32) -> bool {
    matches!(ctx.tables.routes.lookup_v4(address), Some(NextStep::Tunnel(found)) if found == tunnel.tunnel)
}
