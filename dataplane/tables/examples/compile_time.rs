// SPDX-License-Identifier: Apache-2.0
//! How long it takes to stage and compile a large headend, and to change a little of it: processor time, so that other
//! work on the machine does not count.
//!
//! `cargo run --release -p greyhound-tables --example compile_time -- [TUNNELS] [ROUTES]`
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the figures are the program's purpose")]

use std::net::IpAddr;
use std::time::Duration;

use greyhound_tables::{Generation, Limits, Neighbors, PortLimits, Shadow};
use messages::{
    Address, DfPolicy, Direction, EspMode, GreOptions, IpPrefix, IvPrefix, Key, LifetimeLimits, MssClamp,
    Object, ObjectId, PolicyClass, PolicyMap, PolicyMapIndex, PortIndex, PortSettings, PortSide, Protection,
    ProtectionIndex, Refusal, Route, RouteTarget, Sa, SaIndex, Secret, Service, ServicePolicy, ServiceTarget,
    Share, TosPolicy, TrafficProfile, Tunnel, TunnelIndex,
};

const OUTSIDE: PortIndex = PortIndex(0);
/// The kernel counts a thread's time in ticks of some milliseconds, so one change alone could not be timed.
const CHANGES: u32 = 2_000;

fn main() -> Result<(), Refusal> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let tunnels: u32 = arguments.next().unwrap_or(60_000);
    let routes: u32 = arguments.next().unwrap_or(10_000);
    let limits = Limits {
        sas_max: 2 * tunnels + CHANGES,
        tunnels_max: tunnels,
        workers: 2,
        ports: vec![PortLimits { mtu_max: 9000, is_tagged: false }],
    };
    let neighbors = Neighbors::new(4096);

    let (shadow, staged) = timed(|| stage(tunnels, routes, &limits))?;
    println!("stage {tunnels} tunnels, {} SAs, {routes} routes: {staged:?}", 2 * tunnels);
    let (first, compiled) = timed(|| shadow.compile(1, &limits, None, &neighbors))?;
    println!("compile all: {compiled:?}");
    let (again, staged) = timed(|| stage(tunnels, routes, &limits))?;
    let (_, compiled) = timed(|| again.compile(2, &limits, Some(&first), &neighbors))?;
    println!("the same state staged anew: {staged:?} and {compiled:?}");
    let (_, compiled) = timed(|| shadow.compile(2, &limits, Some(&first), &neighbors))?;
    println!("nothing changed: {compiled:?}");

    rekey_one_by_one(first, tunnels, &limits, &neighbors)?;
    let first = shadow.compile(1, &limits, None, &neighbors)?;
    let (shadow, staged) = timed(|| rekeyed(&shadow, (0..tunnels).step_by(60), 1, &limits))?;
    let (second, compiled) = timed(|| shadow.compile(2, &limits, Some(&first), &neighbors))?;
    println!("outbound SA of each 60th tunnel replaced: {staged:?} and {compiled:?}");
    let (shadow, staged) = timed(|| {
        let mut shadow = shadow.clone();
        shadow.put(&route(routes, tunnels), &limits)?;
        Ok(shadow)
    })?;
    let (third, compiled) = timed(|| shadow.compile(3, &limits, Some(&second), &neighbors))?;
    println!("one route added: {staged:?} and {compiled:?}");

    let (shadow, staged) = timed(|| with_policies(&shadow, tunnels, &limits))?;
    let (shaped, compiled) = timed(|| shadow.compile(4, &limits, Some(&third), &neighbors))?;
    println!("a service policy with a shaper for each tunnel: {staged:?} and {compiled:?}");
    rekey_one_by_one(shaped, tunnels, &limits, &neighbors)
}

