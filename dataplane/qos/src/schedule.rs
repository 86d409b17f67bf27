// SPDX-License-Identifier: Apache-2.0
//! The hierarchy of one egress port: port shaper → tunnel shaper → classes.
//!
//! ```text
//!     priority 0   tunnel 7, tunnel 2            lines of the tunnels that have something to send at this level
//!     priority 1                                 and may send it by their shapers; the first line with a tunnel
//!     priority 2   tunnel 7                      in it is served, so that voice of one tunnel goes before bulk
//!     shares       tunnel 2, tunnel 7, tunnel 9  of every other
//!                       └─ class 3, class 1      and within a tunnel its classes with shares stand in line
//!
//!     parked       tunnel 5, tunnel 12 …         in the timer wheel, until their shapers have tokens again
//! ```
//!
//! Between tunnels at a priority level goes round robin, packet by packet; among shares deficit round robin, between
//! tunnels by weight and between classes by share. A packet leaves when its tunnel's bucket and the port's hold its
//! bytes on the wire, so that neither ever passes more than its burst. Strict priority holds within a tunnel too: a
//! tunnel whose first packet is too long for its tokens waits for them, it does not send a later and shorter one.
//!
//! What finds nothing before it and tokens for itself goes past all this ([`Scheduler::pass`], [`Scheduler::pass_all`]).
//!
//! A tunnel leaves a line lazily: when it comes to its head and is parked or has nothing there. To queue an item and to
//! take one cost the same whatever the number of tunnels.

mod codel;
mod counters;
mod delay;
mod dequeue;
mod fifo;
mod line;
mod pass;
mod pie;
mod shaper;
mod spec;
mod stats;
mod succession;
mod tunnel;
mod wheel;
mod wred;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use wire::{Dscp, Ecn};

pub use codel::CoDel;
pub use counters::{Counters, Refusal, Volume};
pub use delay::Delays;
pub use pie::Pie;
pub use shaper::Membership;
pub use spec::{
    CLASSES_MAX, ClassSlot, ClassSpec, EarlyDrop, Limit, PRIORITY_LEVELS, PolicySpec, PortSpec,
    SHARE_RATIO_MAX, Service, Share, SpecError, TunnelSlot, TunnelSpec,
};
pub use stats::{ClassState, Stats};
pub use wred::{DropProfile, Wred};

use fifo::{Queued, Slab};
use line::Line;
use shaper::PortShaper;
use tunnel::{Class, Early, LEVELS, SHARES, Tunnel, TunnelLinks};
use wheel::Wheel;

/// Of several workers' schedulers of a port each has this tunnel, which stands for traffic outside tunnels.
const PORTS_OWN: TunnelSlot = TunnelSlot(0);
/// Stands for no index.
const NONE: u32 = u32::MAX;

/// What the scheduler has to know of an item that is to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its tunnel.
    pub tunnel: TunnelSlot,
    /// Its class.
    pub class: ClassSlot,
    /// The bytes it will be on the wire: with delivery header, ESP and Ethernet, preamble and gap included.
    pub wire_bytes: u32,
    /// Its code point, for WRED.
    pub dscp: Dscp,
    /// Its ECN field, which says whether it can be marked.
    pub ecn: Ecn,
}

/// An item that was not queued, or was queued and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// The item.
    pub item: T,
    /// Its tunnel.
    pub tunnel: TunnelSlot,
    /// Its class.
    pub class: ClassSlot,
    /// Why.
    pub refusal: Refusal,
}

/// An item whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving<T> {
    /// The item.
    pub item: T,
    /// Its tunnel.
    pub tunnel: TunnelSlot,
    /// Its class.
    pub class: ClassSlot,
    /// Its bytes on the wire, as offered.
    pub wire_bytes: u32,
    /// Whether its ECN field has to become CE.
    pub mark: bool,
    /// How long it has waited.
    pub delay_ns: u64,
}

/// What [`Scheduler::dequeue`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Send this.
    Leaving(Leaving<T>),
    /// Drop this, and ask again.
    Refused(Refused<T>),
    /// Nothing leaves before this moment unless something is queued; `None`: nothing is queued.
    Wait(Option<u64>),
}

/// The scheduler of one egress port, over items of type `T`.
pub struct Scheduler<T> {
    slab: Slab<T>,
    policies: Box<[PolicySpec]>,
    tunnels: Box<[Tunnel]>,
    classes: Box<[Class]>,
    stats: Arc<Stats>,
    lines: [Line; LEVELS],
    wheel: Wheel,
    shaper: PortShaper,
    packet_bytes_max: u32,
    /// Places in the slab that only priority classes may take.
    reserve: u32,
    random: u64,
}

