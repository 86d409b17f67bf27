// SPDX-License-Identifier: Apache-2.0
//! Arguments and what each subcommand does with them.

mod aead_alone;
mod compare;
mod path;
mod ports;
mod progress;
mod qos;
mod ring;
mod scale;

use std::process::ExitCode;

use aead::Engine;
use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// Measures Greyhound on this machine, before you buy one or after you changed something.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Figures are cycles of the time stamp counter over packets in memory: no NIC is in them. Keep other programs off the
CPU that is measured; the spread shows how quiet it was."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Path(path::Arguments),
    Aead(aead_alone::Arguments),
    Scale(scale::Arguments),
    Ring(ring::Arguments),
    Ports(ports::Arguments),
    Qos(qos::Arguments),
    Compare(compare::Arguments),
    Svg(compare::SvgArguments),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Path(arguments) => arguments.run(),
            Command::Aead(arguments) => arguments.run(),
            Command::Scale(arguments) => arguments.run(),
            Command::Ring(arguments) => arguments.run(),
            Command::Ports(arguments) => arguments.run(),
            Command::Qos(arguments) => arguments.run(),
            Command::Compare(arguments) => arguments.run(),
            Command::Svg(arguments) => arguments.run(),
        }
    }
}

/// What most subcommands take.
#[derive(Args)]
struct Common {
    /// AEAD engine: auto, or one by name.
    #[arg(long, default_value = "auto", value_parser = engine)]
    engine: Engine,
    /// Runs; the median of them is shown, with the least and the most.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(5..=1000))]
    runs: u16,
    /// A quarter of the packets: for a first look, not for comparing.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn engine(name: &str) -> Result<Engine, aead::EngineError> {
    if name == "auto" { Ok(Engine::best()) } else { Engine::named(name) }
}

/// Prints a result: one JSON object, or what `to_table` makes of it.
fn print<R: Serialize>(result: &R, json: bool, to_table: impl Fn(&R) -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        print!("{}", to_table(result));
    }
    Ok(())
}

/// The CPU that is measured and the CPU of everything else: those given, or the last and the first.
fn two_cpus(given: &[usize]) -> anyhow::Result<[usize; 2]> {
    if let [measured, other] = given {
        return Ok([*measured, *other]);
    }
    let all = greyhound_perf::scale::cpus()?;
    Ok([*all.last().context("a CPU")?, *all.first().context("a CPU")?])
}

/// Pins this thread.
fn pin(cpu: usize) -> anyhow::Result<()> {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    ensure!(pinned, "--cpu {cpu}: not a CPU this process may use");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_subcommand_says_what_it_measures() {
        Cli::command().debug_assert();
        for subcommand in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
            assert!(subcommand.get_long_about().is_some(), "{}", subcommand.get_name());
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for arguments in
            ["path --sizes 63", "path --tunnels 0", "path --runs 4", "path --key-bits 100", "aead --sizes 0"]
        {
            let arguments = std::iter::once("greyhound-perf").chain(arguments.split(' '));
            assert!(Cli::try_parse_from(arguments.clone()).is_err(), "{:?}", arguments.collect::<Vec<_>>());
        }
    }
}
