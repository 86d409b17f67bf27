// SPDX-License-Identifier: Apache-2.0
//! The state of tunnels and classes, and how it is made from a port's specification.

use super::fifo::Fifo;
use super::line::{Line, Links};
use super::spec::{ClassSlot, EarlyDrop, PRIORITY_LEVELS, PolicySpec, PortSpec, Service, SpecError};
use super::{NONE, wred};
use super::{codel, pie};
use crate::bucket::Bucket;

/// The priority levels, and the shares behind them.
pub(super) const LEVELS: usize = PRIORITY_LEVELS + 1;
/// The level of the shares.
pub(super) const SHARES: usize = PRIORITY_LEVELS;

pub(super) struct Tunnel {
    pub(super) shaper: Option<Bucket>,
    pub(super) first_class: u32,
    pub(super) class_count: u8,
    /// Whether it waits in the timer wheel for tokens.
    pub(super) parked: bool,
    /// One bit for each level at which something is queued.
    pub(super) backlog: u8,
    /// One bit for each level in whose line it stands; it may still stand in one where it has nothing to do.
    pub(super) in_line: u8,
    links: [u32; LEVELS],
    by_level: [u32; PRIORITY_LEVELS],
    /// The classes with shares that have something queued.
    pub(super) shares: Line,
    pub(super) deficit: u32,
    pub(super) quantum: u32,
}

pub(super) struct Class {
    pub(super) fifo: Fifo,
    pub(super) limit_bytes: u64,
    pub(super) limit_packets: u32,
    pub(super) deficit: u32,
    pub(super) quantum: u32,
    link: u32,
    pub(super) policy: u32,
    pub(super) slot: ClassSlot,
    pub(super) level: usize,
    pub(super) early: Early,
}

/// What early dropping remembers.
pub(super) enum Early {
    None,
    Wred(wred::State),
    CoDel(codel::State),
    Pie(pie::State),
}

impl Tunnel {
    /// Lets time pass.
    #[inline(always)]
    pub(super) fn refill(&mut self, now_ns: u64) {
        if let Some(shaper) = &mut self.shaper {
            shaper.refill(now_ns);
        }
    }

    /// Whether its shaper lets so many bytes pass, as of the last refill.
    #[inline(always)]
    pub(super) fn holds(&self, bytes: u32) -> bool {
        self.shaper.as_ref().is_none_or(|shaper| shaper.holds(bytes))
    }

    /// So many bytes pass.
    #[inline(always)]
    pub(super) fn take(&mut self, bytes: u32) {
        if let Some(shaper) = &mut self.shaper {
            shaper.take_now(bytes);
        }
    }

    /// Its classes among all.
    #[inline(always)]
    pub(super) fn class_range(&self) -> core::ops::Range<usize> {
        let first = self.first_class as usize;
        first..first + usize::from(self.class_count)
    }

    /// Bytes that its shaper holds, if it has one.
    #[inline]
    pub(super) fn tokens(&self) -> Option<u64> {
        self.shaper.as_ref().map(Bucket::level_bytes)
    }

    pub(super) fn has_backlog(&self, level: usize) -> bool {
        self.backlog >> level & 1 == 1
    }

    /// The tunnel behind it in the line of this level.
    pub(super) fn behind(&self, level: usize) -> Option<u32> {
        self.links.get(level).copied().filter(|link| *link != NONE)
    }

    /// The class with this priority level.
    pub(super) fn priority_class(&self, level: usize) -> Option<u32> {
        self.by_level.get(level).copied()
    }
}

impl Early {
    fn new(early: &EarlyDrop) -> Self {
        match early {
            EarlyDrop::None => Self::None,
            EarlyDrop::Wred(_) => Self::Wred(wred::State::default()),
            EarlyDrop::CoDel(_) => Self::CoDel(codel::State::default()),
            EarlyDrop::Pie(_) => Self::Pie(pie::State::default()),
        }
    }

    /// The queue has run empty.
    pub(super) fn emptied(&mut self, now_ns: u64) {
        match self {
            // PIE's delay is that of the head, and there is none.
            Self::None | Self::Pie(_) => {}
            Self::Wred(state) => state.emptied(now_ns),
            Self::CoDel(state) => state.emptied(),
        }
    }
}

/// The links of the tunnels in one level's line.
pub(super) struct TunnelLinks<'t> {
    pub(super) tunnels: &'t mut [Tunnel],
    pub(super) level: usize,
}

impl Links for TunnelLinks<'_> {
    fn link(&mut self, index: u32) -> Option<&mut u32> {
        self.tunnels.get_mut(index as usize)?.links.get_mut(self.level)
    }
}

impl Links for Box<[Class]> {
    fn link(&mut self, index: u32) -> Option<&mut u32> {
        self.get_mut(index as usize).map(|class| &mut class.link)
    }
}

/// All state of a port's tunnels.
#[derive(Default)]
pub(super) struct Built {
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) classes: Vec<Class>,
    /// Whether each class records delays.
    pub(super) delays: Vec<bool>,
}

pub(super) fn build(spec: &PortSpec) -> Result<Built, SpecError> {
    let mut built = Built::default();
    for (index, tunnel) in spec.tunnels.iter().enumerate() {
        let Some(policy) = spec.policies.get(tunnel.policy) else { continue };
        let first_class = built.classes.len() as u32;
        let by_level = built.add_classes(spec, index, (tunnel.policy, policy))?;
        built.tunnels.push(Tunnel {
            shaper: tunnel.shape.map(Bucket::new),
            first_class,
            class_count: policy.classes.len() as u8,
            parked: false,
            backlog: 0,
            in_line: 0,
            links: [NONE; LEVELS],
            by_level,
            shares: Line::EMPTY,
            deficit: 0,
            quantum: spec.packet_bytes_max.saturating_mul(u32::from(tunnel.weight)),
        });
    }
    Ok(built)
}

impl Built {
    /// Returns the class of each priority level.
    fn add_classes(
        &mut self,
        spec: &PortSpec,
        tunnel: usize,
        (policy_index, policy): (usize, &PolicySpec),
    ) -> Result<[u32; PRIORITY_LEVELS], SpecError> {
        let mut by_level = [NONE; PRIORITY_LEVELS];
        for ((slot, class), reckoned) in (0u8..).zip(&policy.classes).zip(spec.reckon(tunnel)?) {
            let level = match class.service {
                Service::Priority { level } => usize::from(level),
                Service::Share(_) => SHARES,
            };
            if let Some(place) = by_level.get_mut(level) {
                *place = self.classes.len() as u32;
            }
            self.delays.push(class.delays);
            self.classes.push(Class {
                fifo: Fifo::EMPTY,
                limit_bytes: reckoned.limit_bytes,
                limit_packets: reckoned.limit_packets,
                deficit: 0,
                quantum: reckoned.quantum,
                link: NONE,
                policy: policy_index as u32,
                slot: ClassSlot(slot),
                level,
                early: Early::new(&class.early),
            });
        }
        Ok(by_level)
    }
}
