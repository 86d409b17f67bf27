// SPDX-License-Identifier: Apache-2.0
//! Both edges of the pipeline on tagged ports: 802.1Q tags come off on receipt and are put on before transmission
//! (IEEE 802.1Q §9). Between them frames are untagged; the priority travels in the packet's header.
//!
//! Not here: stacked tags (802.1ad); priority tags on ports without a VLAN, which [`crate::ingress`] reads.

use messages::DropReason;
use pktbuf::{Batch, NoRoom, Packet};
use wire::{EtherType, VlanId, vlan};

use crate::counters::Counters;
use crate::ingress;

/// Both addresses of a frame.
const ADDRESSES: usize = 12;
/// Those, and the tag behind them.
const TAGGED: usize = ADDRESSES + vlan::HEADER_BYTES;

/// Takes the tags off a burst; drops what is not of `vlan`. A port of no VLAN takes untagged frames too.
#[inline(never)]
pub(crate) fn take_off_all(batch: &mut Batch, vlan: VlanId, counters: &mut Counters) {
    batch.retain(|packet| match take_off(packet, vlan) {
        Ok(()) => true,
        Err(reason) => {
            counters.drop_packets(reason, 1);
            false
        }
    });
}

#[inline(always)]
fn take_off(packet: &mut Packet, vlan: VlanId) -> Result<(), DropReason> {
    let link =
        vlan::parse_link(packet.data()).map_err(|error| ingress::link_drop_reason(error, packet.data()))?;
    match link.priority {
        // Another tag behind it.
        Some(_) if link.ether_type == EtherType::VLAN => Err(DropReason::EthertypeUnknown),
        Some(priority) if link.vlan == vlan => {
            packet.note_vlan_priority(priority);
            close_up(packet).ok_or(DropReason::EthernetTruncated)
        }
        None if vlan == VlanId::NONE => Ok(()),
        _ => Err(DropReason::VlanUnknown),
    }
}

/// Moves the addresses over the tag.
#[inline(always)]
fn close_up(packet: &mut Packet) -> Option<()> {
    let front = packet.data_mut().first_chunk_mut::<TAGGED>()?;
    let addresses: [u8; ADDRESSES] = *front.first_chunk()?;
    *front.last_chunk_mut()? = addresses;
    packet.trim_front(vlan::HEADER_BYTES).ok()
}

/// Tags the frames of a burst but for the first `done`, which have theirs; drops those without room for it and returns
/// how many that were.
#[inline(never)]
pub(crate) fn put_on_all(batch: &mut Batch, vlan: VlanId, done: usize) -> u64 {
    let mut place = 0;
    let before = batch.len();
    batch.retain(|packet| {
        place += 1;
        place <= done || put_on(packet, vlan).is_ok()
    });
    (before - batch.len()) as u64
}

