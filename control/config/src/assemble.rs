// SPDX-License-Identifier: Apache-2.0
//! Entries as objects: names become numbers, absent fields their defaults.
//!
//! Checks only what the environment says: ports, workers, sizes, keys.

use core::net::IpAddr;
use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use messages::{
    Address, Direction, DscpMapIndex, Fingerprint, GreOptions, IpPrefix, Key, Object, ObjectId, Policy,
    PolicyAction, PolicyIndex, PortIndex, PortSettings, Protection, ProtectionIndex, Route, RouteTarget, Sa,
    SaIndex, Selector, StaticNeighbor, Tunnel, TunnelIndex, WorkerId,
};

use crate::groups;
use crate::model::REPLAY_WINDOW;
use crate::problem::{Complaints, Place, Problem};
use crate::quality::{self, Numbers};
use crate::{
    Action, ClassMapEntry, Config, DscpMapEntry, Environment, Indices, Item, KeySource, Kind, NeighborEntry,
    PolicyEntry, PolicyMapEntry, PortEntry, Problems, ProtectionEntry, RouteEntry, SaEntry, TunnelEntry,
    dscp,
};

/// A configuration as objects.
pub(crate) struct Assembled {
    pub(crate) objects: BTreeMap<ObjectId, Object>,
    /// Where each of them stands in the configuration.
    pub(crate) places: HashMap<ObjectId, Place>,
    pub(crate) problems: Problems,
}

/// Expects that [`check`](crate::check::check) found nothing.
pub(crate) fn assemble(
    config: &Config,
    indices: &Indices,
    environment: &Environment,
    keys: &dyn KeySource,
) -> Assembled {
    let mut assembler = Assembler::new(config, indices, environment, keys);
    assembler.loopbacks(&config.loopbacks);
    each(&config.ports, |item, position| assembler.port(item, position));
    each(&config.neighbors, |item, position| assembler.neighbor(item, position));
    each(&config.routes, |item, position| assembler.route(item, position));
    each(&config.protections, |item, position| assembler.protection(item, position));
    each(&config.tunnels, |item, position| assembler.tunnel(item, position));
    each(&config.policies, |item, position| assembler.policy(item, position));
    each(&config.sas, |item, position| assembler.sa(item, position));
    each(&config.class_maps, |item, position| assembler.class_map(item, position));
    each(&config.policy_maps, |item, position| assembler.policy_map(item, position));
    each(&config.dscp_maps, |item, position| assembler.dscp_map(item, position));
    assembler.done
}

fn each<'a, T: Item>(items: &'a [T], mut assemble: impl FnMut(&'a T, usize) -> Option<()>) {
    items.iter().enumerate().for_each(|(position, item)| {
        // Nothing: its problem was added.
        let _ = assemble(item, position);
    });
}

struct Assembler<'a> {
    indices: &'a Indices,
    environment: &'a Environment,
    keys: &'a dyn KeySource,
    ports: HashMap<&'a str, PortIndex>,
    protections: HashMap<&'a str, &'a ProtectionEntry>,
    fingerprints: HashMap<Fingerprint, &'a SaEntry>,
    /// How many policies each port has so far.
    orders: HashMap<&'a str, u32>,
    done: Assembled,
}

impl<'a> Assembler<'a> {
    fn new(
        config: &'a Config,
        indices: &'a Indices,
        environment: &'a Environment,
        keys: &'a dyn KeySource,
    ) -> Self {
        let numbered = (0..).map(PortIndex).zip(&environment.ports);
        let problems = sizes(config, environment);
        Self {
            indices,
            environment,
            keys,
            ports: numbered.map(|(index, port)| (port.name.as_str(), index)).collect(),
            protections: config.protections.iter().map(|entry| (entry.name.as_str(), entry)).collect(),
            fingerprints: HashMap::new(),
            orders: HashMap::new(),
            done: Assembled { objects: BTreeMap::new(), places: HashMap::new(), problems },
        }
    }

    fn add(&mut self, object: Object, place: Place) {
        self.done.places.insert(object.id(), place);
        self.done.objects.insert(object.id(), object);
    }

    fn add_item<T: Item>(&mut self, object: Object, _item: &T, position: usize) -> Option<()> {
        self.add(object, Place { kind: T::KIND, position, field: None });
        Some(())
    }

    fn about<'b, T: Item>(&'b mut self, item: &'b T, position: usize) -> Complaints<'b, T> {
        Complaints::about(&mut self.done.problems, item, position)
    }

    fn port_index<T: Item>(&mut self, item: &T, position: usize, name: &str) -> Option<PortIndex> {
        let index = self.ports.get(name).copied();
        if index.is_none() && T::KIND == Kind::Port {
            let text = format!(
                "the dataplane has no such port; its dataplane.toml has {}",
                self.environment.port_names()
            );
            self.about(item, position).field("name", text);
        }
        index
    }

    fn number<T: Item>(
        &mut self,
        item: &T,
        position: usize,
        numbers: &BTreeMap<String, u32>,
        name: &str,
    ) -> Option<u32> {
        let number = numbers.get(name).copied();
        if number.is_none() {
            let text =
                format!("{name:?} has no number; numbers have to be allocated for this configuration first");
            self.about(item, position).whole(text);
        }
        number
    }

