// SPDX-License-Identifier: Apache-2.0
//! Class groups: an outbound SA for each.

use messages::{ClassGroups, DscpSet};

use super::*;
use crate::ProtectionEntry;

const EF: u8 = 46 << 2;
const AF11: u8 = 10 << 2;

/// EF and CS5 in group 1, AF11 in group 2.
fn groups() -> ClassGroups {
    let mut groups = ClassGroups::default();
    (groups.0[0], groups.0[1]) = (DscpSet(1 << 46 | 1 << 40), DscpSet(1 << 10));
    groups
}

fn outbound(index: u32, class_group: u8) -> messages::Sa {
    messages::Sa { class_group, ..sa(index, 0, Direction::Outbound) }
}

/// Tunnel 0 under a protection with groups, and these SAs.
fn grouped(change: impl FnOnce(&mut messages::Protection), sas: &[messages::Sa]) -> Vec<Object> {
    let mut protection = messages::Protection { class_groups: groups(), ..protection(0) };
    change(&mut protection);
    let tunnel = messages::Tunnel { protection: Some(ProtectionIndex(0)), ..tunnel(0) };
    let frame = [Object::Protection(protection), Object::Tunnel(tunnel)];
    frame.into_iter().chain(sas.iter().cloned().map(Object::Sa)).collect()
}

fn all_three() -> [messages::Sa; 3] {
    [outbound(1, 0), outbound(2, 1), outbound(3, 2)]
}

/// The SA of a packet, and the SPI in front of it, as tunnel, protection and shortcut say it.
#[track_caller]
fn sa_of(generation: &Generation, tos: u8) -> Option<SaIndex> {
    let tunnel = generation.tunnels.get(TunnelIndex(0)).unwrap();
    let way = tunnel.way(tos);
    let Verdict::Protect { sa, .. } = way.verdict else { panic!("{:?}", way.verdict) };
    let spi = sa.map_or(0, |sa| 0x1000 + sa.0);
    let esp = usize::from(way.template.esp_offset.unwrap());
    assert_eq!(way.template.bytes()[esp..esp + 4], spi.to_be_bytes());
    let shortcut = generation.tunnels.shortcut_out(TunnelIndex(0)).and_then(|whole| whole.for_tos(tos));
    assert_eq!(shortcut.map(|shortcut| shortcut.sa), sa, "the fast path says the same");
    if let Some(shortcut) = shortcut {
        assert_eq!(shortcut.headers[esp..esp + 4], spi.to_be_bytes());
    }
    sa
}

fn entry(generation: &Generation) -> &ProtectionEntry {
    generation.protections.get(ProtectionIndex(0)).unwrap()
}

#[test]
fn each_dscp_goes_under_the_sa_of_its_group() {
    for mode in [EspMode::Transport, EspMode::Tunnel] {
        let generation = with(grouped(|protection| protection.mode = mode, &all_three())).unwrap();
        for (tos, sa) in [(0, 1), (EF, 2), (EF | 3, 2), (40 << 2, 2), (AF11, 3), (12 << 2, 1)] {
            assert_eq!(sa_of(&generation, tos), Some(SaIndex(sa)), "{tos}");
            assert_eq!(entry(&generation).outbound(tos), Some(SaIndex(sa)), "{tos}");
        }
    }
}

#[test]
fn a_group_without_an_sa_has_none_and_never_that_of_another() {
    let generation = with(grouped(|_| {}, &[outbound(1, 0), outbound(3, 2)])).unwrap();
    let sas = [0, EF, AF11].map(|tos| sa_of(&generation, tos));
    assert_eq!(sas, [Some(SaIndex(1)), None, Some(SaIndex(3))]);
    assert_eq!(entry(&generation).outbound(EF), None);
    let generation = with(grouped(|_| {}, &[outbound(2, 1)])).unwrap();
    assert_eq!([0, EF, AF11].map(|tos| sa_of(&generation, tos)), [None, Some(SaIndex(2)), None]);
    let generation = with(grouped(|_| {}, &[])).unwrap();
    assert_eq!([0, EF, AF11].map(|tos| sa_of(&generation, tos)), [None; 3]);
}

#[test]
fn the_dscp_that_counts_is_the_one_that_leaves() {
    let fixed = |protection: &mut messages::Protection| {
        protection.mode = EspMode::Tunnel;
        protection.tos = TosPolicy::Dscp(46);
    };
    let generation = with(grouped(fixed, &all_three())).unwrap();
    assert_eq!([0, EF, AF11].map(|tos| sa_of(&generation, tos)), [Some(SaIndex(2)); 3]);
    let mut objects = grouped(|_| {}, &all_three());
    let marked =
        messages::Tunnel { protection: Some(ProtectionIndex(0)), tos: TosPolicy::Dscp(10), ..tunnel(0) };
    objects.push(Object::Tunnel(marked));
    assert_eq!([0, EF].map(|tos| sa_of(&with(objects.clone()).unwrap(), tos)), [Some(SaIndex(3)); 2]);
}

