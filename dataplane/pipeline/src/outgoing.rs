// SPDX-License-Identifier: Apache-2.0
//! What may leave: a packet becomes [`Outgoing`] by being sealed, by an SPD entry that says BYPASS, or by being
//! ARP or neighbour discovery. Transmit queues take nothing else, so that nothing reaches a port by mistake.

use arrayvec::{ArrayVec, CapacityError};
use messages::{PortIndex, PortSide};
use pktbuf::{BURST, Batch, Packet};
use wire::VlanId;

use crate::tag;

/// Frames that one port holds back at most while its device takes no more.
const QUEUE_FRAMES: usize = 1024;

/// A packet that may be transmitted.
pub(crate) struct Outgoing {
    packet: Packet,
    in_clear: bool,
}

/// Leave to send a packet in clear: from an SPD entry that says BYPASS, or for a port on the protected side.
#[derive(Clone, Copy)]
pub(crate) struct ClearancePass(());

impl ClearancePass {
    /// No SPD applies to what leaves by a port on the protected side.
    #[inline]
    pub(crate) fn for_side(side: PortSide) -> Option<Self> {
        match side {
            PortSide::Protected => Some(Self(())),
            PortSide::Unprotected => None,
        }
    }

    /// The SPD of the egress port says BYPASS, or has no say there (RFC 4301 §4.4.1).
    pub(crate) fn from_bypass() -> Self {
        Self(())
    }
}

impl Outgoing {
    /// A packet that ESP has sealed.
    pub(crate) fn sealed(packet: Packet) -> Self {
        Self { packet, in_clear: false }
    }

    /// A packet that may leave in clear.
    pub(crate) fn clear(packet: Packet, _pass: ClearancePass) -> Self {
        Self { packet, in_clear: true }
    }

    /// An ARP or neighbour discovery message of ours: link-local, never forwarded.
    pub(crate) fn link_local(packet: Packet) -> Self {
        Self { packet, in_clear: true }
    }

    pub(crate) fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Whether it leaves without ESP: a [`ClearancePass`] holds for the generation that gave it.
    pub(crate) fn is_in_clear(&self) -> bool {
        self.in_clear
    }

    /// The packet, to end its way: what comes out is no longer allowed to leave.
    pub(crate) fn into_packet(self) -> Packet {
        self.packet
    }

    pub(crate) fn packet_mut(&mut self) -> &mut Packet {
        &mut self.packet
    }
}

/// Frames that wait for each port's device.
pub(crate) struct Transmission {
    queues: Vec<PortQueue>,
    /// Where what a device has refused comes together with what it was not offered; empty otherwise.
    left: Frames,
    batch: Batch,
}

type Frames = Box<ArrayVec<Packet, QUEUE_FRAMES>>;

struct PortQueue {
    frames: Frames,
    /// The VLAN whose tag frames get before they are offered.
    tag: Option<VlanId>,
    /// Frames in front that have it already: the device has refused them.
    tagged: usize,
}

impl Transmission {
    /// For as many ports as there are tags.
    pub(crate) fn new(tags: &[Option<VlanId>]) -> Self {
        let queue = |tag: &Option<VlanId>| PortQueue { frames: Frames::default(), tag: *tag, tagged: 0 };
        Self { queues: tags.iter().map(queue).collect(), left: Frames::default(), batch: Batch::new() }
    }

    /// Appends a complete frame, or gives it back if the queue is full or there is no such port.
    #[inline]
    pub(crate) fn push(&mut self, port: PortIndex, frame: Outgoing) -> Result<(), Packet> {
        match self.queues.get_mut(port.index()) {
            Some(queue) => queue.frames.try_push(frame.packet).map_err(CapacityError::element),
            None => Err(frame.packet),
        }
    }

    /// Frames that wait for a port's device.
    #[inline]
    pub(crate) fn waiting(&self, port: PortIndex) -> usize {
        self.queues.get(port.index()).map_or(usize::MAX, |queue| queue.frames.len())
    }

    /// Appends complete frames; drops those that do not fit, or all if there is no such port, and returns how many.
    #[inline(always)]
    pub(crate) fn extend(&mut self, port: PortIndex, frames: impl Iterator<Item = Outgoing>) -> u64 {
        let Some(queue) = self.queues.get_mut(port.index()) else { return frames.count() as u64 };
        let mut refused = 0;
        for frame in frames {
            refused += u64::from(queue.frames.try_push(frame.packet).is_err());
        }
        refused
    }

