// SPDX-License-Identifier: Apache-2.0
//! Ports, addresses, routes, SPDs, static neighbours: the checks between them, and their tables.

use core::net::IpAddr;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use messages::{
    Address, DscpMapIndex, Field, IpPrefix, ObjectId, Policy, PolicyAction, PortIndex, PortSide, Refusal,
    Route, RouteTarget,
};
use qos::mark::DscpMap;
use wire::{Dscp, ipv6};

use super::{Base, FrameChange, same};
use crate::addresses::{connected_prefix, family_bits};
use crate::neighbors::Pin;
use crate::spd::POLICIES_PER_PORT_MAX;
use crate::{Addresses, Generation, Neighbors, NextHop, NextStep, Ports, Routes, Shadow, Spds};

/// The tables of the frame.
pub(super) struct Frame {
    pub(super) ports: Ports,
    pub(super) addresses: Addresses,
    pub(super) routes: Routes,
    pub(super) spds: Spds,
    pub(super) dscp_maps: BTreeMap<DscpMapIndex, Arc<DscpMap>>,
    pub(super) route_pins: Arc<[Pin]>,
    pub(super) static_pins: Arc<[Pin]>,
}

impl Frame {
    /// Shares with `previous` what is equal, and builds the rest.
    pub(super) fn build(
        wanted: &Shadow,
        previous: Option<&Generation>,
        neighbors: &Neighbors,
    ) -> Result<Frame, Refusal> {
        let shared = |equal: fn(&Shadow, &Shadow) -> bool| previous.filter(|old| equal(&old.source, wanted));
        let addresses = match shared(|old, new| same(&old.addresses, &new.addresses)) {
            Some(previous) => previous.addresses.clone(),
            None => Addresses::build(&wanted.addresses),
        };
        let ports =
            match shared(|old, new| same(&old.ports, &new.ports) && same(&old.addresses, &new.addresses)) {
                Some(previous) => previous.ports.clone(),
                None => Ports::build(&wanted.ports, &wanted.addresses),
            };
        let spds = match shared(|old, new| same(&old.ports, &new.ports) && same(&old.policies, &new.policies))
        {
            Some(previous) => previous.spds.clone(),
            None => Spds::build(&wanted.ports, &wanted.policies),
        };
        let (routes, route_pins) =
            match shared(|old, new| same(&old.routes, &new.routes) && same(&old.addresses, &new.addresses)) {
                Some(previous) => (previous.routes.clone(), Arc::clone(&previous.route_pins)),
                None => routes(wanted, neighbors)?,
            };
        let static_pins = match shared(|old, new| same(&old.neighbors, &new.neighbors)) {
            Some(previous) => Arc::clone(&previous.static_pins),
            None => static_pins(wanted, neighbors)?,
        };
        let dscp_maps = wanted.dscp_maps.values().map(dscp_map).collect();
        Ok(Frame { ports, addresses, routes, spds, dscp_maps, route_pins, static_pins })
    }
}

fn dscp_map(wanted: &messages::DscpMap) -> (DscpMapIndex, Arc<DscpMap>) {
    let changes = wanted.changes.iter().filter_map(|(from, to)| Dscp::new(*from).zip(Dscp::new(*to)));
    (wanted.dscp_map, Arc::new(DscpMap::new(changes)))
}

/// Routes and connected prefixes. Each next hop gets its slot, once.
fn routes(wanted: &Shadow, neighbors: &Neighbors) -> Result<(Routes, Arc<[Pin]>), Refusal> {
    let mut steps = BTreeMap::new();
    for (port, prefix) in wanted.addresses.values().filter_map(connected) {
        steps.insert(prefix, NextStep::Port { port, neighbor: NextHop::Connected });
    }
    let mut slots = HashMap::new();
    let mut pins = Vec::new();
    for route in wanted.routes.values() {
        let step = match route.target {
            RouteTarget::Discard => NextStep::Discard,
            RouteTarget::Tunnel(tunnel) => NextStep::Tunnel(tunnel),
            RouteTarget::Port { port, next_hop: None } => {
                NextStep::Port { port, neighbor: NextHop::Connected }
            }
            RouteTarget::Port { port, next_hop: Some(next_hop) } => {
                let slot = match slots.get(&(port, next_hop)) {
                    Some(slot) => *slot,
                    None => {
                        let full = Refusal::OutOfMemory(ObjectId::Route(route.prefix));
                        let (slot, pin) = neighbors.pin(port, &next_hop).map_err(|_| full)?;
                        pins.push(pin);
                        *slots.entry((port, next_hop)).or_insert(slot)
                    }
                };
                NextStep::Port { port, neighbor: NextHop::Slot(slot) }
            }
        };
        steps.insert(route.prefix, step);
    }
    Ok((Routes::build(&steps), pins.into()))
}

fn static_pins(wanted: &Shadow, neighbors: &Neighbors) -> Result<Arc<[Pin]>, Refusal> {
    let pin = |neighbor: &messages::StaticNeighbor| {
        let full = Refusal::OutOfMemory(ObjectId::Neighbor(neighbor.port, neighbor.address));
        neighbors.pin(neighbor.port, &neighbor.address).map(|(_, pin)| pin).map_err(|_| full)
    };
    wanted.neighbors.values().map(pin).collect()
}

/// The prefix that an address brings as a route. A single address brings none, and neither does a link-local one: what
/// is link-local is not forwarded.
fn connected(own: &Address) -> Option<(PortIndex, IpPrefix)> {
    let is_link_local = matches!(own.address, IpAddr::V6(address) if address.is_unicast_link_local());
    let is_single = own.length == family_bits(&own.address);
    Some((own.port.filter(|_| !is_link_local && !is_single)?, connected_prefix(own)))
}

