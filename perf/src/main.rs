// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf`: the command line.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use aead::Engine;
use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use greyhound_perf::bed::Setting;
use greyhound_perf::machine::Machine;
use greyhound_perf::path::{self, Plan, Size};
use greyhound_perf::report::Report;
use messages::EspMode;
use sysmem::Calibration;

const SIZES: [Size; 7] = [
    Size::Fixed(64),
    Size::Fixed(128),
    Size::Fixed(256),
    Size::Fixed(512),
    Size::Fixed(1_024),
    Size::Fixed(1_400),
    Size::Imix,
];

/// Measures Greyhound on this machine, before you buy one or after you changed something.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Example:
  greyhound-perf path                              one tunnel, every size, warm and cold
  greyhound-perf path --tunnels 2000 --json        for programs
Figures are cycles of the time stamp counter over packets in memory: no NIC is in them."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Packets through the whole path, both ways, with the bare engine beside it.
    Path {
        /// Tunnels, a random one for each packet.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60_000))]
        tunnels: u32,
        /// AES key length: 128, 192 or 256.
        #[arg(long, default_value_t = 128)]
        key_bits: u16,
        /// ESP mode.
        #[arg(long, value_enum, default_value_t = Mode::Transport)]
        mode: Mode,
        /// Extended sequence numbers.
        #[arg(long)]
        esn: bool,
        /// AEAD engine: auto, or one by name.
        #[arg(long, default_value = "auto")]
        engine: String,
        /// CPU to measure on.
        #[arg(long, default_value_t = 0)]
        cpu: usize,
        /// Runs; the median of them is shown.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(5..=1000))]
        runs: u16,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Transport,
    Tunnel,
}

fn main() -> anyhow::Result<()> {
    let Cli { command: Command::Path { tunnels, key_bits, mode, esn, engine, cpu, runs, json } } =
        Cli::parse();
    ensure!(matches!(key_bits, 128 | 192 | 256), "--key-bits {key_bits}: AES has 128, 192 and 256");
    let engine = if engine == "auto" { Engine::best() } else { Engine::named(&engine)? };
    let mode = match mode {
        Mode::Transport => EspMode::Transport,
        Mode::Tunnel => EspMode::Tunnel,
    };
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    ensure!(pinned, "--cpu {cpu}: not a CPU this process may use");
    let clock = Calibration::measure();
    let setting = Setting { tunnels, mode, key_bits, esn, engine };
    let mut rows = Vec::new();
    for (memory, buffers, rounds) in [("warm", 256, 200), ("cold", 4_096, 12)] {
        for size in SIZES {
            eprintln!("measuring {memory} {size:?} …");
            let plan = Plan { setting, size, buffers, runs: usize::from(runs), rounds };
            rows.extend(path::measure(&plan, clock.hz()).with_context(|| format!("{memory} {size:?}"))?);
        }
    }
    let report = Report { machine: Machine::here(engine, &clock), rows };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.to_table());
    }
    Ok(())
}
