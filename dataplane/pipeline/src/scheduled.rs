// SPDX-License-Identifier: Apache-2.0
//! Between routing and encapsulation: packets of ports and tunnels with a service policy are metered and marked, and wait for
//! their turn if the policy has queues.
//!
//! [`into_tunnel`] and [`out_of_port`] serve a packet that fits; [`leave`] sends what a port's scheduler lets go. What the
//! packet leaves with (tunnel, SA, template, MTU, SPD entry) is what holds at that moment: sequence numbers are given
//! behind the scheduler, and nothing reorders behind them. Packets that find nothing before them and have their tokens
//! [`pass`].

use core::iter;

use arrayvec::ArrayVec;
use messages::{DropReason, EspMode, PortIndex, TunnelIndex, WorkerId};
use pktbuf::{BURST, Packet};
use qos::schedule::Offer;
use qos::tally::Tally;
use tables::{Arriving, AtWork, Class, NextStep, Queue, Services, SpdVerdict, Tunnel};
use wire::flow::{self, Fragment, HeaderChecksum, Parsed};
use wire::{Dscp, Ecn, IpProtocol, dscp, ecn};

use crate::context::{Context, Note, Origin};
use crate::handovers::HandedOver;
use crate::lane::Lane;
use crate::link::Hop;
use crate::outbound::{self, SealNote};
use crate::queues::{Item, Turn};
use crate::{fast, forward, policy};

/// Frames that may wait for a port's device before its scheduler holds back.
const FRAMES_AHEAD: usize = 2 * BURST;
/// Packets that a port's scheduler lets go in a turn, whether they become frames or not.
const TURN_PACKETS: usize = 4 * BURST;
/// Behind the TCP header's beginning, where its flags are (RFC 9293 §3.1).
pub(crate) const TCP_FLAGS_OFFSET: usize = 13;

/// Meters, marks and queues a packet for a tunnel as its service policies ask; gives it back if it need not wait.
#[inline]
pub(crate) fn into_tunnel(
    ctx: &mut Context<'_>,
    packet: Packet,
    note: &mut Note,
    tunnel: &Tunnel,
) -> Option<Packet> {
    let (tables, encapsulation) = (ctx.tables, &tunnel.encapsulation);
    let Some(egress) = encapsulation.egress else { return Some(packet) };
    let services = tables.quality.tunnel(tunnel.tunnel, egress.port);
    if services.is_none() {
        return Some(packet);
    }
    serve(ctx, packet, note, services, Some(tunnel), |tos, bytes| tunnel.way(tos).wire_bytes(bytes))
}

/// Gives a packet that came in by `port` to the worker that owns the queues of its tunnel.
#[inline]
pub(crate) fn hand_over(ctx: &mut Context<'_>, owner: WorkerId, item: Item, port: PortIndex) {
    if let Err(packet) = ctx.handovers.push(owner, HandedOver::queued(item, port)) {
        ctx.drop(packet, DropReason::HandoverFull);
    }
}

/// Queues a packet that came in by `port` and that another worker has handed over, or sends it if it has not to wait any more.
pub(crate) fn join_one<'a>(
    ctx: &mut Context<'a>,
    port: PortIndex,
    item: Item,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let Some((packet, mut note, tunnel)) = resume(ctx, port, item, false) else { return };
    let tables = ctx.tables;
    let Some(tunnel) = tunnel.and_then(|tunnel| tables.tunnels.get(tunnel)) else {
        return ctx.drop(packet, DropReason::QosGone);
    };
    if packet.len() > usize::from(tunnel.encapsulation.mtu) {
        return ctx.drop(packet, DropReason::MtuChanged);
    }
    if let Some(packet) = into_tunnel(ctx, packet, &mut note, tunnel) {
        outbound::enter(ctx, packet, &note, tunnel, to_seal);
    }
}

