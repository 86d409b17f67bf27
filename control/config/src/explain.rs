// SPDX-License-Identifier: Apache-2.0
//! What the dataplane says, in the names that people gave.

use std::collections::HashMap;

use messages::{Field, ObjectId, PortIndex, Refusal, ServiceTarget};

use crate::{Environment, Indices, Kind};

/// The names behind the numbers, for whoever asks about many of them.
#[derive(Clone, Debug)]
pub struct Names<'a> {
    tunnels: HashMap<u32, &'a str>,
    protections: HashMap<u32, &'a str>,
    policies: HashMap<u32, &'a str>,
    sas: HashMap<u32, &'a str>,
    class_maps: HashMap<u32, &'a str>,
    policy_maps: HashMap<u32, &'a str>,
    dscp_maps: HashMap<u32, &'a str>,
    environment: &'a Environment,
}

impl<'a> Names<'a> {
    /// Turns `indices` around.
    #[must_use]
    pub fn new(indices: &'a Indices, environment: &'a Environment) -> Self {
        let turn = |names: &'a std::collections::BTreeMap<String, u32>| {
            names.iter().map(|(name, number)| (*number, name.as_str())).collect()
        };
        Self {
            tunnels: turn(&indices.tunnels),
            protections: turn(&indices.protections),
            policies: turn(&indices.policies),
            sas: turn(&indices.sas),
            class_maps: turn(&indices.class_maps),
            policy_maps: turn(&indices.policy_maps),
            dscp_maps: turn(&indices.dscp_maps),
            environment,
        }
    }

    /// Name of a tunnel.
    #[must_use]
    pub fn tunnel(&self, index: messages::TunnelIndex) -> Option<&'a str> {
        self.tunnels.get(&index.0).copied()
    }

    /// Name of a protection.
    #[must_use]
    pub fn protection(&self, index: messages::ProtectionIndex) -> Option<&'a str> {
        self.protections.get(&index.0).copied()
    }

    /// Name of a policy.
    #[must_use]
    pub fn policy(&self, index: messages::PolicyIndex) -> Option<&'a str> {
        self.policies.get(&index.0).copied()
    }

    /// Name of an SA, as in "outbound 0x00001001".
    #[must_use]
    pub fn sa(&self, index: messages::SaIndex) -> Option<&'a str> {
        self.sas.get(&index.0).copied()
    }

    /// Name of a class-map.
    #[must_use]
    pub fn class_map(&self, index: messages::ClassMapIndex) -> Option<&'a str> {
        self.class_maps.get(&index.0).copied()
    }

    /// Name of a policy-map.
    #[must_use]
    pub fn policy_map(&self, index: messages::PolicyMapIndex) -> Option<&'a str> {
        self.policy_maps.get(&index.0).copied()
    }

    /// Name of a port.
    #[must_use]
    pub fn port(&self, index: PortIndex) -> Option<&'a str> {
        self.environment.ports.get(index.index()).map(|port| port.name.as_str())
    }

    /// Kind and name of any object: "tunnel branch-7". One without a name is told by its number.
    #[must_use]
    pub fn of(&self, id: &ObjectId) -> String {
        let named = |kind: Kind, name: Option<&str>| name.map(|name| format!("{kind} {name}"));
        let name = match id {
            ObjectId::Port(port) => named(Kind::Port, self.port(*port)),
            ObjectId::Address(_) | ObjectId::Route(_) => None,
            ObjectId::Neighbor(port, address) => {
                self.port(*port).map(|port| format!("neighbor {address} on port {port}"))
            }
            ObjectId::Tunnel(tunnel) => named(Kind::Tunnel, self.tunnel(*tunnel)),
            ObjectId::Protection(protection) => named(Kind::Protection, self.protection(*protection)),
            ObjectId::Policy(policy) => named(Kind::Policy, self.policy(*policy)),
            ObjectId::Sa(sa) => named(Kind::Sa, self.sa(*sa)),
            ObjectId::ClassMap(map) => named(Kind::ClassMap, self.class_map(*map)),
            ObjectId::Criterion(map, place) => {
                self.class_map(*map).map(|map| format!("class_map {map}: criterion {}", place + 1))
            }
            ObjectId::PolicyMap(map) => named(Kind::PolicyMap, self.policy_map(*map)),
            ObjectId::DscpMap(map) => named(Kind::DscpMap, self.dscp_maps.get(&map.0).copied()),
            ObjectId::PolicyClass(map, place) => {
                self.policy_map(*map).map(|map| format!("policy_map {map}: class {}", place + 1))
            }
            ObjectId::ServicePolicy(ServiceTarget::Port(port)) => {
                named(Kind::Port, self.port(*port)).map(|port| format!("{port}: service_policy"))
            }
            ObjectId::ServicePolicy(ServiceTarget::Tunnel(tunnel)) => {
                named(Kind::Tunnel, self.tunnel(*tunnel)).map(|tunnel| format!("{tunnel}: service_policy"))
            }
        };
        name.unwrap_or_else(|| id.to_string())
    }

    /// A refusal as a sentence: names the object, what is wrong and what would be right.
    #[must_use]
    pub fn explain(&self, refusal: &Refusal) -> String {
        match subject(refusal) {
            Some(id) => format!("{}: {}", self.of(&id), self.reason(refusal)),
            None => refusal.to_string(),
        }
    }

    /// What a refusal says of its object.
    pub(crate) fn reason(&self, refusal: &Refusal) -> String {
        match refusal {
            Refusal::BeyondLimit(id, limit) => beyond_limit(id, *limit),
            Refusal::Unknown(_) => "does not exist".into(),
            Refusal::Dangling(id, other) => self.dangling(id, other),
            Refusal::Conflict(id, other) => self.conflict(id, other),
            Refusal::OutOfRange(id, field) => out_of_range(id, *field),
            Refusal::KeyReused(_, other) => format!(
                "has the same key and salt as {}, which would use nonces twice (RFC 4106 §2); give every SA a key of its own",
                self.of(other)
            ),
            Refusal::KeyTurned(_) => "has a key and salt that served the other direction before, so that IVs would come again (RFC 4106 §2); give both ends' SAs of both directions new keys".into(),
            Refusal::KeyRefused(_) => "the dataplane's AEAD engine does not take this key; give 16, 24 or 32 bytes and the salt, or choose another engine in dataplane.toml".into(),
            Refusal::NoSequenceStore(_) => {
                "the dataplane's store of sequence limits is missing or damaged, so that no key is safe to use; run `greyhound-dataplane init-state` if this is a new headend, and give new keys if it is not".into()
            }
            Refusal::StoreWrite(_) => {
                "its sequence limit could not be written to disk; see the dataplane's log, and whether its state folder is full or read-only".into()
            }
            Refusal::NoRoom(_) => {
                "the MTU of the port where it leaves has no room for a payload of 68 bytes behind all headers; raise that port's mtu".into()
            }
            Refusal::OutOfMemory(_) => {
                "the dataplane has no memory left for it; raise neighbors_max or memory in dataplane.toml".into()
            }
            other => other.to_string(),
        }
    }

    fn dangling(&self, id: &ObjectId, other: &ObjectId) -> String {
        match (id, other) {
            (ObjectId::Tunnel(_), ObjectId::Address(address)) => {
                format!("its source {address} is no address of ours; add it to a port or to loopbacks")
            }
            (ObjectId::Protection(_), ObjectId::Address(address)) => format!(
                "its local endpoint {address} is no address of ours; add it to a port or to loopbacks"
            ),
            _ => format!("refers to {}, which does not exist", self.of(other)),
        }
    }

    fn conflict(&self, id: &ObjectId, other: &ObjectId) -> String {
        let named = self.of(other);
        match (id, other) {
            (ObjectId::Address(_), ObjectId::Address(_)) => {
                format!(
                    "connects the same prefix as {named}, but on another port; a prefix belongs to one port"
                )
            }
            (ObjectId::Neighbor(..), ObjectId::Address(_)) => "is one of our own addresses".into(),
            (ObjectId::Route(_), ObjectId::Address(_)) => {
                format!("is connected already, by {named}; leave the route out, or make it longer")
            }
            (ObjectId::Tunnel(_), ObjectId::Address(address)) => {
                format!("its destination {address} is one of our own addresses; give the peer's")
            }
            (ObjectId::Protection(_), ObjectId::Address(address)) => {
                format!("its remote endpoint {address} is one of our own addresses; give the peer's")
            }
            (ObjectId::Tunnel(_), ObjectId::Tunnel(_)) => {
                format!("has source, destination and key of {named}; give one of them another key")
            }
            (ObjectId::Tunnel(_), ObjectId::Protection(_)) => format!(
                "its source and destination are not local and remote of {named}, as they must be in transport mode; use mode = \"tunnel\", or the same addresses"
            ),
            (ObjectId::Sa(_), ObjectId::Sa(_)) => format!(
                "conflicts with {named}: a protection has one outbound SA for each class group, and an inbound SPI means one SA; delete the other, or replace it"
            ),
            _ => format!("conflicts with {named}"),
        }
    }
}

