// SPDX-License-Identifier: Apache-2.0
//! Ethernet II, 802.1Q and ARP.

use ::wire::{MacAddr, arp, ethernet, vlan};

/// All of them at the front of `bytes`.
pub(super) fn check(bytes: &[u8]) {
    let mut buffer = [0xa5; 64];
    if let Ok(frame) = ethernet::Frame::parse(bytes) {
        let end = ethernet::Repr::parse(&frame).emit(&mut buffer).expect("there is room");
        assert_eq!(buffer[..end], bytes[..end]);
        assert_eq!(frame.payload.len() + end, bytes.len());
    }
    if let Ok(tag) = vlan::Repr::parse(bytes) {
        let end = tag.emit(&mut buffer).expect("there is room");
        assert_eq!(buffer[..end], bytes[..end]);
    }
    if let Ok(link) = vlan::parse_link(bytes) {
        assert!(usize::from(link.header_bytes) <= bytes.len());
        assert!(!link.ether_type.is_length());
    }
    check_arp(bytes);
}

pub(super) fn check_arp(bytes: &[u8]) {
    let Ok(packet) = arp::Repr::parse(bytes) else { return };
    let mut buffer = [0xa5; arp::PACKET_BYTES];
    assert_eq!(packet.emit(&mut buffer), Ok(arp::PACKET_BYTES));
    assert_eq!(buffer, bytes[..arp::PACKET_BYTES]);
    let reply = packet.reply(MacAddr([2, 0, 0, 0, 0, 1]));
    assert_eq!(reply.emit(&mut buffer), Ok(arp::PACKET_BYTES));
    assert_eq!(arp::Repr::parse(&buffer), Ok(reply));
    assert_eq!(reply.ethernet().destination, packet.sender_hardware);
}