/// Meters, marks and queues a packet that the SPD of `by` lets out without a tunnel, as the service policy of the port that
/// it leaves by asks; gives what need not wait to `go_on`.
#[inline]
pub(crate) fn out_of_port<'a>(
    ctx: &mut Context<'a>,
    packet: Packet,
    note: Note,
    (by, verdict): (PortIndex, SpdVerdict),
    mut go_on: impl FnMut(&mut Context<'a>, Packet, Note),
) {
    let tables = ctx.tables;
    if tables.quality.is_empty() {
        return go_on(ctx, packet, note);
    }
    let port = exit(ctx, by, verdict);
    let services = tables.quality.port(port);
    if services.is_none() {
        return go_on(ctx, packet, note);
    }
    let mut serve = |ctx: &mut Context<'a>, packet: Packet, mut note: Note, l3_bytes: &L3Bytes<'_>| {
        if let Some(packet) = serve(ctx, packet, &mut note, services, None, l3_bytes) {
            go_on(ctx, packet, note);
        }
    };
    match verdict {
        SpdVerdict::Bypass => {
            let mtu = tables.ports.get(port).map_or(u16::MAX, |entry| entry.mtu);
            outbound::fitted(ctx, packet, note, mtu, |ctx, packet, note| {
                serve(ctx, packet, note, &|_, bytes| bytes);
            });
        }
        SpdVerdict::Protect(protection) => match tables.protections.get(protection) {
            Some(entry) if entry.mode == EspMode::Tunnel => {
                outbound::fitted(ctx, packet, note, entry.encapsulation.mtu, |ctx, packet, note| {
                    serve(ctx, packet, note, &|tos, bytes| entry.way(tos).wire_bytes(bytes));
                });
            }
            // Transport mode carries our own packets only, which nobody is told of and which are never cut.
            Some(entry) if packet.len() <= usize::from(entry.encapsulation.mtu) => {
                serve(ctx, packet, note, &|tos, bytes| entry.way(tos).wire_bytes(bytes));
            }
            _ => go_on(ctx, packet, note),
        },
        SpdVerdict::Discard | SpdVerdict::NoMatch => go_on(ctx, packet, note),
    }
}

/// The port that a packet without a GRE tunnel leaves by: in ESP tunnel mode the one that leads to the peer.
fn exit(ctx: &Context<'_>, by: PortIndex, verdict: SpdVerdict) -> PortIndex {
    let SpdVerdict::Protect(protection) = verdict else { return by };
    let entry = ctx.tables.protections.get(protection).filter(|entry| entry.mode == EspMode::Tunnel);
    entry.and_then(|entry| entry.encapsulation.egress).map_or(by, |egress| egress.port)
}

/// How long a packet will be outside, by the ToS with which it goes and its length.
type L3Bytes<'a> = dyn Fn(u8, usize) -> usize + 'a;

/// First the policy without queues, then the one with; what need not wait comes back.
fn serve(
    ctx: &mut Context<'_>,
    mut packet: Packet,
    note: &mut Note,
    services: Services<'_>,
    into: Option<&Tunnel>,
    l3_bytes: impl Fn(u8, usize) -> usize,
) -> Option<Packet> {
    let way = into.map(|tunnel| (tunnel.tunnel, &tunnel.encapsulation));
    let class = |at_work: AtWork<'_>, packet: &Packet, note: &Note| {
        let (flags, mut parsed) = (tcp_flags(packet, &note.parsed), note.parsed);
        // The delivery header takes over what its tunnel makes of the ToS.
        if let Some(tunnel) = into.filter(|_| !at_work.pre_classifies()) {
            parsed.tos = tunnel.outward(parsed.tos);
        }
        at_work.classify(&parsed, flags, (note.port, packet.vlan_priority()), way)
    };
    if let Some(at_work) = services.conditions {
        let class = class(at_work, &packet, note);
        let wire_bytes = at_work.wire_bytes(l3_bytes(note.parsed.tos, packet.len()));
        match condition(ctx, (&mut packet, 0), (at_work, class), note.parsed.tos, wire_bytes) {
            Ok(tos) => note.parsed.tos = tos,
            Err(reason) => {
                ctx.drop(packet, reason);
                return None;
            }
        }
    }
    let Some(queue) = services.queue else { return Some(packet) };
    let tunnel = into.map(|tunnel| tunnel.tunnel);
    if let Some(owner) = services.owner_beside(ctx.worker) {
        let item = Item::new(packet, ctx.tables.number, tunnel);
        hand_over(ctx, owner, item, note.port);
        return None;
    }
    let class = class(queue.at_work, &packet, note);
    let tos = class.set_dscp.map_or(note.parsed.tos, |set| set.tos(Ecn::of_tos(note.parsed.tos)));
    let wire_bytes = queue.at_work.wire_bytes(l3_bytes(tos, packet.len()));
    let offer = match offer(ctx, (&mut packet, 0), (queue, class), note.parsed.tos, wire_bytes) {
        Ok(offer) => offer,
        Err(reason) => {
            ctx.drop(packet, reason);
            return None;
        }
    };
    if pass(ctx, queue, iter::once(&offer), 0) == 1 {
        note.parsed.tos = offer.dscp.tos(offer.ecn);
        return Some(packet);
    }
    let item = Item::new(packet, ctx.tables.number, tunnel);
    enqueue(ctx, queue.port, item, offer);
    None
}

