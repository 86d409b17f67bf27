// SPDX-License-Identifier: Apache-2.0
//! `greyhound-dataplane`: the command line.
#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use greyhound_dataplane::config::Config;
use greyhound_dataplane::process::{self, Directories};
use greyhound_dataplane::store::SequenceStore;

/// The packet path of a Greyhound headend: ports, workers, GRE, ESP.
///
/// It reads CONFIG_DIR/dataplane.toml, opens the ports, and waits for greyhound-control to fill it. Either may start
/// first. It ends cleanly on SIGTERM and SIGINT.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  greyhound-dataplane init-state        once, on a new headend
  greyhound-dataplane                   run
  greyhound-dataplane check             only check dataplane.toml
  RUST_LOG=debug greyhound-dataplane    run with more to read on standard error";

/// Which instance, and where its files lie.
#[derive(Args)]
struct Place {
    /// Name of the instance; several can run on one machine.
    #[arg(long, default_value = "main", global = true)]
    instance: String,
    /// Directory of dataplane.toml [default: /etc/greyhound/INSTANCE].
    #[arg(long, global = true)]
    config_dir: Option<PathBuf>,
    /// Directory of dataplane.sock [default: /run/greyhound/INSTANCE].
    #[arg(long, global = true)]
    run_dir: Option<PathBuf>,
    /// Directory that holds dataplane/, the state that must survive [default: /var/lib/greyhound/INSTANCE].
    #[arg(long, global = true)]
    state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run (the default).
    Run,
    /// Check dataplane.toml and end.
    Check,
    /// Create the store of sequence numbers, once on a new headend.
    ///
    /// The store is what keeps sequence numbers and IVs from ever returning. If it is lost, replace every key before
    /// a new one is made with --force.
    InitState {
        /// Replace a store that is there or damaged; only after every key was replaced.
        #[arg(long)]
        force: bool,
    },
}

impl Place {
    fn directories(&self) -> Directories {
        let of = |given: &Option<PathBuf>, base: &str| {
            given.clone().unwrap_or_else(|| PathBuf::from(base).join(&self.instance))
        };
        Directories {
            instance: self.instance.clone(),
            config: of(&self.config_dir, "/etc/greyhound"),
            run: of(&self.run_dir, "/run/greyhound"),
            state: of(&self.state_dir, "/var/lib/greyhound").join("dataplane"),
        }
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::INFO.into())
                .from_env_lossy(),
        )
        .init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let directories = cli.place.directories();
    let config_file = directories.config.join("dataplane.toml");
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => process::run(&Config::read(&config_file)?, &directories),
        Command::Check => {
            Config::read(&config_file)?;
            tracing::info!("{} is well", config_file.display());
            Ok(())
        }
        Command::InitState { force } => {
            process::make_private_directory(&directories.state)?;
            SequenceStore::init(&directories.state, force).context("no store was made")?;
            tracing::info!("made an empty store of sequence numbers in {}", directories.state.display());
            Ok(())
        }
    }
}
