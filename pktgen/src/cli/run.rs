// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen run`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use greyhound_pktgen::generator::Generator;
use greyhound_pktgen::outcome::Outcome;
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::rate::Rate;
use greyhound_pktgen::report;
use greyhound_pktgen::sequences;
use greyhound_pktgen::trial::Trial;

use super::ports::{PortArguments, check_page, machine, stop_on_signals};
use super::table;

/// Send a profile through a port, and tell what arrived of it; with --receive alone, of what another one sends.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen run pktgen/profiles/imix.toml --port memory --seconds 5
  greyhound-pktgen run profile.toml --transmit 0000:3b:00.0 --receive 0000:3b:00.1 --cpus 2,3 --huge-pages
  greyhound-pktgen run pktgen/profiles/flows-4096.toml --transmit net_null0 --rate max --json
Exit status: 0 all arrived once and whole (or nobody looked), 1 not so, 2 wrong arguments.")]
pub(crate) struct Arguments {
    /// The profile.
    profile: PathBuf,
    /// How long to send.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// A rate for every stream in place of its own: 1000000pps, 1e9l1bps, 1e9l2bps, 40% or max.
    #[arg(long)]
    rate: Option<Rate>,
    /// After the last packet is sent, wait until nothing has come for so many milliseconds.
    #[arg(long, default_value_t = 200)]
    settle_ms: u64,
    /// A file that says where the last run's ESP sequence numbers ended; this run goes on there, and notes its own end.
    #[arg(long, value_name = "FILE")]
    sequence_file: Option<PathBuf>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    ports: PortArguments,
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        ensure!(self.seconds > 0.0 && self.seconds < 1e7, "--seconds {}: above 0, below 1e7", self.seconds);
        let mut profile = Profile::read(&self.profile)?;
        check_page(self.html.as_deref())?;
        if let Some(rate) = self.rate {
            let of_a_line =
                !matches!(rate, Rate::LinePercent(_)) || profile.line_bps.is_some_and(|bps| bps > 0);
            ensure!(of_a_line, "--rate in percent: of what line? Give line_bps at the top of the profile");
            profile.streams_mut().for_each(|stream| stream.rate = rate);
        }
        if let Some(path) = &self.sequence_file {
            sequences::resume(&mut profile, path)?;
        }
        let folder = self.profile.parent().unwrap_or(Path::new(""));
        let generator = Generator::new(&profile, self.ports.engine, folder)?;
        let (longest, buffer_bytes) = (generator.longest_frame(), generator.buffer_bytes()?);
        drop(generator);
        let ports = self.ports.open(longest, buffer_bytes)?;
        let stop = stop_on_signals()?;
        let trial = Trial {
            profile: &profile,
            folder,
            engine: self.ports.engine,
            seconds: self.seconds,
            settle: Duration::from_millis(self.settle_ms),
            cpus: &self.ports.cpus,
            receive: self.ports.receives(),
            stop: &stop,
        };
        let mut live = Live::new();
        let outcome = trial.run(&ports, &mut |outcome| live.show(outcome))?;
        live.clear();
        if let Some(path) = &self.sequence_file {
            sequences::note(&outcome, path)?;
        }
        let machine = machine(self.ports.engine);
        if let Some(path) = &self.html {
            let title = format!("{}, {:.1} s", self.profile.display(), outcome.seconds);
            let page = report::of_run(&title, &outcome, &machine);
            std::fs::write(path, page).with_context(|| format!("{}", path.display()))?;
        }
        if json {
            println!("{}", serde_json::json!({ "machine": machine, "outcome": outcome }));
        } else {
            print!("{}", table::of(&outcome));
        }
        Ok(if is_clean(&outcome) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether all that was sent arrived once, in order and whole.
fn is_clean(outcome: &Outcome) -> bool {
    let arrived = outcome.streams.iter().filter_map(|stream| stream.arrived.as_ref());
    let is_sending = outcome.sender.late_us.is_some();
    (outcome.sender.kept_up || !is_sending)
        && arrived.into_iter().all(|arrived| {
            [arrived.lost, arrived.reordered, arrived.duplicated, arrived.too_late, arrived.corrupt] == [0; 5]
        })
}

/// The table on standard error, once a second: drawn over itself on a terminal, a line elsewhere.
struct Live {
    next: f64,
    lines: usize,
    is_terminal: bool,
}

impl Live {
    fn new() -> Self {
        Self { next: 1.0, lines: 0, is_terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, outcome: &Outcome) {
        if outcome.seconds < self.next {
            return;
        }
        self.next = outcome.seconds.floor() + if self.is_terminal { 1.0 } else { 5.0 };
        self.clear();
        let text = if self.is_terminal { table::of(outcome) } else { table::line(outcome) };
        self.lines = text.lines().count();
        // Nobody is hurt if standard error is closed.
        let _ = write!(std::io::stderr(), "{text}");
    }

    fn clear(&mut self) {
        if self.is_terminal && self.lines > 0 {
            let _ = write!(std::io::stderr(), "\x1b[{}A\x1b[J", self.lines);
            self.lines = 0;
        }
    }
}