/// Polices and marks an IP packet with `tos`, which begins at `offset`; returns the ToS that it has then.
#[inline(always)]
fn condition(
    ctx: &Context<'_>,
    (packet, offset): (&mut Packet, usize),
    (at_work, class): (AtWork<'_>, Class),
    tos: u8,
    wire_bytes: u32,
) -> Result<u8, DropReason> {
    let dscp = Dscp::of_tos(tos);
    let arriving = Arriving { class, wire_bytes, dscp };
    let marked = at_work.condition(&arriving, ctx.worker, ctx.now_ns).ok_or(DropReason::QosPoliced)?;
    if let Some(priority) = class.set_vlan_priority {
        packet.set_vlan_priority(priority);
    }
    if marked != dscp {
        let l3 = packet.data_mut().get_mut(offset..).ok_or(DropReason::IpMalformed)?;
        dscp::rewrite(l3, marked).map_err(|_| DropReason::IpMalformed)?;
    }
    Ok(marked.tos(Ecn::of_tos(tos)))
}

/// Polices and marks an IP packet with `tos`, which begins at `offset`; returns what its scheduler has to know of it.
#[inline(always)]
pub(crate) fn offer(
    ctx: &Context<'_>,
    packet: (&mut Packet, usize),
    (queue, class): (Queue<'_>, Class),
    tos: u8,
    wire_bytes: u32,
) -> Result<Offer, DropReason> {
    let tos = condition(ctx, packet, (queue.at_work, class), tos, wire_bytes)?;
    Ok(Offer {
        tunnel: queue.slot,
        class: class.slot,
        wire_bytes,
        dscp: Dscp::of_tos(tos),
        ecn: Ecn::of_tos(tos),
    })
}

/// How many packets for one queue, from the first on, need not wait: nothing is before them, their tokens are there, and
/// the device keeps up, which has `ahead` more packets to come.
#[inline(always)]
pub(crate) fn pass<'o>(
    ctx: &mut Context<'_>,
    queue: Queue<'_>,
    offers: impl Iterator<Item = &'o Offer>,
    ahead: usize,
) -> usize {
    let room = room(ctx, queue.port, ahead);
    ctx.queues.pass((queue.port, queue.slot), offers.take(room), ctx.now_ns)
}

/// Whether none of these packets for one queue need wait, which are of `longest` bytes at most.
#[inline(always)]
pub(crate) fn pass_all(
    ctx: &mut Context<'_>,
    queue: Queue<'_>,
    packets: &Tally,
    longest: u32,
    ahead: usize,
) -> bool {
    packets.total().packets <= room(ctx, queue.port, ahead) as u64
        && ctx.queues.pass_all((queue.port, queue.slot), packets, longest, ctx.now_ns)
}

/// How many packets a port's device takes that keeps up, behind `ahead` more.
#[inline(always)]
fn room(ctx: &Context<'_>, port: PortIndex, ahead: usize) -> usize {
    FRAMES_AHEAD.saturating_sub(ctx.transmission.waiting(port)).saturating_sub(ahead)
}

/// Queues a packet, or drops it if it may not wait.
#[inline(always)]
pub(crate) fn enqueue(ctx: &mut Context<'_>, port: PortIndex, item: Item, offer: Offer) {
    if let Err((packet, reason)) = ctx.queues.enqueue(port, item, offer, ctx.now_ns) {
        ctx.drop(packet, reason);
    }
}

/// The flags of a TCP segment that is whole or a first fragment; 0 of anything else.
#[inline]
fn tcp_flags(packet: &Packet, parsed: &Parsed) -> u8 {
    if parsed.protocol != IpProtocol::TCP || parsed.fragment == Fragment::Later {
        return 0;
    }
    parsed.upper_layer(packet.data()).get(TCP_FLAGS_OFFSET).copied().unwrap_or(0)
}

/// Sends what the scheduler of a port lets go, as long as its device keeps up and at most a few bursts. Returns how many
/// packets it let go.
pub(crate) fn leave(ctx: &mut Context<'_>, port: PortIndex) -> usize {
    if ctx.transmission.waiting(port) >= FRAMES_AHEAD {
        // Other workers do not wait for a device queue that stands still.
        ctx.queues.pause(port, ctx.now_ns);
        return 0;
    }
    let mut let_go = 0;
    while let_go < TURN_PACKETS && ctx.transmission.waiting(port) < FRAMES_AHEAD {
        let due = due(ctx, port);
        if due == 0 {
            break;
        }
        let_go += due;
    }
    ctx.queues.rest(port, ctx.now_ns);
    let_go
}

/// A burst of what is due; returns how many packets there were.
fn due(ctx: &mut Context<'_>, port: PortIndex) -> usize {
    let mut due: ArrayVec<(Item, bool), BURST> = ArrayVec::new();
    let mut count = 0;
    while count < BURST {
        match ctx.queues.next(port, ctx.now_ns) {
            Turn::Leaving { item, mark } => {
                item.packet().prefetch_data();
                due.push((item, mark));
            }
            Turn::Drop(packet, reason) => ctx.drop(packet, reason),
            Turn::Nothing => break,
        }
        count += 1;
    }
    fast::leave(ctx, port, &mut due);
    count
}

/// Sends a packet whose turn it is; a CE mark goes into it first, if it has become one.
pub(crate) fn leave_one<'a>(
    ctx: &mut Context<'a>,
    port: PortIndex,
    item: Item,
    mark: bool,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    match resume(ctx, port, item, mark) {
        Some((packet, note, Some(tunnel))) => enter(ctx, port, packet, &note, tunnel, to_seal),
        Some((packet, note, None)) => go_out(ctx, port, packet, note, to_seal),
        None => {}
    }
}