/// What a refusal is about.
pub(crate) fn subject(refusal: &Refusal) -> Option<ObjectId> {
    match refusal {
        Refusal::BeyondLimit(id, _)
        | Refusal::Unknown(id)
        | Refusal::Dangling(id, _)
        | Refusal::Conflict(id, _)
        | Refusal::OutOfRange(id, _)
        | Refusal::KeyReused(id, _)
        | Refusal::KeyRefused(id)
        | Refusal::KeyTurned(id)
        | Refusal::NoSequenceStore(id)
        | Refusal::StoreWrite(id)
        | Refusal::NoRoom(id)
        | Refusal::OutOfMemory(id) => Some(*id),
        _ => None,
    }
}

/// What else a refusal names.
pub(crate) fn cause(refusal: &Refusal) -> Option<ObjectId> {
    match refusal {
        Refusal::Dangling(_, other) | Refusal::Conflict(_, other) | Refusal::KeyReused(_, other) => {
            Some(*other)
        }
        _ => None,
    }
}

fn beyond_limit(id: &ObjectId, limit: u32) -> String {
    match id {
        ObjectId::Policy(_) => format!("its port has more than {limit} policies, the most there can be"),
        ObjectId::Port(_) => format!("the dataplane has {limit} ports; add it to dataplane.toml"),
        ObjectId::Sa(_) => format!("the dataplane has room for {limit} SAs; raise sas_max in dataplane.toml"),
        ObjectId::Tunnel(_) => {
            format!("the dataplane has room for {limit} tunnels; raise tunnels_max in dataplane.toml")
        }
        ObjectId::Protection(_) => format!(
            "the dataplane has room for {limit} protections; raise sas_max or tunnels_max in dataplane.toml"
        ),
        _ => format!("the dataplane has room for {limit} of them"),
    }
}

