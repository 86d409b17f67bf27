// SPDX-License-Identifier: Apache-2.0
//! What several tests need: samples, samples with an edit, and their objects.

use messages::{DfPolicy, MssClamp, ObjectId, PortSide, ReceivedDscp, TosPolicy};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::sample::{Keys, Shape, config, environment, quality};
use crate::{Compiled, Config, Indices, RouteEntry, compile};

pub(crate) fn sample(seed: u64, shape: &Shape) -> Config {
    config(&mut ChaCha8Rng::seed_from_u64(seed), shape)
}

/// Two valid configurations that have nothing, little or nearly everything in common.
pub(crate) fn pair(seed: u64) -> (Config, Config) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = Shape { sites: rng.random_range(0..8), ..Shape::default() };
    let mut before = config(&mut rng, &shape);
    if rng.random() {
        quality(&mut rng, &mut before);
    }
    let after = match rng.random_range(0..4) {
        0 => config(&mut rng, &shape),
        edits => {
            let mut after = before.clone();
            (0..edits).for_each(|_| edit(&mut after, &mut rng));
            after
        }
    };
    (before, after)
}

/// Changes one thing, or nothing where there is none of its kind.
fn edit(config: &mut Config, rng: &mut impl Rng) {
    let pick =
        |rng: &mut dyn Rng, length: usize| if length == 0 { None } else { Some(rng.random_range(0..length)) };
    match rng.random_range(0..17) {
        0 => drop(pick(rng, config.sas.len()).map(|sa| config.sas.remove(sa))),
        1 => drop(pick(rng, config.policies.len()).map(|policy| config.policies.remove(policy))),
        2 => drop(pick(rng, config.routes.len()).map(|route| config.routes.remove(route))),
        3 => drop(pick(rng, config.neighbors.len()).map(|neighbor| config.neighbors.remove(neighbor))),
        4 => config.ports.iter_mut().for_each(|port| port.answer_ping = !port.answer_ping),
        5 => config
            .tunnels
            .iter_mut()
            .take(1)
            .for_each(|tunnel| tunnel.ttl = tunnel.ttl.wrapping_add(1).max(1)),
        6 => config.protections.iter_mut().take(1).for_each(|entry| entry.df = DfPolicy::Set),
        7 => config.tunnels.iter_mut().take(1).for_each(|tunnel| tunnel.mss = MssClamp::Fixed(1000)),
        8 => config.sas.iter_mut().take(2).for_each(|sa| {
            sa.esn = !sa.esn;
            // ESN needs a window (RFC 4303 App. A2).
            sa.replay_window = sa.replay_window.filter(|window| *window > 0);
        }),
        9 => config.policies.reverse(),
        10 => config.protections.iter_mut().take(2).for_each(|entry| entry.tos = TosPolicy::Dscp(46)),
        11 => config.routes.push(RouteEntry {
            prefix: "203.0.113.0/24".parse().unwrap(),
            tunnel: None,
            port: None,
            via: None,
            discard: true,
        }),
        12 => config.sas.iter_mut().take(1).for_each(|sa| {
            let key = format!("other-{:08x}", rng.random::<u32>());
            (sa.key_file, sa.key_id) = (None, Some(key));
        }),
        13 => config
            .policy_maps
            .iter_mut()
            .flat_map(|map| &mut map.classes)
            .for_each(|class| (class.set_dscp, class.set_vlan_priority) = (None, None)),
        14 => config.ports.iter_mut().take(1).for_each(|port| port.service_policy = None),
        15 if !config.policy_maps.is_empty() => {
            config.tunnels.iter_mut().take(2).for_each(|tunnel| tunnel.pre_classify ^= true);
        }
        _ => config.sas.iter_mut().take(1).for_each(|sa| sa.spi ^= 1 << 31),
    }
    let mut seen = std::collections::HashSet::new();
    config.routes.retain(|route| seen.insert(route.prefix));
    assert!(config.ports.iter().any(|port| port.side == PortSide::Unprotected));
}