/// What is known of a packet that waited, with its mark and its hop spent; and the tunnel that it goes into. It is dropped if
/// the routes in force lead elsewhere.
fn resume(
    ctx: &mut Context<'_>,
    port: PortIndex,
    item: Item,
    mark: bool,
) -> Option<(Packet, Note, Option<TunnelIndex>)> {
    let (tunnel, is_old, is_plain) = (item.tunnel(), item.is_older_than(ctx.tables.number), item.is_plain());
    let mut packet = item.into_packet();
    let marked = if mark { ecn::rewrite(packet.data_mut(), Ecn::Ce).is_ok() } else { true };
    // Its header was checked when it came, and changed by nobody but us.
    let parsed = flow::parse_with(packet.data(), HeaderChecksum::Verified).ok().filter(|_| marked);
    let Some(parsed) = parsed else {
        ctx.drop(packet, DropReason::IpMalformed);
        return None;
    };
    let mut note = Note { parsed, port, origin: Origin::Own };
    // It had more than one.
    if is_plain && !forward::spend_hop(&mut packet, &mut note) {
        ctx.drop(packet, DropReason::TtlExceeded);
        return None;
    }
    if is_old && tunnel.is_some_and(|tunnel| !leads_into(ctx, &parsed, tunnel)) {
        ctx.drop(packet, DropReason::QosGone);
        return None;
    }
    Some((packet, note, tunnel))
}

/// Whether the routes in force lead there: a tunnel's number may mean another one after a change.
fn leads_into(ctx: &Context<'_>, parsed: &Parsed, tunnel: TunnelIndex) -> bool {
    matches!(ctx.tables.routes.lookup(&parsed.destination), Some(NextStep::Tunnel(found)) if found == tunnel)
}

fn enter<'a>(
    ctx: &mut Context<'a>,
    port: PortIndex,
    packet: Packet,
    note: &Note,
    tunnel: TunnelIndex,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let tables = ctx.tables;
    let Some(tunnel) = tables.tunnels.get(tunnel) else {
        return ctx.drop(packet, DropReason::QosGone);
    };
    let encapsulation = &tunnel.encapsulation;
    if encapsulation.egress.is_none_or(|egress| egress.port != port) {
        return ctx.drop(packet, DropReason::QosGone);
    }
    if packet.len() > usize::from(encapsulation.mtu) {
        return ctx.drop(packet, DropReason::MtuChanged);
    }
    outbound::enter(ctx, packet, note, tunnel, to_seal);
}