fn out_of_range(id: &ObjectId, field: Field) -> String {
    let right = match (id, field) {
        (ObjectId::Route(_), Field::Address) => {
            "via is no neighbour: it has to lie in a prefix of one of the port's addresses, and neither be one of ours nor a broadcast address"
        }
        (ObjectId::Route(_), Field::Port) => {
            "the port has no address of this family to ask neighbours from; give it one, or a via"
        }
        (ObjectId::Route(_), Field::Prefix) => {
            "no route can lead there: link-local and IPv4-mapped prefixes are not forwarded, and no bit may be set behind the prefix length"
        }
        (ObjectId::Policy(_), Field::Port) => "a protected port has no SPD; give an unprotected port",
        (ObjectId::Port(_), Field::Mtu) => {
            "its mtu has to be 576 at least, 1280 at least with an IPv6 address, and no more than mtu_max in dataplane.toml"
        }
        (ObjectId::Tunnel(_) | ObjectId::Protection(_), Field::Address) => {
            "its two addresses have to be two different hosts of one family; neither may be multicast, broadcast, loopback or unspecified"
        }
        (_, Field::Address) => "the address has to be that of one host",
        (_, Field::Prefix) => "the prefix length does not fit the address, or bits behind it are set",
        (_, Field::Port) => "the port is out of range",
        (_, Field::Mtu) => "mtu is out of range; give 68 to 9216",
        (_, Field::Ttl) => "ttl is out of range; give 1 to 255",
        (_, Field::Dscp) => "tos is out of range; give a DSCP from 0 to 63",
        (_, Field::Mss) => "mss is out of range; give 216 to 9176",
        (_, Field::Spi) => "SPIs from 0 to 255 are reserved (RFC 4303 §2.1); give 0x100 at least",
        (_, Field::IcvBytes) => "the ICV has 16, 12 or 8 bytes",
        (_, Field::ReplayWindow) => "replay_window has to be a power of two from 64 to 8192, or 0 for none",
        (_, Field::IvPrefix) => "iv_prefix has 32 bits at most, and its value fits them",
        (_, Field::PortRange) => "ports need protocol tcp, udp, sctp or none, and the lowest goes first",
        (_, Field::Owner) => "owner is not the number of a worker of this dataplane; the first is 0",
        (ObjectId::Protection(_), Field::ClassGroup) => {
            "a DSCP is in two of its groups; give it to one of them"
        }
        (_, Field::ClassGroup) => "its group is none of its protection's; add it there, or leave group out",
        (_, Field::Lifetime) => "a soft limit may not be above the hard one",
        (_, Field::Rate) => "a rate is out of range; give 1 bit/s to 1000 Gbit/s",
        (_, Field::Burst) => {
            "a burst has to hold the longest packet of the port on the wire, its MTU and 38 bytes of Ethernet, and be 1 GiB at most; raise burst, or leave it out"
        }
        (_, Field::Share) => {
            "its shares are more than there is, or one is more than 1,000 times another; lower them, or raise the shape"
        }
        (_, Field::PriorityLevel) => "give priority 0, 1 or 2, each to one class",
        (_, Field::QueueLimit) => {
            "a queue limit in time, or percent beside bit/s, needs a rate: give the policy_map or the port's a shape, or the class a police"
        }
        (_, Field::EarlyDrop) => {
            "the thresholds of wred or the times of codel or pie contradict each other, or are out of range"
        }
        (_, Field::Classes) => "give 1 to 16 classes, the last and no other of them class-default",
        (ObjectId::PolicyMap(_), Field::ClassMap) => {
            "its class-maps, with those of the other policy-maps, come to more than the 131,072 rules that there can be, or take too long to write out; name fewer things under not and any"
        }
        (_, Field::ClassMap) => {
            "names itself, is nested more than 8 deep, or comes to more than 131,072 criteria with the class-maps that it names"
        }
        (_, Field::Criterion) => "is a criterion that nothing can match, or there is none",
        (_, Field::Service) => {
            "give every class priority or bandwidth, or none of them, and then neither a shape nor wred, codel, pie or ecn"
        }
        (_, Field::PeakRate) => "peak_rate is below rate, which it includes; raise it",
        (_, Field::Colour) => "a DSCP is both yellow and red; delete it from one",
        (_, Field::Mac) => "mac has to be the address of one station: neither multicast nor zero",
        (_, other) => return format!("{other} is out of range"),
    };
    right.into()
}

