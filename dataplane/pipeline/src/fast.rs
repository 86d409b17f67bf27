// SPDX-License-Identifier: Apache-2.0
//! The fast path: plain packets between protected ports and GRE tunnels under ESP, a burst at a time.
//!
//! ```text
//!   protected port    plain? ─ route ─ tunnel, SA, next hop ─→ outbound::send
//!   unprotected port  plain? ─ SA ─→ inbound::open ─ GRE ─ plain? ─ route ─→ port, or outbound::send
//!   anything else     the whole way: ingress, dispatch, inbound, outbound
//! ```
//!
//! Each step is a loop over the burst that asks for the memory that the next one reads, so that the CPU waits for many
//! packets' memory at once.
//!
//! A packet is first *looked at*: nothing changes, neither the packet nor a counter, until its whole way is known. What
//! is not common in any respect (options, fragments, a service policy where it leaves, IPv6, ARP, too big, a hop limit at its end, a neighbour not
//! resolved, …) takes the whole way instead, untouched. So the fast path decides nothing of its own: it is the whole
//! way for packets that pass every check on it, and tests compare the two.
//!
//! Flows keep their order: exceptions gather in the lanes, and before a common packet behind them goes its way, the common
//! packets ahead of them go theirs, then they. What was dropped on the spot is in no lane: junk between good packets does
//! not cut a burst into pieces, each with a call of the cipher.

mod conditioning;
mod exit;
mod framing;
mod group;
mod headers;
mod inbound;
mod onward;
mod outbound;
mod plain;
mod sizes;
mod survey;
mod waiting;
mod ways;

use messages::{PortIndex, PortSide, TunnelIndex};
use pktbuf::Batch;
use tables::Leaf;

use crate::context::Context;
use crate::dispatch::Lanes;
use crate::stopwatch::Stage;
use crate::{ingress, whole_way};
use exit::{Exit, LastExit};
use framing::LastHop;
use outbound::Departures;
use plain::Plain;
use ways::Departure;

pub(crate) use waiting::{join, leave};

/// Carries a burst that came in by `port` to its end; the last exceptions are still in the lanes then.
pub(crate) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    match ctx.tables.ports.get(port).map(|entry| entry.side) {
        Some(PortSide::Protected) => outbound::receive(ctx, port, batch, lanes),
        Some(PortSide::Unprotected) => inbound::receive(ctx, port, batch, lanes),
        None => batch.drain(..).for_each(|packet| ingress::receive(ctx, port, packet, lanes)),
    }
}

/// Keeps common packets and exceptions in order, and what was found for the common packet before: mostly the next one goes
/// the same way.
#[derive(Default)]
struct Sorter<'a> {
    departures: Departures<'a>,
    last_hop: LastHop,
    last_exit: LastExit,
    had_exceptions: bool,
}

impl<'a> Sorter<'a> {
    /// An exception comes next; it may leave something in the lanes, and change what is known of a way.
    #[inline(always)]
    fn exception(&mut self) {
        self.had_exceptions = true;
        self.forget();
    }

    /// A common packet comes next: the exceptions ahead of it go first.
    #[inline(always)]
    fn common(&mut self, ctx: &mut Context<'_>, lanes: &mut Lanes) {
        if self.had_exceptions {
            self.had_exceptions = false;
            self.finish(ctx, lanes);
        }
    }

    /// How a packet at `offset` of its frame leaves by a tunnel, if it is a common packet.
    #[inline(always)]
    fn departure<'c: 'a>(
        &mut self,
        ctx: &Context<'c>,
        plain: &'a Plain,
        offset: usize,
        tunnel: TunnelIndex,
    ) -> Option<Departure<'a>> {
        self.departures.find(ctx, &mut self.last_hop, (plain, offset), tunnel)
    }

    /// How a packet leaves by a port, if it is a common packet.
    #[inline(always)]
    fn exit(&mut self, ctx: &Context<'_>, plain: &Plain, leaf: Leaf) -> Option<Exit> {
        self.last_exit.find(ctx, &mut self.last_hop, plain, leaf)
    }

    /// Lets everything go, if there are exceptions to let go.
    #[inline(never)]
    fn finish(&mut self, ctx: &mut Context<'_>, lanes: &mut Lanes) {
        if lanes.is_empty() && ctx.originated.is_empty() {
            return;
        }
        outbound::send(ctx, &mut self.departures);
        whole_way(ctx, lanes);
        self.forget();
        ctx.stopwatch.lap(Stage::WholeWay);
    }

    fn forget(&mut self) {
        self.last_hop = LastHop::default();
        self.last_exit = LastExit::default();
        self.departures.forget();
    }
}
