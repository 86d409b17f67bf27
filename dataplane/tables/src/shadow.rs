// SPDX-License-Identifier: Apache-2.0
//! The wanted state while it is put together: objects by id, not yet compared with each other.
//!
//! A transaction works on a clone: cloning is a few reference counts, and what a transaction does not touch stays
//! shared.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{
    Address, ClassMap, ClassMapIndex, Criterion, DscpMap, DscpMapIndex, IpPrefix, Object, ObjectId, Policy,
    PolicyClass, PolicyIndex, PolicyMap, PolicyMapIndex, PortIndex, PortSettings, Protection, Refusal, Route,
    SaIndex, ServicePolicy, ServiceTarget, StaticNeighbor, Tunnel,
};

use crate::chunked::Chunked;
use crate::compile::compile;
use crate::{Generation, Limits, Neighbors, SaConfig, check};

/// See the module's head.
#[derive(Clone, Default)]
pub struct Shadow {
    pub(crate) ports: Arc<BTreeMap<PortIndex, PortSettings>>,
    pub(crate) addresses: Arc<BTreeMap<IpAddr, Address>>,
    pub(crate) neighbors: Arc<BTreeMap<(PortIndex, IpAddr), StaticNeighbor>>,
    pub(crate) routes: Arc<BTreeMap<IpPrefix, Route>>,
    pub(crate) policies: Arc<BTreeMap<PolicyIndex, Policy>>,
    pub(crate) tunnels: Chunked<Tunnel>,
    pub(crate) protections: Chunked<Protection>,
    pub(crate) sas: Chunked<SaConfig>,
    pub(crate) class_maps: Arc<BTreeMap<ClassMapIndex, ClassMap>>,
    pub(crate) criteria: Arc<BTreeMap<(ClassMapIndex, u16), Criterion>>,
    pub(crate) policy_maps: Arc<BTreeMap<PolicyMapIndex, PolicyMap>>,
    pub(crate) policy_classes: Arc<BTreeMap<(PolicyMapIndex, u8), PolicyClass>>,
    pub(crate) service_policies: Arc<BTreeMap<ServiceTarget, ServicePolicy>>,
    pub(crate) dscp_maps: Arc<BTreeMap<DscpMapIndex, DscpMap>>,
}

impl Shadow {
    /// Adds an object, or replaces the one with its id.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`] and [`Refusal::BeyondLimit`]: what is wrong with the object alone.
    pub fn put(&mut self, object: &Object, limits: &Limits) -> Result<(), Refusal> {
        check::object(object, limits)?;
        match object {
            Object::Port(x) => put(&mut self.ports, x.port, *x),
            Object::Address(x) => put(&mut self.addresses, x.address, *x),
            Object::Neighbor(x) => put(&mut self.neighbors, (x.port, x.address), *x),
            Object::Route(x) => put(&mut self.routes, x.prefix, *x),
            Object::Policy(x) => put(&mut self.policies, x.policy, *x),
            Object::Tunnel(x) => put_at(&mut self.tunnels, x.tunnel.index(), *x),
            Object::Protection(x) => put_at(&mut self.protections, x.protection.index(), *x),
            Object::Sa(x) => put_at(&mut self.sas, x.sa.index(), SaConfig::from(x)),
            Object::ClassMap(x) => put(&mut self.class_maps, x.class_map, *x),
            Object::Criterion(x) => put(&mut self.criteria, (x.class_map, x.place), *x),
            Object::PolicyMap(x) => put(&mut self.policy_maps, x.policy_map, *x),
            Object::PolicyClass(x) => put(&mut self.policy_classes, (x.policy_map, x.place), x.clone()),
            Object::ServicePolicy(x) => put(&mut self.service_policies, x.target, *x),
            Object::DscpMap(x) => put(&mut self.dscp_maps, x.dscp_map, x.clone()),
        }
        Ok(())
    }

