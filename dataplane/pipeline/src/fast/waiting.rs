// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels with a service policy: into their queues, and out again when it is their turn.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex, TunnelIndex, WorkerId};
use pktbuf::{BURST, Packet};
use qos::classify::WholeV4;
use tables::{Class, Queue};
use wire::{Ecn, IpProtocol};

use super::framing::LastHop;
use super::outbound::{self, Departure, Departures, Way};
use super::plain::{Plain, TCP_FLAGS_OFFSET, TOS_OFFSET};
use crate::context::Context;
use crate::lane::Lane;
use crate::outbound::SealNote;
use crate::queues::Item;
use crate::{outbound as whole, scheduled};

/// Queues the packets that have to wait, and leaves the others: classes for all that go one way, then each to its queue.
#[inline(never)]
pub(super) fn wait<'a>(
    ctx: &mut Context<'_>,
    lane: &mut Lane<Departure<'a>>,
    ways: &[Way<'_>],
    ingress: PortIndex,
) {
    if ways.iter().all(|way| way.services.queue.is_none()) {
        return;
    }
    let mut classes: ArrayVec<Class, BURST> = ArrayVec::new();
    let worker = ctx.worker;
    for (packets, run) in lane.runs_mut(Departure::goes_with) {
        let Some(way) = run.first().and_then(|first| ways.get(first.way)) else { continue };
        let whole = packets.iter().zip(run).map(|(packet, departure)| whole_of(packet, departure));
        if let Some(queue) = way.services.queue.filter(|_| way.services.owner_beside(worker).is_none()) {
            queue.at_work.classify_v4(whole, ingress, way.tunnel, (ctx.flows, &mut classes));
        }
    }
    let (mut classes, mut due) = (classes.into_iter(), Lane::default());
    for (packet, departure) in lane.drain() {
        match ways.get(departure.way).and_then(|way| Some((way, way.services.queue?))) {
            Some((way, queue)) => match way.services.owner_beside(worker) {
                Some(owner) => hand_over(ctx, packet, &departure, (way.tunnel, owner), ingress),
                None => match classes.next() {
                    Some(class) => wait_one(ctx, packet, &departure, (way, queue), class),
                    None => ctx.drop(packet, DropReason::NoBuffer),
                },
            },
            // It has room for all that the other had.
            None => drop(due.push(packet, departure)),
        }
    }
    *lane = due;
}

/// What classes look at: the headers, and the 802.1p priority.
#[inline(always)]
pub(super) fn whole_of(packet: &Packet, departure: &Departure<'_>) -> (WholeV4, Option<u8>) {
    let &Plain { source, destination, ports, protocol, .. } = departure.plain;
    let tos = tos_of(packet, departure);
    let tcp_flags = match protocol {
        IpProtocol::TCP => packet.data().get(departure.offset + TCP_FLAGS_OFFSET).copied().unwrap_or(0),
        _ => 0,
    };
    (WholeV4 { source, destination, ports, protocol, tos, tcp_flags }, packet.vlan_priority())
}

/// The ToS that a packet has by now: it may have been marked since it was parsed.
#[inline(always)]
pub(super) fn tos_of(packet: &Packet, departure: &Departure<'_>) -> u8 {
    packet.data().get(departure.offset + TOS_OFFSET).copied().unwrap_or(departure.plain.tos)
}

#[inline(always)]
fn wait_one(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    departure: &Departure<'_>,
    (way, queue): (&Way<'_>, Queue<'_>),
    class: Class,
) {
    let (plain, tos) = (departure.plain, tos_of(&packet, departure));
    if packet.reframe(departure.offset, 0, usize::from(plain.total_bytes)).is_err() {
        return ctx.drop(packet, DropReason::IpMalformed);
    }
    let l3_bytes = match class.set_dscp {
        Some(set) => way.for_tos(ctx, set.tos(Ecn::of_tos(tos))).sealed_bytes(plain),
        None => way.sealed_bytes(plain),
    };
    let item = |packet, generation| Item::plain(packet, generation, way.tunnel);
    scheduled::enqueue_as(ctx, packet, (queue, class), tos, l3_bytes, item);
}