    fn protection_index<T: Item>(
        &mut self,
        item: &T,
        position: usize,
        name: &str,
    ) -> Option<ProtectionIndex> {
        self.number(item, position, &self.indices.protections, name).map(ProtectionIndex)
    }

    fn loopbacks(&mut self, loopbacks: &[IpAddr]) {
        for (position, address) in loopbacks.iter().enumerate() {
            let length = IpNet::from(*address).prefix_len();
            let address = Address { port: None, address: *address, length };
            self.add(Object::Address(address), Place { kind: Kind::Loopback, position, field: None });
        }
    }

    fn port(&mut self, entry: &PortEntry, position: usize) -> Option<()> {
        let port = self.port_index(entry, position, &entry.name)?;
        let mtu_max = self.environment.ports.get(port.index()).map_or(u16::MAX, |port| port.mtu_max);
        let mtu = entry.mtu.unwrap_or(mtu_max);
        if mtu > mtu_max {
            let text = format!(
                "{mtu} is more than the {mtu_max} that the dataplane opened the port with; lower it, or raise mtu_max in dataplane.toml"
            );
            self.about(entry, position).field("mtu", text);
        }
        for net in &entry.addresses {
            let address = Address { port: Some(port), address: net.addr(), length: net.prefix_len() };
            let place = Place { kind: Kind::Port, position, field: Some("addresses") };
            self.add(Object::Address(address), place);
        }
        let settings =
            PortSettings { port, mtu: mtu.min(mtu_max), side: entry.side, answer_ping: entry.answer_ping };
        let service = self.with_numbers(|numbers| quality::of_port(entry, port, numbers));
        self.add_service(service, Kind::Port, position);
        self.add_item(Object::Port(settings), entry, position)
    }

    fn neighbor(&mut self, entry: &NeighborEntry, position: usize) -> Option<()> {
        let port = self.port_index(entry, position, &entry.port)?;
        let neighbor = StaticNeighbor { port, address: entry.address, mac: entry.mac.0 };
        self.add_item(Object::Neighbor(neighbor), entry, position)
    }

    fn route(&mut self, entry: &RouteEntry, position: usize) -> Option<()> {
        let target = match (&entry.tunnel, &entry.port) {
            (Some(tunnel), _) => {
                let number = self.number(entry, position, &self.indices.tunnels, tunnel)?;
                RouteTarget::Tunnel(TunnelIndex(number))
            }
            (None, Some(port)) => {
                RouteTarget::Port { port: self.port_index(entry, position, port)?, next_hop: entry.via }
            }
            (None, None) => RouteTarget::Discard,
        };
        self.add_item(Object::Route(Route { prefix: prefix(entry.prefix), target }), entry, position)
    }

    fn protection(&mut self, entry: &ProtectionEntry, position: usize) -> Option<()> {
        let protection = Protection {
            protection: self.protection_index(entry, position, &entry.name)?,
            mode: entry.mode,
            local: entry.local,
            remote: entry.remote,
            tos: entry.tos,
            df: entry.df,
            ttl: entry.ttl,
            class_groups: groups::class_groups(entry),
        };
        self.add_item(Object::Protection(protection), entry, position)
    }

    fn tunnel(&mut self, entry: &TunnelEntry, position: usize) -> Option<()> {
        let protection = match &entry.protection {
            Some(name) => Some(self.protection_index(entry, position, name)?),
            None => None,
        };
        let (tos, marks) = dscp::marks(entry, self.indices)?;
        let tunnel = Tunnel {
            tunnel: TunnelIndex(self.number(entry, position, &self.indices.tunnels, &entry.name)?),
            source: entry.source,
            destination: entry.destination,
            gre: GreOptions { key: entry.key, checksum: entry.checksum, sequence: entry.sequence },
            protection,
            tos,
            df: entry.df,
            ttl: entry.ttl,
            mtu: entry.mtu,
            mss: entry.mss,
            strict_source: entry.strict_source,
            marks,
        };
        let service = self.with_numbers(|numbers| quality::of_tunnel(entry, tunnel.tunnel, numbers));
        self.add_service(service, Kind::Tunnel, position);
        self.add_item(Object::Tunnel(tunnel), entry, position)
    }

