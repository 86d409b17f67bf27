// SPDX-License-Identifier: Apache-2.0
//! The way past the scheduler: an item that finds nothing before it need not be queued to be taken out again.

use super::shaper::PortShaper;
use super::spec::TunnelSlot;
use super::tunnel::{Class, SHARES, Tunnel};
use super::{Offer, PORTS_OWN, Scheduler, Volume, has_size};
use crate::tally::Tally;

impl<T> Scheduler<T> {
    /// How many items of one tunnel, from the first on, may go on at once: nothing of the tunnel waits and nothing of any
    /// other but for its own shaper, and the shapers have the items' tokens, which they take. The items are counted as
    /// offered and sent, as if each had been queued and taken in the same moment. Early dropping does not see them: their
    /// queue stays empty.
    #[inline]
    pub fn pass<'o>(
        &mut self,
        tunnel: TunnelSlot,
        items: impl Iterator<Item = &'o Offer>,
        now_ns: u64,
    ) -> usize {
        if self.has_someone_before(now_ns) {
            return 0;
        }
        let of_tunnel = self.tunnels.get_mut(tunnel.0 as usize).filter(|tunnel| tunnel.backlog == 0);
        let Some(of_tunnel) = of_tunnel else { return 0 };
        let classes = self.classes.get(of_tunnel.class_range()).unwrap_or_default();
        of_tunnel.refill(now_ns);
        self.shaper.refill(now_ns);
        let mut passed = 0;
        for &Offer { class: slot, wire_bytes, .. } in items {
            let Some(class) = classes.get(usize::from(slot.0)) else { break };
            if !has_size(wire_bytes, self.packet_bytes_max)
                || !may_pass(&mut self.shaper, (tunnel, of_tunnel), class, wire_bytes)
            {
                break;
            }
            spend(&mut self.shaper, (tunnel, of_tunnel), class, wire_bytes);
            let one = Volume { packets: 1, bytes: u64::from(wire_bytes) };
            self.stats.pass(of_tunnel.first_class + u32::from(slot.0), one);
            passed += 1;
        }
        if passed > 0 {
            self.stats.note_tokens(tunnel.0, of_tunnel.tokens(), self.shaper.level_bytes());
        }
        passed
    }

    /// Whether it is worth asking [`pass_all`](Self::pass_all): nothing waits before, and no other worker sends by this port,
    /// with which it would have to be reckoned item by item.
    #[inline]
    pub fn may_pass_all(&mut self, now_ns: u64) -> bool {
        !self.shaper.is_shared() && !self.has_someone_before(now_ns)
    }

    /// As [`pass`](Self::pass) of items of which each class's sum is known, the longest of `longest` bytes at most: all of
    /// them, or none.
    #[inline]
    pub fn pass_all(&mut self, tunnel: TunnelSlot, items: &Tally, longest: u32, now_ns: u64) -> bool {
        // Asked first: a shared shaper would begin a turn if it were refilled.
        if !self.may_pass_all(now_ns) || longest > self.packet_bytes_max {
            return false;
        }
        let of_tunnel = self.tunnels.get_mut(tunnel.0 as usize).filter(|tunnel| tunnel.backlog == 0);
        let (Some(of_tunnel), Ok(bytes)) = (of_tunnel, u32::try_from(items.total().bytes)) else {
            return false;
        };
        let has_all = items.classes().all(|(class, _)| class.0 < of_tunnel.class_count);
        of_tunnel.refill(now_ns);
        self.shaper.refill(now_ns);
        let may_pass = has_all && of_tunnel.holds(bytes) && self.shaper.holds(bytes);
        if may_pass {
            of_tunnel.take(bytes);
            self.shaper.pass(bytes);
            for (class, volume) in items.classes() {
                self.stats.pass(of_tunnel.first_class + u32::from(class.0), volume);
            }
            self.stats.note_tokens(tunnel.0, of_tunnel.tokens(), self.shaper.level_bytes());
        }
        may_pass
    }

    /// Whether something waits for the port and not only for its own shaper.
    #[inline(always)]
    fn has_someone_before(&mut self, now_ns: u64) -> bool {
        self.wake(now_ns);
        self.slab.used() > 0 && self.first_in_line().is_some()
    }
}

/// Whether tunnel and port let so many bytes of a class pass in which nothing waits, as of their last refill.
#[inline(always)]
fn may_pass(
    shaper: &mut PortShaper,
    (slot, tunnel): (TunnelSlot, &Tunnel),
    class: &Class,
    wire_bytes: u32,
) -> bool {
    if !tunnel.holds(wire_bytes) {
        return false;
    }
    let is_ahead = match (class.level, slot) {
        (SHARES, PORTS_OWN) => {
            if shaper.has_to_join(class.slot) {
                shaper.joins(class.slot);
            }
            shaper.is_ahead(class.slot, class.quantum)
        }
        (SHARES, _) => shaper.tunnels_are_ahead(),
        _ => false,
    };
    !is_ahead && shaper.may_pass(class.level, wire_bytes)
}

/// Takes the tokens of what goes, and counts it for the workers that share the port.
#[inline(always)]
pub(super) fn spend(
    shaper: &mut PortShaper,
    (slot, tunnel): (TunnelSlot, &mut Tunnel),
    class: &Class,
    wire_bytes: u32,
) {
    shaper.pass(wire_bytes);
    tunnel.take(wire_bytes);
    match (class.level, slot) {
        (SHARES, PORTS_OWN) => shaper.pass_share(class.slot, wire_bytes, class.quantum),
        (SHARES, _) => shaper.pass_tunnel(wire_bytes),
        (level, _) => shaper.pass_level(level, wire_bytes),
    }
}