/// Gives a packet to the worker that owns the queues of its tunnel.
#[inline(always)]
fn hand_over(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    departure: &Departure<'_>,
    (tunnel, owner): (TunnelIndex, WorkerId),
    ingress: PortIndex,
) {
    if packet.reframe(departure.offset, 0, usize::from(departure.plain.total_bytes)).is_err() {
        return ctx.drop(packet, DropReason::IpMalformed);
    }
    let item = Item::plain(packet, ctx.tables.number, tunnel);
    scheduled::hand_over(ctx, owner, item, ingress);
}

/// Queues what other workers have handed over for tunnels of this one, each with the port it came in by.
pub(crate) fn join(ctx: &mut Context<'_>, given: &mut ArrayVec<(Item, PortIndex), BURST>) {
    given.iter().for_each(|(item, _)| item.packet().prefetch_data());
    let plains: ArrayVec<Plain, BURST> = given.iter().map(|(item, _)| plain_of(ctx, item)).collect();
    let mut going = Going::default();
    for ((item, ingress), plain) in given.drain(..).zip(&plains) {
        if going.departures.ingress != ingress {
            outbound::send(ctx, &mut going.departures);
            going.departures.ingress = ingress;
        }
        if let Err(item) = going.common(ctx, item, plain) {
            outbound::send(ctx, &mut going.departures);
            scheduled::join_one(ctx, ingress, item, going.exceptions());
        }
    }
    outbound::send(ctx, &mut going.departures);
    whole::seal(ctx, &mut going.to_seal);
}

/// Sends what the scheduler of a port has let go, each with its mark.
pub(crate) fn leave(ctx: &mut Context<'_>, port: PortIndex, due: &mut ArrayVec<(Item, bool), BURST>) {
    let plains: ArrayVec<Plain, BURST> =
        due.iter().map(|(item, mark)| if *mark { Plain::NONE } else { plain_of(ctx, item) }).collect();
    let mut going = Going::default();
    for ((item, mark), plain) in due.drain(..).zip(&plains) {
        if let Err(item) = going.common(ctx, item, plain) {
            outbound::send_due(ctx, &mut going.departures);
            scheduled::leave_one(ctx, port, item, mark, going.exceptions());
        }
    }
    outbound::send_due(ctx, &mut going.departures);
    whole::seal(ctx, &mut going.to_seal);
}

/// Packets that have waited, on their way on: the common ones, and those of the whole way, in their order.
#[derive(Default)]
struct Going<'a, 'c> {
    departures: Departures<'a>,
    last_hop: LastHop,
    to_seal: Lane<SealNote<'c>>,
}

impl<'a, 'c: 'a> Going<'a, 'c> {
    /// Takes a packet that goes the common way, behind the exceptions ahead of it; gives any other back.
    #[inline(always)]
    fn common(&mut self, ctx: &mut Context<'c>, item: Item, plain: &'a Plain) -> Result<(), Item> {
        let tunnel = item.tunnel().filter(|_| *plain != Plain::NONE);
        let found =
            tunnel.and_then(|tunnel| self.departures.find(ctx, &mut self.last_hop, (plain, 0), tunnel));
        let Some(departure) = found else { return Err(item) };
        if !self.to_seal.is_empty() {
            whole::seal(ctx, &mut self.to_seal);
        }
        self.departures.push(ctx, item.into_packet(), departure);
        Ok(())
    }

    /// Where an exception goes. It may change what is known of a way.
    fn exceptions(&mut self) -> &mut Lane<SealNote<'c>> {
        self.departures.forget();
        self.last_hop = LastHop::default();
        &mut self.to_seal
    }
}

/// The packet, if it was plain and nothing has changed since.
#[inline(always)]
fn plain_of(ctx: &Context<'_>, item: &Item) -> Plain {
    let is_as_it_was = item.is_plain() && !item.is_older_than(ctx.tables.number);
    is_as_it_was.then(|| Plain::parse(item.packet().data())).flatten().unwrap_or(Plain::NONE)
}
