// SPDX-License-Identifier: Apache-2.0
//! What can be said of a configuration without any dataplane: names, references, fields that exclude each other.
//!
//! Not here: what the dataplane's own code decides ([`compile`](crate::compile())).

use core::hash::Hash;
use core::net::IpAddr;
use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use messages::{Direction, PortSide};
use wire::{IpProtocol, address};

use crate::problem::{Complaints, Place, Problem};
use crate::{
    Action, Config, Item, Kind, NeighborEntry, PolicyEntry, PortEntry, Problems, ProtectionEntry, RouteEntry,
    SaEntry, TunnelEntry,
};
use crate::{dscp, groups, quality};

const NAME_MAX: usize = 64;
const PORT_NAME_MAX: usize = 32;
const HOST: &str =
    "give the address of one host, neither multicast, broadcast, loopback, unspecified nor IPv4-mapped";

/// All that is wrong with the entries themselves.
pub(crate) fn check(config: &Config) -> Problems {
    let mut checker = Checker::new(config);
    checker.loopbacks();
    each(&config.ports, |item, position| checker.port(item, position));
    each(&config.neighbors, |item, position| checker.neighbor(item, position));
    each(&config.routes, |item, position| checker.route(item, position));
    each(&config.protections, |item, position| checker.protection(item, position));
    each(&config.tunnels, |item, position| checker.tunnel(item, position));
    each(&config.policies, |item, position| checker.policy(item, position));
    each(&config.sas, |item, position| checker.sa(item, position));
    each(&config.class_maps, |item, position| checker.named(item, position, &item.name, NAME_MAX));
    each(&config.policy_maps, |item, position| checker.named(item, position, &item.name, NAME_MAX));
    each(&config.dscp_maps, |item, position| checker.named(item, position, &item.name, NAME_MAX));
    quality::check(config, &mut checker.problems);
    dscp::check(config, &mut checker.problems);
    checker.manual_keying();
    checker.problems
}

fn each<'a, T>(items: &'a [T], mut check: impl FnMut(&'a T, usize)) {
    items.iter().enumerate().for_each(|(position, item)| check(item, position));
}

struct Checker<'a> {
    config: &'a Config,
    problems: Problems,
    ports: HashMap<&'a str, &'a PortEntry>,
    protections: HashMap<&'a str, &'a ProtectionEntry>,
    tunnels: HashSet<&'a str>,
    seen: HashSet<(Kind, String)>,
    own: HashMap<IpAddr, String>,
    keys: HashMap<(&'static str, &'a str), String>,
}