#[inline(always)]
fn put_on(packet: &mut Packet, vlan: VlanId) -> Result<(), NoRoom> {
    let priority = packet.leaving_vlan_priority();
    packet.prepend(vlan::HEADER_BYTES)?;
    let tag = [EtherType::VLAN.0, u16::from(priority) << 13 | vlan.get()].map(u16::to_be_bytes);
    let front = packet.data_mut().first_chunk_mut::<TAGGED>().ok_or(NoRoom)?;
    let addresses: [u8; ADDRESSES] = *front.last_chunk().ok_or(NoRoom)?;
    *front.first_chunk_mut().ok_or(NoRoom)? = addresses;
    *front.last_chunk_mut::<{ vlan::HEADER_BYTES }>().ok_or(NoRoom)? =
        *tag.as_flattened().first_chunk().ok_or(NoRoom)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use pktbuf::{HEADROOM, Pool};
    use proptest::prelude::*;

    use super::*;

    const ADDRESSES_OF_FRAME: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn untagged() -> Vec<u8> {
        [&ADDRESSES_OF_FRAME[..], &[0x08, 0x00], &[0x45; 46]].concat()
    }

    fn tagged(tci: u16) -> Vec<u8> {
        let mut frame = untagged();
        let [high, low] = tci.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high, low]);
        frame
    }

    fn received(frame: &[u8], vlan: u16) -> Result<(Vec<u8>, Option<u8>), DropReason> {
        let pool = Pool::memory(1, 2_048).unwrap();
        let mut packet = pool.copy_of(frame).unwrap();
        take_off(&mut packet, VlanId::new(vlan).unwrap())?;
        Ok((packet.data().to_vec(), packet.vlan_priority()))
    }

    #[test]
    fn a_port_takes_frames_of_its_own_vlan_only() {
        assert_eq!(received(&tagged(0xa064), 100), Ok((untagged(), Some(5))));
        // Drop eligible.
        assert_eq!(received(&tagged(0x1064), 100), Ok((untagged(), Some(0))));
        for other in [tagged(0xa065), tagged(0xa000), tagged(0xafff), untagged()] {
            assert_eq!(received(&other, 100), Err(DropReason::VlanUnknown));
        }
        let stacked = [&tagged(0xa064)[..12], &[0x81, 0x00, 0xa0, 0x64], &tagged(0xa000)[12..]].concat();
        assert_eq!(received(&stacked, 100), Err(DropReason::EthertypeUnknown));
        assert_eq!(received(&tagged(0xa064)[..17], 100), Err(DropReason::EthernetTruncated));
        assert_eq!(received(&untagged()[..13], 100), Err(DropReason::EthernetTruncated));
    }

    #[test]
    fn a_port_of_no_vlan_takes_priority_tagged_and_untagged_frames() {
        assert_eq!(received(&tagged(0xe000), 0), Ok((untagged(), Some(7))));
        assert_eq!(received(&untagged(), 0), Ok((untagged(), None)));
        assert_eq!(received(&tagged(0xe001), 0), Err(DropReason::VlanUnknown));
    }

    #[test]
    fn frames_are_tagged_once_and_what_has_no_room_is_dropped() {
        let pool = Pool::memory(8, 2_048).unwrap();
        let mut batch: Batch = (0..4).map(|_| pool.copy_of(&untagged()).unwrap()).collect();
        batch[1].prepend(HEADROOM).unwrap();
        batch[2].set_vlan_priority(6);
        batch[3].note_vlan_priority(5);
        let vlan = VlanId::new(100).unwrap();
        assert_eq!(put_on_all(&mut batch, vlan, 0), 1);
        let frames: Vec<_> = batch.iter().map(|packet| packet.data().to_vec()).collect();
        assert_eq!(frames, [tagged(100), tagged(0xc064), tagged(100)]);
        batch.push(pool.copy_of(&untagged()).unwrap());
        assert_eq!(put_on_all(&mut batch, vlan, 3), 0);
        assert!(batch.iter().all(|packet| packet.len() == 64));
    }

    proptest! {
        #[test]
        fn what_is_put_on_comes_off(vlan in 0..4_095u16, priority in 0..8u8, payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let frame = [&ADDRESSES_OF_FRAME[..], &[0x86, 0xdd], &payload].concat();
            let pool = Pool::memory(1, 2_048).unwrap();
            let mut packet = pool.copy_of(&frame).unwrap();
            packet.set_vlan_priority(priority);
            let vlan = VlanId::new(vlan).unwrap();
            prop_assert_eq!(put_on(&mut packet, vlan), Ok(()));
            prop_assert_eq!(packet.len(), frame.len() + 4);
            prop_assert_eq!(take_off(&mut packet, vlan), Ok(()));
            prop_assert_eq!((packet.data(), packet.vlan_priority()), (&frame[..], Some(priority)));
            prop_assert_eq!(packet.leaving_vlan_priority(), 0);
        }

        #[test]
        fn no_frame_stops_the_receiver(frame in prop::collection::vec(any::<u8>(), 0..40), vlan in 0..4_095u16) {
            let _ = received(&frame, vlan);
        }
    }
}
