// SPDX-License-Identifier: Apache-2.0
//! What is refused of class-maps and policy-maps, and what goes on when others change.

use std::sync::Arc;

use arrayvec::ArrayVec;
use messages::{
    ClassMap, ClassMapIndex, Criterion, Direction, DscpSet, Field, Object, ObjectId, PolicyClass, PolicyMap,
    PolicyMapIndex, PortIndex, PortRange, PortSettings, PortSide, Protection, ProtectionIndex, Refusal,
    Service, ServicePolicy, ServiceTarget, Share, Tunnel, TunnelIndex, WorkerId,
};
use qos::classify::{FlowCache, WholeV4};

use super::Quality;
use crate::testing::*;
use crate::{Neighbors, Shadow};

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
        let service = Service::Bandwidth(Share::Percent(10));
        Object::PolicyClass(PolicyClass::plain(policy_map, place, class_map, service))
    });
    [Object::PolicyMap(PolicyMap { policy_map, shape: None })].into_iter().chain(classes).collect()
}

fn without_queues(policy_map: Vec<Object>) -> Vec<Object> {
    let unqueued = |object| match object {
        Object::PolicyClass(class) => {
            Object::PolicyClass(PolicyClass { service: Service::Unqueued, ..class })
        }
        other => other,
    };
    policy_map.into_iter().map(unqueued).collect()
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
    let unqueued = without_queues(policy_map(0, &[1]));
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
        let whole = whole.map(|whole| (whole, None, TunnelIndex(0)));
        at_work.classify_v4(whole, wan, (&mut flows, &mut classes));
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
        let services = generation.quality.tunnel(TunnelIndex(index), OUTSIDE);
        assert!(services.queue.is_some());
        services.owner_beside(WorkerId(0)) == Some(WorkerId(1))
    };
    // By the protection's number, 3; without one by the tunnel's.
    assert_eq!([0, 1, 2].map(owned_by_second), [true; 3]);
    assert!(!owned_by_second(4));
}

fn at_work(target: ServiceTarget, policy_map: u32) -> Object {
    let policy_map = Some(PolicyMapIndex(policy_map));
    Object::ServicePolicy(ServicePolicy { target, policy_map, pre_classify: true })
}

/// Six tunnels, of which the first four have protections with SAs, and the first three policies with queues, as the
/// unprotected port has.
fn served() -> Shadow {
    let protected = (0..4).flat_map(|index| {
        let protection = protection(index);
        let tunnel = Tunnel { protection: Some(protection.protection), ..tunnel(index) };
        let sa = sa(index, index, Direction::Outbound);
        [Object::Protection(protection), Object::Tunnel(tunnel), Object::Sa(sa)]
    });
    let policies = [class_map(1, true, [expedited()]), policy_map(0, &[1]), policy_map(1, &[1])].concat();
    let services = (0..3).map(|index| at_work(ServiceTarget::Tunnel(TunnelIndex(index)), index % 2));
    let services = services.chain([at_work(ServiceTarget::Port(OUTSIDE), 0)]);
    changed(&headend(6), protected.chain(policies).chain(services)).unwrap()
}

/// What schedulers have to be, and whose queues are whose.
fn plans(quality: &Quality) -> impl PartialEq + std::fmt::Debug {
    let plans: Vec<_> =
        quality.plans().map(|(port, worker, plan)| (port, worker, Arc::clone(plan))).collect();
    let slots: Vec<_> = quality.tunnels.iter().map(|tunnel| (tunnel.slot, tunnel.pre_classify)).collect();
    (plans, slots)
}

/// Whether all plans and services go on after a change of [`served`]; they are in any case what they would be if
/// nothing had been before.
fn goes_on(change: impl FnOnce(&mut Shadow) -> Result<(), Refusal>) -> bool {
    let (wanted, neighbors) = (served(), Neighbors::with_seed(256, 1));
    let before = wanted.compile(1, &limits(), None, &neighbors).unwrap();
    let mut changed = wanted;
    change(&mut changed).unwrap();
    let after = changed.compile(2, &limits(), Some(&before), &neighbors).unwrap().quality;
    let alone = changed.compile(2, &limits(), None, &neighbors).unwrap().quality;
    assert_eq!(plans(&after), plans(&alone));
    Arc::ptr_eq(&after.ports, &before.quality.ports) && Arc::ptr_eq(&after.tunnels, &before.quality.tunnels)
}

fn goes_on_with(objects: impl IntoIterator<Item = Object>) -> bool {
    goes_on(|wanted| objects.into_iter().try_for_each(|object| wanted.put(&object, &limits())))
}

