// SPDX-License-Identifier: Apache-2.0
//! `greyhound-control`: the command line of the daemon.
#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use control::daemon;
use control::place::Place;

/// The slow process of a Greyhound headend: configuration, SAs and keys, and the API.
///
/// It fills the dataplane with CONFIG_DIR/config.toml the first time, and from then on with the running configuration
/// that it keeps. Either process may start first. Killing it does not stop traffic; the next one takes over.
#[derive(Parser)]
#[command(name = "greyhound-control", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    place: Place,
    /// Folder that holds control/, the state that must survive [default: /var/lib/greyhound/NAME].
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  greyhound-control                        run the instance main
  greyhound-control --instance blue        run another one
  RUST_LOG=debug greyhound-control         with more to read on standard error
  curl --unix-socket /run/greyhound/main/control.sock http://localhost/v1/status

`greyhound --help` tells how to talk to it.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).with_env_filter(level).init();
    match daemon::run(&cli.place, cli.state_dir.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
