// SPDX-License-Identifier: Apache-2.0
//! The ways into tunnels that packets of a burst go: SA, headers, next hop, what service policies do first. Nothing here changes
//! a packet or a counter.

use arrayvec::ArrayVec;
use esp::OutboundSa;
use messages::TunnelIndex;
use pktbuf::BURST;
use tables::{AtWork, Leaf, Services, ShortcutOut};
use wire::{ethernet, ipv4};

use super::framing::{Framing, LastHop};
use super::headers::IN_CLEAR_BYTES;
use super::plain::Plain;
use crate::context::Context;
use crate::lane::run_length;

/// More than a route can lead into.
const NO_TUNNEL: TunnelIndex = TunnelIndex(u32::MAX);

/// What all packets into one tunnel share.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) tunnel: TunnelIndex,
    /// The tunnel's shortcut, which knows those of its class groups; and the one of this way's.
    whole: &'a ShortcutOut,
    pub(super) shortcut: &'a ShortcutOut,
    pub(super) sa: &'a OutboundSa,
    pub(super) framing: Framing,
    /// What service policies do with packets first.
    pub(super) services: Services<'a>,
    /// Ways in a row with the same services are of one group; one with class groups is of its own. Only told if some has any.
    pub(super) group: u8,
}

impl<'a> Way<'a> {
    /// The way into a tunnel for packets with this ToS, if they have a common one.
    #[inline(always)]
    fn find<'c: 'a>(ctx: &Context<'c>, last_hop: &mut LastHop, tunnel: TunnelIndex, tos: u8) -> Option<Self> {
        let tables = ctx.tables;
        let whole = tables.tunnels.shortcut_out(tunnel)?;
        let shortcut = whole.for_tos(tos)?;
        let services = tables.quality.tunnel(tunnel, shortcut.port);
        // A policy without queues may mark a packet after this, and so change its class group.
        (services.pre_classify() && (services.conditions.is_none() || !whole.has_groups())).then_some(())?;
        let framing = last_hop.towards_neighbor(ctx, shortcut.port, shortcut.neighbor)?;
        let sa = ctx.sad.outbound(shortcut.sa)?;
        Some(Self { tunnel, whole, shortcut, sa, framing, services, group: 0 })
    }

    /// What a payload packet of `total_bytes` is on the wire, as a policy at work on this way counts it.
    #[inline(always)]
    pub(super) fn wire_bytes(&self, at_work: AtWork<'_>, total_bytes: u16) -> u32 {
        at_work.wire_bytes(self.sealed_bytes(total_bytes))
    }

    /// What is around a payload packet.
    #[inline(always)]
    pub(super) fn shape(&self) -> Shape {
        Shape { header_bytes: self.shortcut.header_bytes, icv_bytes: self.sa.icv_bytes() }
    }

    /// The length of the IP packet that a payload packet of `total_bytes` becomes.
    #[inline(always)]
    fn sealed_bytes(&self, total_bytes: u16) -> usize {
        let headers = usize::from(self.shortcut.header_bytes).saturating_sub(IN_CLEAR_BYTES);
        ipv4::HEADER_BYTES + self.sa.sealed_bytes(headers + usize::from(total_bytes))
    }

    /// The way of packets with another ToS; the same if theirs is not a common one.
    #[inline(always)]
    pub(super) fn for_tos<'c: 'a>(self, ctx: &Context<'c>, tos: u8) -> Self {
        let other =
            self.whole.for_tos(tos).and_then(|shortcut| Some((shortcut, ctx.sad.outbound(shortcut.sa)?)));
        other.map_or(self, |(shortcut, sa)| Self { shortcut, sa, ..self })
    }

    /// Whether packets with another ToS may go another way.
    #[inline(always)]
    pub(super) fn has_groups(&self) -> bool {
        self.whole.has_groups()
    }

    /// The group of a way that is found after this one.
    #[inline(always)]
    fn group_of_next(&self, next: &Self) -> u8 {
        let is_same = self.services.is(&next.services) && !self.has_groups() && !next.has_groups();
        self.group + u8::from(!is_same)
    }

    /// Whether packets into `tunnel` with this ToS go this way.
    #[inline(always)]
    pub(super) fn carries(&self, tunnel: TunnelIndex, tos: u8) -> bool {
        let shortcut = self.whole.for_tos(tos);
        self.tunnel == tunnel && shortcut.is_some_and(|shortcut| core::ptr::eq(shortcut, self.shortcut))
    }
}

/// What of a way decides how long packets become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    header_bytes: u8,
    icv_bytes: usize,
}

/// A plain packet that can leave by a tunnel.
#[derive(Clone, Copy)]
pub(super) struct Departure<'a> {
    pub(super) plain: &'a Plain,
    /// Where the packet begins in its buffer.
    pub(super) offset: usize,
    /// Its place among the ways.
    pub(super) way: usize,
}

impl Departure<'_> {
    /// How many at the front go the same way. Ways are numbered as they are found, and none comes back: if the last goes the
    /// way of the first, all do.
    #[inline(always)]
    pub(super) fn run_length(departures: &[Self]) -> usize {
        match departures {
            [first, .., last] if first.way == last.way => departures.len(),
            _ => run_length(departures, |one, other| one.way == other.way),
        }
    }
}

