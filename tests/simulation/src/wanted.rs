// SPDX-License-Identifier: Apache-2.0
//! Objects of the wanted state in a line each.

use core::net::IpAddr;

use messages::{
    IpPrefix, Object, Policy, PolicyAction, PolicyIndex, PolicyMap, PolicyMapIndex, PortIndex, Protection,
    Route, RouteTarget, Sa, Selector, TrafficProfile, Tunnel, TunnelIndex,
};

use crate::topology::WAN;

/// A selector that matches everything.
pub const ANY: Selector =
    Selector { local: None, remote: None, protocol: None, local_ports: None, remote_ports: None };

/// An entry of the SPD of the unprotected port; its order names it.
#[must_use]
pub fn policy(order: u32, selector: Selector, action: PolicyAction) -> Object {
    Object::Policy(Policy { policy: PolicyIndex(order), port: WAN, order, selector, action })
}

/// A prefix, as `10.0.0.0/8`.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn prefix(text: &str) -> IpPrefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    IpPrefix { address: ip(address), length: length.parse().expect("a length") }
}

/// An address.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// One host as a prefix.
#[must_use]
pub fn host(address: IpAddr) -> IpPrefix {
    IpPrefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
}

/// A route by a port and a next hop.
#[must_use]
pub fn route_by(prefix: IpPrefix, port: PortIndex, next_hop: IpAddr) -> Object {
    Object::Route(Route { prefix, target: RouteTarget::Port { port, next_hop: Some(next_hop) } })
}

/// A route into a tunnel.
#[must_use]
pub fn route_into(prefix: IpPrefix, tunnel: u32) -> Object {
    Object::Route(Route { prefix, target: RouteTarget::Tunnel(TunnelIndex(tunnel)) })
}

/// The first tunnel among these objects, to be changed.
///
/// # Panics
/// If there is none.
pub fn tunnel(objects: &mut [Object]) -> &mut Tunnel {
    let mut tunnels = objects.iter_mut().filter_map(|object| match object {
        Object::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    });
    tunnels.next().expect("a tunnel")
}

/// The first protection among these objects, to be changed.
///
/// # Panics
/// If there is none.
pub fn protection(objects: &mut [Object]) -> &mut Protection {
    let mut protections = objects.iter_mut().filter_map(|object| match object {
        Object::Protection(protection) => Some(protection),
        _ => None,
    });
    protections.next().expect("a protection")
}

/// The SA that an object is.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn sa(object: Object) -> Sa {
    match object {
        Object::Sa(sa) => sa,
        other => panic!("{} is no SA", other.id()),
    }
}

/// A policy-map that is shaped to so many Mbit/s.
#[must_use]
pub fn shaped(policy_map: PolicyMapIndex, mbits: u64) -> Object {
    let shape = Some(TrafficProfile { rate_bps: mbits * 1_000_000, burst_bytes: None });
    Object::PolicyMap(PolicyMap { policy_map, shape })
}