impl<T> Scheduler<T> {
    /// Makes a scheduler. This is where all memory is allocated.
    ///
    /// # Errors
    /// The specification cannot be followed.
    pub fn new(spec: &PortSpec) -> Result<Self, SpecError> {
        Self::build(spec, None)
    }

    /// Makes the scheduler of one worker for a port that others send by too. The port's shaper is shared, and its first
    /// tunnel, which stands for traffic outside tunnels, keeps step with theirs; the other tunnels are this worker's own.
    ///
    /// # Errors
    /// The specification cannot be followed.
    pub fn of_worker(spec: &PortSpec, membership: &Membership) -> Result<Self, SpecError> {
        Self::build(spec, Some(membership))
    }

    fn build(spec: &PortSpec, membership: Option<&Membership>) -> Result<Self, SpecError> {
        spec.check()?;
        let built = tunnel::build(spec)?;
        let extents: Vec<_> =
            built.tunnels.iter().map(|tunnel| (tunnel.first_class, tunnel.class_count)).collect();
        Ok(Self {
            slab: Slab::new(spec.items_max),
            policies: spec.policies.clone().into_boxed_slice(),
            stats: Arc::new(Stats::new(&extents, &built.delays)),
            wheel: Wheel::new(built.tunnels.len()),
            tunnels: built.tunnels.into_boxed_slice(),
            classes: built.classes.into_boxed_slice(),
            lines: [Line::EMPTY; LEVELS],
            shaper: match membership {
                Some(membership) => PortShaper::shared(membership, spec.shape, spec.packet_bytes_max),
                None => PortShaper::own(spec.shape),
            },
            packet_bytes_max: spec.packet_bytes_max,
            reserve: spec.items_max / 8,
            random: spec.seed,
        })
    }

    /// Bytes of memory: for each tunnel, each class, each class with delays, each item.
    #[must_use]
    pub const fn bytes_for_each() -> [usize; 4] {
        let [tunnel, class, delays] = Stats::bytes_for_each();
        let tunnel = size_of::<Tunnel>() + Wheel::bytes_per_timer() + tunnel;
        [tunnel, size_of::<Class>() + class, delays, Slab::<T>::bytes_per_item()]
    }

    /// Queues an item that arrives at `now_ns`.
    ///
    /// # Errors
    /// The item comes back with the reason, which is counted unless there is no such class.
    pub fn enqueue(&mut self, item: T, offer: Offer, now_ns: u64) -> Result<(), Refused<T>> {
        let Offer { tunnel, class, wire_bytes, ecn, .. } = offer;
        let refused = |item, refusal| Refused { item, tunnel, class, refusal };
        let Some(index) = self.class_index(tunnel, class) else {
            return Err(refused(item, Refusal::NoSuchClass));
        };
        let admitted = self.admit(index, &offer, now_ns);
        let stored = match (admitted, self.classes.get_mut(index as usize)) {
            (Ok(marked), Some(class)) => {
                let queued = Queued { item, wire_bytes, ecn, marked, since_ns: now_ns };
                class.fifo.push(&mut self.slab, queued).map_err(|item| (item, Refusal::NoRoom))
            }
            (Err(refusal), _) => Err((item, refusal)),
            (Ok(_), None) => Err((item, Refusal::NoSuchClass)),
        };
        if let Some(counters) = self.stats.at(index) {
            counters.offer(wire_bytes);
            if let Err((_, refusal)) = &stored {
                counters.drop_for(*refusal, wire_bytes);
            }
        }
        stored.map_err(|(item, refusal)| refused(item, refusal))?;
        self.activate(tunnel, index);
        Ok(())
    }

