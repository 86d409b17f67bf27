// SPDX-License-Identifier: Apache-2.0
//! Building in steps is building at once: random transactions, each compiled from the generation before and from nothing.

use super::*;

/// Everything that a generation says, as far as two of them can be compared.
fn said(generation: &Generation) -> Vec<String> {
    let destinations = (0..4u8).flat_map(|i| [IpAddr::from([10, 0, i, 1]), IpAddr::from([203, 0, 0, i])]);
    let routes = destinations.chain([ip("8.8.8.8"), ip("192.0.2.9")]).map(|to| generation.routes.lookup(&to));
    let selectors = (0..4u8).map(|i| PacketSelectors {
        local: ip("198.51.100.1"),
        remote: IpAddr::from([203, 0, 0, i]),
        protocol: 47,
        ports: None,
    });
    let verdicts = selectors.clone().map(|packet| generation.spds.lookup(OUTSIDE, &packet));
    let deliveries = selectors.flat_map(|packet| {
        [None, Some(1)].map(|key| generation.tunnels.by_delivery(&packet.local, &packet.remote, key))
    });
    let inbound = (0x1000..0x1010).map(|spi| generation.sas.inbound(spi));
    vec![
        format!("{:?}", generation.ports),
        format!("{:?}", generation.addresses),
        format!("{:?}", routes.collect::<Vec<_>>()),
        format!("{:?}", generation.tunnels),
        format!("{:?}", generation.protections),
        format!("{:?}", verdicts.collect::<Vec<_>>()),
        format!("{:?}", deliveries.collect::<Vec<_>>()),
        format!("{:?}", inbound.collect::<Vec<_>>()),
        format!("{:?}", generation.sas),
        format!("{:?}", (0..4).map(|i| generation.tunnels.shortcut_out(TunnelIndex(i))).collect::<Vec<_>>()),
        format!(
            "{:?}",
            (0..4).map(|i| generation.tunnels.shortcut_in(ProtectionIndex(i))).collect::<Vec<_>>()
        ),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Put(Object),
    Delete(ObjectId),
}

fn changes() -> impl Strategy<Value = Change> {
    let small = 0u32..4;
    let tunnels = (small.clone(), small.clone(), prop::option::of(0u32..2), prop::option::of(small.clone()))
        .prop_map(|(index, to, key, protection)| {
            let gre = GreOptions { key, ..tunnel(0).gre };
            let protection = protection.map(ProtectionIndex);
            Object::Tunnel(messages::Tunnel {
                destination: tunnel(to).destination,
                gre,
                protection,
                ..tunnel(index)
            })
        });
    let protections = (small.clone(), small.clone(), any::<bool>()).prop_map(|(index, to, outside)| {
        let mode = if outside { EspMode::Tunnel } else { EspMode::Transport };
        Object::Protection(messages::Protection { mode, remote: tunnel(to).destination, ..protection(index) })
    });
    let sas = (0u32..8, small.clone(), any::<bool>(), 0u32..10, 0u32..10, 0usize..3).prop_map(
        |(index, of, outbound, spi, key, icv)| {
            let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
            let icv_bytes = [16, 12, 8][icv];
            let key = messages::Key { icv_bytes, ..sa(key, 0, direction).key };
            Object::Sa(messages::Sa { spi: 0x1000 + spi, key, ..sa(index, of, direction) })
        },
    );
    let policies = (0u32..3, prop::option::of(small.clone())).prop_map(|(index, protect)| {
        let action = protect.map_or(PolicyAction::Bypass, |p| PolicyAction::Protect(ProtectionIndex(p)));
        let remote = Some(prefix(&format!("203.0.0.{}/{}", index, 30 + index.min(2))));
        let remote =
            if index == 0 { Some(prefix("203.0.0.0/30")) } else { remote.filter(|r| r.length == 32) };
        Object::Policy(policy(index, Selector { remote, ..ANY }, action))
    });
    let frame = prop_oneof![
        Just(port(OUTSIDE, 1400, PortSide::Unprotected)),
        Just(port(OUTSIDE, 1500, PortSide::Unprotected)),
        (0u8..4, 0usize..5).prop_map(|(host, way)| {
            let target = [
                RouteTarget::Discard,
                RouteTarget::Tunnel(TunnelIndex(0)),
                RouteTarget::Port { port: INSIDE, next_hop: None },
                via(INSIDE, "192.0.2.99"),
                via(OUTSIDE, "198.51.100.99"),
            ][way];
            route(&format!("203.0.0.{host}/32"), target)
        }),
        (small.clone()).prop_map(|index| route("10.99.0.0/16", RouteTarget::Tunnel(TunnelIndex(index)))),
    ];
    let gone = prop_oneof![
        small.clone().prop_map(tunnel_id),
        small.clone().prop_map(protection_id),
        (0u32..8).prop_map(sa_id),
        (0u32..3).prop_map(policy_id),
        (0u8..4).prop_map(|host| route_id(&format!("203.0.0.{host}/32"))),
        Just(route_id("10.99.0.0/16")),
    ];
    prop_oneof![
        3 => tunnels.prop_map(Change::Put),
        3 => protections.prop_map(Change::Put),
        5 => sas.prop_map(Change::Put),
        1 => policies.prop_map(Change::Put),
        3 => frame.prop_map(Change::Put),
        3 => gone.prop_map(Change::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn step_by_step_comes_to_the_same_as_at_once(
        transactions in prop::collection::vec(prop::collection::vec(changes(), 1..6), 1..25),
    ) {
        let table = Neighbors::with_seed(256, 1);
        let protections = (0..4).map(|i| Object::Protection(protection(i)));
        let mut shadow = changed(&headend(0), protections.chain((0..2).map(|i| Object::Tunnel(tunnel(i))))).unwrap();
        let mut current = shadow.compile(0, &limits(), None, &table).unwrap();
        for (number, transaction) in (1..).zip(transactions) {
            let mut staged: Shadow = shadow.clone();
            for change in transaction {
                match change {
                    Change::Put(object) => staged.put(&object, &limits()).unwrap(),
                    Change::Delete(id) => drop(staged.delete(id)),
                }
            }
            let stepped = staged.compile(number, &limits(), Some(&current), &table);
            let at_once = staged.compile(number, &limits(), None, &table);
            match (stepped, at_once) {
                (Ok(stepped), Ok(at_once)) => {
                    prop_assert_eq!(said(&stepped), said(&at_once));
                    (current, shadow) = (stepped, staged);
                }
                (Err(_), Err(_)) => {}
                (stepped, at_once) => prop_assert!(false, "{:?} but {:?}", stepped.err(), at_once.err()),
            }
        }
    }
}
