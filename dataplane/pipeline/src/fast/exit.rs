// SPDX-License-Identifier: Apache-2.0
//! The way out of a port in clear, of plain packets that came out of a tunnel.

use tables::{Leaf, NextHop, NextStep};

use super::framing::{Framing, LastHop};
use super::plain::Plain;
use crate::context::Context;
use crate::outgoing::ClearancePass;

/// What all packets to one next hop share.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    pub framing: Framing,
    pub pass: ClearancePass,
    mtu: u16,
    /// Any packet whose lookup ends alike leaves by it: on a connected prefix each destination is a next hop of its own.
    pub is_shared: bool,
}

impl Exit {
    /// Whether a packet is short enough.
    #[inline(always)]
    pub(super) fn fits(&self, plain: &Plain) -> bool {
        plain.total_bytes <= self.mtu
    }
}

/// The exit that was found last, and what its lookup ended in.
#[derive(Default)]
pub(super) struct LastExit(Option<(Leaf, Exit)>);

impl LastExit {
    /// The exit of a packet, if it is a common one.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        ctx: &Context<'_>,
        last_hop: &mut LastHop,
        plain: &Plain,
        leaf: Leaf,
    ) -> Option<Exit> {
        let exit = match self.0 {
            Some((last, exit)) if last == leaf => exit,
            _ => self.look_up(ctx, last_hop, plain.destination, leaf)?,
        };
        exit.fits(plain).then_some(exit)
    }

    #[inline(always)]
    fn look_up(
        &mut self,
        ctx: &Context<'_>,
        last_hop: &mut LastHop,
        destination: u32,
        leaf: Leaf,
    ) -> Option<Exit> {
        let NextStep::Port { port, neighbor } = ctx.tables.routes.step(leaf)? else { return None };
        (!ctx.tables.quality.takes_port(port)).then_some(())?;
        let entry = ctx.tables.ports.get(port)?;
        let pass = ClearancePass::for_side(entry.side)?;
        let framing = last_hop.towards(ctx, port, neighbor, destination)?;
        let is_shared = matches!(neighbor, NextHop::Slot(_));
        let exit = Exit { framing, pass, mtu: entry.mtu, is_shared };
        if is_shared {
            self.0 = Some((leaf, exit));
        }
        Some(exit)
    }
}
