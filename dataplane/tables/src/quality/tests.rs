// SPDX-License-Identifier: Apache-2.0
//! What is refused of class-maps and policy-maps, and what goes on when others change.

use arrayvec::ArrayVec;
use messages::{
    ClassMap, ClassMapIndex, Criterion, DscpSet, EarlyDrop, Field, Object, ObjectId, PolicyClass, PolicyMap,
    PolicyMapIndex, PortIndex, PortRange, PortSide, QueueLimit, Refusal, Service, ServicePolicy,
    ServiceTarget, Share, Tunnel, TunnelIndex, WorkerId,
};
use qos::classify::{FlowCache, WholeV4};

use crate::Neighbors;
use crate::testing::*;

const ANYTHING: Criterion = Criterion::anything(ClassMapIndex(0), 0);

fn class_map(number: u32, match_any: bool, criteria: impl IntoIterator<Item = Criterion>) -> Vec<Object> {
    let class_map = ClassMapIndex(number);
    let criteria = (0..).zip(criteria);
    let criteria =
        criteria.map(|(place, criterion)| Object::Criterion(Criterion { class_map, place, ..criterion }));
    [Object::ClassMap(ClassMap { class_map, match_any })].into_iter().chain(criteria).collect()
}

fn expedited() -> Criterion {
    Criterion { dscps: Some(DscpSet(1 << 46)), ..ANYTHING }
}

fn naming(number: u32) -> Criterion {
    Criterion { nested: Some(ClassMapIndex(number)), ..ANYTHING }
}

fn port_range(port: u16) -> Criterion {
    let destination_ports = Some(PortRange { first: port, last: port });
    Criterion { destination_ports, ..ANYTHING }
}

fn policy_map(number: u32, class_maps: &[u32]) -> Vec<Object> {
    let policy_map = PolicyMapIndex(number);
    let class_maps = class_maps.iter().map(|map| Some(ClassMapIndex(*map))).chain([None]);
    let classes = (0..).zip(class_maps).map(|(place, class_map)| {
        Object::PolicyClass(PolicyClass {
            policy_map,
            place,
            class_map,
            service: Service::Bandwidth(Share::Percent(10)),
            police: None,
            limit: QueueLimit::Packets(64),
            early: EarlyDrop::None,
            ecn: false,
            set_dscp: None,
            set_vlan_priority: None,
        })
    });
    [Object::PolicyMap(PolicyMap { policy_map, shape: None })].into_iter().chain(classes).collect()
}

fn refused(objects: impl IntoIterator<Item = Object>) -> Option<Refusal> {
    compiled(&changed(&headend(5), objects).unwrap()).err()
}

fn too_much(id: ObjectId) -> Option<Refusal> {
    Some(Refusal::OutOfRange(id, Field::ClassMap))
}

/// Class-maps of which each names the next one `times`.
fn chain(length: u32, times: usize) -> Vec<Object> {
    let maps = (1..length).flat_map(|number| class_map(number, false, vec![naming(number + 1); times]));
    maps.chain(class_map(length, true, [expedited()])).collect()
}

#[test]
fn class_maps_are_nested_8_deep_at_most_and_name_no_circle() {
    assert_eq!(refused(chain(8, 1)), None);
    assert_eq!(refused(chain(9, 1)), too_much(ObjectId::ClassMap(ClassMapIndex(9))));
    assert!(refused(chain(100_000, 1)).is_some());
    let circle = [class_map(1, false, [naming(2)]), class_map(2, false, [naming(1)])].concat();
    assert!(refused(circle).is_some());
}

#[test]
fn class_maps_that_multiply_are_refused_before_they_are_written_out() {
    // 12^7 criteria, with a policy-map or without.
    assert!(matches!(
        refused(chain(8, 12)),
        Some(Refusal::OutOfRange(ObjectId::ClassMap(_), Field::ClassMap))
    ));
    assert_eq!(refused([chain(4, 12), policy_map(0, &[1])].concat()), None);
    // Each comes to 40,122.
    let shared = [chain(4, 27), policy_map(0, &[1]), policy_map(1, &[1]), policy_map(2, &[1])].concat();
    assert_eq!(refused(shared), None);
    let more = [chain(4, 27), policy_map(0, &[1]), policy_map(1, &[1, 2, 3]), policy_map(2, &[1])].concat();
    assert_eq!(refused(more), None);
    let again = [chain(4, 27), (0..4).flat_map(|map| policy_map(map, &[1])).collect()].concat();
    assert_eq!(refused(again), too_much(ObjectId::PolicyMap(PolicyMapIndex(3))));
}

#[test]
fn few_rules_that_take_for_ever_to_write_out_are_refused() {
    let ports = class_map(1, true, (0..1_000).map(port_range));
    let all = class_map(2, false, vec![naming(1); 100]);
    let refusal = refused([ports, all, policy_map(0, &[2])].concat());
    assert_eq!(refusal, too_much(ObjectId::PolicyMap(PolicyMapIndex(0))));
}

