// SPDX-License-Identifier: Apache-2.0
//! Objects for tests: a headend with a protected port 0, an unprotected port 1, and a gateway behind that.

use core::net::IpAddr;

use messages::{
    Address, ClassGroups, DfPolicy, Direction, EspMode, GreOptions, IpPrefix, IvPrefix, Key, LifetimeLimits,
    MssClamp, Object, Policy, PolicyAction, PolicyIndex, PortIndex, PortSettings, PortSide, Protection,
    ProtectionIndex, Refusal, Route, RouteTarget, Sa, SaIndex, Secret, Selector, TosPolicy, Tunnel,
    TunnelIndex,
};

use crate::{Generation, Limits, Neighbors, PortLimits, Shadow};

pub(crate) const INSIDE: PortIndex = PortIndex(0);
pub(crate) const OUTSIDE: PortIndex = PortIndex(1);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> IpPrefix {
    let (address, length) = text.split_once('/').unwrap();
    IpPrefix { address: ip(address), length: length.parse().unwrap() }
}

pub(crate) fn limits() -> Limits {
    Limits {
        sas_max: 1000,
        tunnels_max: 500,
        workers: 2,
        ports: vec![PortLimits { mtu_max: 9000, is_tagged: false }; 3],
    }
}

pub(crate) fn port(port: PortIndex, mtu: u16, side: PortSide) -> Object {
    Object::Port(PortSettings { port, mtu, side, answer_ping: true })
}

pub(crate) fn address(port: Option<PortIndex>, text: &str) -> Object {
    let IpPrefix { address, length } = prefix(text);
    Object::Address(Address { port, address, length })
}

pub(crate) fn route(text: &str, target: RouteTarget) -> Object {
    Object::Route(Route { prefix: prefix(text), target })
}

pub(crate) fn via(port: PortIndex, next_hop: &str) -> RouteTarget {
    RouteTarget::Port { port, next_hop: Some(ip(next_hop)) }
}

pub(crate) fn tunnel(index: u32) -> Tunnel {
    Tunnel {
        tunnel: TunnelIndex(index),
        source: ip("198.51.100.1"),
        destination: IpAddr::from([203, 0, (index >> 8) as u8, index as u8]),
        gre: GreOptions { key: None, checksum: false, sequence: false },
        protection: None,
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        mtu: None,
        mss: MssClamp::Automatic,
        strict_source: false,
        marks: messages::TunnelMarks::default(),
    }
}

/// Protects the tunnel of the same index.
pub(crate) fn protection(index: u32) -> Protection {
    Protection {
        protection: ProtectionIndex(index),
        mode: EspMode::Transport,
        local: ip("198.51.100.1"),
        remote: tunnel(index).destination,
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        class_groups: ClassGroups::default(),
    }
}

pub(crate) fn sa(index: u32, protection: u32, direction: Direction) -> Sa {
    let mut keymat = [0x5a; 20];
    keymat[..4].copy_from_slice(&index.to_be_bytes());
    Sa {
        sa: SaIndex(index),
        protection: ProtectionIndex(protection),
        direction,
        spi: 0x1000 + index,
        key: Key { secret: Secret::from_keymat(&keymat).unwrap(), icv_bytes: 16 },
        esn: false,
        replay_window: 1024,
        class_group: 0,
        owner: None,
        iv_prefix: IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
    }
}

pub(crate) const ANY: Selector =
    Selector { local: None, remote: None, protocol: None, local_ports: None, remote_ports: None };

pub(crate) fn policy(index: u32, selector: Selector, action: PolicyAction) -> Policy {
    Policy { policy: PolicyIndex(index), port: OUTSIDE, order: index, selector, action }
}

pub(crate) fn staged(objects: impl IntoIterator<Item = Object>) -> Result<Shadow, Refusal> {
    changed(&Shadow::default(), objects)
}

pub(crate) fn changed(shadow: &Shadow, objects: impl IntoIterator<Item = Object>) -> Result<Shadow, Refusal> {
    let mut shadow = shadow.clone();
    objects.into_iter().try_for_each(|object| shadow.put(&object, &limits()))?;
    Ok(shadow)
}

/// Ports, addresses, a default route each, and `tunnels` tunnels without protection.
pub(crate) fn headend(tunnels: u32) -> Shadow {
    let frame = [
        port(INSIDE, 1500, PortSide::Protected),
        port(OUTSIDE, 1500, PortSide::Unprotected),
        address(Some(INSIDE), "192.0.2.1/24"),
        address(Some(INSIDE), "2001:db8:1::1/64"),
        address(Some(OUTSIDE), "198.51.100.1/24"),
        address(Some(OUTSIDE), "2001:db8:2::1/64"),
        route("0.0.0.0/0", via(OUTSIDE, "198.51.100.254")),
        route("::/0", via(OUTSIDE, "2001:db8:2::fe")),
    ];
    let tunnels = (0..tunnels).flat_map(|index| {
        let inside = format!("10.{}.{}.0/24", index >> 8, index & 0xff);
        [Object::Tunnel(tunnel(index)), route(&inside, RouteTarget::Tunnel(TunnelIndex(index)))]
    });
    staged(frame.into_iter().chain(tunnels)).unwrap()
}

pub(crate) fn compiled(shadow: &Shadow) -> Result<Generation, Refusal> {
    shadow.compile(1, &limits(), None, &Neighbors::with_seed(256, 1))
}