/// The same entries in another order, where order means nothing.
pub(crate) fn shuffled(config: &Config, seed: u64) -> Config {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut config = config.clone();
    shuffle(&mut config.loopbacks, &mut rng);
    shuffle(&mut config.ports, &mut rng);
    config.ports.iter_mut().for_each(|port| shuffle(&mut port.addresses, &mut rng));
    shuffle(&mut config.neighbors, &mut rng);
    shuffle(&mut config.routes, &mut rng);
    shuffle(&mut config.protections, &mut rng);
    shuffle(&mut config.tunnels, &mut rng);
    config.policies.sort_by_key(|policy| core::cmp::Reverse(policy.port.clone()));
    shuffle(&mut config.sas, &mut rng);
    shuffle(&mut config.class_maps, &mut rng);
    shuffle(&mut config.policy_maps, &mut rng);
    shuffle(&mut config.dscp_maps, &mut rng);
    config
}

fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}

/// The objects of a valid configuration, with numbers that go on from `before`.
pub(crate) fn compiled(config: &Config, before: &Indices) -> (Indices, Compiled) {
    let indices = before.allocate(config);
    match compile(config, &indices, &environment(config), &Keys) {
        Ok(compiled) => (indices, compiled),
        Err(problems) => panic!("{problems}\n{}", config.to_toml()),
    }
}

/// Every object that an object names.
pub(crate) fn references(object: &messages::Object) -> Vec<ObjectId> {
    use messages::{Object, PolicyAction, RouteTarget};
    match object {
        Object::Port(_) => Vec::new(),
        Object::Address(address) => address.port.map(ObjectId::Port).into_iter().collect(),
        Object::Neighbor(neighbor) => vec![ObjectId::Port(neighbor.port)],
        Object::Route(route) => match route.target {
            RouteTarget::Port { port, .. } => vec![ObjectId::Port(port)],
            RouteTarget::Tunnel(tunnel) => vec![ObjectId::Tunnel(tunnel)],
            RouteTarget::Discard => Vec::new(),
        },
        Object::Tunnel(tunnel) => {
            let received = match tunnel.marks.receipt {
                ReceivedDscp::Map(map) => Some(map),
                _ => None,
            };
            let maps = [tunnel.marks.outward, received].into_iter().flatten().map(ObjectId::DscpMap);
            tunnel.protection.map(ObjectId::Protection).into_iter().chain(maps).collect()
        }
        Object::DscpMap(_) => Vec::new(),
        Object::Protection(_) => Vec::new(),
        Object::Policy(policy) => match policy.action {
            PolicyAction::Protect(protection) => {
                vec![ObjectId::Port(policy.port), ObjectId::Protection(protection)]
            }
            _ => vec![ObjectId::Port(policy.port)],
        },
        Object::Sa(sa) => vec![ObjectId::Protection(sa.protection)],
        Object::ClassMap(_) | Object::PolicyMap(_) => Vec::new(),
        Object::Criterion(criterion) => {
            let named = [Some(criterion.class_map), criterion.nested].into_iter().flatten();
            let mut all: Vec<_> = named.map(ObjectId::ClassMap).collect();
            all.extend(criterion.tunnel.map(ObjectId::Tunnel));
            all.extend(criterion.ingress.map(ObjectId::Port));
            all
        }
        Object::PolicyClass(class) => {
            let class_map = class.class_map.map(ObjectId::ClassMap);
            [Some(ObjectId::PolicyMap(class.policy_map)), class_map].into_iter().flatten().collect()
        }
        Object::ServicePolicy(service) => {
            let target = match service.target {
                messages::ServiceTarget::Port(port) => ObjectId::Port(port),
                messages::ServiceTarget::Tunnel(tunnel) => ObjectId::Tunnel(tunnel),
            };
            service.policy_map.map(ObjectId::PolicyMap).into_iter().chain([target]).collect()
        }
    }
}