#[test]
fn a_criterion_that_names_nothing_is_refused_whether_it_is_at_work_or_not() {
    let id = ObjectId::Criterion(ClassMapIndex(1), 0);
    assert_eq!(refused(class_map(1, true, [ANYTHING])), Some(Refusal::OutOfRange(id, Field::Criterion)));
}

#[test]
fn what_a_criterion_names_may_not_go_while_the_maps_stay() {
    let (tunnel, spare) = (TunnelIndex(3), PortIndex(2));
    let into = Criterion { tunnel: Some(tunnel), ..ANYTHING };
    let from = Criterion { ingress: Some(spare), ..ANYTHING };
    let maps = [class_map(1, true, [into, from]), policy_map(0, &[1])].concat();
    let wanted =
        changed(&headend(4), maps.into_iter().chain([port(spare, 1500, PortSide::Protected)])).unwrap();
    let before = compiled(&wanted).unwrap();
    let criterion = |place| ObjectId::Criterion(ClassMapIndex(1), place);
    let without = |ids: &[ObjectId]| {
        let mut wanted = wanted.clone();
        ids.iter().for_each(|id| wanted.delete(*id).unwrap());
        wanted.compile(2, &limits(), Some(&before), &Neighbors::with_seed(256, 1)).err()
    };
    let route = ObjectId::Route(prefix("10.0.3.0/24"));
    let gone = ObjectId::Tunnel(tunnel);
    assert_eq!(without(&[route, gone]), Some(Refusal::Dangling(criterion(0), gone)));
    let gone = ObjectId::Port(spare);
    assert_eq!(without(&[gone]), Some(Refusal::Dangling(criterion(1), gone)));
    assert_eq!(without(&[route]), None);
}

#[test]
fn with_many_rules_flows_that_were_asked_for_before_have_the_class_that_they_had() {
    let wan = PortIndex(1);
    let even = |map: u32| class_map(map, true, (0..1_010).map(|port| port_range(2 * port)));
    let unqueued = policy_map(0, &[1]).into_iter().map(|object| match object {
        Object::PolicyClass(class) => {
            Object::PolicyClass(PolicyClass { service: Service::Unqueued, ..class })
        }
        other => other,
    });
    let target = ServiceTarget::Port(wan);
    let service = ServicePolicy { target, policy_map: Some(PolicyMapIndex(0)), pre_classify: true };
    let objects = even(1).into_iter().chain(unqueued).chain([Object::ServicePolicy(service)]);
    let tables = compiled(&changed(&headend(4), objects).unwrap()).unwrap();
    let at_work = tables.quality.port(wan).conditions.expect("a policy without queues");
    let mut flows = FlowCache::new(8_192);
    for round in 0..3 {
        let ports = (0..64).map(|number| 40 * number + round / 2);
        let whole = ports.clone().map(|ports| WholeV4 {
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
            ports,
            protocol: wire::IpProtocol::UDP,
            tos: 0,
            tcp_flags: 0,
        });
        let mut classes = ArrayVec::<_, 64>::new();
        let whole = whole.map(|whole| (whole, None));
        at_work.classify_v4(whole, wan, TunnelIndex(0), (&mut flows, &mut classes));
        let places: Vec<_> = classes.iter().map(|class| class.slot.0).collect();
        let expected: Vec<_> = ports.map(|port| u8::from(port % 2 == 1 || port >= 2_020)).collect();
        assert_eq!(places, expected, "round {round}");
    }
    assert_eq!(flows.hits_and_misses(), (64, 128));
}

#[test]
fn tunnels_that_share_a_protection_have_one_owner() {
    let protection = protection(3);
    // Their delivery addresses are the same; GRE keys tell them apart.
    let sharing = (0..3).map(|index| {
        let gre = messages::GreOptions { key: Some(index), ..tunnel(index).gre };
        let (destination, protection) = (protection.remote, Some(protection.protection));
        Object::Tunnel(Tunnel { gre, destination, protection, ..tunnel(index) })
    });
    let services = [0, 1, 2, 4].map(|index| {
        let target = ServiceTarget::Tunnel(TunnelIndex(index));
        Object::ServicePolicy(ServicePolicy {
            target,
            policy_map: Some(PolicyMapIndex(0)),
            pre_classify: true,
        })
    });
    let policy = [class_map(1, true, [expedited()]), policy_map(0, &[1])].concat();
    let objects = policy.into_iter().chain([Object::Protection(protection)]).chain(sharing).chain(services);
    let generation = compiled(&changed(&headend(5), objects).unwrap()).unwrap();
    let owned_by_second = |index| {
        let queue = generation.quality.tunnel(TunnelIndex(index), OUTSIDE).queue.unwrap();
        queue.owner_beside(WorkerId(0)) == Some(WorkerId(1))
    };
    // By the protection's number, 3; without one by the tunnel's.
    assert_eq!([0, 1, 2].map(owned_by_second), [true; 3]);
    assert!(!owned_by_second(4));
}
