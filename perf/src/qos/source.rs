// SPDX-License-Identifier: Apache-2.0
//! Traffic for the scheduler: packets at random moments (exponential gaps) with a given mean rate.

use qos::schedule::{ClassSlot, Offer, TunnelSlot};
use wire::{Dscp, Ecn};

use crate::profile::Random;

/// Bytes beside the frame of 64 to 1,518 bytes that a packet is on an Ethernet: preamble and gap.
const PREAMBLE_AND_GAP: u32 = 20;

/// The longest packet on the wire: a frame of 1,518 bytes.
pub(super) const MTU_WIRE_BYTES: u32 = 1518 + PREAMBLE_AND_GAP;

/// Sizes of frames, with FCS.
#[derive(Clone, Copy)]
pub(super) enum Frames {
    /// All of one size.
    Fixed(u32),
    /// 7 of 64, 4 of 576, 1 of 1,518.
    Mixed,
}

impl Frames {
    fn pick(self, random: &mut Random) -> u32 {
        let frame = match self {
            Self::Fixed(bytes) => bytes,
            Self::Mixed => match random.below(12) {
                0..=6 => 64,
                7..=10 => 576,
                _ => 1518,
            },
        };
        frame + PREAMBLE_AND_GAP
    }

    fn mean_wire_bytes(self) -> f64 {
        let frame = match self {
            Self::Fixed(bytes) => f64::from(bytes),
            Self::Mixed => (7.0 * 64.0 + 4.0 * 576.0 + 1518.0) / 12.0,
        };
        frame + f64::from(PREAMBLE_AND_GAP)
    }
}

/// One stream of packets of one class, over tunnels 0 to `tunnels` − 1.
pub(super) struct Source {
    class: ClassSlot,
    dscp: Dscp,
    tunnels: u32,
    frames: Frames,
    gap_ns: f64,
    next_ns: f64,
    random: Random,
}

impl Source {
    pub(super) fn new(class: u8, dscp: Dscp, tunnels: u32, frames: Frames, bps: f64) -> Self {
        let gap_ns = frames.mean_wire_bytes() * 8e9 / bps;
        let random = Random(0x9e37_79b9 + u64::from(class));
        Self { class: ClassSlot(class), dscp, tunnels, frames, gap_ns, next_ns: 0.0, random }
    }

    /// The same with other moments and sizes.
    pub(super) fn again(mut self, times: u64) -> Self {
        self.random = Random(self.random.0 + (times << 32));
        self
    }

    /// The next packet that has arrived by `now_ns`, and when it did.
    pub(super) fn arrived(&mut self, now_ns: u64) -> Option<(u64, Offer)> {
        let at_ns = self.next_ns as u64;
        if at_ns > now_ns {
            return None;
        }
        let uniform = (f64::from(self.random.below(1 << 30)) + 0.5) / f64::from(1 << 30);
        self.next_ns -= uniform.ln() * self.gap_ns;
        let tunnel = TunnelSlot(self.random.below(self.tunnels));
        let wire_bytes = self.frames.pick(&mut self.random);
        Some((at_ns, Offer { tunnel, class: self.class, wire_bytes, dscp: self.dscp, ecn: Ecn::NotEct }))
    }
}