    /// What it tells of itself, for whoever reads beside it.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Items that are queued.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.slab.used()
    }

    #[inline]
    fn class_index(&self, tunnel: TunnelSlot, class: ClassSlot) -> Option<u32> {
        let tunnel = self.tunnels.get(tunnel.0 as usize)?;
        (class.0 < tunnel.class_count).then(|| tunnel.first_class + u32::from(class.0))
    }

    /// Whether the item may be queued, and whether it is marked.
    fn admit(&mut self, index: u32, offer: &Offer, now_ns: u64) -> Result<bool, Refusal> {
        if !has_size(offer.wire_bytes, self.packet_bytes_max) {
            return Err(Refusal::BadSize);
        }
        let Some(class) = self.classes.get_mut(index as usize) else { return Err(Refusal::NoSuchClass) };
        let spec = spec_of(&self.policies, class).ok_or(Refusal::NoSuchClass)?;
        let marked = match &mut class.early {
            Early::Wred(state) => {
                let random = next_random(&mut self.random);
                wred_marks(state, spec, offer, class.fifo.packets, now_ns, random)?
            }
            Early::Pie(state) => {
                let random = next_random(&mut self.random);
                let found = pie::Found {
                    bytes: class.fifo.bytes,
                    head_since_ns: class.fifo.head(&self.slab).map(|head| head.since_ns),
                    packet_bytes_max: self.packet_bytes_max,
                };
                pie_marks(state, spec, offer, found, now_ns, random)?
            }
            Early::None | Early::CoDel(_) => false,
        };
        let bytes = class.fifo.bytes.saturating_add(u64::from(offer.wire_bytes));
        if class.fifo.packets >= class.limit_packets || bytes > class.limit_bytes {
            return Err(Refusal::QueueLimit);
        }
        let reserve = if class.level == SHARES { self.reserve } else { 0 };
        if self.slab.free_count() <= reserve {
            return Err(Refusal::NoRoom);
        }
        Ok(marked)
    }

    /// An item has been queued: its class and its tunnel stand in line, if they did not.
    fn activate(&mut self, tunnel_slot: TunnelSlot, index: u32) {
        let Some(tunnel) = self.tunnels.get_mut(tunnel_slot.0 as usize) else { return };
        let Some(class) = self.classes.get_mut(index as usize) else { return };
        if class.fifo.packets != 1 {
            return;
        }
        let level = class.level;
        if level == SHARES {
            class.deficit = class.quantum;
            if tunnel_slot == PORTS_OWN {
                self.shaper.joins(class.slot);
            }
            tunnel.shares.push(&mut self.classes, index);
        }
        if tunnel.has_backlog(level) {
            return;
        }
        if level == SHARES {
            tunnel.deficit = tunnel.quantum;
        }
        tunnel.backlog |= 1 << level;
        // A parked tunnel waits for its first packet's tokens; this one may need fewer, and goes before it.
        let goes_first = tunnel.backlog.trailing_zeros() as usize == level;
        if !tunnel.parked || goes_first {
            self.stand_in_line(tunnel_slot.0);
        }
    }

    /// The tunnel may send, as far as is known: it stands in the line of each level at which it has something.
    fn stand_in_line(&mut self, index: u32) {
        let Some(tunnel) = self.tunnels.get_mut(index as usize) else { return };
        if tunnel.parked {
            tunnel.parked = false;
            self.wheel.cancel(index);
        }
        let missing = tunnel.backlog & !tunnel.in_line;
        tunnel.in_line |= missing;
        for (level, line) in self.lines.iter_mut().enumerate() {
            if missing >> level & 1 == 1 {
                line.push(&mut TunnelLinks { tunnels: &mut self.tunnels, level }, index);
            }
        }
    }
}

#[inline]
fn has_size(wire_bytes: u32, packet_bytes_max: u32) -> bool {
    (1..=packet_bytes_max).contains(&wire_bytes)
}

fn spec_of<'p>(policies: &'p [PolicySpec], class: &Class) -> Option<&'p ClassSpec> {
    policies.get(class.policy as usize)?.classes.get(usize::from(class.slot.0))
}

/// Whether WRED marks the packet.
fn wred_marks(
    state: &mut wred::State,
    spec: &ClassSpec,
    offer: &Offer,
    packets: u32,
    now_ns: u64,
    random: u32,
) -> Result<bool, Refusal> {
    let EarlyDrop::Wred(wred) = &spec.early else { return Ok(false) };
    match state.arrival(wred, offer.dscp, packets, now_ns, random) {
        wred::Verdict::Pass => Ok(false),
        wred::Verdict::Signal if spec.ecn && offer.ecn != Ecn::NotEct => Ok(true),
        wred::Verdict::Signal | wred::Verdict::Refuse => Err(Refusal::Wred),
    }
}

/// Whether PIE marks the packet.
fn pie_marks(
    state: &mut pie::State,
    spec: &ClassSpec,
    offer: &Offer,
    found: pie::Found,
    now_ns: u64,
    random: u32,
) -> Result<bool, Refusal> {
    let EarlyDrop::Pie(pie) = &spec.early else { return Ok(false) };
    match state.arrival(*pie, found, now_ns, random) {
        pie::Verdict::Pass => Ok(false),
        pie::Verdict::Signal if spec.ecn && offer.ecn != Ecn::NotEct => Ok(true),
        pie::Verdict::Signal | pie::Verdict::Refuse => Err(Refusal::Pie),
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014), its upper half.
fn next_random(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}
