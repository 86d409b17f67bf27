// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen`: the command line.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "results go to standard output")]

mod cli;

use clap::Parser;

fn main() -> anyhow::Result<std::process::ExitCode> {
    cli::Cli::parse().run()
}