/// Checks everything in the frame against everything it names, unless all of it was checked before.
pub(super) fn check(wanted: &Shadow, base: &Base) -> Result<(), Refusal> {
    if base.frame_change(wanted) == FrameChange::Nothing
        && same(&base.source.neighbors, &wanted.neighbors)
        && base.lost_nothing(wanted)
    {
        return Ok(());
    }
    check_addresses(wanted)?;
    check_neighbors(wanted)?;
    let check = RouteCheck::new(wanted);
    wanted.routes.values().try_for_each(|route| check.route(route))?;
    check_policies(wanted)
}

fn check_addresses(wanted: &Shadow) -> Result<(), Refusal> {
    let mut connected_by: HashMap<IpPrefix, &Address> = HashMap::new();
    for own in wanted.addresses.values() {
        let id = ObjectId::Address(own.address);
        let Some(port) = own.port else { continue };
        let settings = wanted.ports.get(&port).ok_or(Refusal::Dangling(id, ObjectId::Port(port)))?;
        if own.address.is_ipv6() && settings.mtu < ipv6::MIN_MTU {
            return Err(Refusal::OutOfRange(ObjectId::Port(port), Field::Mtu));
        }
        let Some((_, prefix)) = connected(own) else { continue };
        match connected_by.insert(prefix, own) {
            Some(other) if other.port != own.port => {
                return Err(Refusal::Conflict(id, ObjectId::Address(other.address)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_neighbors(wanted: &Shadow) -> Result<(), Refusal> {
    for neighbor in wanted.neighbors.values() {
        let id = ObjectId::Neighbor(neighbor.port, neighbor.address);
        if !wanted.ports.contains_key(&neighbor.port) {
            return Err(Refusal::Dangling(id, ObjectId::Port(neighbor.port)));
        }
        if wanted.addresses.contains_key(&neighbor.address) {
            return Err(Refusal::Conflict(id, ObjectId::Address(neighbor.address)));
        }
    }
    Ok(())
}

struct RouteCheck<'a> {
    wanted: &'a Shadow,
    addresses: Addresses,
    connected: HashMap<IpPrefix, IpAddr>,
}

impl RouteCheck<'_> {
    fn new(wanted: &Shadow) -> RouteCheck<'_> {
        let own = wanted.addresses.values();
        let connected =
            own.filter_map(|own| connected(own).map(|(_, prefix)| (prefix, own.address))).collect();
        RouteCheck { wanted, addresses: Addresses::build(&wanted.addresses), connected }
    }

    fn route(&self, route: &Route) -> Result<(), Refusal> {
        let id = ObjectId::Route(route.prefix);
        if let Some(own) = self.connected.get(&route.prefix) {
            return Err(Refusal::Conflict(id, ObjectId::Address(*own)));
        }
        match route.target {
            RouteTarget::Discard => Ok(()),
            RouteTarget::Tunnel(tunnel) => match self.wanted.tunnels.get(tunnel.index()) {
                Some(_) => Ok(()),
                None => Err(Refusal::Dangling(id, ObjectId::Tunnel(tunnel))),
            },
            RouteTarget::Port { port, next_hop } => self.out_of_port(route, port, next_hop),
        }
    }

    /// A next hop is a neighbour; without one, the destinations are, and there is an address to ask them from.
    fn out_of_port(&self, route: &Route, port: PortIndex, next_hop: Option<IpAddr>) -> Result<(), Refusal> {
        let id = ObjectId::Route(route.prefix);
        if !self.wanted.ports.contains_key(&port) {
            return Err(Refusal::Dangling(id, ObjectId::Port(port)));
        }
        let (holds, field) = match next_hop {
            None => (self.addresses.has_family(port, &route.prefix.address), Field::Port),
            Some(next_hop) => {
                let is_host = !self.addresses.is_local(&next_hop) && !self.addresses.is_broadcast(&next_hop);
                (is_host && self.addresses.is_connected(port, &next_hop), Field::Address)
            }
        };
        if holds { Ok(()) } else { Err(Refusal::OutOfRange(id, field)) }
    }
}

fn check_policies(wanted: &Shadow) -> Result<(), Refusal> {
    let mut orders: BTreeMap<(PortIndex, u32), &Policy> = BTreeMap::new();
    let mut counts: HashMap<PortIndex, usize> = HashMap::new();
    for policy in wanted.policies.values() {
        let id = ObjectId::Policy(policy.policy);
        let port =
            wanted.ports.get(&policy.port).ok_or(Refusal::Dangling(id, ObjectId::Port(policy.port)))?;
        if port.side != PortSide::Unprotected {
            return Err(Refusal::OutOfRange(id, Field::Port));
        }
        if let PolicyAction::Protect(protection) = policy.action
            && wanted.protections.get(protection.index()).is_none()
        {
            return Err(Refusal::Dangling(id, ObjectId::Protection(protection)));
        }
        if let Some(other) = orders.insert((policy.port, policy.order), policy) {
            return Err(Refusal::Conflict(id, ObjectId::Policy(other.policy)));
        }
        let count = counts.entry(policy.port).or_default();
        *count += 1;
        if *count > POLICIES_PER_PORT_MAX {
            let limit = u32::try_from(POLICIES_PER_PORT_MAX).unwrap_or(u32::MAX);
            return Err(Refusal::BeyondLimit(id, limit));
        }
    }
    Ok(())
}
