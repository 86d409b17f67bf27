// SPDX-License-Identifier: Apache-2.0
//! The scenarios: an overloaded link with voice on it, shares, shapers.

use qos::schedule::{ClassSpec, EarlyDrop, Limit, PolicySpec, PortSpec, Service, Share, TunnelSpec};
use qos::{Rate, TrafficProfile};
use wire::Dscp;

use super::run::{Arrivals, POLL_NS, run};
use super::source::{Frames, MTU_WIRE_BYTES, Source};
use super::wire::{Burst, Wire};
use super::{Row, rate_text};

const SECOND_NS: u64 = 1_000_000_000;
/// Until queues are full and bursts are over.
const WARM_UP_NS: u64 = SECOND_NS / 10;
/// The bulk classes of the overloaded links are spread over so many tunnels.
const TUNNELS: u32 = 16;

/// Where packets arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Workers {
    /// At one worker, with all there is.
    One,
    /// EF at one worker and bulk at another.
    Apart,
    /// As `Apart`, with a port shaped to 98 % of the link.
    ApartShaped,
}

impl Workers {
    fn name(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Apart => ", on two workers",
            Self::ApartShaped => ", on two workers, shaped to 98 %",
        }
    }
}

/// EF at 10 % and bulk at 200 % of a link, both over 16 tunnels.
pub(super) fn overloaded_link(bps: u64, duration_ns: u64, workers: Workers) -> anyhow::Result<Vec<Row>> {
    let classes = vec![class(Service::Priority { level: 0 }), class(Service::Share(Share::Percent(100)))];
    let voice = Source::new(0, Dscp::EF, TUNNELS, Frames::Fixed(64), bps as f64 * 0.1);
    let bulk = Source::new(1, Dscp::DEFAULT, TUNNELS, Frames::Fixed(1518), bps as f64 * 2.0);
    let arrivals =
        if workers == Workers::One { vec![vec![voice, bulk]] } else { vec![vec![bulk], vec![voice]] };
    let carried_bps = if workers == Workers::ApartShaped { bps / 50 * 49 } else { bps };
    let shape = if workers == Workers::ApartShaped { Some(profile(carried_bps)?) } else { None };
    let spec = PortSpec { shape, ..port(classes, None, TUNNELS) };
    let ring_bytes = bps * 2 * POLL_NS / 8 / SECOND_NS;
    let (mut delays, mut bytes) = (Vec::new(), [0u64; 2]);
    let offered = run(&spec, arrivals, Wire::new(bps, ring_bytes), duration_ns, true, |departure| {
        let class = usize::from(departure.packet.offer.class.0);
        if class == 0 {
            delays.push(departure.left_ns - departure.packet.arrived_ns);
        }
        if departure.left_ns <= duration_ns {
            bytes[class] += u64::from(departure.packet.offer.wire_bytes);
        }
    })?;
    delays.sort_unstable();
    let lost = offered.first().copied().unwrap_or(0) - delays.len() as u64;
    let p99_ns = delays.get(delays.len() * 99 / 100).copied().unwrap_or(u64::MAX);
    let goal_ns = 2 * u64::from(MTU_WIRE_BYTES) * 8 * SECOND_NS / bps + 50_000;
    let rest = carried_bps as f64 / 8.0 * duration_ns as f64 / 1e9 - bytes[0] as f64;
    let name = |what: &str| {
        format!("link of {}, bulk at 200 %, EF at 10 %{}: {what}", rate_text(bps), workers.name())
    };
    let of = delays.len() as u64 + lost;
    Ok(vec![
        Row::at_most(name(&format!("EF lost of {of}")), lost as f64, 0.0, "packets"),
        Row::at_most(name("EF delay p99"), p99_ns as f64 / 1e3, goal_ns as f64 / 1e3, "µs"),
        Row::at_least(name("bulk, of what EF leaves"), bytes[1] as f64 / rest * 100.0, 99.0, "%"),
    ])
}

