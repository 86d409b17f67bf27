// SPDX-License-Identifier: Apache-2.0
//! What the classifier costs: cycles a packet by the number of rules, time to rebuild, memory.

use std::time::Instant;

use qos::classify::{Arrival, Class, Classifier, Fragments, KeyV4, NO_TUNNEL, WholeV4};
use serde::{Deserialize, Serialize};
use sysmem::Calibration;

use super::Row;
use super::rules::{Kind, headers, rules};
use crate::report::Measured;

const RUNS: usize = 5;
const BURST: usize = 64;
const HEADERS: usize = 1 << 20;
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
    /// Seconds to compile the rules, for both families and for fragments.
    pub build_seconds: f64,
    /// Memory of the compiled rules.
    pub memory_bytes: usize,
}

/// Measures all sets of rules.
pub(super) fn measure(quick: bool, clock: &Calibration) -> anyhow::Result<Vec<ClassifyCost>> {
    let mut all = Vec::new();
    for (count, _) in GOALS {
        for kind in Kind::ALL {
            all.push(one(kind, count, quick, clock)?);
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

fn one(kind: Kind, count: usize, quick: bool, clock: &Calibration) -> anyhow::Result<ClassifyCost> {
    let rules = rules(kind, count, 1);
    let start = Instant::now();
    let classifier = Classifier::build(&rules, Class(0), Fragments::WithoutPorts)?;
    let build_seconds = start.elapsed().as_secs_f64();
    let headers = headers(&rules, if quick { HEADERS / 8 } else { HEADERS }, 2);
    let runs = (0..=RUNS).map(|_| run(&classifier, &headers, clock)).skip(1).collect();
    Ok(ClassifyCost {
        kind: kind.name().to_owned(),
        rules: count,
        cycles: Measured::of(runs),
        build_seconds,
        memory_bytes: classifier.memory_bytes(),
    })
}

/// Cycles a packet of the median burst. The headers are in the nearest cache, as those of packets just parsed are.
fn run(classifier: &Classifier, headers: &[WholeV4], clock: &Calibration) -> f64 {
    let arrival = Arrival { port: 1, vlan_priority: None, tunnel: NO_TUNNEL };
    let mut classes = [Class(0); BURST];
    let mut bursts = Vec::with_capacity(headers.len() / BURST);
    for burst in headers.chunks_exact(BURST) {
        let mut near = [headers[0]; BURST];
        near.copy_from_slice(burst);
        let near = std::hint::black_box(near);
        let start = clock.now();
        let keys = near.each_ref().map(|header| KeyV4::new(header, &arrival));
        classifier.classify_v4(&keys, &mut classes);
        let end = clock.now();
        std::hint::black_box(&classes);
        bursts.push(end.since(start) as f64 / BURST as f64);
    }
    Measured::of(bursts).median
}