    /// Removes an object. A port that loses its settings neither receives nor sends.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn delete(&mut self, id: ObjectId) -> Result<(), Refusal> {
        let was_there = match id {
            ObjectId::Port(port) => take(&mut self.ports, &port),
            ObjectId::Address(address) => take(&mut self.addresses, &address),
            ObjectId::Neighbor(port, address) => take(&mut self.neighbors, &(port, address)),
            ObjectId::Route(prefix) => take(&mut self.routes, &prefix),
            ObjectId::Policy(policy) => take(&mut self.policies, &policy),
            ObjectId::Tunnel(tunnel) => self.tunnels.set(tunnel.index(), None).is_some(),
            ObjectId::Protection(protection) => self.protections.set(protection.index(), None).is_some(),
            ObjectId::Sa(sa) => self.sas.set(sa.index(), None).is_some(),
            ObjectId::ClassMap(map) => take(&mut self.class_maps, &map),
            ObjectId::Criterion(map, place) => take(&mut self.criteria, &(map, place)),
            ObjectId::PolicyMap(map) => take(&mut self.policy_maps, &map),
            ObjectId::PolicyClass(map, place) => take(&mut self.policy_classes, &(map, place)),
            ObjectId::ServicePolicy(target) => take(&mut self.service_policies, &target),
            ObjectId::DscpMap(map) => take(&mut self.dscp_maps, &map),
        };
        if was_there { Ok(()) } else { Err(Refusal::Unknown(id)) }
    }

    /// Compares the objects with each other and builds what workers consult. Whatever is equal in `previous` is shared
    /// with it, and so is what lives on: counters and sequence numbers of tunnels.
    ///
    /// Slots of next hops are reserved in `neighbors`; static Ethernet addresses are not set there before
    /// [`Generation::switch_neighbors`]. A generation that comes to nothing leaves incomplete neighbours behind, which
    /// age away.
    ///
    /// # Errors
    /// The first reason to refuse that was found; nothing is changed then.
    pub fn compile(
        &self,
        number: u64,
        limits: &Limits,
        previous: Option<&Generation>,
        neighbors: &Neighbors,
    ) -> Result<Generation, Refusal> {
        compile(self, number, limits, previous, neighbors)
    }

    /// Settings of ports.
    pub fn ports(&self) -> impl Iterator<Item = &PortSettings> {
        self.ports.values()
    }

    /// Our addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values()
    }

    /// Static neighbours.
    pub fn static_neighbors(&self) -> impl Iterator<Item = &StaticNeighbor> {
        self.neighbors.values()
    }

    /// Routes.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// SPD entries, by id.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// Tunnels.
    pub fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.tunnels.iter().map(|(_, tunnel)| tunnel)
    }

    /// Protections.
    pub fn protections(&self) -> impl Iterator<Item = &Protection> {
        self.protections.iter().map(|(_, protection)| protection)
    }

    /// SAs, without their keys.
    pub fn sas(&self) -> impl Iterator<Item = &SaConfig> {
        self.sas.iter().map(|(_, sa)| sa)
    }

    /// Whether there is neither a class-map nor a policy-map.
    pub(crate) fn has_no_maps(&self) -> bool {
        self.class_maps.is_empty()
            && self.criteria.is_empty()
            && self.policy_maps.is_empty()
            && self.policy_classes.is_empty()
    }

    /// An SA, without its key.
    #[must_use]
    pub fn sa(&self, sa: SaIndex) -> Option<&SaConfig> {
        self.sas.get(sa.index())
    }

    /// The SAs that are not what they are in `before`: new, changed or gone. What both share is not looked at.
    #[must_use]
    pub fn changed_sas(&self, before: &Shadow) -> Vec<SaIndex> {
        let changed = self.sas.differences(&before.sas).into_iter();
        changed.filter_map(|index| u32::try_from(index).ok().map(SaIndex)).collect()
    }
}

impl core::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shadow")
            .field("ports", &self.ports)
            .field("addresses", &self.addresses)
            .field("neighbors", &self.neighbors)
            .field("routes", &self.routes)
            .field("policies", &self.policies)
            .field("tunnels", &self.tunnels)
            .field("protections", &self.protections)
            .field("sas", &self.sas)
            .field("class_maps", &self.class_maps)
            .field("criteria", &self.criteria)
            .field("policy_maps", &self.policy_maps)
            .field("policy_classes", &self.policy_classes)
            .field("service_policies", &self.service_policies)
            .field("dscp_maps", &self.dscp_maps)
            .finish()
    }
}

/// What is there already as it should be is not written, so that it stays shared.
fn put<K: Ord + Clone, V: Clone + PartialEq>(map: &mut Arc<BTreeMap<K, V>>, key: K, value: V) {
    if map.get(&key) != Some(&value) {
        Arc::make_mut(map).insert(key, value);
    }
}

fn take<K: Ord + Clone, V: Clone>(map: &mut Arc<BTreeMap<K, V>>, key: &K) -> bool {
    map.contains_key(key) && Arc::make_mut(map).remove(key).is_some()
}

fn put_at<T: Clone + PartialEq>(items: &mut Chunked<T>, index: usize, item: T) {
    if items.get(index) != Some(&item) {
        items.set(index, Some(item));
    }
}