    fn with_numbers<T>(&self, make: impl FnOnce(&Numbers<'_>) -> T) -> T {
        let port = |name: &str| self.ports.get(name).copied();
        make(&Numbers { indices: self.indices, port: &port })
    }

    fn add_service(&mut self, service: Option<Object>, kind: Kind, position: usize) {
        if let Some(service) = service {
            self.add(service, Place { kind, position, field: Some("service_policy") });
        }
    }

    fn class_map(&mut self, entry: &ClassMapEntry, position: usize) -> Option<()> {
        self.number(entry, position, &self.indices.class_maps, &entry.name)?;
        let objects = self.with_numbers(|numbers| quality::class_map(entry, numbers))?;
        objects.into_iter().try_for_each(|object| self.add_item(object, entry, position))
    }

    fn policy_map(&mut self, entry: &PolicyMapEntry, position: usize) -> Option<()> {
        self.number(entry, position, &self.indices.policy_maps, &entry.name)?;
        let objects = self.with_numbers(|numbers| quality::policy_map(entry, numbers))?;
        objects.into_iter().try_for_each(|object| self.add_item(object, entry, position))
    }

    fn dscp_map(&mut self, entry: &DscpMapEntry, position: usize) -> Option<()> {
        let number = self.number(entry, position, &self.indices.dscp_maps, &entry.name)?;
        self.add_item(Object::DscpMap(dscp::dscp_map(entry, DscpMapIndex(number))), entry, position)
    }

    fn policy(&mut self, entry: &'a PolicyEntry, position: usize) -> Option<()> {
        let order = self.orders.entry(&entry.port).or_default();
        *order += 1;
        let order = *order;
        let action = match (entry.action, &entry.protection) {
            (Action::Bypass, _) => PolicyAction::Bypass,
            (Action::Protect, Some(name)) => {
                PolicyAction::Protect(self.protection_index(entry, position, name)?)
            }
            (Action::Discard, _) | (Action::Protect, None) => PolicyAction::Discard,
        };
        let selector = Selector {
            local: entry.local.map(prefix),
            remote: entry.remote.map(prefix),
            protocol: entry.protocol.map(|protocol| protocol.0),
            local_ports: entry.local_ports,
            remote_ports: entry.remote_ports,
        };
        let policy = Policy {
            policy: PolicyIndex(self.number(entry, position, &self.indices.policies, &entry.name)?),
            port: self.port_index(entry, position, &entry.port)?,
            order,
            selector,
            action,
        };
        self.add_item(Object::Policy(policy), entry, position)
    }

    fn sa(&mut self, entry: &'a SaEntry, position: usize) -> Option<()> {
        self.owner(entry, position);
        let key = self.key(entry, position)?;
        let inbound = entry.direction == Direction::Inbound;
        let sa = Sa {
            sa: SaIndex(self.number(entry, position, &self.indices.sas, &entry.label())?),
            protection: self.protection_index(entry, position, &entry.protection)?,
            direction: entry.direction,
            spi: entry.spi,
            key,
            esn: entry.esn,
            replay_window: if inbound { entry.replay_window.unwrap_or(REPLAY_WINDOW) } else { 0 },
            class_group: if inbound { 0 } else { self.group(entry) },
            owner: entry.owner.map(WorkerId),
            iv_prefix: entry.iv_prefix,
            lifetime: entry.lifetime,
        };
        self.add_item(Object::Sa(sa), entry, position)
    }

    /// The number of an SA's group, which was checked to be there.
    fn group(&self, entry: &SaEntry) -> u8 {
        let protection = self.protections.get(entry.protection.as_str());
        protection.and_then(|protection| groups::number(protection, entry.group.as_deref())).unwrap_or(0)
    }

    fn owner(&mut self, entry: &SaEntry, position: usize) {
        let workers = self.environment.workers;
        if let Some(owner) = entry.owner.filter(|owner| *owner >= workers) {
            let last = workers.saturating_sub(1);
            let text = format!("the dataplane has no worker {owner}; give 0 to {last}, or leave it out");
            self.about(entry, position).field("owner", text);
        }
    }

    fn key(&mut self, entry: &'a SaEntry, position: usize) -> Option<Key> {
        let field = if entry.key_id.is_some() { "key_id" } else { "key_file" };
        let secret = match self.keys.secret(entry) {
            Ok(secret) => secret,
            Err(reason) => {
                self.about(entry, position).field(field, reason);
                return None;
            }
        };
        if let Some(other) = self.fingerprints.insert(secret.fingerprint(), entry) {
            let text = format!(
                "is the same key and salt as that of {}, which would use nonces twice (RFC 4106 §2); give every SA a key of its own",
                Item::name(other)
            );
            self.about(entry, position).field(field, text);
        }
        Some(Key { secret, icv_bytes: entry.algorithm.icv_bytes() })
    }
}

fn prefix(net: IpNet) -> IpPrefix {
    IpPrefix { address: net.addr(), length: net.prefix_len() }
}

/// Whether there is room for all of it.
fn sizes(config: &Config, environment: &Environment) -> Problems {
    let mut problems = Problems::default();
    let all = [
        (Kind::Tunnel, config.tunnels.len(), environment.tunnels_max, "tunnels_max"),
        (Kind::Sa, config.sas.len(), environment.sas_max, "sas_max"),
    ];
    for (kind, count, most, setting) in all {
        if u32::try_from(count).is_ok_and(|count| count <= most) {
            continue;
        }
        let place = Place { kind, position: usize::try_from(most).unwrap_or(usize::MAX), field: None };
        let text = format!(
            "there are {count}, but the dataplane was started with room for {most}; raise {setting} in dataplane.toml and restart it, or delete some"
        );
        problems.add(Problem::new(Some(place), format!("[[{kind}]]"), text));
    }
    problems
}
