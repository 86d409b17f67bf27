// SPDX-License-Identifier: Apache-2.0
//! What the classifier costs: cycles a packet by the number of rules, time to rebuild, memory.

use std::path::Path;
use std::time::Instant;

use qos::classify::{Arrival, Class, Classifier, FlowCache, Fragments, KeyV4, NO_TUNNEL, WholeV4};
use serde::{Deserialize, Serialize};
use sysmem::Calibration;

use super::Row;
use super::rules::{self, Kind, headers, rules};
use crate::report::Measured;

const RUNS: usize = 5;
const BURST: usize = 64;
const HEADERS: usize = 1 << 20;
/// Flows that the cache is asked for.
const FLOWS: usize = 1 << 14;
/// The class without a rule.
const NO_CLASS: Class = Class(u16::MAX);
const ARRIVAL: Arrival = Arrival { port: 1, vlan_priority: None, tunnel: NO_TUNNEL };
/// Rules, and the cycles a packet that they may cost.
const GOALS: [(usize, f64); 3] = [(10, 20.0), (1_000, 60.0), (50_000, 250.0)];

/// One set of rules.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassifyCost {
    /// What the rules are like.
    pub kind: String,
    /// How many there are.
    pub rules: usize,
    /// Cycles a packet, its key included; the median burst of each run.
    pub cycles: Measured,
    /// The same through a flow cache of 65,536 entries that has all of 16,384 flows.
    pub cached_cycles: Measured,
    /// Seconds to compile the rules, for both families and for fragments.
    pub build_seconds: f64,
    /// Memory of the compiled rules.
    pub memory_bytes: usize,
}

/// Measures all sets of rules, and writes them to a directory for another classifier.
pub(super) fn measure(
    quick: bool,
    write_to: Option<&Path>,
    clock: &Calibration,
) -> anyhow::Result<Vec<ClassifyCost>> {
    let mut all = Vec::new();
    for (count, _) in GOALS {
        for kind in Kind::ALL {
            all.push(one(kind, count, quick, write_to, clock)?);
        }
    }
    Ok(all)
}

/// The goals, and what came out.
pub(super) fn rows(costs: &[ClassifyCost]) -> Vec<Row> {
    let row = |cost: &ClassifyCost| {
        let (_, most) = GOALS.into_iter().find(|(rules, _)| *rules == cost.rules)?;
        let name = format!("classify, {} {} rules", cost.rules, cost.kind);
        Some(Row::at_most(name, cost.cycles.median, most, "cycles"))
    };
    costs.iter().filter_map(row).collect()
}

fn one(
    kind: Kind,
    count: usize,
    quick: bool,
    write_to: Option<&Path>,
    clock: &Calibration,
) -> anyhow::Result<ClassifyCost> {
    let rules = rules(kind, count, 1);
    let start = Instant::now();
    let classifier = Classifier::build(&rules, NO_CLASS, Fragments::WithoutPorts)?;
    let build_seconds = start.elapsed().as_secs_f64();
    let headers = headers(&rules, if quick { HEADERS / 8 } else { HEADERS }, 2);
    if let Some(directory) = write_to {
        let mut classes = vec![NO_CLASS; headers.len()];
        let keys: Vec<KeyV4> = headers.iter().map(|header| KeyV4::new(header, &ARRIVAL)).collect();
        classifier.classify_v4(&keys, &mut classes);
        rules::write(directory, &format!("{}-{count}", kind.name()), &rules, &headers, &classes)?;
    }
    let ask = |keys: &[KeyV4], classes: &mut [Class]| classifier.classify_v4(keys, classes);
    let runs = (0..=RUNS).map(|_| run(ask, &headers, clock)).skip(1).collect();
    let mut cache = FlowCache::new(4 * FLOWS);
    let flows = headers.get(..FLOWS).unwrap_or(&headers);
    let mut ask = |keys: &[KeyV4], classes: &mut [Class]| cache.classify_v4(&classifier, keys, classes);
    let cached = (0..=RUNS).map(|_| run(&mut ask, flows, clock)).skip(1).collect();
    Ok(ClassifyCost {
        kind: kind.name().to_owned(),
        rules: count,
        cycles: Measured::of(runs),
        cached_cycles: Measured::of(cached),
        build_seconds,
        memory_bytes: classifier.memory_bytes(),
    })
}

/// Cycles a packet of the median burst. The headers are in the nearest cache, as those of packets just parsed are.
fn run(mut ask: impl FnMut(&[KeyV4], &mut [Class]), headers: &[WholeV4], clock: &Calibration) -> f64 {
    let mut classes = [Class(0); BURST];
    let mut bursts = Vec::with_capacity(headers.len() / BURST);
    for burst in headers.chunks_exact(BURST) {
        let mut near = [headers[0]; BURST];
        near.copy_from_slice(burst);
        let near = std::hint::black_box(near);
        let start = clock.now();
        let keys = near.each_ref().map(|header| KeyV4::new(header, &ARRIVAL));
        ask(&keys, &mut classes);
        let end = clock.now();
        std::hint::black_box(&classes);
        bursts.push(end.since(start) as f64 / BURST as f64);
    }
    Measured::of(bursts).median
}