/// The ways that were found for packets of a burst.
#[derive(Default)]
pub(super) struct Ways<'a> {
    /// One for packets in a row that share it, so that there is room for those of a burst.
    pub(super) list: ArrayVec<Way<'a>, BURST>,
    latest: Latest,
    /// Packets of some way are metered and marked; or queued.
    pub(super) some_conditioned: bool,
    pub(super) some_queued: bool,
    /// Not all ways leave by the same port.
    pub(super) several_ports: bool,
}

/// What tells whether the next packet goes the way that was found last.
#[derive(Clone, Copy)]
struct Latest {
    /// The tunnel, if the way can be relied on for any packet into it; else one that no packet goes into.
    tunnel: TunnelIndex,
    /// It can be for packets of its class group.
    may_follow_in_group: bool,
    /// Its place among the ways.
    way: usize,
    mtu: u16,
    clamps_mss: bool,
}

impl Default for Latest {
    fn default() -> Self {
        Self { tunnel: NO_TUNNEL, may_follow_in_group: false, way: 0, mtu: 0, clamps_mss: false }
    }
}

impl<'a> Ways<'a> {
    /// How a packet that came in by a port leaves, if that is by a tunnel and it goes the common way.
    #[inline(always)]
    pub(super) fn find_routed<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        plain: &'a Plain,
        leaf: Leaf,
    ) -> Option<Departure<'a>> {
        let tunnel = leaf.tunnel()?;
        let addresses = &ctx.tables.addresses;
        let is_between_hosts =
            addresses.is_foreign_host(plain.source()) && addresses.is_foreign_host(plain.destination);
        is_between_hosts.then_some(())?;
        self.find(ctx, last_hop, (plain, ethernet::HEADER_BYTES), tunnel)
    }

    /// How the packet at `offset` goes into a tunnel, if it goes the common way.
    #[inline(always)]
    pub(super) fn find<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        (plain, offset): (&'a Plain, usize),
        tunnel: TunnelIndex,
    ) -> Option<Departure<'a>> {
        if self.latest.tunnel != tunnel && !self.follows_in_group(tunnel, plain.tos()) {
            self.find_way(ctx, last_hop, tunnel, plain.tos())?;
        }
        let Latest { way, mtu, clamps_mss, .. } = self.latest;
        let fits = plain.ttl() > 1 && plain.total_bytes <= mtu && !(plain.is_syn && clamps_mss);
        fits.then_some(Departure { plain, offset, way })
    }

    /// Finds the way into a tunnel of packets with this ToS, if they have a common one.
    #[inline(always)]
    fn find_way<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        last_hop: &mut LastHop,
        tunnel: TunnelIndex,
        tos: u8,
    ) -> Option<()> {
        let mut way = Way::find(ctx, last_hop, tunnel, tos)?;
        self.some_conditioned |= way.services.conditions.is_some();
        self.some_queued |= way.services.queue.is_some();
        if let Some(last) = self.list.last() {
            self.several_ports |= last.framing.port != way.framing.port;
            if self.some_conditioned || self.some_queued {
                way.group = last.group_of_next(&way);
            }
        }
        let has_groups = way.whole.has_groups();
        let latest = Latest {
            tunnel: if has_groups { NO_TUNNEL } else { tunnel },
            may_follow_in_group: has_groups,
            way: self.list.len(),
            mtu: way.shortcut.mtu,
            clamps_mss: way.shortcut.clamps_mss,
        };
        self.list.try_push(way).ok()?;
        self.latest = latest;
        Some(())
    }

    /// Asks for what the way leads over that was found when `count` were known, if one was.
    #[inline(always)]
    pub(super) fn prefetch_behind(&self, ctx: &Context<'_>, count: usize) {
        if let Some(Way { sa, shortcut, .. }) = self.list.get(count) {
            sa.prefetch();
            shortcut.counts.prefetch(ctx.worker);
        }
    }

    /// Something happened that may have changed ways: none of those found so far is that of another packet.
    pub(super) fn forget(&mut self) {
        self.latest = Latest::default();
    }

    #[inline(always)]
    fn follows_in_group(&self, tunnel: TunnelIndex, tos: u8) -> bool {
        self.latest.may_follow_in_group && self.list.last().is_some_and(|last| last.carries(tunnel, tos))
    }
}

/// Asks for what ways into tunnels lead over, step by step: the shortcut, the SA's place and the counters, the SA.
#[inline(always)]
pub(super) fn prefetch(ctx: &Context<'_>, leaves: &[Leaf]) {
    let mut shortcuts = ArrayVec::<_, BURST>::new();
    let mut last = Leaf::NONE;
    for leaf in leaves {
        if *leaf != last {
            last = *leaf;
            shortcuts.extend(last.tunnel().and_then(|tunnel| ctx.tables.tunnels.prefetch_out(tunnel)));
        }
    }
    for shortcut in shortcuts.iter().copied().flatten() {
        ctx.sad.prefetch_outbound(shortcut.sa);
        shortcut.counts.prefetch(ctx.worker);
    }
    for shortcut in shortcuts.iter().copied().flatten() {
        ctx.sad.outbound(shortcut.sa).into_iter().for_each(OutboundSa::prefetch);
    }
}