impl<'a> Checker<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            problems: Problems::default(),
            ports: config.ports.iter().map(|port| (port.name.as_str(), port)).collect(),
            protections: config.protections.iter().map(|entry| (entry.name.as_str(), entry)).collect(),
            tunnels: config.tunnels.iter().map(|tunnel| tunnel.name.as_str()).collect(),
            seen: HashSet::new(),
            own: HashMap::new(),
            keys: HashMap::new(),
        }
    }

    fn about<'b, T: Item>(&'b mut self, item: &'b T, position: usize) -> Complaints<'b, T> {
        Complaints::about(&mut self.problems, item, position)
    }

    fn unique<T: Item>(&mut self, item: &T, position: usize) {
        if !self.seen.insert((T::KIND, item.label())) {
            self.about(item, position).whole("is there twice; give each a name of its own, or delete one");
        }
    }

    fn named<T: Item>(&mut self, item: &T, position: usize, name: &str, longest: usize) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > longest || !name.chars().all(allowed) {
            let text = format!("{name:?} will not do; use 1 to {longest} letters, digits, '-', '_' and '.'");
            self.about(item, position).field("name", text);
        }
        self.unique(item, position);
    }

    fn refers_to_port<T: Item>(&mut self, item: &T, position: usize, name: &str) {
        if !self.ports.contains_key(name) {
            let text = no_such("port", name, self.config.ports.iter().map(|port| &port.name));
            self.about(item, position).field("port", text);
        }
    }

    fn refers_to_protection<T: Item>(&mut self, item: &T, position: usize, name: &str) {
        if !self.protections.contains_key(name) {
            let text = no_such("protection", name, self.config.protections.iter().map(|entry| &entry.name));
            self.about(item, position).field("protection", text);
        }
    }

    fn host<T: Item>(&mut self, item: &T, position: usize, field: &'static str, address: IpAddr) {
        if !address::is_host(address) {
            self.about(item, position).field(field, format_args!("{address} is no host's address; {HOST}"));
        }
    }

    /// Two different hosts of one family.
    fn ends<T: Item>(
        &mut self,
        item: &T,
        position: usize,
        ours: (&'static str, IpAddr),
        theirs: (&'static str, IpAddr),
    ) {
        for (field, address) in [ours, theirs] {
            self.host(item, position, field, address);
        }
        if ours.1.is_ipv4() != theirs.1.is_ipv4() {
            let text = format!("{} and {} {} are of two families; give two of one", theirs.1, ours.0, ours.1);
            self.about(item, position).field(theirs.0, text);
        } else if ours.1 == theirs.1 {
            let text = format!("{} is {} as well; give the peer's address", theirs.1, ours.0);
            self.about(item, position).field(theirs.0, text);
        }
    }

    /// Destinations or selectors: nothing is set behind the length.
    fn network<T: Item>(&mut self, item: &T, position: usize, field: &'static str, net: IpNet) {
        if net.trunc() != net {
            let text = format!("{net} has bits set behind the prefix length; write {}", net.trunc());
            self.about(item, position).field(field, text);
        }
    }

    /// `holder` is what messages begin with.
    fn own_address(&mut self, address: IpAddr, place: Place, holder: &str) {
        let field = place.field.map(|field| format!("{field}: ")).unwrap_or_default();
        if !address::is_host(address) {
            let text = format!("{field}{address} is no host's address; {HOST}");
            self.problems.add(Problem::new(Some(place.clone()), holder, text));
        }
        if let Some(other) = self.own.insert(address, holder.to_owned()) {
            let text = format!("{field}{address} is an address of {other} already; give it to one of them");
            self.problems.add(Problem::new(Some(place), holder, text));
        }
    }

    fn loopbacks(&mut self) {
        for (position, address) in self.config.loopbacks.iter().enumerate() {
            let place = Place { kind: Kind::Loopback, position, field: None };
            self.own_address(*address, place, "loopbacks");
        }
    }

    fn port(&mut self, port: &PortEntry, position: usize) {
        self.named(port, position, &port.name, PORT_NAME_MAX);
        for net in &port.addresses {
            let place = Place { kind: Kind::Port, position, field: Some("addresses") };
            self.own_address(net.addr(), place, &port.name());
            if net.prefix_len() == 0 {
                let text = format!(
                    "{net} would connect the whole Internet; give the length of the prefix that the port is on"
                );
                self.about(port, position).field("addresses", text);
            }
            if let IpNet::V4(v4) = net
                && v4.prefix_len() <= 30
                && (v4.addr() == v4.network() || v4.addr() == v4.broadcast())
            {
                let text = format!("{net} is a broadcast address of its prefix; give a host's");
                self.about(port, position).field("addresses", text);
            }
        }
    }

    fn neighbor(&mut self, neighbor: &NeighborEntry, position: usize) {
        self.unique(neighbor, position);
        self.refers_to_port(neighbor, position, &neighbor.port);
        self.host(neighbor, position, "address", neighbor.address);
        if !neighbor.mac.is_station() {
            let text = format!(
                "{} is not the address of one station; it may be neither multicast nor zero",
                neighbor.mac
            );
            self.about(neighbor, position).field("mac", text);
        }
    }

    fn route(&mut self, route: &RouteEntry, position: usize) {
        self.unique(route, position);
        self.network(route, position, "prefix", route.prefix);
        let targets = [route.tunnel.is_some(), route.port.is_some(), route.discard];
        if targets.into_iter().filter(|given| *given).count() != 1 {
            self.about(route, position).whole(
                "leads nowhere or to several places; give exactly one of tunnel, port and discard = true",
            );
        }
        if let Some(tunnel) = &route.tunnel
            && !self.tunnels.contains(tunnel.as_str())
        {
            let text = no_such("tunnel", tunnel, self.config.tunnels.iter().map(|entry| &entry.name));
            self.about(route, position).field("tunnel", text);
        }
        if let Some(port) = &route.port {
            self.refers_to_port(route, position, port);
        }
        if let Some(via) = route.via {
            self.via(route, position, via);
        }
    }

    fn via(&mut self, route: &RouteEntry, position: usize, via: IpAddr) {
        if route.port.is_none() {
            self.about(route, position)
                .field("via", "goes with a port only; add port = \"…\", or leave via out");
        }
        self.host(route, position, "via", via);
        if via.is_ipv4() != route.prefix.addr().is_ipv4() {
            let text = format!("{via} is of another family than the prefix; give a next hop of the same");
            self.about(route, position).field("via", text);
        }
    }

    fn protection(&mut self, protection: &ProtectionEntry, position: usize) {
        self.named(protection, position, &protection.name, NAME_MAX);
        self.ends(protection, position, ("local", protection.local), ("remote", protection.remote));
        groups::check(protection, &mut self.about(protection, position));
    }

    fn tunnel(&mut self, tunnel: &TunnelEntry, position: usize) {
        self.named(tunnel, position, &tunnel.name, NAME_MAX);
        self.ends(tunnel, position, ("source", tunnel.source), ("destination", tunnel.destination));
        if let Some(protection) = &tunnel.protection {
            self.refers_to_protection(tunnel, position, protection);
        }
    }

    fn policy(&mut self, policy: &PolicyEntry, position: usize) {
        self.named(policy, position, &policy.name, NAME_MAX);
        self.refers_to_port(policy, position, &policy.port);
        if self.ports.get(policy.port.as_str()).is_some_and(|port| port.side == PortSide::Protected) {
            let text = format!("{} is protected and has no SPD; give an unprotected port", policy.port);
            self.about(policy, position).field("port", text);
        }
        self.selectors(policy, position);
        match (policy.action, &policy.protection) {
            (Action::Protect, Some(protection)) => self.refers_to_protection(policy, position, protection),
            (Action::Protect, None) => {
                let text = "is missing; action = \"protect\" needs protection = \"…\"";
                self.about(policy, position).field("protection", text);
            }
            (_, Some(_)) => {
                let text = "goes with action = \"protect\" only; leave it out, or change the action";
                self.about(policy, position).field("protection", text);
            }
            (_, None) => {}
        }
    }

    fn selectors(&mut self, policy: &PolicyEntry, position: usize) {
        for (field, net) in [("local", policy.local), ("remote", policy.remote)] {
            if let Some(net) = net {
                self.network(policy, position, field, net);
            }
        }
        if let (Some(local), Some(remote)) = (policy.local, policy.remote)
            && local.addr().is_ipv4() != remote.addr().is_ipv4()
        {
            let text = format!(
                "{remote} and local {local} are of two families, so that nothing matches; give two of one"
            );
            self.about(policy, position).field("remote", text);
        }
        for (field, ports) in [("local_ports", policy.local_ports), ("remote_ports", policy.remote_ports)] {
            let Some(ports) = ports else { continue };
            if ports.first > ports.last {
                self.about(policy, position).field(field, "the lowest port goes first");
            }
            if let Some(protocol) = policy.protocol
                && !matches!(protocol, IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP)
            {
                let text = format!(
                    "protocol {protocol} has no ports here; use tcp, udp or sctp, or leave {field} out"
                );
                self.about(policy, position).field(field, text);
            }
        }
    }

    fn sa(&mut self, sa: &'a SaEntry, position: usize) {
        self.unique(sa, position);
        self.refers_to_protection(sa, position, &sa.protection);
        if let Some(protection) = self.protections.get(sa.protection.as_str()).copied() {
            groups::check_sa(sa, protection, &mut self.about(sa, position));
        }
        self.key(sa, position);
        self.replay_window(sa, position);
        if sa.direction == Direction::Outbound && sa.owner.is_some() {
            let text = "is for inbound SAs, whose window one worker owns; leave it out";
            self.about(sa, position).field("owner", text);
        }
        self.iv_prefix(sa, position);
        self.lifetime(sa, position);
    }

    fn key(&mut self, sa: &'a SaEntry, position: usize) {
        let (field, key) = match (&sa.key_file, &sa.key_id) {
            (Some(file), None) => ("key_file", file),
            (None, Some(id)) => ("key_id", id),
            _ => {
                self.about(sa, position).whole("needs exactly one of key_file and key_id");
                return;
            }
        };
        if key.is_empty() {
            self.about(sa, position).field(field, "is empty; say where the key is");
        }
        if field == "key_id" && !is_key_id(key) {
            let text = format!("{key:?} will not do; use 1 to {NAME_MAX} letters, digits, '-' and '_'");
            self.about(sa, position).field(field, text);
        }
        if let Some(other) = self.keys.insert((field, key), sa.name().to_string()) {
            let text = format!(
                "{key} is the key of sa {other} already, which would use nonces twice (RFC 4106 §2); give every SA a key of its own"
            );
            self.about(sa, position).field(field, text);
        }
    }

    fn replay_window(&mut self, sa: &SaEntry, position: usize) {
        let Some(window) = sa.replay_window else { return };
        if sa.direction == Direction::Outbound {
            self.about(sa, position).field("replay_window", "is for inbound SAs; leave it out");
        } else if window != 0 && !(window.is_power_of_two() && (64..=8192).contains(&window)) {
            let text =
                format!("{window} will not do; give a power of two from 64 to 8192, or 0 for no check");
            self.about(sa, position).field("replay_window", text);
        } else if window == 0 && sa.esn {
            let text = "0 will not do with esn, whose high half is inferred from the window (RFC 4303 App. A2); give a power of two from 64 to 8192";
            self.about(sa, position).field("replay_window", text);
        }
    }

    fn iv_prefix(&mut self, sa: &SaEntry, position: usize) {
        let prefix = sa.iv_prefix;
        if prefix.bits > 32 || u64::from(prefix.value) >= 1 << prefix.bits {
            let text = format!(
                "value {} does not fit {} bits; give at most 32 bits, and a value below 2 to their power",
                prefix.value, prefix.bits
            );
            self.about(sa, position).field("iv_prefix", text);
        }
        if sa.direction == Direction::Inbound && prefix.bits != 0 {
            let text = "is for outbound SAs, whose IVs we choose; leave it out";
            self.about(sa, position).field("iv_prefix", text);
        }
    }

    fn lifetime(&mut self, sa: &SaEntry, position: usize) {
        let limits = sa.lifetime;
        let pairs = [
            ("bytes", limits.soft_bytes, limits.hard_bytes),
            ("packets", limits.soft_packets, limits.hard_packets),
            ("seconds", limits.soft_seconds.into(), limits.hard_seconds.into()),
        ];
        for (unit, soft, hard) in pairs {
            if soft != 0 && hard != 0 && soft > hard {
                let text =
                    format!("soft_{unit} {soft} is above hard_{unit} {hard}; the soft limit comes first");
                self.about(sa, position).field("lifetime", text);
            }
            if i64::try_from(soft.max(hard)).is_err() {
                let text = format!("{unit} go up to {}; leave the limit out for none", i64::MAX);
                self.about(sa, position).field("lifetime", text);
            }
        }
    }

    fn manual_keying(&mut self) {
        if self.config.manual_keying.is_none() && !self.config.sas.is_empty() {
            let place = Place { kind: Kind::Sa, position: 0, field: None };
            let text = "is missing, but there are SAs with static keys; AES-GCM wants automated keying (RFC 4106 §2, RFC 8221 §3), so write manual_keying = \"lab\" if this is a laboratory";
            self.problems.add(Problem::new(Some(place), "manual_keying", text));
        }
    }
}

/// What control may use as a file's name.
fn is_key_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=NAME_MAX).contains(&id.len()) && id.chars().all(allowed)
}

/// Names some of those that there are.
pub(crate) fn no_such<'a, T: AsRef<str> + Hash + 'a>(
    kind: &str,
    name: &str,
    there: impl Iterator<Item = &'a T>,
) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = there.map(AsRef::as_ref).collect();
    let is_near =
        |other: &str| other.eq_ignore_ascii_case(name) || other.starts_with(name) || name.starts_with(other);
    names.sort_by_key(|other| !is_near(other));
    let listed: Vec<_> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    let more = if names.len() > SHOWN { " and others" } else { "" };
    if listed.is_empty() {
        format!("there is no {kind} {name:?}; add a [[{kind}]] of this name")
    } else {
        format!("there is no {kind} {name:?}; there are {}{more}", listed.join(", "))
    }
}