#[test]
fn a_map_comes_before_the_group() {
    let map = messages::DscpMapIndex(0);
    let mut objects = grouped(|_| {}, &all_three());
    objects.push(Object::DscpMap(messages::DscpMap { dscp_map: map, changes: vec![(46, 10), (0, 40)] }));
    let marks = messages::TunnelMarks { outward: Some(map), ..messages::TunnelMarks::default() };
    objects.push(Object::Tunnel(messages::Tunnel {
        protection: Some(ProtectionIndex(0)),
        marks,
        ..tunnel(0)
    }));
    let generation = with(objects).unwrap();
    assert_eq!([EF, 0, AF11].map(|tos| sa_of(&generation, tos)), [3, 2, 3].map(|sa| Some(SaIndex(sa))));
}

#[test]
fn what_fits_is_the_same_for_all_groups() {
    let short =
        |sa: messages::Sa, icv_bytes| messages::Sa { key: messages::Key { icv_bytes, ..sa.key }, ..sa };
    let [first, second, third] = all_three();
    let generation = with(grouped(|_| {}, &[short(first, 8), second, short(third, 12)])).unwrap();
    let tunnel = generation.tunnels.get(TunnelIndex(0)).unwrap();
    let mtus = [0, EF, AF11].map(|tos| tunnel.way(tos).mtu);
    assert_eq!((tunnel.encapsulation.mtu, mtus), (1442, [1442; 3]), "that of the longest ICV");
    let bytes = [0, EF, AF11].map(|tos| tunnel.way(tos).wire_bytes(100));
    // RFC 4303, RFC 2784: 20 + 16 + (4 + 100 + 2, padded to 108) = 144, and the ICV.
    assert_eq!(bytes, [152, 160, 156], "but each is as long as it is");
}

#[test]
fn a_protection_has_one_outbound_sa_for_each_group_and_none_for_others() {
    let twice = grouped(|_| {}, &[outbound(2, 1), outbound(3, 1)]);
    refused(twice, Refusal::Conflict(sa_id(3), sa_id(2)));
    let unknown = grouped(|_| {}, &[outbound(1, 3)]);
    refused(unknown, Refusal::OutOfRange(sa_id(1), Field::ClassGroup));
    let doubled = |protection: &mut messages::Protection| protection.class_groups.0[5] = DscpSet(1 << 40);
    refused(grouped(doubled, &[]), Refusal::OutOfRange(protection_id(0), Field::ClassGroup));
}

/// From one generation to the next.
fn step(before: &Shadow, changes: Vec<Object>, gone: &[ObjectId]) -> Result<Generation, Refusal> {
    let neighbors = Neighbors::with_seed(256, 1);
    let first = before.compile(1, &limits(), None, &neighbors)?;
    let mut shadow = changed(before, changes)?;
    gone.iter().try_for_each(|id| shadow.delete(*id))?;
    let next = shadow.compile(2, &limits(), Some(&first), &neighbors)?;
    let anew = shadow.compile(2, &limits(), None, &neighbors)?;
    for tos in (0..64).map(|dscp| dscp << 2) {
        assert_eq!(sa_of(&next, tos), sa_of(&anew, tos), "built in steps or at once: {tos}");
    }
    Ok(next)
}

#[test]
fn one_group_is_rekeyed_without_the_others() {
    let before = changed(&headend(4), grouped(|_| {}, &all_three())).unwrap();
    let next = step(&before, vec![Object::Sa(outbound(7, 1))], &[sa_id(2)]).unwrap();
    let sas = [0, EF, AF11].map(|tos| sa_of(&next, tos));
    assert_eq!(sas, [1, 7, 3].map(|sa| Some(SaIndex(sa))));
    let gone = step(&before, vec![], &[sa_id(3)]).unwrap();
    assert_eq!([0, EF, AF11].map(|tos| sa_of(&gone, tos)), [Some(SaIndex(1)), Some(SaIndex(2)), None]);
}

#[test]
fn groups_come_and_go_with_the_sas_that_name_them() {
    let before = changed(&headend(4), grouped(|_| {}, &all_three())).unwrap();
    let without = || Object::Protection(protection(0));
    let refused = step(&before, vec![without()], &[]).err();
    assert_eq!(refused, Some(Refusal::OutOfRange(sa_id(2), Field::ClassGroup)));
    let one = step(&before, vec![without()], &[sa_id(2), sa_id(3)]).unwrap();
    assert_eq!([0, EF, AF11].map(|tos| sa_of(&one, tos)), [Some(SaIndex(1)); 3]);
    let mut swapped = protection(0);
    (swapped.class_groups.0[0], swapped.class_groups.0[1]) = (groups().0[1], groups().0[0]);
    let exchanged = vec![Object::Protection(swapped), Object::Sa(outbound(2, 2)), Object::Sa(outbound(3, 1))];
    let next = step(&before, exchanged, &[]).unwrap();
    assert_eq!([0, EF, AF11].map(|tos| sa_of(&next, tos)), [1, 2, 3].map(|sa| Some(SaIndex(sa))));
}
