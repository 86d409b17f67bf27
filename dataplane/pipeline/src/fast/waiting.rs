// SPDX-License-Identifier: Apache-2.0
//! Plain packets of tunnels with a service policy: into their queues, and out again when it is their turn.
//!
//! What [`crate::scheduled`] does for any packet.

use arrayvec::ArrayVec;
use messages::{DropReason, PortIndex};
use pktbuf::{BURST, Packet};
use qos::classify::WholeV4;
use tables::{Class, Queue};
use wire::IpProtocol;

use super::framing::LastHop;
use super::outbound::{self, Departure, Departures, Way};
use super::plain::{Plain, TCP_FLAGS_OFFSET, TOS_OFFSET};
use crate::context::Context;
use crate::lane::Lane;
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
    for (packets, run) in lane.runs_mut(Departure::goes_with) {
        let Some(way) = run.first().and_then(|first| ways.get(first.way)) else { continue };
        let whole = packets.iter().zip(run).map(|(packet, departure)| whole_of(packet, departure));
        if let Some(queue) = way.services.queue {
            queue.at_work.classify_v4(whole, ingress, way.tunnel, (ctx.flows, &mut classes));
        }
    }
    let (mut classes, mut due) = (classes.into_iter(), Lane::default());
    for (packet, departure) in lane.drain() {
        match ways.get(departure.way).and_then(|way| Some((way, way.services.queue?))) {
            Some(waits) => match classes.next() {
                Some(class) => wait_one(ctx, packet, &departure, waits, class),
                None => ctx.drop(packet, DropReason::NoBuffer),
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
    let l3_bytes = way.sealed_bytes(plain);
    let item = |packet, generation| Item::plain(packet, generation, way.tunnel);
    scheduled::enqueue_as(ctx, packet, (queue, class), tos, l3_bytes, item);
}

/// Sends what the scheduler of a port has let go, each with its mark.
pub(crate) fn leave(ctx: &mut Context<'_>, port: PortIndex, due: &mut ArrayVec<(Item, bool), BURST>) {
    let plains: ArrayVec<Plain, BURST> = due.iter().map(|due| plain_of(ctx, due)).collect();
    let (mut departures, mut last_hop) = (Departures::default(), LastHop::default());
    let mut to_seal = Lane::default();
    for ((item, mark), plain) in due.drain(..).zip(&plains) {
        let common = item.tunnel().filter(|_| *plain != Plain::NONE);
        match common.and_then(|tunnel| departures.find(ctx, &mut last_hop, (plain, 0), tunnel)) {
            Some(departure) => {
                whole::seal(ctx, &mut to_seal);
                departures.push(ctx, item.into_packet(), departure);
            }
            None => {
                outbound::send_due(ctx, &mut departures);
                departures.forget();
                last_hop = LastHop::default();
                scheduled::leave_one(ctx, port, item, mark, &mut to_seal);
            }
        }
    }
    outbound::send_due(ctx, &mut departures);
    whole::seal(ctx, &mut to_seal);
}

/// The packet, if it was plain and nothing has changed since.
#[inline(always)]
fn plain_of(ctx: &Context<'_>, (item, mark): &(Item, bool)) -> Plain {
    let is_as_it_was = item.is_plain() && !item.is_older_than(ctx.tables.number) && !mark;
    is_as_it_was.then(|| Plain::parse(item.packet().data())).flatten().unwrap_or(Plain::NONE)
}
