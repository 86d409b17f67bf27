// SPDX-License-Identifier: Apache-2.0
//! A host at the far side of a headend's port: it answers ARP and neighbour discovery, sends IP packets to its gateway
//! and keeps what it receives.

use core::net::IpAddr;

use pktbuf::{Packet, Pool};
use port::memory::Wire;
use wire::ndp::Message;
use wire::{EtherType, IpProtocol, MacAddr, arp, ethernet};

use crate::packets;

/// A host.
pub struct Site {
    wire: Wire,
    pool: Pool,
    mac: MacAddr,
    gateway: MacAddr,
    addresses: Vec<IpAddr>,
    received: Vec<Vec<u8>>,
    frames: Option<Vec<Vec<u8>>>,
    silent: bool,
}

impl Site {
    /// A host with these addresses at the end of `wire`, whose gateway has the Ethernet address `gateway`.
    ///
    /// # Panics
    /// Without memory.
    #[must_use]
    pub fn new(wire: Wire, mac: [u8; 6], gateway: [u8; 6], addresses: &[IpAddr]) -> Self {
        let pool = Pool::memory(4_608, 9_216 + 64).expect("packet memory");
        let (mac, gateway) = (MacAddr(mac), MacAddr(gateway));
        let addresses = addresses.to_vec();
        Self { wire, pool, mac, gateway, addresses, received: Vec::new(), frames: None, silent: false }
    }

    /// Keeps every frame from now on, for [`take_frames`](Self::take_frames).
    #[must_use]
    pub fn keeping_frames(mut self) -> Self {
        self.frames = Some(Vec::new());
        self
    }

    /// With so many buffers.
    ///
    /// # Panics
    /// Without memory.
    #[must_use]
    pub fn with_buffers(mut self, packets: usize) -> Self {
        self.pool = Pool::memory(packets, 9_216 + 64).expect("packet memory");
        self
    }

    /// Answers no more ARP requests and solicitations, or does again.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// The frames received since the last call, in order, if they are kept.
    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        self.poll();
        self.frames.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Sends an IP packet to the gateway's queue 0.
    pub fn send(&self, packet: &[u8]) {
        self.send_to_queue(0, packet);
    }

    /// Sends an IP packet to one of the gateway's queues.
    pub fn send_to_queue(&self, queue: u16, packet: &[u8]) {
        self.send_frame(queue, &packets::frame(self.gateway, self.mac, packet));
    }

    /// Sends a whole frame.
    ///
    /// # Panics
    /// If the wire is full, or no buffer is left: a simulation carries before that.
    pub fn send_frame(&self, queue: u16, frame: &[u8]) {
        self.send_buffer(queue, self.buffer(frame));
    }

    /// A whole frame in a buffer of this host, to be sent later.
    ///
    /// # Panics
    /// Without a buffer.
    #[must_use]
    pub fn buffer(&self, frame: &[u8]) -> Packet {
        self.pool.copy_of(frame).expect("a buffer")
    }

    /// Sends a whole frame that lies in any buffer.
    ///
    /// # Panics
    /// If the wire is full.
    pub fn send_buffer(&self, queue: u16, packet: Packet) {
        assert!(self.wire.inject(queue, packet).is_ok(), "the wire is full");
    }

    /// Takes in what arrived: questions are answered, IP packets kept.
    pub fn poll(&mut self) {
        while let Some(packet) = self.wire.collect() {
            let frame = packet.data().to_vec();
            if let Some(frames) = &mut self.frames {
                frames.push(frame.clone());
            }
            if !self.answer(&frame)
                && let Some((_, ip)) = packets::ip_in(&frame)
            {
                self.received.push(ip);
            }
        }
    }

    /// The IP packets received since the last call, in order.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.poll();
        std::mem::take(&mut self.received)
    }

    /// Takes in what arrived and forgets it unread, without allocation; returns how many frames that were.
    pub fn discard(&mut self) -> usize {
        std::iter::from_fn(|| self.wire.collect()).count()
    }

    /// Buffers of this host's pool that are still on their way.
    #[must_use]
    pub fn buffers_out(&self) -> usize {
        self.pool.capacity() - self.pool.available()
    }

    fn answer(&self, frame: &[u8]) -> bool {
        let (ether_type, payload) = packets::open_frame(frame);
        match ether_type {
            EtherType::ARP => {
                if let Ok(question) = arp::Repr::parse(payload)
                    && !self.silent
                    && question.operation == arp::Operation::REQUEST
                    && self.addresses.contains(&IpAddr::V4(question.target_protocol))
                {
                    let answer = question.reply(self.mac);
                    let mut bytes = vec![0; ethernet::MIN_FRAME_BYTES];
                    let (link, body) = bytes.split_at_mut(ethernet::HEADER_BYTES);
                    answer.ethernet().emit(link).expect("an Ethernet header");
                    answer.emit(body).expect("an ARP packet");
                    self.send_frame(0, &bytes);
                }
                true
            }
            EtherType::IPV6 => self.answer_solicitation(payload),
            _ => false,
        }
    }

    fn answer_solicitation(&self, payload: &[u8]) -> bool {
        let is_icmp = wire::flow::parse(payload).is_ok_and(|parsed| parsed.protocol == IpProtocol::ICMPV6);
        let Some(question) = is_icmp.then(|| Message::parse(payload).ok()).flatten() else { return false };
        if let wire::ndp::Repr::NeighborSolicitation { target, .. } = question.repr
            && !self.silent
            && self.addresses.contains(&IpAddr::V6(target))
            && let Some(answer) = question.answer(self.mac)
        {
            let mut bytes = vec![0; wire::ndp::MAX_PACKET_BYTES];
            let length = answer.emit(&mut bytes).expect("an advertisement");
            self.send_frame(0, &packets::frame(self.gateway, self.mac, &bytes[..length]));
        }
        true
    }
}
