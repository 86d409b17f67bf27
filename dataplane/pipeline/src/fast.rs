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

mod framing;
mod headers;
mod inbound;
mod outbound;
mod plain;

use messages::{DropReason, PortIndex, PortSide};
use pktbuf::{Batch, Packet};

use crate::context::Context;
use crate::dispatch::Lanes;
use crate::lane::Lane;
use crate::stopwatch::Stage;
use crate::{ingress, whole_way};
use framing::LastHop;
use outbound::Departure;

/// Carries a burst that came in by `port` to its end; the last exceptions are still in the lanes then.
pub(crate) fn receive(ctx: &mut Context<'_>, port: PortIndex, batch: &mut Batch, lanes: &mut Lanes) {
    match ctx.tables.ports.get(port).map(|entry| entry.side) {
        Some(PortSide::Protected) => outbound::receive(ctx, port, batch, lanes),
        Some(PortSide::Unprotected) => inbound::receive(ctx, port, batch, lanes),
        None => batch.drain(..).for_each(|packet| ingress::receive(ctx, port, packet, lanes)),
    }
}

/// Keeps common packets and exceptions in order.
#[derive(Default)]
struct Sorter<'a> {
    departures: Lane<Departure<'a>>,
    last_hop: LastHop,
    had_exceptions: bool,
}

impl<'a> Sorter<'a> {
    /// An exception comes next; it may leave something in the lanes, and change what is known of a next hop.
    #[inline(always)]
    fn exception(&mut self) {
        self.had_exceptions = true;
        self.last_hop = LastHop::default();
    }

    /// A common packet comes next: the exceptions ahead of it go first.
    #[inline(always)]
    fn common(&mut self, ctx: &mut Context<'_>, lanes: &mut Lanes) {
        if self.had_exceptions {
            self.had_exceptions = false;
            self.finish(ctx, lanes);
        }
    }

    /// Queues a packet to leave by a tunnel.
    #[inline(always)]
    fn depart(&mut self, ctx: &mut Context<'_>, packet: Packet, departure: Departure<'a>) {
        if self.departures.is_full() {
            outbound::send(ctx, &mut self.departures);
        }
        if let Err(packet) = self.departures.push(packet, departure) {
            ctx.drop(packet, DropReason::NoBuffer);
        }
    }

    /// Lets everything go, if there are exceptions to let go.
    #[inline(never)]
    fn finish(&mut self, ctx: &mut Context<'_>, lanes: &mut Lanes) {
        if lanes.is_empty() && ctx.originated.is_empty() {
            return;
        }
        outbound::send(ctx, &mut self.departures);
        whole_way(ctx, lanes);
        self.last_hop = LastHop::default();
        ctx.stopwatch.lap(Stage::WholeWay);
    }
}
