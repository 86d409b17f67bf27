// SPDX-License-Identifier: Apache-2.0
//! The way out of the scheduler: which packet is next, and whether it may leave.

use wire::Ecn;

use super::line::Line;
use super::spec::{EarlyDrop, TunnelSlot};
use super::tunnel::{Class, Early, SHARES, TunnelLinks};
use super::{Leaving, Next, PORTS_OWN, Refusal, Refused, Scheduler, pass, spec_of};
use crate::share::Backlog;

/// Timers that one call looks at: its work is bounded even if all tunnels may send at once.
const EXPIRIES_MAX: usize = 32;
/// Tunnels that one call passes over because they are ahead of other workers'.
const HELD_BACK_MAX: usize = 32;
/// Tunnels of a line whose packets are announced to other workers.
const ANNOUNCED_TUNNELS: usize = 32;

/// What CoDel wants done with a head.
enum Signal {
    None,
    Mark,
    Drop,
}

/// Whose turn it is within a tunnel.
enum Turn {
    /// This class's.
    Class(u32),
    /// Nobody's: it is ahead of what waits at other workers.
    Ahead,
}

/// What has become of the tunnel at the head of a line.
enum Served<T> {
    Next(Next<T>),
    /// It is no longer at the head: look again.
    LineChanged,
    /// It has let others catch up that wait at other workers, and is no longer at the head.
    HeldBack,
}

impl<T> Scheduler<T> {
    /// What is to be done next at `now_ns`; to be asked as long as the transmit ring has room.
    pub fn dequeue(&mut self, now_ns: u64) -> Next<T> {
        self.wake(now_ns);
        self.shaper.refill(now_ns);
        let mut held_back = 0;
        while held_back < HELD_BACK_MAX {
            let Some((level, tunnel)) = self.first_in_line() else { return Next::Wait(self.wheel.next_ns()) };
            match self.serve(level, tunnel, now_ns) {
                Some(Served::Next(next)) => return next,
                Some(Served::LineChanged) => {}
                Some(Served::HeldBack) => held_back += 1,
                None => return Next::Wait(self.wheel.next_ns()),
            }
        }
        self.wait_for(0)
    }

    /// Tunnels stand in line whose shapers have tokens again.
    #[inline]
    pub(super) fn wake(&mut self, now_ns: u64) {
        for _ in 0..EXPIRIES_MAX {
            let Some(tunnel) = self.wheel.expire(now_ns) else { break };
            self.stand_in_line(tunnel);
        }
    }

    /// Until the port has so many bytes, or a tunnel may send again.
    fn wait_for(&self, wire_bytes: u32) -> Next<T> {
        let moments = [self.shaper.ready_at(wire_bytes), self.wheel.next_ns()];
        Next::Wait(moments.into_iter().flatten().min())
    }

    /// The worker goes on to something else: tokens of a shared port go back, and the other workers hear which priority
    /// packets wait here. To be called whenever the transmit ring is full or nothing more is due.
    #[inline]
    pub fn rest(&mut self, now_ns: u64) {
        if self.shaper.is_shared() {
            self.shaper.refill(now_ns);
            let bytes = core::array::from_fn(|level| self.waiting_at(level));
            let (shares, tunnels) = (self.waiting_shares(), self.waiting_tunnels());
            self.shaper.rest(Backlog { bytes, shares, tunnels });
        }
    }

    /// The worker goes on to something else before the device takes more: as [`rest`](Self::rest), but what waits is not told
    /// anew, for it waits for the device only.
    #[inline]
    pub fn pause(&mut self, now_ns: u64) {
        match self.slab.used() {
            0 => self.rest(now_ns),
            _ => self.shaper.settle(),
        }
    }

    /// The classes of the port's own that have shares and something waiting, one bit each.
    fn waiting_shares(&self) -> u32 {
        let Some(own) = self.tunnels.first().filter(|own| own.has_backlog(SHARES)) else { return 0 };
        let classes = self.classes.iter().take(usize::from(own.class_count));
        let waits = classes.map(|class| class.level == SHARES && !class.fifo.is_empty());
        (0..).zip(waits).fold(0, |bits, (place, waits)| bits | u32::from(waits) << place)
    }