#[test]
fn plans_and_services_go_on_where_nothing_in_them_changes() {
    let first = Tunnel { protection: Some(ProtectionIndex(0)), ..tunnel(0) };
    let settings =
        PortSettings { port: OUTSIDE, mtu: 1_500, side: PortSide::Unprotected, answer_ping: false };
    assert!(goes_on_with([]));
    assert!(goes_on_with([Object::Sa(sa(10, 0, Direction::Inbound))]));
    assert!(goes_on(|wanted| wanted.delete(ObjectId::Sa(messages::SaIndex(0)))), "its tunnel stays");
    assert!(goes_on_with([Object::Tunnel(Tunnel { ttl: 9, mtu: Some(1_300), ..first })]));
    assert!(goes_on_with([route("10.9.0.0/16", via(OUTSIDE, "198.51.100.9"))]));
    assert!(goes_on_with([Object::Port(settings)]), "all tunnels are built anew");
    let other = |index| Object::Tunnel(Tunnel { protection: None, ..tunnel(index) });
    assert!(goes_on_with([other(3), other(7)]), "without a service policy");
    assert!(goes_on_with([route("203.0.0.4/31", via(INSIDE, "192.0.2.9"))]), "to such tunnels");
}

#[test]
fn plans_and_services_are_made_anew_where_something_in_them_changes() {
    let first = Tunnel { protection: Some(ProtectionIndex(0)), ..tunnel(0) };
    assert!(!goes_on_with([port(OUTSIDE, 1_400, PortSide::Unprotected)]));
    assert!(!goes_on_with([route("203.0.0.0/32", via(INSIDE, "192.0.2.9"))]), "another port");
    assert!(!goes_on(|wanted| wanted.delete(ObjectId::Route(prefix("0.0.0.0/0")))), "no port");
    assert!(!goes_on_with([Object::Tunnel(Tunnel { protection: None, ..first })]));
    let third = Protection { protection: ProtectionIndex(9), ..protection(2) };
    let moved = Tunnel { protection: Some(third.protection), ..tunnel(2) };
    assert!(!goes_on_with([Object::Protection(third), Object::Tunnel(moved)]), "another owner");
    let shape = Some(messages::TrafficProfile { rate_bps: 1_000_000, burst_bytes: None });
    assert!(!goes_on_with([Object::PolicyMap(PolicyMap { policy_map: PolicyMapIndex(0), shape })]));
    assert!(!goes_on_with(class_map(1, false, [expedited(), port_range(7)])));
    assert!(!goes_on_with([at_work(ServiceTarget::Tunnel(TunnelIndex(3)), 0)]));
    assert!(!goes_on_with([at_work(ServiceTarget::Tunnel(TunnelIndex(0)), 1)]));
    assert!(!goes_on(|wanted| wanted.delete(ObjectId::ServicePolicy(ServiceTarget::Port(OUTSIDE)))));
    let gone = ObjectId::Tunnel(TunnelIndex(1));
    let mut refused = served();
    let before = compiled(&refused).unwrap();
    refused.delete(ObjectId::Route(prefix("10.0.1.0/24"))).unwrap();
    refused.delete(gone).unwrap();
    let dangling = ObjectId::ServicePolicy(ServiceTarget::Tunnel(TunnelIndex(1)));
    let refusal = refused.compile(2, &limits(), Some(&before), &Neighbors::with_seed(256, 1)).err();
    assert_eq!(refusal, Some(Refusal::Dangling(dangling, gone)));
}

#[test]
fn a_queue_with_an_owner_never_stands_behind_a_policy_without_queues() {
    let maps = [policy_map(0, &[]), without_queues(policy_map(1, &[]))].concat();
    let target = ServiceTarget::Tunnel(TunnelIndex(1));
    for at_tunnel in [None, Some(0), Some(1)] {
        for at_port in [None, Some(0), Some(1)] {
            let tunnels = at_tunnel.map(|map| at_work(target, map));
            let ports = [INSIDE, OUTSIDE].map(|port| Some(at_work(ServiceTarget::Port(port), at_port?)));
            let services = tunnels.into_iter().chain(ports.into_iter().flatten());
            let wanted = changed(&headend(2), maps.iter().cloned().chain(services)).unwrap();
            let quality = compiled(&wanted).unwrap().quality;
            let services = quality.tunnel(TunnelIndex(1), OUTSIDE);
            let is_owned = services.queue.is_some_and(|queue| queue.owner.is_some());
            let found = (services.conditions.is_some(), services.queue.is_some(), is_owned);
            let expected = match (at_tunnel, at_port) {
                (Some(0), _) => (false, true, true),
                (None, port) => (port == Some(1), port == Some(0), false),
                (Some(_), port) => (true, port == Some(0), false),
            };
            assert_eq!(found, expected, "{at_tunnel:?} at the tunnel, {at_port:?} at the port");
            for port in [INSIDE, OUTSIDE] {
                assert!(quality.port(port).queue.is_none_or(|queue| queue.owner.is_none()));
            }
        }
    }
}
