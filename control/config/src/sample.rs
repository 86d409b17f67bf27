// SPDX-License-Identifier: Apache-2.0
//! Random configurations that are valid, and keys for them: for tests, simulations and scenarios.
//!
//! Everything comes from the generator that is passed in, so that a seed gives the same configuration again. Every kind
//! of entry, every field and each of the four configurations (GRE alone, ESP alone, GRE in ESP with one pair of
//! addresses and with two) comes up.

mod quality;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use messages::{
    DfPolicy, Direction, EspMode, IvPrefix, LifetimeLimits, MssClamp, PortRange, PortSide, Secret, TosPolicy,
};
use rand::{Rng, RngExt};
use sha2::{Digest as _, Sha256};
use wire::{Dscp, IpProtocol, MacAddr};

use crate::{
    Action, Algorithm, Config, DeliveryDscp, DscpChangeEntry, DscpMapEntry, Environment, EnvironmentPort,
    GroupEntry, InnerDscp, KeyReference, KeySource, ManualKeying, NeighborEntry, PolicyEntry, PortEntry,
    ProtectionEntry, RouteEntry, SaEntry, TunnelEntry,
};

pub use quality::quality;

/// What all ports take, however many more sites there are.
const POLICIES_OF_SITES_MAX: usize = 3000;

/// How much there may be of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sites, each with a tunnel, a protection or both.
    pub sites: u16,
    /// Unprotected ports, 1 to 8.
    pub uplinks: u8,
    /// Policies beside those of the sites, up to 1,000.
    pub policies: u16,
    /// Whether IPv6 occurs.
    pub ipv6: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { sites: 6, uplinks: 2, policies: 4, ipv6: true }
    }
}

/// Keys for a sample, each derived from what the SA says of it: equal references give equal keys, others different ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys;

impl KeySource for Keys {
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
        let reference = match sa.key().ok_or("needs exactly one of key_file and key_id")? {
            KeyReference::File(file) => format!("file {file}"),
            KeyReference::Id(id) => format!("id {id}"),
        };
        let digest = Sha256::digest(reference);
        // Not a key of 36 bytes: a digest has only 32.
        let length = if digest[31] & 1 == 0 { 20 } else { 28 };
        Secret::from_keymat(&digest[..length]).ok_or_else(|| "a key has another length".into())
    }
}

/// A dataplane with exactly the ports of `config`, and some room.
#[must_use]
pub fn environment(config: &Config) -> Environment {
    let ports = config.ports.iter().map(|port| EnvironmentPort {
        name: port.name.clone(),
        mtu_max: 9000,
        is_tagged: false,
    });
    // Schedulers belong to one worker.
    let is_scheduled = config.ports.iter().any(|port| port.service_policy.is_some())
        || config.tunnels.iter().any(|tunnel| tunnel.service_policy.is_some() || !tunnel.pre_classify);
    let workers = if is_scheduled { 1 } else { 2 };
    Environment { ports: ports.collect(), workers, sas_max: 1 << 18, tunnels_max: 1 << 17 }
}

/// A random configuration.
#[must_use]
pub fn config(rng: &mut impl Rng, shape: &Shape) -> Config {
    let mut sampler = Sampler { rng, ipv6: shape.ipv6, config: Config::default(), keys: 0 };
    sampler.ports(shape.uplinks.clamp(1, 8));
    for site in 0..shape.sites {
        sampler.site(site);
    }
    for number in 0..shape.policies.min(1000) {
        sampler.policy(number);
    }
    if !sampler.config.sas.is_empty() {
        sampler.config.manual_keying = Some(ManualKeying::Lab);
    }
    sampler.config
}

struct Sampler<'a, R> {
    rng: &'a mut R,
    ipv6: bool,
    config: Config,
    keys: u32,
}

/// The ends of a site's tunnel or protection.
#[derive(Clone, Copy)]
struct Ends {
    ours: IpAddr,
    theirs: IpAddr,
}

fn v4(high: [u8; 2], low: u16) -> IpAddr {
    let [a, b] = low.to_be_bytes();
    Ipv4Addr::new(high[0], high[1], a, b).into()
}

/// An address out of 2001:db8::/32, kept for documentation.
fn v6(subnet: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host).into()
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new_assert(address, length)
}

fn host(address: IpAddr) -> IpNet {
    address.into()
}

