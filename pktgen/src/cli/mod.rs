// SPDX-License-Identifier: Apache-2.0
//! Arguments and what each subcommand does with them.

mod hostile;
mod playback;
mod ports;
mod render;
mod report;
mod rfc2544;
mod run;
mod socket;
mod table;

use std::process::ExitCode;

use aead::Engine;
use clap::{Parser, Subcommand};

/// Sends test packets through whatever is to be tested, and tells what arrived.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  greyhound-pktgen run pktgen/profiles/imix.toml --port memory    send, receive, and tell what arrived
  greyhound-pktgen render pktgen/profiles/udp-64.toml out.pcap    what would be sent, as a capture
Frame sizes are those of RFC 2544: the whole Ethernet frame, FCS included. Profiles: docs/pktgen.md."
)]
pub(crate) struct Cli {
    /// Print one JSON object instead of words.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Rfc2544(rfc2544::Arguments),
    Hostile(hostile::Arguments),
    Replay(playback::ReplayArguments),
    Capture(playback::CaptureArguments),
    Render(render::Arguments),
    Report(report::Arguments),
    Stream(socket::StreamArguments),
    Sink(socket::SinkArguments),
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(arguments) => arguments.run(self.json),
            Command::Rfc2544(arguments) => arguments.run(self.json),
            Command::Hostile(arguments) => arguments.run(self.json),
            Command::Replay(arguments) => arguments.run(self.json),
            Command::Capture(arguments) => arguments.run(self.json),
            Command::Render(arguments) => arguments.run(self.json),
            Command::Report(arguments) => arguments.run(self.json),
            Command::Stream(arguments) => arguments.run(self.json),
            Command::Sink(arguments) => arguments.run(self.json),
        }
    }
}

fn engine(name: &str) -> Result<Engine, aead::EngineError> {
    if name == "auto" { Ok(Engine::best()) } else { Engine::named(name) }
}