/// 50/30/20, each class offering the whole link, frames of mixed sizes; `at` says for each worker which classes come to it.
pub(super) fn shares(bps: u64, at: &[&[u8]]) -> anyhow::Result<Vec<Row>> {
    let percents = [50u8, 30, 20];
    let classes = percents.map(|percent| class(Service::Share(Share::Percent(percent)))).to_vec();
    let source =
        |(worker, class)| Source::new(class, Dscp::DEFAULT, 1, Frames::Mixed, bps as f64).again(worker);
    let of_worker = |(worker, classes): (u64, &&[u8])| {
        classes.iter().map(|class| source((worker, *class))).collect::<Vec<_>>()
    };
    let arrivals: Arrivals = (0..).zip(at).map(of_worker).collect();
    let mut bytes = [0u64; 3];
    let window = WARM_UP_NS..WARM_UP_NS + SECOND_NS;
    run(
        &port(classes, None, 1),
        arrivals,
        Wire::new(bps, bps / 8_000_000),
        window.end,
        false,
        |departure| {
            if window.contains(&departure.left_ns) {
                bytes[usize::from(departure.packet.offer.class.0)] +=
                    u64::from(departure.packet.offer.wire_bytes);
            }
        },
    )?;
    let all = bytes.iter().sum::<u64>() as f64;
    let row = |(bytes, percent): (&u64, u8)| {
        let goal = f64::from(percent);
        let name = format!("share of {percent} %, mixed sizes, 1 s at {}{}", rate_text(bps), at_text(at));
        Row::within(name, *bytes as f64 / all * 100.0, goal, 1.0, "%")
    };
    Ok(bytes.iter().zip(percents).map(row).collect())
}

fn at_text(at: &[&[u8]]) -> String {
    let names = |classes: &&[u8]| {
        let names: Vec<_> = classes.iter().map(|class| ["50", "30", "20"][usize::from(*class)]).collect();
        names.join("+")
    };
    let workers: Vec<_> = at.iter().map(names).collect();
    if workers.len() == 1 { String::new() } else { format!(", on two workers ({})", workers.join(" | ")) }
}

/// A shaper that is offered twice its rate, in front of a link of five times its rate: of a tunnel at one worker, or of a port
/// that two send by, each half.
pub(super) fn shaper(bps: u64, workers: u64) -> anyhow::Result<Vec<Row>> {
    let shape = profile(bps)?;
    let cbs = shape.burst_bytes;
    let classes = vec![class(Service::Share(Share::Percent(100)))];
    let spec = match workers {
        1 => port(classes, Some(shape), 1),
        _ => PortSpec { shape: Some(shape), ..port(classes, None, 1) },
    };
    let offered_bps = bps as f64 * 2.0 / workers as f64;
    let source = |worker| Source::new(0, Dscp::DEFAULT, 1, Frames::Mixed, offered_bps).again(worker);
    let arrivals = (0..workers).map(|worker| vec![source(worker)]).collect();
    let (mut bytes, mut burst) = (0u64, Burst::new(bps));
    let window = WARM_UP_NS..WARM_UP_NS + SECOND_NS;
    run(&spec, arrivals, Wire::new(bps * 5, 1 << 20), window.end, false, |departure| {
        burst.see(departure.packet.offer.wire_bytes, departure.handed_ns);
        if window.contains(&departure.left_ns) {
            bytes += u64::from(departure.packet.offer.wire_bytes);
        }
    })?;
    let by = if workers == 1 { "one worker" } else { "two workers" };
    let name = |what: &str| format!("shaper of {}, CBS {cbs} bytes, {by}: {what}", rate_text(bps));
    let (sent, goal) = (bytes as f64 * 8.0 / 1e6, bps as f64 / 1e6);
    Ok(vec![
        Row::within(name("rate over 1 s"), sent, goal, 0.5, "Mbit/s"),
        Row::at_most(name("largest burst"), burst.most_bytes() as f64, f64::from(cbs), "bytes"),
    ])
}

fn class(service: Service) -> ClassSpec {
    ClassSpec {
        service,
        police: None,
        limit: Limit::Packets(500),
        early: EarlyDrop::None,
        ecn: false,
        delays: false,
    }
}

fn port(classes: Vec<ClassSpec>, shape: Option<TrafficProfile>, tunnels: u32) -> PortSpec {
    PortSpec {
        shape: None,
        packet_bytes_max: MTU_WIRE_BYTES,
        items_max: 20_000,
        seed: 1,
        policies: vec![PolicySpec { classes }],
        tunnels: vec![TunnelSpec { shape, weight: 1, policy: 0 }; tunnels as usize],
    }
}

/// A rate whose burst is two long packets and what comes in between ten looks.
fn profile(bps: u64) -> anyhow::Result<TrafficProfile> {
    let poll_bytes = bps * 10 * POLL_NS / 8 / SECOND_NS;
    Ok(TrafficProfile { rate: rate(bps)?, burst_bytes: 2 * MTU_WIRE_BYTES + u32::try_from(poll_bytes)? })
}

fn rate(bps: u64) -> anyhow::Result<Rate> {
    Rate::from_bps(bps).ok_or_else(|| anyhow::anyhow!("a rate of 0"))
}