/// A site's own /25.
fn inside(site: u16) -> Ipv4Addr {
    Ipv4Addr::from(0x0b80_0000 | u32::from(site) << 7)
}

impl<R: Rng> Sampler<'_, R> {
    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_ratio(1, one_in)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())]
    }

    fn maybe<T>(&mut self, one_in: u32, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.chance(one_in) { Some(value(self)) } else { None }
    }

    fn v6_now(&mut self) -> bool {
        self.ipv6 && self.chance(3)
    }

    // Ports, and what hangs on them. Port 0 is 10.0.0.0/16, uplink n is 192.168.n.0/24 and 2001:db8:n::/64.

    fn ports(&mut self, uplinks: u8) {
        let answer_ping = self.chance(2);
        let mut addresses = vec![net(v4([10, 0], self.rng.random_range(1..255)), 16)];
        if self.ipv6 {
            addresses.push(net(v6(0xffff, 1), 64));
        }
        self.config.ports.push(PortEntry {
            name: "lan".into(),
            side: PortSide::Protected,
            addresses,
            mtu: None,
            answer_ping,
            service_policy: None,
        });
        for number in 0..uplinks {
            self.uplink(number);
        }
        for number in 0..self.rng.random_range(1..4) {
            let address = if self.v6_now() { v6(0xfffe, number) } else { v4([172, 31], number) };
            self.config.loopbacks.push(address);
        }
    }

    fn uplink(&mut self, number: u8) {
        let port = format!("wan{number}");
        let mut addresses =
            vec![net(v4([192, 168], u16::from_be_bytes([number, self.rng.random_range(1..100)])), 24)];
        if self.ipv6 {
            addresses.push(net(v6(number.into(), self.rng.random_range(1..100)), 64));
        }
        let mtu = self.maybe(2, |it| it.rng.random_range(1280..=9000));
        let side = PortSide::Unprotected;
        let answer_ping = !self.chance(4);
        self.config.ports.push(PortEntry {
            name: port.clone(),
            side,
            addresses,
            mtu,
            answer_ping,
            service_policy: None,
        });
        let gateway = self.neighbor_of(number);
        if number == 0 {
            self.route(net(Ipv4Addr::UNSPECIFIED.into(), 0), None, Some((&port, Some(gateway))));
        } else {
            self.route(net(v4([11, number], 0), 16), None, Some((&port, Some(gateway))));
        }
        if self.ipv6 {
            let via = v6(number.into(), 200);
            self.route(net(v6(0xf000 + u16::from(number), 0), 48), None, Some((&port, Some(via))));
        }
        if self.chance(2) {
            let mut mac: [u8; 6] = self.rng.random();
            mac[0] = mac[0] & 0xfe | 2;
            self.config.neighbors.push(NeighborEntry { port, address: gateway, mac: MacAddr(mac) });
        }
    }

    fn neighbor_of(&mut self, uplink: u8) -> IpAddr {
        v4([192, 168], u16::from_be_bytes([uplink, self.rng.random_range(100..255)]))
    }

    fn route(&mut self, prefix: IpNet, tunnel: Option<&str>, port: Option<(&str, Option<IpAddr>)>) {
        let route = RouteEntry {
            prefix,
            tunnel: tunnel.map(str::to_owned),
            port: port.map(|(name, _)| name.to_owned()),
            via: port.and_then(|(_, via)| via),
            discard: tunnel.is_none() && port.is_none(),
        };
        self.config.routes.push(route);
    }

    // Sites. Site n is reached at 100.64.0.0/16 + n or 2001:db8:f000::n, and inside it has a part of 11.128.0.0/9 and of 2001:db8:e000::/48.

    fn site(&mut self, site: u16) {
        let name = format!("site-{site}");
        let outer = self.outer_ends(site);
        match self.rng.random_range(0..5) {
            0 if self.config.policies.len() < POLICIES_OF_SITES_MAX => self.esp_alone(&name, site, outer),
            0 | 1 => self.tunnel(&name, site, outer, None),
            2 => {
                self.protection(&name, EspMode::Transport, outer);
                self.tunnel(&name, site, outer, Some(&name));
            }
            3 => {
                self.protection(&name, EspMode::Tunnel, outer);
                self.tunnel(&name, site, outer, Some(&name));
            }
            _ => {
                self.protection(&name, EspMode::Tunnel, outer);
                let inner = self.inner_ends(site);
                self.tunnel(&name, site, inner, Some(&name));
            }
        }
    }

    fn outer_ends(&mut self, site: u16) -> Ends {
        let v6_now = self.v6_now();
        let uplinks: Vec<IpAddr> =
            self.config.ports[1..].iter().flat_map(|port| &port.addresses).map(IpNet::addr).collect();
        let ours: Vec<IpAddr> = uplinks.into_iter().filter(|address| address.is_ipv6() == v6_now).collect();
        Ends { ours: self.pick(&ours), theirs: if v6_now { v6(0xf000, site) } else { v4([100, 64], site) } }
    }

    fn inner_ends(&mut self, site: u16) -> Ends {
        let loopbacks = self.config.loopbacks.clone();
        let ours = self.pick(&loopbacks);
        Ends { ours, theirs: if ours.is_ipv6() { v6(0xf800, site) } else { v4([100, 65], site) } }
    }

    fn tos(&mut self) -> TosPolicy {
        if self.chance(2) { TosPolicy::Copy } else { TosPolicy::Dscp(self.rng.random_range(0..64)) }
    }

    fn dscp(&mut self) -> Dscp {
        Dscp::new(self.rng.random_range(0..64)).unwrap_or_default()
    }

    /// The name of a map, which there is then.
    fn dscp_map(&mut self) -> String {
        let name = format!("dscps-{}", self.rng.random_range(0..3));
        if self.config.dscp_maps.iter().all(|map| map.name != name) {
            let change = DscpChangeEntry { from: vec![Dscp::EF, Dscp::CS6], to: self.dscp() };
            self.config.dscp_maps.push(DscpMapEntry { name: name.clone(), map: vec![change] });
        }
        name
    }

    fn delivery_dscp(&mut self) -> DeliveryDscp {
        match self.rng.random_range(0..4) {
            0 => DeliveryDscp::Set(self.dscp()),
            1 => DeliveryDscp::Map(self.dscp_map()),
            _ => DeliveryDscp::Copy,
        }
    }

    fn inner_dscp(&mut self) -> InnerDscp {
        match self.rng.random_range(0..8) {
            0 => InnerDscp::Set(self.dscp()),
            1 => InnerDscp::Map(self.dscp_map()),
            2 => InnerDscp::Copy,
            _ => InnerDscp::Keep,
        }
    }

    fn df(&mut self) -> DfPolicy {
        self.pick(&[DfPolicy::Copy, DfPolicy::Copy, DfPolicy::Clear, DfPolicy::Set])
    }

    fn ttl(&mut self) -> u8 {
        if self.chance(2) { 64 } else { self.rng.random_range(1..=255) }
    }

    fn tunnel(&mut self, name: &str, site: u16, ends: Ends, protection: Option<&str>) {
        let tunnel = TunnelEntry {
            name: name.to_owned(),
            source: ends.ours,
            destination: ends.theirs,
            key: self.maybe(2, |it| it.rng.random()),
            checksum: self.chance(5),
            sequence: self.chance(5),
            protection: protection.map(str::to_owned),
            tos: self.delivery_dscp(),
            inner_tos: self.inner_dscp(),
            df: self.df(),
            ttl: self.ttl(),
            mtu: self.maybe(4, |it| it.rng.random_range(68..=9000)),
            mss: match self.rng.random_range(0..4) {
                0 => MssClamp::Off,
                1 => MssClamp::Fixed(self.rng.random_range(216..=9176)),
                _ => MssClamp::Automatic,
            },
            strict_source: self.chance(3),
            service_policy: None,
            pre_classify: true,
        };
        let twin = self.maybe(8, |_| TunnelEntry {
            name: format!("{name}-twin"),
            key: Some(tunnel.key.map_or(0, |key| !key)),
            ..tunnel.clone()
        });
        self.config.tunnels.extend([tunnel].into_iter().chain(twin));
        let inside = inside(site);
        let length = self.rng.random_range(25..=32);
        self.route(net(inside.into(), length), Some(name), None);
        if self.ipv6 && self.chance(2) {
            self.route(
                IpNet::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0xe000, site, 0, 0, 0, 0).into(), 64),
                Some(name),
                None,
            );
        }
        if self.chance(8) {
            self.route(net(Ipv4Addr::from(u32::from(inside) | 64).into(), 32), None, None);
        }
    }

    fn protection(&mut self, name: &str, mode: EspMode, ends: Ends) {
        let groups = self.groups();
        let protection = ProtectionEntry {
            name: name.to_owned(),
            mode,
            local: ends.ours,
            remote: ends.theirs,
            tos: self.tos(),
            df: self.df(),
            ttl: self.ttl(),
            groups,
        };
        let names = protection.groups.iter().map(|group| Some(group.name.clone()));
        let names: Vec<_> = [None].into_iter().chain(names).collect();
        self.config.protections.push(protection);
        for group in &names {
            if !self.chance(6) {
                self.sa(name, Direction::Outbound, group.clone());
            }
        }
        for _ in 0..self.rng.random_range(0..3) {
            let group = names[self.rng.random_range(0..names.len())].clone();
            self.sa(name, Direction::Inbound, group);
        }
    }

    /// A few groups, or none, with DSCPs that no other has.
    fn groups(&mut self) -> Vec<GroupEntry> {
        let count = self.maybe(3, |it| it.rng.random_range(1..=3)).unwrap_or(0);
        let first = self.rng.random_range(0..64);
        let dscp = |number: u8| Dscp::new((first + 17 * number) % 64).expect("below 64");
        let group = |number| GroupEntry {
            name: format!("group-{number}"),
            dscp: (0..=number).map(|place| dscp(3 * number + place)).collect(),
        };
        (0..count).map(group).collect()
    }

    /// No two have the same SPI: 2^16 apart, and less than that moved.
    fn sa(&mut self, protection: &str, direction: Direction, group: Option<String>) {
        self.keys += 1;
        let spi = (self.keys << 16) + self.rng.random_range(0..1 << 16);
        let inbound = direction == Direction::Inbound;
        let key = format!("{protection}-{spi:08x}");
        let in_file = self.chance(2);
        let esn = self.chance(2);
        let windows: &[u16] = if esn { &[64, 128, 1024, 8192] } else { &[0, 64, 128, 1024, 8192] };
        let sa = SaEntry {
            protection: protection.to_owned(),
            direction,
            spi,
            group,
            algorithm: self.pick(&[Algorithm::AesGcm16, Algorithm::AesGcm12, Algorithm::AesGcm8]),
            key_file: in_file.then(|| format!("/etc/greyhound/main/keys/{key}")),
            key_id: (!in_file).then_some(key),
            esn,
            replay_window: if inbound { self.maybe(2, |it| it.pick(windows)) } else { None },
            owner: if inbound { self.maybe(4, |it| it.rng.random_range(0..2)) } else { None },
            iv_prefix: if inbound { IvPrefix::default() } else { self.iv_prefix() },
            lifetime: self.lifetime(),
        };
        self.config.sas.push(sa);
    }

    fn iv_prefix(&mut self) -> IvPrefix {
        if !self.chance(4) {
            return IvPrefix::default();
        }
        let bits = self.rng.random_range(1..=32);
        IvPrefix { bits, value: self.rng.random::<u32>() >> (32 - bits) }
    }

    fn lifetime(&mut self) -> LifetimeLimits {
        let (bytes, packets, seconds) = (self.limits(), self.limits(), self.limits());
        LifetimeLimits {
            soft_bytes: bytes.0.into(),
            hard_bytes: bytes.1.into(),
            soft_packets: packets.0.into(),
            hard_packets: packets.1.into(),
            soft_seconds: seconds.0,
            hard_seconds: seconds.1,
        }
    }

    /// A soft limit and a hard one, large ones, so that a short test does not meet them.
    fn limits(&mut self) -> (u32, u32) {
        let hard = self.maybe(4, |it| it.rng.random_range(1 << 20..=u32::MAX)).unwrap_or(0);
        let highest = if hard == 0 { u32::MAX } else { hard };
        (self.maybe(4, |it| it.rng.random_range(1 << 19..=highest)).unwrap_or(0), hard)
    }

    // Policies.

    fn esp_alone(&mut self, name: &str, site: u16, ends: Ends) {
        self.protection(name, EspMode::Tunnel, ends);
        let policy = PolicyEntry {
            local: Some(net(v4([10, 0], 0), 16)),
            remote: Some(host(inside(site).into())),
            action: Action::Protect,
            protection: Some(name.to_owned()),
            ..self.any_policy(format!("esp-{name}"))
        };
        self.config.policies.push(policy);
    }

    fn any_policy(&mut self, name: String) -> PolicyEntry {
        let uplinks = self.config.ports.len() - 1;
        let port = format!("wan{}", self.rng.random_range(0..uplinks));
        PolicyEntry {
            name,
            port,
            local: None,
            remote: None,
            protocol: None,
            local_ports: None,
            remote_ports: None,
            action: Action::Bypass,
            protection: None,
        }
    }

    fn policy(&mut self, number: u16) {
        let v6_now = self.v6_now();
        let mut policy = self.any_policy(format!("policy-{number}"));
        policy.action = self.pick(&[Action::Bypass, Action::Discard]);
        policy.local = self.maybe(2, |it| it.network(v6_now));
        policy.remote = self.maybe(2, |it| it.network(v6_now));
        policy.protocol = self.maybe(2, |it| it.pick(&[IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP]));
        policy.local_ports = self.maybe(3, Self::port_range);
        policy.remote_ports = self.maybe(3, Self::port_range);
        if policy.local_ports.is_none() && policy.remote_ports.is_none() && self.chance(2) {
            policy.protocol = Some(IpProtocol(self.rng.random()));
        }
        self.config.policies.push(policy);
    }

    fn network(&mut self, v6_now: bool) -> IpNet {
        if v6_now {
            net(Ipv6Addr::from(self.rng.random::<u128>()).into(), self.rng.random_range(0..=128)).trunc()
        } else {
            net(Ipv4Addr::from(self.rng.random::<u32>()).into(), self.rng.random_range(0..=32)).trunc()
        }
    }

    fn port_range(&mut self) -> PortRange {
        let (a, b) = (self.rng.random(), self.rng.random());
        if self.chance(2) {
            PortRange { first: a, last: a }
        } else {
            PortRange { first: a.min(b), last: a.max(b) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::sample;
    use crate::{Indices, compile};

    proptest! {
        #[test]
        fn every_sample_is_valid(seed: u64, sites in 0u16..40, uplinks in 1u8..=8, policies in 0u16..20, ipv6: bool) {
            let config = sample(seed, &Shape { sites, uplinks, policies, ipv6 });
            let indices = Indices::default().allocate(&config);
            if let Err(problems) = compile(&config, &indices, &environment(&config), &Keys) {
                return Err(TestCaseError::fail(format!("{problems}\n{}", config.to_toml())));
            }
        }
    }

    #[test]
    fn samples_use_every_field() {
        let shape = Shape { sites: 60, policies: 60, ..Shape::default() };
        let all: String = (0..20).map(|seed| sample(seed, &shape).to_toml()).collect();
        for field in [
            "manual_keying",
            "loopbacks",
            "addresses",
            "mtu",
            "answer_ping",
            "mac",
            "tunnel = ",
            "via",
            "discard",
            "mode = \"transport\"",
            "mode = \"tunnel\"",
            "tos",
            "df",
            "ttl",
            "key = ",
            "checksum",
            "sequence",
            "protection = ",
            "mss = \"off\"",
            "strict_source",
            "protocol",
            "local_ports",
            "remote_ports",
            "action = \"protect\"",
            "action = \"bypass\"",
            "action = \"discard\"",
            "\"inbound\"",
            "\"outbound\"",
            "ENCR_AES_GCM_8",
            "ENCR_AES_GCM_12",
            "key_file",
            "key_id",
            "esn",
            "replay_window",
            "owner",
            "iv_prefix",
            "soft_bytes",
            "hard_bytes",
            "soft_packets",
            "hard_packets",
            "soft_seconds",
            "hard_seconds",
        ] {
            assert!(all.contains(field), "{field}");
        }
    }

    #[test]
    fn a_large_sample_is_valid_and_a_seed_gives_the_same_again() {
        let shape = Shape { sites: 5_000, policies: u16::MAX, ..Shape::default() };
        let config = sample(1, &shape);
        assert_eq!(config, sample(1, &shape));
        assert_ne!(config, sample(2, &shape));
        let indices = Indices::default().allocate(&config);
        assert_eq!(compile(&config, &indices, &environment(&config), &Keys).map(drop), Ok(()));
    }
}
