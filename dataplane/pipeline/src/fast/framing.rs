// SPDX-License-Identifier: Apache-2.0
//! The Ethernet header of IPv4 to a next hop that is known, and the port that it is for.

use core::net::{IpAddr, Ipv4Addr};

use messages::PortIndex;
use tables::{Link, NeighborIndex, NextHop};
use wire::{EtherType, MacAddr, ethernet};

use crate::context::Context;

/// A ready Ethernet header, and the port that frames with it leave by.
#[derive(Clone, Copy)]
pub(super) struct Framing {
    /// The first eight bytes of the header, and the last eight: two stores that overlap.
    halves: [u64; 2],
    pub port: PortIndex,
}

impl Framing {
    fn new(ctx: &Context<'_>, port: PortIndex, destination: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = destination;
        let MacAddr([g, h, i, j, k, l]) = ctx.mac(port);
        let [high, low] = EtherType::IPV4.0.to_be_bytes();
        let halves = [[a, b, c, d, e, f, g, h], [g, h, i, j, k, l, high, low]];
        Self { halves: halves.map(u64::from_ne_bytes), port }
    }

    /// Writes the header.
    #[inline(always)]
    pub(super) fn write(&self, header: &mut [u8; ethernet::HEADER_BYTES]) {
        let [first, last] = self.halves.map(u64::to_ne_bytes);
        if let Some(place) = header.first_chunk_mut() {
            *place = first;
        }
        if let Some(place) = header.last_chunk_mut() {
            *place = last;
        }
    }

    /// To a neighbour that is known, fresh, and that no packet waits for.
    #[inline(always)]
    fn to_neighbor(ctx: &Context<'_>, port: PortIndex, neighbor: NeighborIndex) -> Option<Self> {
        match ctx.neighbors.link(neighbor)? {
            Link { mac, stale: false } if !ctx.waiting.is_awaited(neighbor) => {
                Some(Self::new(ctx, port, mac))
            }
            _ => None,
        }
    }
}

/// The next hop that was asked for last: mostly the next packet goes there too.
#[derive(Default)]
pub(super) struct LastHop(Option<(NeighborIndex, Framing)>);

impl LastHop {
    /// Towards a neighbour.
    #[inline(always)]
    pub(super) fn towards_neighbor(
        &mut self,
        ctx: &Context<'_>,
        port: PortIndex,
        neighbor: NeighborIndex,
    ) -> Option<Framing> {
        match self.0 {
            Some((last, framing)) if last == neighbor && framing.port == port => Some(framing),
            _ => {
                let framing = Framing::to_neighbor(ctx, port, neighbor)?;
                self.0 = Some((neighbor, framing));
                Some(framing)
            }
        }
    }

    /// Towards a route's next hop.
    #[inline(always)]
    pub(super) fn towards(
        &mut self,
        ctx: &Context<'_>,
        port: PortIndex,
        hop: NextHop,
        destination: u32,
    ) -> Option<Framing> {
        match hop {
            NextHop::Slot(neighbor) => self.towards_neighbor(ctx, port, neighbor),
            NextHop::Connected => {
                let address = IpAddr::V4(Ipv4Addr::from_bits(destination));
                Framing::to_neighbor(ctx, port, ctx.neighbors.find(port, &address)?)
            }
        }
    }
}