/// Each is a transaction of its own: inbound added, outbound replaced.
fn rekey_one_by_one(
    first: Generation,
    tunnels: u32,
    limits: &Limits,
    neighbors: &Neighbors,
) -> Result<(), Refusal> {
    let mut current = first;
    let start = processor_time();
    for round in 0..CHANGES {
        let tunnel = round.wrapping_mul(2_654_435_761) % tunnels;
        let mut shadow = rekeyed(current.wanted(), [tunnel], 2 + round, limits)?;
        let inbound = sa(2 * tunnels + round, tunnel, Direction::Inbound, 2 + round);
        shadow.put(&Object::Sa(inbound), limits)?;
        let next = shadow.compile(u64::from(round) + 2, limits, Some(&current), neighbors)?;
        drop(std::mem::replace(&mut current, next));
    }
    let each = processor_time().saturating_sub(start) / CHANGES;
    println!("rekey of one tunnel, the old generation freed: {each:?} each, mean of {CHANGES}");
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<(T, Duration), Refusal> {
    let start = processor_time();
    let done = work()?;
    Ok((done, processor_time().saturating_sub(start)))
}

/// What this thread has run so far: the first number of its schedstat (Linux, Documentation/scheduler/sched-stats.rst).
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = statistics.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

fn stage(tunnels: u32, routes: u32, limits: &Limits) -> Result<Shadow, Refusal> {
    let mut shadow = Shadow::default();
    let own = IpAddr::from([198, 51, 100, 1]);
    let settings = PortSettings { port: OUTSIDE, mtu: 1500, side: PortSide::Unprotected, answer_ping: true };
    shadow.put(&Object::Port(settings), limits)?;
    shadow.put(&Object::Address(Address { port: Some(OUTSIDE), address: own, length: 24 }), limits)?;
    let gateway = RouteTarget::Port { port: OUTSIDE, next_hop: Some(IpAddr::from([198, 51, 100, 254])) };
    let default = IpPrefix { address: IpAddr::from([0; 4]), length: 0 };
    shadow.put(&Object::Route(Route { prefix: default, target: gateway }), limits)?;
    for index in 0..tunnels {
        let remote = IpAddr::from((0xcb00_0000 + index).to_be_bytes());
        shadow.put(&Object::Protection(protection(index, own, remote)), limits)?;
        shadow.put(&Object::Tunnel(tunnel(index, own, remote)), limits)?;
        shadow.put(&Object::Sa(sa(2 * index, index, Direction::Inbound, 0)), limits)?;
        shadow.put(&Object::Sa(sa(2 * index + 1, index, Direction::Outbound, 0)), limits)?;
    }
    (0..routes).try_for_each(|index| shadow.put(&route(index, tunnels), limits))?;
    Ok(shadow)
}

fn with_policies(shadow: &Shadow, tunnels: u32, limits: &Limits) -> Result<Shadow, Refusal> {
    let mut shadow = shadow.clone();
    let policy_map = PolicyMapIndex(0);
    let shape = Some(TrafficProfile { rate_bps: 10_000_000, burst_bytes: None });
    shadow.put(&Object::PolicyMap(PolicyMap { policy_map, shape }), limits)?;
    let class = PolicyClass::plain(policy_map, 0, None, Service::Bandwidth(Share::Percent(100)));
    shadow.put(&Object::PolicyClass(class), limits)?;
    for target in (0..tunnels).map(TunnelIndex).map(ServiceTarget::Tunnel) {
        let service = ServicePolicy { target, policy_map: Some(policy_map), pre_classify: true };
        shadow.put(&Object::ServicePolicy(service), limits)?;
    }
    Ok(shadow)
}

fn route(index: u32, tunnels: u32) -> Object {
    let address = IpAddr::from((0x0a00_0000 + (index << 8)).to_be_bytes());
    Object::Route(Route {
        prefix: IpPrefix { address, length: 24 },
        target: RouteTarget::Tunnel(TunnelIndex(index % tunnels)),
    })
}

fn rekeyed(
    shadow: &Shadow,
    tunnels: impl IntoIterator<Item = u32>,
    round: u32,
    limits: &Limits,
) -> Result<Shadow, Refusal> {
    let mut shadow = shadow.clone();
    for tunnel in tunnels {
        let index = 2 * tunnel + 1;
        shadow.delete(ObjectId::Sa(SaIndex(index)))?;
        shadow.put(&Object::Sa(sa(index, tunnel, Direction::Outbound, round)), limits)?;
    }
    Ok(shadow)
}

fn protection(index: u32, local: IpAddr, remote: IpAddr) -> Protection {
    Protection {
        protection: ProtectionIndex(index),
        mode: EspMode::Transport,
        local,
        remote,
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        class_groups: messages::ClassGroups::default(),
    }
}

fn tunnel(index: u32, source: IpAddr, destination: IpAddr) -> Tunnel {
    Tunnel {
        tunnel: TunnelIndex(index),
        source,
        destination,
        gre: GreOptions { key: Some(index), checksum: false, sequence: false },
        protection: Some(ProtectionIndex(index)),
        tos: TosPolicy::Copy,
        df: DfPolicy::Copy,
        ttl: 64,
        mtu: None,
        mss: MssClamp::Automatic,
        strict_source: true,
        marks: messages::TunnelMarks::default(),
    }
}

/// Keys made of numbers: nothing is ever sealed with them.
fn sa(index: u32, protection: u32, direction: Direction, round: u32) -> Sa {
    let mut keymat = [0; 20];
    keymat[..4].copy_from_slice(&index.to_be_bytes());
    keymat[4..8].copy_from_slice(&round.to_be_bytes());
    #[expect(clippy::unwrap_used, reason = "20 bytes are a key of 16 and a salt")]
    let secret = Secret::from_keymat(&keymat).unwrap();
    Sa {
        sa: SaIndex(index),
        protection: ProtectionIndex(protection),
        direction,
        spi: 0x0100_0000 + index,
        key: Key { secret, icv_bytes: 16 },
        esn: true,
        replay_window: 1024,
        class_group: 0,
        owner: None,
        iv_prefix: IvPrefix::default(),
        lifetime: LifetimeLimits::default(),
    }
}