fn go_out<'a>(
    ctx: &mut Context<'a>,
    port: PortIndex,
    packet: Packet,
    note: Note,
    to_seal: &mut Lane<SealNote<'a>>,
) {
    let Some(NextStep::Port { port: by, neighbor }) = ctx.tables.routes.lookup(&note.parsed.destination)
    else {
        return ctx.drop(packet, DropReason::QosGone);
    };
    let verdict = policy::outbound(ctx, by, &note.parsed);
    if exit(ctx, by, verdict) != port {
        return ctx.drop(packet, DropReason::QosGone);
    }
    outbound::go_out(ctx, packet, note, Hop { port: by, neighbor }, verdict, to_seal);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pktbuf::Pool;
    use qos::PortShare;
    use qos::schedule::{
        ClassSlot, ClassSpec, EarlyDrop, Limit, Membership, Next, PolicySpec, PortSpec, Scheduler, Service,
        Share, TunnelSlot, TunnelSpec,
    };
    use qos::{Rate, TrafficProfile};

    use super::*;
    use crate::outgoing::Outgoing;
    use crate::queues::{Handoff, Queues};
    use crate::testing::Fixture;

    const PORT: PortIndex = PortIndex(0);
    /// Less than 1,500 bytes in the 4 ms of the test, and more than 84 in a turn.
    const RATE_BPS: u64 = 2_000_000;

    fn scheduler<T>(share: &Arc<PortShare>, worker: u16) -> Box<Scheduler<T>> {
        let class = |service| ClassSpec {
            service,
            police: None,
            limit: Limit::Packets(100),
            early: EarlyDrop::None,
            ecn: false,
            delays: false,
        };
        let services = [Service::Priority { level: 0 }, Service::Share(Share::Percent(90))];
        let spec = PortSpec {
            shape: Some(TrafficProfile { rate: Rate::from_bps(RATE_BPS).unwrap(), burst_bytes: 20_000 }),
            packet_bytes_max: 1_538,
            items_max: 100,
            seed: 1,
            policies: vec![PolicySpec { classes: services.map(class).to_vec() }],
            tunnels: vec![TunnelSpec { shape: None, weight: 1, policy: 0 }],
        };
        let membership = Membership { share: Arc::clone(share), worker };
        Box::new(Scheduler::of_worker(&spec, &membership).unwrap())
    }

    fn offer(class: u8, wire_bytes: u32) -> Offer {
        let (tunnel, class) = (TunnelSlot(0), ClassSlot(class));
        Offer { tunnel, class, wire_bytes, dscp: Dscp::DEFAULT, ecn: Ecn::NotEct }
    }

    #[test]
    fn others_wait_for_what_lacks_tokens_but_not_for_a_device_queue_that_stands_still() {
        let (pool, share, handoff) =
            (Pool::memory(256, 2_048).unwrap(), Arc::new(PortShare::new(2)), Handoff::new(2));
        assert!(handoff.bring(PORT, WorkerId(0), scheduler(&share, 0)));
        let mut other: Box<Scheduler<()>> = scheduler(&share, 1);
        let mut fixture = Fixture::new(1);
        let ctx = &mut fixture.context();
        let empty = TrafficProfile { rate: Rate::from_bps(RATE_BPS).unwrap(), burst_bytes: 20_000 };
        assert!(share.tokens().take(empty, 20_000, ctx.now_ns));
        *ctx.queues = Queues::new(WorkerId(0), 1, &handoff);
        let item = Item::new(pool.copy_of(&[0; 60]).unwrap(), 0, None);
        assert!(ctx.queues.enqueue(PORT, item, offer(0, 1_500), ctx.now_ns).is_ok());
        other.enqueue((), offer(1, 84), ctx.now_ns).unwrap();
        let start_ns = ctx.now_ns;
        let mut passes =
            |after_us: u64| matches!(other.dequeue(start_ns + after_us * 1_000), Next::Leaving(_));
        for turn in 0..4 {
            ctx.now_ns = start_ns + turn * 900_000;
            assert_eq!(leave(ctx, PORT), 0, "the bucket has too little");
            assert!(!passes(turn * 900 + 600), "it waits, and says so in each turn");
        }
        for _ in 0..FRAMES_AHEAD {
            let frame = Outgoing::link_local(pool.copy_of(&[0; 60]).unwrap());
            assert!(ctx.transmission.push(PORT, frame).is_ok());
        }
        ctx.now_ns = start_ns + 3_400_000;
        assert_eq!(leave(ctx, PORT), 0);
        assert!(!passes(3_600), "a device queue may be full for a moment");
        assert!(passes(3_800));
    }
}