    /// Tunnels whose shares wait for the port only, as far as a few show.
    fn waiting_tunnels(&self) -> u32 {
        let (mut count, mut next) = (0, self.lines.get(SHARES).and_then(Line::first));
        for _ in 0..ANNOUNCED_TUNNELS {
            let Some((index, tunnel)) = next.and_then(|next| Some((next, self.tunnels.get(next as usize)?)))
            else {
                break;
            };
            count += u32::from(index != PORTS_OWN.0 && tunnel.has_backlog(SHARES) && !tunnel.parked);
            next = tunnel.behind(SHARES);
        }
        count
    }

    /// Bytes that wait at a priority level and for the port only, as far as a few tunnels show.
    fn waiting_at(&self, level: usize) -> u32 {
        let (mut bytes, mut next) = (0, self.lines.get(level).and_then(Line::first));
        for _ in 0..ANNOUNCED_TUNNELS {
            let Some(tunnel) = next.and_then(|index| self.tunnels.get(index as usize)) else { break };
            let class = tunnel.priority_class(level).filter(|_| !tunnel.parked);
            bytes +=
                class.and_then(|class| self.classes.get(class as usize)).map_or(0, |class| class.fifo.bytes);
            next = tunnel.behind(level);
        }
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// The first tunnel of the first line that has one with something to do.
    pub(super) fn first_in_line(&mut self) -> Option<(usize, u32)> {
        for (level, line) in self.lines.iter_mut().enumerate() {
            while let Some(index) = line.first() {
                let tunnel = self.tunnels.get_mut(index as usize)?;
                if tunnel.has_backlog(level) && !tunnel.parked {
                    return Some((level, index));
                }
                tunnel.in_line &= !(1 << level);
                line.pop(&mut TunnelLinks { tunnels: &mut self.tunnels, level });
            }
        }
        None
    }

    /// Serves the tunnel at the head of a line; `None` if what stands there is not to be found.
    fn serve(&mut self, level: usize, index: u32, now_ns: u64) -> Option<Served<T>> {
        let class_index = match self.class_to_serve(level, index)? {
            Turn::Class(class_index) => class_index,
            Turn::Ahead if self.lines.get(level)?.is_single() => return Some(Served::Next(self.wait_for(0))),
            Turn::Ahead => {
                self.lines.get_mut(level)?.rotate(&mut TunnelLinks { tunnels: &mut self.tunnels, level });
                return Some(Served::HeldBack);
            }
        };
        let class = self.classes.get_mut(class_index as usize)?;
        let wire_bytes = class.fifo.head(&self.slab)?.wire_bytes;
        let tunnel = self.tunnels.get_mut(index as usize)?;
        if let Some(shaper) = &mut tunnel.shaper {
            shaper.refill(now_ns);
            if !shaper.holds(wire_bytes) {
                tunnel.parked = true;
                self.wheel.set(index, shaper.ready_at(wire_bytes).unwrap_or(u64::MAX));
                return Some(Served::LineChanged);
            }
        }
        if level == SHARES && tunnel.deficit < wire_bytes {
            tunnel.deficit = tunnel.deficit.saturating_add(tunnel.quantum);
            self.lines.get_mut(level)?.rotate(&mut TunnelLinks { tunnels: &mut self.tunnels, level });
            return Some(Served::LineChanged);
        }
        if !self.shaper.may_pass(level, wire_bytes) {
            return Some(Served::Next(self.wait_for(wire_bytes)));
        }
        self.take(level, index, class_index, now_ns).map(Served::Next)
    }

    /// The class of the tunnel whose turn it is at this level.
    fn class_to_serve(&mut self, level: usize, index: u32) -> Option<Turn> {
        let tunnel = self.tunnels.get_mut(index as usize)?;
        if level < SHARES {
            return tunnel.priority_class(level).map(Turn::Class);
        }
        if index != PORTS_OWN.0 && self.shaper.tunnels_are_ahead() {
            return Some(Turn::Ahead);
        }
        let mut ahead = 0;
        loop {
            let class_index = tunnel.shares.first()?;
            let class = self.classes.get_mut(class_index as usize)?;
            if class.deficit < class.fifo.head(&self.slab)?.wire_bytes {
                class.deficit = class.deficit.saturating_add(class.quantum);
            } else if index == PORTS_OWN.0 && self.shaper.is_ahead(class.slot, class.quantum) {
                ahead += 1;
                if ahead > tunnel.class_count {
                    return Some(Turn::Ahead);
                }
            } else {
                return Some(Turn::Class(class_index));
            }
            tunnel.shares.rotate(&mut self.classes);
        }
    }

    /// Takes the head of the class: it leaves, or CoDel drops it.
    fn take(&mut self, level: usize, index: u32, class_index: u32, now_ns: u64) -> Option<Next<T>> {
        let class = self.classes.get_mut(class_index as usize)?;
        let spec = spec_of(&self.policies, class)?;
        let signal = codel_signal(class, &self.slab, &spec.early, spec.ecn, self.packet_bytes_max, now_ns);
        let slot = class.slot;
        let queued = class.fifo.pop(&mut self.slab)?;
        let wire_bytes = queued.wire_bytes;
        let counters = self.stats.at(class_index)?;
        if matches!(signal, Signal::Drop) {
            counters.drop_for(Refusal::CoDel, wire_bytes);
            self.shaper.decline();
            self.settle(level, index, class_index, now_ns);
            let (item, tunnel, refusal) = (queued.item, TunnelSlot(index), Refusal::CoDel);
            return Some(Next::Refused(Refused { item, tunnel, class: slot, refusal }));
        }
        let mark = queued.marked || matches!(signal, Signal::Mark);
        let delay_ns = now_ns.saturating_sub(queued.since_ns);
        counters.send(wire_bytes, mark);
        self.stats.record_delay(class_index, delay_ns);
        self.charge(level, index, class_index, wire_bytes);
        self.settle(level, index, class_index, now_ns);
        let tunnel = TunnelSlot(index);
        Some(Next::Leaving(Leaving { item: queued.item, tunnel, class: slot, wire_bytes, mark, delay_ns }))
    }

    /// What leaves costs tokens, and a share its deficits.
    fn charge(&mut self, level: usize, index: u32, class_index: u32, wire_bytes: u32) {
        let Some(tunnel) = self.tunnels.get_mut(index as usize) else { return };
        let Some(class) = self.classes.get_mut(class_index as usize) else { return };
        if level == SHARES {
            tunnel.deficit = tunnel.deficit.saturating_sub(wire_bytes);
            class.deficit = class.deficit.saturating_sub(wire_bytes);
        }
        pass::spend(&mut self.shaper, (TunnelSlot(index), tunnel), class, wire_bytes);
        self.stats.note_tokens(index, tunnel.tokens(), self.shaper.level_bytes());
    }

    /// Puts the lines right after the head of a class has gone: class and tunnel are the first of theirs.
    fn settle(&mut self, level: usize, index: u32, class_index: u32, now_ns: u64) {
        let Some(tunnel) = self.tunnels.get_mut(index as usize) else { return };
        let Some(class) = self.classes.get_mut(class_index as usize) else { return };
        let Some(line) = self.lines.get_mut(level) else { return };
        if class.fifo.is_empty() {
            class.early.emptied(now_ns);
            if level == SHARES {
                tunnel.shares.pop(&mut self.classes);
            }
            if level < SHARES || tunnel.shares.first().is_none() {
                tunnel.backlog &= !(1 << level);
                tunnel.in_line &= !(1 << level);
                line.pop(&mut TunnelLinks { tunnels: &mut self.tunnels, level });
                return;
            }
        }
        if level < SHARES {
            line.rotate(&mut TunnelLinks { tunnels: &mut self.tunnels, level });
        }
    }
}

/// Asks CoDel, if the class has it, about its head.
fn codel_signal<T>(
    class: &mut Class,
    slab: &super::Slab<T>,
    early: &EarlyDrop,
    ecn: bool,
    packet_bytes_max: u32,
    now_ns: u64,
) -> Signal {
    if matches!(class.early, Early::None | Early::Wred(_)) {
        return Signal::None;
    }
    let Some(head) = class.fifo.head(slab) else { return Signal::None };
    let (state, codel) = match (&mut class.early, early) {
        (Early::CoDel(state), EarlyDrop::CoDel(codel)) => (state, codel),
        // It signals on arrival; here time passes for it.
        (Early::Pie(state), EarlyDrop::Pie(pie)) => {
            state.catch_up(*pie, Some(head.since_ns), now_ns);
            return Signal::None;
        }
        _ => return Signal::None,
    };
    let bytes_behind = class.fifo.bytes.saturating_sub(u64::from(head.wire_bytes));
    if !state.signals(*codel, head.since_ns, now_ns, bytes_behind, packet_bytes_max) {
        return Signal::None;
    }
    if ecn && head.ecn != Ecn::NotEct { Signal::Mark } else { Signal::Drop }
}
