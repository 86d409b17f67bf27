// SPDX-License-Identifier: Apache-2.0
//! Random class-maps and policy-maps, and where they are at work.

use messages::{PoliceAction, PortRange, QueueLimit, Share, TcpFlags};
use rand::{Rng, RngExt};
use wire::{Dscp, IpProtocol};

use crate::{
    Bandwidth, BitRate, CLASS_DEFAULT, ClassMapEntry, CodelEntry, Config, CriterionEntry, DropProfileEntry,
    Flags, Matching, PieEntry, PoliceEntry, PolicyClassEntry, PolicyMapEntry, ProfileEntry, WredEntry,
};

/// Adds quality of service to a configuration, which is for one worker then.
pub fn quality(rng: &mut impl Rng, config: &mut Config) {
    config.sas.iter_mut().for_each(|sa| sa.owner = None);
    for number in 0..rng.random_range(1..5) {
        let map = class_map(rng, config, number);
        config.class_maps.push(map);
    }
    for number in 0..rng.random_range(1..4) {
        let map = policy_map(rng, config, number);
        config.policy_maps.push(map);
    }
    let names: Vec<String> = config.policy_maps.iter().map(|map| map.name.clone()).collect();
    let policy = |rng: &mut dyn Rng| {
        let place = rng.random_range(0..names.len() * 2);
        names.get(place).cloned()
    };
    for port in &mut config.ports {
        port.service_policy = policy(rng);
    }
    for tunnel in &mut config.tunnels {
        tunnel.service_policy = policy(rng);
        tunnel.pre_classify = rng.random_ratio(3, 4);
    }
}

fn class_map(rng: &mut impl Rng, config: &Config, number: u32) -> ClassMapEntry {
    let nested = config.class_maps.last().filter(|_| rng.random_ratio(1, 2)).map(|map| map.name.clone());
    let mut criteria: Vec<_> = (0..rng.random_range(1..4)).map(|_| criterion(rng, config)).collect();
    criteria.extend(nested.map(|name| CriterionEntry { class_map: Some(name), ..CriterionEntry::default() }));
    let matching = if rng.random() { Matching::Any } else { Matching::All };
    ClassMapEntry { name: format!("class-{number}"), matching, criteria }
}

fn criterion(rng: &mut impl Rng, config: &Config) -> CriterionEntry {
    let not = rng.random_ratio(1, 5);
    let entry = CriterionEntry { not, ..CriterionEntry::default() };
    let range = || PortRange { first: 16_384, last: 32_767 };
    match rng.random_range(0..8) {
        0 => CriterionEntry { dscp: vec![Dscp::EF, dscp(rng)], ..entry },
        1 => CriterionEntry { precedence: vec![rng.random_range(0..8)], ..entry },
        2 => CriterionEntry { protocol: Some(IpProtocol::UDP), destination_ports: Some(range()), ..entry },
        3 => {
            let flags = Some(Flags(TcpFlags { mask: 0x12, value: 0x02 }));
            CriterionEntry { protocol: Some(IpProtocol::TCP), tcp_flags: flags, ..entry }
        }
        4 => {
            let net = ipnet::Ipv4Net::new_assert([10, rng.random(), 0, 0].into(), 16);
            CriterionEntry { source: Some(net.into()), ..entry }
        }
        6 => CriterionEntry { vlan_priority: vec![7, rng.random_range(0..7)], ..entry },
        5 => CriterionEntry { ingress: config.ports.first().map(|port| port.name.clone()), ..entry },
        _ => match config.tunnels.first() {
            Some(tunnel) => CriterionEntry { tunnel: Some(tunnel.name.clone()), ..entry },
            None => CriterionEntry { protocol: Some(IpProtocol::ICMP), ..entry },
        },
    }
}

fn dscp(rng: &mut impl Rng) -> Dscp {
    Dscp::new(rng.random_range(0..64)).unwrap_or(Dscp::DEFAULT)
}

fn policy_map(rng: &mut impl Rng, config: &Config, number: u32) -> PolicyMapEntry {
    let rate = BitRate(rng.random_range(1..1_000) * 1_000_000);
    let burst = if rng.random() { Some(rng.random_range(20_000..1 << 20)) } else { None };
    let mut levels = 0..3;
    let mut classes: Vec<_> =
        config.class_maps.iter().take(3).map(|map| class(rng, &map.name, &mut levels)).collect();
    classes.push(class(rng, CLASS_DEFAULT, &mut (3..3)));
    // Shares are of a rate, so that all of them fit beside each other.
    PolicyMapEntry { name: format!("policy-{number}"), shape: Some(ProfileEntry { rate, burst }), classes }
}

fn class(rng: &mut impl Rng, name: &str, levels: &mut core::ops::Range<u8>) -> PolicyClassEntry {
    let priority = if rng.random_ratio(1, 3) { levels.next() } else { None };
    let share = Bandwidth(Share::Percent(rng.random_range(1..26)));
    let pie = PieEntry { target_us: 20_000, ..PieEntry::default() };
    let (wred, codel, pie) = match rng.random_range(0..4) {
        0 => (Some(wred(rng)), None, None),
        1 => (None, Some(CodelEntry::default()), None),
        2 => (None, None, Some(pie)),
        _ => (None, None, None),
    };
    let limits = [
        QueueLimit::Packets(64),
        QueueLimit::Packets(1_000),
        QueueLimit::Bytes(30_000),
        QueueLimit::Microseconds(50_000),
    ];
    PolicyClassEntry {
        class: name.to_owned(),
        priority,
        bandwidth: if priority.is_some() { None } else { Some(share) },
        police: if rng.random() { Some(police(rng)) } else { None },
        queue_limit: limits[rng.random_range(0..limits.len())],
        ecn: rng.random::<bool>() && (wred.is_some() || codel.is_some() || pie.is_some()),
        wred,
        codel,
        pie,
        set_dscp: if rng.random() { Some(dscp(rng)) } else { None },
        set_vlan_priority: if rng.random() { Some(rng.random_range(0..8)) } else { None },
    }
}

/// Any kind of policer.
fn police(rng: &mut impl Rng) -> PoliceEntry {
    let mut police = PoliceEntry::of(BitRate(64_000));
    match rng.random_range(0..4) {
        0 => return police,
        1 => police.excess_burst = Some(rng.random_range(20_000..1 << 20)),
        2 => police.peak_rate = Some(BitRate(rng.random_range(64_000..1 << 20))),
        _ => police.excess_rate = Some(BitRate(rng.random_range(1..1 << 20))),
    }
    if rng.random() {
        (police.yellow, police.red) = (vec![Dscp::EF], vec![Dscp::CS6, Dscp::CS7]);
    }
    let actions = [PoliceAction::Transmit, PoliceAction::Drop, PoliceAction::SetDscp(dscp(rng).get())];
    police.exceed = actions[rng.random_range(0..actions.len())];
    police
}

fn wred(rng: &mut impl Rng) -> WredEntry {
    let by_dscp = if rng.random() {
        vec![DropProfileEntry { dscp: dscp(rng), min: 5, max: 10, one_in: 10 }]
    } else {
        Vec::new()
    };
    WredEntry { min: rng.random_range(1..30), max: 40, one_in: 10, weight: 9, by_dscp }
}
