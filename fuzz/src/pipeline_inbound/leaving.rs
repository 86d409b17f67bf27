// SPDX-License-Identifier: Apache-2.0
//! What may leave the headend, looked at from outside.

use core::net::IpAddr;
use std::collections::BTreeSet;

use messages::PortIndex;
use wire::flow::Parsed;
use wire::{EtherType, IpProtocol, MacAddr, arp, flow, vlan};

use super::headend::{MACS, MTU, PAIRS, WAN, address};

/// What has left so far.
#[derive(Default)]
pub(super) struct Leaving {
    /// SPI and IV of each ESP packet.
    ivs: BTreeSet<(u32, [u8; 8])>,
}

impl Leaving {
    /// A frame that a device took.
    pub(super) fn check(&mut self, port: PortIndex, frame: &[u8]) {
        let link = vlan::parse_link(frame).expect("a link header");
        assert_eq!(link.source, MacAddr(MACS[port.index()]));
        let packet = &frame[usize::from(link.header_bytes)..];
        if link.ether_type == EtherType::ARP {
            assert!(arp::Repr::parse(packet).is_ok());
            return;
        }
        let parsed = flow::parse(packet).expect("an IP packet with a right checksum");
        assert!(parsed.total_bytes <= MTU, "longer than the link takes");
        assert!(
            packet.len() == usize::from(parsed.total_bytes) || frame.len() <= 60,
            "something behind the packet"
        );
        if port == WAN {
            self.check_untrusted(packet, &parsed);
        }
    }

    fn check_untrusted(&mut self, packet: &[u8], parsed: &Parsed) {
        assert!(!is_of_protected_site(parsed), "in clear: {parsed:?}");
        let is_ours = [address("192.0.2.1"), address("2001:db8::1")].contains(&parsed.source);
        let is_peer = PAIRS.iter().any(|pair| pair.remote == parsed.destination);
        match parsed.protocol {
            IpProtocol::ESP if is_ours && !parsed.is_fragment() => {
                self.check_sealed(parsed.upper_layer(packet), parsed.destination);
            }
            IpProtocol::GRE => assert!(!is_peer, "GRE in clear to a peer of a protection"),
            _ => {}
        }
    }

    /// The peer can open it, its trailer is right, and its IV is new.
    fn check_sealed(&mut self, esp: &[u8], destination: IpAddr) {
        let spi = u32::from_be_bytes(esp[..4].try_into().expect("a whole header"));
        let low = u32::from_be_bytes(esp[4..8].try_into().expect("a whole header"));
        let pair = PAIRS.iter().find(|pair| pair.outbound.spi == spi).expect("an SPI of ours");
        assert_eq!(pair.remote, destination);
        let text = pair.outbound.open(&pair.key, low.into(), esp).expect("the peer can open it");
        wire::esp::Trailer::parse(&text).expect("a right trailer");
        let iv = esp[8..16].try_into().expect("a whole header");
        assert!(self.ivs.insert((spi, iv)), "an IV twice");
    }
}

/// Whether it goes to a host behind a tunnel, or from our site to the one that policy protects.
fn is_of_protected_site(parsed: &Parsed) -> bool {
    let from_our_site = matches!(parsed.source, IpAddr::V4(address) if address.octets()[..2] == [10, 1]);
    match parsed.destination {
        IpAddr::V4(destination) => match destination.octets() {
            [10, 2 | 3 | 5 | 6, ..] => true,
            [10, 4, ..] => from_our_site,
            _ => false,
        },
        IpAddr::V6(destination) => matches!(destination.segments(), [0xfd00, 2 | 5, 0, 0, ..]),
    }
}