/// Kind and name of an object: "tunnel branch-7". For many of them, [`Names`] is faster.
#[must_use]
pub fn name_of(indices: &Indices, environment: &Environment, id: &ObjectId) -> String {
    Names::new(indices, environment).of(id)
}

/// A refusal by the dataplane as a sentence, in names.
#[must_use]
pub fn explain(refusal: &Refusal, indices: &Indices, environment: &Environment) -> String {
    Names::new(indices, environment).explain(refusal)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use messages::{IpPrefix, PolicyIndex, ProtectionIndex, SaIndex, TunnelIndex, WorkerId};

    use super::*;
    use crate::EnvironmentPort;

    fn indices() -> Indices {
        let one = |name: &str| BTreeMap::from([(name.to_owned(), 4)]);
        Indices {
            tunnels: one("branch-7"),
            protections: one("branch-7"),
            policies: one("ike"),
            sas: BTreeMap::from([("outbound 0x00001001".into(), 4), ("inbound 0x00001001".into(), 5)]),
            ..Indices::default()
        }
    }

    fn environment() -> Environment {
        let ports = vec![EnvironmentPort { name: "wan".into(), mtu_max: 1500, is_tagged: false }];
        Environment { ports, workers: 1, sas_max: 8, tunnels_max: 8 }
    }

    const SA: ObjectId = ObjectId::Sa(SaIndex(4));
    const TUNNEL: ObjectId = ObjectId::Tunnel(TunnelIndex(4));

    #[test]
    fn objects_are_called_by_their_names_or_else_by_their_numbers() {
        let address = "192.0.2.1".parse().unwrap();
        let prefix = IpPrefix { address, length: 32 };
        for (id, name) in [
            (SA, "sa outbound 0x00001001"),
            (ObjectId::Sa(SaIndex(6)), "SA 6"),
            (TUNNEL, "tunnel branch-7"),
            (ObjectId::Tunnel(TunnelIndex(0)), "tunnel 0"),
            (ObjectId::Protection(ProtectionIndex(4)), "protection branch-7"),
            (ObjectId::Policy(PolicyIndex(4)), "policy ike"),
            (ObjectId::Port(PortIndex(0)), "port wan"),
            (ObjectId::Port(PortIndex(1)), "port 1"),
            (ObjectId::Neighbor(PortIndex(0), address), "neighbor 192.0.2.1 on port wan"),
            (ObjectId::Neighbor(PortIndex(1), address), "neighbor 192.0.2.1 on port 1"),
            (ObjectId::Address(address), "address 192.0.2.1"),
            (ObjectId::Route(prefix), "route 192.0.2.1/32"),
        ] {
            assert_eq!(name_of(&indices(), &environment(), &id), name);
        }
    }

    #[test]
    fn what_only_the_dataplane_can_refuse_is_a_sentence_with_names() {
        for (refusal, sentence) in [
            (
                Refusal::KeyReused(SA, ObjectId::Sa(SaIndex(5))),
                "sa outbound 0x00001001: has the same key and salt as sa inbound 0x00001001, which would use nonces twice (RFC 4106 §2); give every SA a key of its own",
            ),
            (
                Refusal::BeyondLimit(TUNNEL, 8),
                "tunnel branch-7: the dataplane has room for 8 tunnels; raise tunnels_max in dataplane.toml",
            ),
            (
                Refusal::KeyTurned(SA),
                "sa outbound 0x00001001: has a key and salt that served the other direction before, so that IVs would come again (RFC 4106 §2); give both ends' SAs of both directions new keys",
            ),
            (
                Refusal::KeyRefused(SA),
                "sa outbound 0x00001001: the dataplane's AEAD engine does not take this key; give 16, 24 or 32 bytes and the salt, or choose another engine in dataplane.toml",
            ),
            (
                Refusal::NoSequenceStore(SA),
                "sa outbound 0x00001001: the dataplane's store of sequence limits is missing or damaged, so that no key is safe to use; run `greyhound-dataplane init-state` if this is a new headend, and give new keys if it is not",
            ),
            (
                Refusal::NoRoom(TUNNEL),
                "tunnel branch-7: the MTU of the port where it leaves has no room for a payload of 68 bytes behind all headers; raise that port's mtu",
            ),
            (Refusal::Unknown(TUNNEL), "tunnel branch-7: does not exist"),
            (
                Refusal::Dangling(SA, ObjectId::Protection(ProtectionIndex(9))),
                "sa outbound 0x00001001: refers to protection 9, which does not exist",
            ),
            (Refusal::OutOfRange(TUNNEL, Field::Ttl), "tunnel branch-7: ttl is out of range; give 1 to 255"),
            (Refusal::WorkerStuck(WorkerId(3)), "worker 3 did not switch to the new generation"),
            (Refusal::NoTransaction, "no such transaction is open"),
        ] {
            assert_eq!(explain(&refusal, &indices(), &environment()), sentence);
        }
    }
}
