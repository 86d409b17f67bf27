// SPDX-License-Identifier: Apache-2.0
//! Packets through the path, for tools that count instructions instead of cycles:
//!
//! ```text
//! cargo build --release -p greyhound-perf --example instructions
//! valgrind --tool=callgrind --toggle-collect='*Pipeline::receive*' --toggle-collect='*Pipeline::transmit*' \
//!     target/release/examples/instructions outbound
//! ```
#![forbid(unsafe_code)]

use aead::Engine;
use anyhow::bail;
use greyhound_perf::bed::Setting;
use greyhound_perf::path::{Course, Memory, Plan};
use greyhound_perf::traffic::{Size, Way};

fn main() -> anyhow::Result<()> {
    let way = match std::env::args().nth(1).as_deref() {
        Some("outbound") => Way::Outbound,
        Some("inbound") => Way::Inbound,
        _ => bail!("usage: instructions outbound|inbound [CLASSES|scheduled|congested|plain [TUNNELS]]"),
    };
    let policy = std::env::args().nth(2).unwrap_or_default();
    let congested = policy == "congested";
    let scheduled = congested || policy == "scheduled";
    let classes = if scheduled || ["", "plain"].contains(&policy.as_str()) { 0 } else { policy.parse()? };
    let tunnels = std::env::args().nth(3).map_or(Ok(1), |tunnels| tunnels.parse())?;
    anyhow::ensure!(!scheduled || way == Way::Outbound, "scheduled and congested are for outbound");
    let setting = Setting { classes, scheduled, ..Setting::usual(tunnels, 1, Engine::best()) };
    let plan = Plan { way, size: Size::Fixed(64), memory: Memory::Warm, runs: 1, quick: true };
    let mut course = Course::new(&setting)?;
    if congested {
        course.congest();
    }
    course.measure(&plan, 1_000_000_000)?;
    Ok(())
}
