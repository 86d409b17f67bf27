// SPDX-License-Identifier: Apache-2.0
//! The scheduler of `qos` under a fake clock: sources in front, a modelled transmit ring and link behind. And its
//! classifier over random headers.
//!
//! Beside it, what a network that reorders by DSCP does to one SA and to several.
//!
//! All figures of the scheduler but the cost are taken from what leaves the modelled port; nothing of the scheduler's own counters is in
//! them. Deterministic: the same command gives the same rows of it on every machine.

mod classify;
mod cost;
mod groups;
mod policy;
mod rules;
mod run;
mod scenarios;
mod source;
mod wire;

use std::path::Path;

use serde::{Deserialize, Serialize};
use sysmem::Calibration;

pub use classify::ClassifyCost;
pub use cost::Cost;

use scenarios::Workers;

/// One goal and what came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// What is wanted, in words.
    pub goal: String,
    /// What was found.
    pub value: f64,
    /// The unit of the value.
    pub unit: String,
    /// Whether the goal is met.
    pub met: bool,
}

impl Row {
    fn at_most(name: String, value: f64, most: f64, unit: &str) -> Self {
        Self { name, goal: format!("≤ {}", number(most)), value, unit: unit.to_owned(), met: value <= most }
    }

    fn at_least(name: String, value: f64, least: f64, unit: &str) -> Self {
        Self {
            name, goal: format!("≥ {}", number(least)), value, unit: unit.to_owned(), met: value >= least
        }
    }

    /// `percent` of the goal either way.
    fn within(name: String, value: f64, goal: f64, percent: f64, unit: &str) -> Self {
        let met = (value - goal).abs() <= goal * percent / 100.0;
        Self { name, goal: format!("{} within {percent} %", number(goal)), value, unit: unit.to_owned(), met }
    }
}

/// One scenario: what it is called while it runs, and its rows.
pub type Scenario = (String, Box<dyn Fn() -> anyhow::Result<Vec<Row>>>);

const MEGABIT: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// All scenarios; `quick` shortens the overloaded links to a quarter.
#[must_use]
pub fn scenarios(quick: bool) -> Vec<Scenario> {
    let mut all: Vec<Scenario> = Vec::new();
    for workers in [Workers::One, Workers::Apart, Workers::ApartShaped] {
        for (megabits, duration_ns) in [(10, 20 * SECOND_NS), (1_000, 2 * SECOND_NS), (10_000, SECOND_NS / 2)]
        {
            let (bps, duration_ns) = (megabits * MEGABIT, if quick { duration_ns / 4 } else { duration_ns });
            let what = format!("overloaded link of {}", rate_text(bps));
            all.push((what, Box::new(move || scenarios::overloaded_link(bps, duration_ns, workers))));
        }
    }
    let everywhere: &[u8] = &[0, 1, 2];
    for at in [vec![everywhere], vec![everywhere, everywhere], vec![&[0], &[1, 2]], vec![&[0, 2], &[1]]] {
        let shares = move || scenarios::shares(1_000 * MEGABIT, &at);
        all.push(("shares 50/30/20".to_owned(), Box::new(shares)));
    }
    for workers in [1, 2] {
        for megabits in [10, 1_000, 40_000] {
            let bps = megabits * MEGABIT;
            let shaper = move || scenarios::shaper(bps, workers);
            all.push((format!("shaper of {}", rate_text(bps)), Box::new(shaper)));
        }
    }
    let packets = if quick { 9_000 } else { 30_000 };
    let what = "a box in the middle that reorders by DSCP".to_owned();
    all.push((what, Box::new(move || groups::reordered_by_dscp(packets))));
    all
}

/// The cost with `shapers` tunnels.
///
/// # Errors
/// The scheduler refuses the set-up.
pub fn cost(shapers: u32, quick: bool, clock: &Calibration) -> anyhow::Result<Cost> {
    cost::measure(shapers, quick, clock)
}

/// What a policy without queues costs the path.
///
/// # Errors
/// A headend cannot be built, or packets do not come out of it as they must.
pub fn policy(quick: bool, clock: &Calibration) -> anyhow::Result<Row> {
    policy::measure(quick, clock)
}

/// The cost of the classifier with each set of rules, and their rows; the sets can be written to a directory.
///
/// # Errors
/// The classifier refuses the rules; they cannot be written.
pub fn classify(
    quick: bool,
    write_to: Option<&Path>,
    clock: &Calibration,
) -> anyhow::Result<(Vec<ClassifyCost>, Vec<Row>)> {
    let costs = classify::measure(quick, write_to, clock)?;
    let rows = classify::rows(&costs);
    Ok((costs, rows))
}

fn rate_text(bps: u64) -> String {
    if bps < 1_000 * MEGABIT {
        format!("{} Mbit/s", bps / MEGABIT)
    } else {
        format!("{} Gbit/s", bps / 1_000 / MEGABIT)
    }
}

/// A number with as many places as it needs, at most two.
#[must_use]
pub fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_link_loses_and_delays_no_voice_and_bulk_gets_the_rest() {
        for workers in [Workers::One, Workers::Apart, Workers::ApartShaped] {
            let rows = scenarios::overloaded_link(100 * MEGABIT, SECOND_NS, workers).unwrap();
            assert!(rows.len() == 3 && rows.iter().all(|row| row.met), "{rows:#?}");
        }
    }

    #[test]
    fn a_box_that_reorders_by_dscp_costs_nothing_with_an_sa_for_each_group_and_much_with_one() {
        let rows = groups::reordered_by_dscp(6_000).unwrap();
        let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
        assert!(rows.iter().all(|row| row.met), "{rows:#?}");
        assert!(values[0] == 0.0 && values[1] > 1_000.0, "{rows:#?}");
    }

    #[test]
    fn a_goal_that_is_missed_is_not_met() {
        let row = |value| Row::within(String::new(), value, 50.0, 1.0, "%").met;
        assert_eq!([49.4, 49.6, 50.4, 50.6].map(row), [false, true, true, false]);
        assert!(!Row::at_most(String::new(), 1.0, 0.0, "packets").met);
        assert!(!Row::at_least(String::new(), 98.9, 99.0, "%").met);
        assert_eq!([0.0, 2510.4, 3076.0].map(number), ["0", "2510.4", "3076"]);
    }
}
