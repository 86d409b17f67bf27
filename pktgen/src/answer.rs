// SPDX-License-Identifier: Apache-2.0
//! Answers to who asks for a station's address: ARP (RFC 826) and neighbour solicitations (RFC 4861 §7.2.4). A device under
//! test then finds the way to us as it would to any router.
//!
//! Not here: questions of our own. Where packets go to, the profile says.

use std::net::IpAddr;

use pktbuf::Packet;
use wire::{EtherType, MacAddr, arp, ndp, vlan};

use crate::profile;

const MACS_BYTES: usize = 12;
/// Shortest frame without FCS.
const FRAME_BYTES_MIN: usize = 60;

/// The addresses that are answered for.
pub struct Answerer {
    addresses: Box<[IpAddr]>,
    mac: MacAddr,
}

impl Answerer {
    /// For the addresses of a profile; none if it has none.
    #[must_use]
    pub fn new(settings: Option<&profile::Answer>) -> Option<Self> {
        let settings = settings?;
        let mut addresses = settings.addresses.clone();
        addresses.sort_unstable();
        Some(Self { addresses: addresses.into(), mac: settings.mac })
    }

    /// Makes the answer of a packet that asks for one of our addresses; false if it does not, and the packet is as it was.
    #[must_use]
    pub fn answer(&self, packet: &mut Packet) -> bool {
        let Ok(link) = vlan::parse_link(packet.data()) else { return false };
        let (link_bytes, ether_type) = (usize::from(link.header_bytes), link.ether_type);
        let mut body = [0; ndp::MAX_PACKET_BYTES];
        let Some(asks) = packet.data().get(link_bytes..) else { return false };
        let made = match ether_type {
            EtherType::ARP => self.arp(asks, &mut body),
            EtherType::IPV6 => self.neighbor(asks, &mut body),
            _ => None,
        };
        let Some((to, body_bytes)) = made else { return false };
        self.write(packet, to, link_bytes, body.get(..body_bytes).unwrap_or_default()).is_some()
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&address).is_ok()
    }

    /// The answer to an ARP request: to whom, and its length.
    fn arp(&self, asks: &[u8], body: &mut [u8]) -> Option<(MacAddr, usize)> {
        let request = arp::Repr::parse(asks).ok()?;
        let is_asked = request.operation == arp::Operation::REQUEST && !request.is_announcement();
        if !is_asked || !self.is_ours(request.target_protocol.into()) {
            return None;
        }
        let bytes = request.reply(self.mac).emit(body).ok()?;
        Some((request.sender_hardware, bytes))
    }

    /// The answer to a neighbour solicitation: to whom, and its length.
    fn neighbor(&self, asks: &[u8], body: &mut [u8]) -> Option<(MacAddr, usize)> {
        let message = ndp::Message::parse(asks).ok()?;
        let ndp::Repr::NeighborSolicitation { target, source_link_layer } = message.repr else { return None };
        // Who checks for duplicates is told nothing: the address is ours by the profile alone.
        let to =
            source_link_layer.filter(|_| !message.source.is_unspecified() && self.is_ours(target.into()))?;
        let bytes = message.answer(self.mac)?.emit(body).ok()?;
        Some((to, bytes))
    }

    /// The same link header, the other way, and the body behind it.
    fn write(&self, packet: &mut Packet, to: MacAddr, link_bytes: usize, body: &[u8]) -> Option<()> {
        let bytes = (link_bytes + body.len()).max(FRAME_BYTES_MIN);
        let frame = packet.reframe(0, 0, bytes).ok()?;
        let (macs, rest) = frame.split_at_mut_checked(MACS_BYTES)?;
        macs.get_mut(..6)?.copy_from_slice(&to.0);
        macs.get_mut(6..)?.copy_from_slice(&self.mac.0);
        let (to, padding) = rest.get_mut(link_bytes - MACS_BYTES..)?.split_at_mut_checked(body.len())?;
        to.copy_from_slice(body);
        padding.fill(0);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use pktbuf::Pool;
    use wire::ethernet;
    use wire::ipv6;

    use super::*;

    const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn answerer() -> Answerer {
        let addresses = vec!["10.0.0.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
        Answerer::new(Some(&profile::Answer { addresses, mac: OURS })).unwrap()
    }

    /// What becomes of a frame with this body, and with a VLAN tag if asked for.
    fn answered(ether_type: EtherType, body: &[u8], tagged: bool) -> Option<Vec<u8>> {
        let mut frame = [MacAddr::BROADCAST.0, THEIRS.0].concat();
        if tagged {
            frame.extend([0x81, 0, 0, 7]);
        }
        frame.extend(ether_type.0.to_be_bytes());
        frame.extend(body);
        frame.resize(frame.len().max(60), 0xa5);
        let pool = Pool::memory(1, 2_048).unwrap();
        let mut packet = pool.copy_of(&frame).unwrap();
        answerer().answer(&mut packet).then(|| packet.data().to_vec())
    }

    fn arp_request(target: [u8; 4]) -> Vec<u8> {
        let mut body = vec![0; arp::PACKET_BYTES];
        arp::Repr::request(THEIRS, Ipv4Addr::new(10, 0, 0, 1), target.into()).emit(&mut body).unwrap();
        body
    }

    #[test]
    fn a_request_for_an_address_of_ours_is_answered_with_and_without_a_tag() {
        for tagged in [false, true] {
            let frame = answered(EtherType::ARP, &arp_request([10, 0, 0, 9]), tagged).unwrap();
            assert_eq!(frame.len(), 60);
            let link = vlan::parse_link(&frame).unwrap();
            let (ethernet, _) = ethernet::Header::split(&frame).unwrap();
            assert_eq!((ethernet.destination(), ethernet.source()), (THEIRS, OURS));
            assert_eq!((link.ether_type, link.header_bytes > 14), (EtherType::ARP, tagged));
            let reply = arp::Repr::parse(&frame[usize::from(link.header_bytes)..]).unwrap();
            assert_eq!(reply.operation, arp::Operation::REPLY);
            assert_eq!((reply.sender_hardware, reply.sender_protocol), (OURS, Ipv4Addr::new(10, 0, 0, 9)));
            assert_eq!((reply.target_hardware, reply.target_protocol), (THEIRS, Ipv4Addr::new(10, 0, 0, 1)));
            assert!(
                frame[usize::from(link.header_bytes) + arp::PACKET_BYTES..].iter().all(|byte| *byte == 0)
            );
        }
    }

    #[test]
    fn a_solicitation_for_an_address_of_ours_is_answered_to_who_asks() {
        let [asker, ours] = ["2001:db8::1", "2001:db8::9"].map(|text| text.parse::<Ipv6Addr>().unwrap());
        let mut body = vec![0; ndp::MAX_PACKET_BYTES];
        ndp::Message::solicit(asker, THEIRS, ours).emit(&mut body).unwrap();
        let frame = answered(EtherType::IPV6, &body, false).unwrap();
        let message = ndp::Message::parse(&frame[14..]).unwrap();
        assert_eq!((message.source, message.destination), (ours, asker));
        let ndp::Repr::NeighborAdvertisement { target, target_link_layer, .. } = message.repr else {
            panic!()
        };
        assert_eq!((target, target_link_layer, &frame[..6]), (ours, Some(OURS), &THEIRS.0[..]));
    }

    #[test]
    fn what_asks_for_another_or_for_nothing_is_not_answered() {
        assert_eq!(answered(EtherType::ARP, &arp_request([10, 0, 0, 8]), false), None);
        let mut reply = arp_request([10, 0, 0, 9]);
        reply[7] = 2;
        assert_eq!(answered(EtherType::ARP, &reply, false), None);
        assert_eq!(answered(EtherType::IPV4, &arp_request([10, 0, 0, 9]), false), None);
        assert_eq!(answered(EtherType::IPV6, &[0x60; ipv6::HEADER_BYTES], false), None);
        let request = arp_request([10, 0, 0, 9]);
        for end in 0..12 {
            assert_eq!(answered(EtherType::ARP, &request[..end], false), None);
        }
    }
}