    /// Frames that wait, over all ports.
    pub(crate) fn held(&self) -> usize {
        self.queues.iter().map(|queue| queue.frames.len()).sum()
    }

    /// Offers a port's frames to `send` burst by burst, in order, until it takes no more; what it leaves in
    /// its batch is kept. Tagged ports' frames get their tags here. Returns the frames and bytes taken.
    pub(crate) fn send(&mut self, port: PortIndex, mut send: impl FnMut(&mut Batch) -> usize) -> Sent {
        let mut sent = Sent::default();
        let Some(PortQueue { frames: queue, tag, tagged }) = self.queues.get_mut(port.index()) else {
            return sent;
        };
        let mut frames = queue.drain(..);
        while frames.len() > 0 && self.batch.is_empty() {
            self.batch.extend(frames.by_ref().take(BURST));
            if let Some(vlan) = *tag {
                sent.no_headroom += tag::put_on_all(&mut self.batch, vlan, std::mem::take(tagged));
            }
            let offered = bytes_of(&self.batch);
            sent.frames += send(&mut self.batch) as u64;
            sent.bytes += offered - bytes_of(&self.batch);
        }
        if !self.batch.is_empty() {
            *tagged = self.batch.len();
            self.left.extend(self.batch.drain(..).chain(frames));
            core::mem::swap(queue, &mut self.left);
        }
        sent
    }
}

/// What a device took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// Their bytes, Ethernet header and tag included, FCS not.
    pub bytes: u64,
    /// Frames without room for a tag, which have been dropped.
    pub(crate) no_headroom: u64,
}

fn bytes_of(batch: &Batch) -> u64 {
    batch.iter().map(|packet| packet.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use pktbuf::Pool;

    use super::*;

    const PORT: PortIndex = PortIndex(0);

    fn frame(pool: &Pool, mark: u8) -> Outgoing {
        Outgoing::link_local(pool.copy_of(&[mark; 60]).unwrap())
    }

    #[test]
    fn what_a_device_refuses_stays_in_order() {
        let pool = Pool::memory(256, 2048).unwrap();
        let mut transmission = Transmission::new(&[None]);
        for mark in 0..100 {
            assert!(transmission.push(PORT, frame(&pool, mark)).is_ok());
        }
        let mut seen = Vec::new();
        for room in [10, 0, 200] {
            let mut left = room;
            let sent = transmission.send(PORT, |batch| {
                let count = batch.len().min(left);
                left -= count;
                seen.extend(batch.drain(..count).map(|packet| packet.data()[0]));
                count
            });
            assert_eq!(sent.bytes, sent.frames * 60);
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
        assert_eq!(transmission.held(), 0);
    }

    #[test]
    fn what_a_device_refuses_is_tagged_once() {
        let pool = Pool::memory(256, 2048).unwrap();
        let mut transmission = Transmission::new(&[VlanId::new(7)]);
        let mut seen = Vec::new();
        for room in [10, 0, 100, 200] {
            for mark in 0..50 {
                assert!(transmission.push(PORT, frame(&pool, mark)).is_ok());
            }
            let mut left = room;
            let sent = transmission.send(PORT, |batch| {
                let count = batch.len().min(left);
                left -= count;
                seen.extend(batch.drain(..count).map(|packet| (packet.data()[0], packet.len())));
                count
            });
            assert_eq!(sent.bytes, sent.frames * 64);
        }
        let all = (0..4).flat_map(|_| (0..50).map(|mark| (mark, 64)));
        assert_eq!(seen, all.collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_and_an_unknown_port_give_the_frame_back() {
        let pool = Pool::memory(QUEUE_FRAMES + 8, 2048).unwrap();
        let mut transmission = Transmission::new(&[None]);
        for _ in 0..QUEUE_FRAMES {
            assert!(transmission.push(PORT, frame(&pool, 0)).is_ok());
        }
        assert!(transmission.push(PORT, frame(&pool, 0)).is_err());
        assert!(transmission.push(PortIndex(7), frame(&pool, 0)).is_err());
        assert_eq!(transmission.extend(PORT, (0..3).map(|_| frame(&pool, 0))), 3);
        assert_eq!(transmission.extend(PortIndex(7), (0..3).map(|_| frame(&pool, 0))), 3);
        assert_eq!(transmission.held(), QUEUE_FRAMES);
    }
}
