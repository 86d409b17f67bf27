// SPDX-License-Identifier: Apache-2.0
//! The port's shaper: one scheduler's own, or shared by those of several workers.

use std::sync::Arc;

use super::spec::ClassSlot;
use crate::bucket::{Bucket, TrafficProfile};
use crate::share::{Backlog, Member, PortShare};

/// What the schedulers of one port share, and which of them this is.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The port's tokens.
    pub share: Arc<PortShare>,
    /// Which of the workers of `share`, from 0.
    pub worker: u16,
}

/// What packets pass last.
pub(super) enum PortShaper {
    Unshaped,
    Own(Bucket),
    Shared(Box<Member>),
}

impl PortShaper {
    pub(super) fn own(profile: Option<TrafficProfile>) -> Self {
        profile.map_or(Self::Unshaped, |profile| Self::Own(Bucket::new(profile)))
    }

    pub(super) fn shared(
        membership: &Membership,
        profile: Option<TrafficProfile>,
        packet_bytes_max: u32,
    ) -> Self {
        let Membership { share, worker } = membership;
        let member = Member::new(Arc::clone(share), usize::from(*worker), profile, packet_bytes_max);
        Self::Shared(Box::new(member))
    }

    /// Lets time pass.
    #[inline(always)]
    pub(super) fn refill(&mut self, now_ns: u64) {
        match self {
            Self::Unshaped => {}
            Self::Own(bucket) => {
                bucket.refill(now_ns);
            }
            Self::Shared(member) => member.begin(now_ns),
        }
    }

    /// Whether a packet of a level may pass, as of the last refill.
    #[inline(always)]
    pub(super) fn may_pass(&mut self, level: usize, wire_bytes: u32) -> bool {
        match self {
            Self::Unshaped => true,
            Self::Own(bucket) => bucket.holds(wire_bytes),
            Self::Shared(member) => member.may_pass(level, wire_bytes),
        }
    }

    /// Whether so many bytes may pass, as of the last refill; one that others share is asked by level.
    #[inline(always)]
    pub(super) fn holds(&self, bytes: u32) -> bool {
        match self {
            Self::Unshaped => true,
            Self::Own(bucket) => bucket.holds(bytes),
            Self::Shared(_) => false,
        }
    }

    /// A packet passes.
    #[inline(always)]
    pub(super) fn pass(&mut self, wire_bytes: u32) {
        match self {
            Self::Unshaped => {}
            Self::Own(bucket) => {
                bucket.take_now(wire_bytes);
            }
            Self::Shared(member) => member.pass(wire_bytes),
        }
    }

    /// A packet that might have passed does not.
    #[inline]
    pub(super) fn decline(&mut self) {
        if let Self::Shared(member) = self {
            member.put_back();
        }
    }

    /// When so many bytes may pass, as far as is known.
    pub(super) fn ready_at(&self, wire_bytes: u32) -> Option<u64> {
        match self {
            Self::Unshaped => None,
            Self::Own(bucket) => bucket.ready_at(wire_bytes),
            Self::Shared(member) => Some(member.ready_at(wire_bytes)),
        }
    }

    /// Bytes that may pass, if that is this scheduler's to tell.
    #[inline(always)]
    pub(super) fn level_bytes(&self) -> Option<u64> {
        match self {
            Self::Own(bucket) => Some(bucket.level_bytes()),
            Self::Unshaped | Self::Shared(_) => None,
        }
    }

    /// Whether others have to know what waits.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Tells the others what waits, and gives back what it has in hand.
    pub(super) fn rest(&mut self, backlog: Backlog) {
        if let Self::Shared(member) = self {
            member.rest(backlog);
        }
    }

    /// What is in hand goes back, and what was sent counts for the others; they are told nothing anew.
    pub(super) fn settle(&mut self) {
        if let Self::Shared(member) = self {
            member.settle();
        }
    }

    /// Whether one of the port's own classes has to join before it sends.
    #[inline(always)]
    pub(super) fn has_to_join(&self, class: ClassSlot) -> bool {
        matches!(self, Self::Shared(member) if !member.has_joined(class))
    }

    /// One of the port's own classes with shares has something to send, and had not.
    #[inline(always)]
    pub(super) fn joins(&mut self, class: ClassSlot) {
        if let Self::Shared(member) = self {
            member.joins(class);
        }
    }

    /// Whether one of the port's own classes has to let others catch up that wait at other workers.
    #[inline(always)]
    pub(super) fn is_ahead(&self, class: ClassSlot, quantum: u32) -> bool {
        match self {
            Self::Unshaped | Self::Own(_) => false,
            Self::Shared(member) => member.is_ahead(class, quantum),
        }
    }

    /// Whether tunnels with shares have to let those of other workers catch up.
    #[inline(always)]
    pub(super) fn tunnels_are_ahead(&self) -> bool {
        match self {
            Self::Unshaped | Self::Own(_) => false,
            Self::Shared(member) => member.tunnels_are_ahead(),
        }
    }

    /// A packet of one of the port's own classes with shares passes.
    #[inline(always)]
    pub(super) fn pass_share(&mut self, class: ClassSlot, wire_bytes: u32, quantum: u32) {
        if let Self::Shared(member) = self {
            member.pass_share(class, wire_bytes, quantum);
        }
    }

    /// A packet of a tunnel's share passes.
    #[inline(always)]
    pub(super) fn pass_tunnel(&mut self, wire_bytes: u32) {
        if let Self::Shared(member) = self {
            member.pass_tunnel(wire_bytes);
        }
    }

    /// A priority packet passes.
    #[inline(always)]
    pub(super) fn pass_level(&mut self, level: usize, wire_bytes: u32) {
        if let Self::Shared(member) = self {
            member.pass_level(level, wire_bytes);
        }
    }

    /// Goes on where another one ends; what is shared goes on by itself.
    pub(super) fn inherit(&mut self, before: &mut Self, now_ns: u64) {
        before.rest(Backlog::default());
        if let (Self::Own(own), Self::Own(before)) = (self, before) {
            inherit_tokens(own, before, now_ns);
        }
    }
}

/// A bucket never starts with more than its own depth, nor a new one with more than the old one had left.
pub(super) fn inherit_tokens(heir: &mut Bucket, before: &mut Bucket, now_ns: u64) {
    before.refill(now_ns);
    heir.start_with(before.level_bytes(), now_ns);
}
