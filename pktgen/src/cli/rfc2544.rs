// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen rfc2544`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use greyhound_pktgen::device::Ports;
use greyhound_pktgen::generator::Generator;
use greyhound_pktgen::outcome::Outcome;
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::report;
use greyhound_pktgen::rfc2544::{self, Benchmark, Report, Settings, Tester};
use greyhound_pktgen::sizes::{RFC_2544, Sizes};
use greyhound_pktgen::trial::Trial;

use super::ports::{PortArguments, check_page, machine, stop_on_signals};
use super::table::table;

/// Measure a device by RFC 2544: throughput, latency, frame loss, back-to-back frames, reset.
///
/// Sizes and rates of the profile are replaced; everything else of its streams stays as it is. The throughput is the
/// highest rate without any loss (no drop), and beside it the highest with no more loss than --partial-drop allows.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen rfc2544 pktgen/profiles/udp-64.toml --port memory --line-bps 1e9 --seconds 1 --sizes 64,1518
  greyhound-pktgen rfc2544 profile.toml --transmit 0000:3b:00.0 --receive 0000:3b:00.1 --huge-pages --html report.html
Exit status: 0 done, 1 it could not be done, 2 wrong arguments.")]
pub(crate) struct Arguments {
    /// The profile.
    profile: PathBuf,
    /// Frame sizes in bytes, FCS included.
    #[arg(long, value_delimiter = ',', default_values_t = RFC_2544)]
    sizes: Vec<u16>,
    /// What to measure; reset needs --reset-command.
    #[arg(long, value_delimiter = ',', default_value = "throughput,latency,loss,back-to-back", value_parser = benchmark)]
    benchmarks: Vec<Benchmark>,
    /// Seconds of a trial; RFC 2544 asks for 60.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Width of the interval at which a search ends, in percent of the rate.
    #[arg(long, default_value_t = 0.5)]
    resolution: f64,
    /// Trials that decide on a rate, as far as they are needed; RFC 2544 has one.
    #[arg(long, default_value_t = 3)]
    trials: u16,
    /// Of them, how many may lose too much, in percent; rounded down to trials.
    #[arg(long, default_value_t = 50.0)]
    exceed: f64,
    /// Loss that the partial drop rate allows, in percent.
    #[arg(long, default_value_t = 0.1)]
    partial_drop: f64,
    /// Searches for each size; the median is the result, and the spread is stated.
    #[arg(long, default_value_t = 3)]
    repeats: u16,
    /// Line rate in bits a second, preamble and gap included; by default the profile's line_bps.
    #[arg(long)]
    line_bps: Option<f64>,
    /// Highest rate that is tried, in percent of the line.
    #[arg(long, default_value_t = 100.0)]
    most: f64,
    /// After the last packet is sent, wait until nothing has come for so many milliseconds.
    #[arg(long, default_value_t = 200)]
    settle_ms: u64,
    /// What resets the device under test, for a shell.
    #[arg(long, value_name = "COMMAND")]
    reset_command: Option<String>,
    /// Seconds that it may take.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    reset_limit: u64,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    ports: PortArguments,
}

fn benchmark(name: &str) -> Result<Benchmark, String> {
    let parsed = serde_json::from_value(serde_json::Value::String(name.to_owned()));
    parsed.map_err(|_| format!("{name:?}: throughput, latency, loss, back-to-back or reset"))
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        ensure!(
            self.ports.receives(),
            "RFC 2544 needs a port to receive from: --port, or --transmit and --receive"
        );
        check_page(self.html.as_deref())?;
        let mut profile = Profile::read(&self.profile)?;
        let line_bps = self.line_bps.map(|bps| bps as u64).or(profile.line_bps);
        let settings = Settings {
            sizes: self.sizes.clone(),
            trial_seconds: self.seconds,
            resolution_percent: self.resolution,
            trials: self.trials,
            exceed_percent: self.exceed,
            most_percent: self.most,
            partial_drop_percent: self.partial_drop,
            repeats: self.repeats,
            line_bps: line_bps.context("--line-bps: of what line? Or give line_bps in the profile")?,
            benchmarks: self.benchmarks.clone(),
            reset_command: self.reset_command.clone(),
            reset_limit: Duration::from_secs(self.reset_limit),
        };
        let folder = self.profile.parent().unwrap_or(Path::new(""));
        let longest = self.sizes.iter().max().copied().unwrap_or(0);
        profile.streams_mut().for_each(|stream| stream.size = Sizes::Sequence(vec![longest]));
        let generator = Generator::new(&profile, self.ports.engine, folder)?;
        let ports = self.ports.open(generator.longest_frame(), generator.buffer_bytes()?)?;
        drop(generator);
        let stop = stop_on_signals()?;
        let mut bench = Bench { arguments: &self, folder, ports: &ports, stop, begun: Instant::now() };
        let report = rfc2544::run(&mut profile, &settings, &mut bench)?;
        let machine = machine(self.ports.engine);
        if let Some(path) = &self.html {
            let title = format!("RFC 2544: {}", self.profile.display());
            let page = report::of_rfc2544(&title, &report, &machine);
            std::fs::write(path, page).with_context(|| format!("{}", path.display()))?;
        }
        if json {
            println!("{}", serde_json::json!({ "machine": machine, "report": report }));
        } else {
            print!("{machine}{}", text(&report));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Trials through open ports.
struct Bench<'a> {
    arguments: &'a Arguments,
    folder: &'a Path,
    ports: &'a Ports,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

impl Tester for Bench<'_> {
    fn trial(&mut self, profile: &Profile, seconds: f64) -> anyhow::Result<Outcome> {
        let trial = Trial {
            profile,
            folder: self.folder,
            engine: self.arguments.ports.engine,
            seconds,
            settle: Duration::from_millis(self.arguments.settle_ms),
            cpus: &self.arguments.ports.cpus,
            receive: true,
            stop: &self.stop,
        };
        let outcome = trial.run(self.ports, &mut |_| {})?;
        if self.stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        Ok(outcome)
    }

    fn progress(&mut self, what: &str) {
        let seconds = self.begun.elapsed().as_secs();
        let end = if std::io::stderr().is_terminal() { "\x1b[K\r" } else { "\n" };
        // Nobody is hurt if standard error is closed.
        let _ = write!(std::io::stderr(), "[{seconds} s] {what} …{end}");
    }
}

fn text(report: &Report) -> String {
    let mut table = table(&[
        "size",
        "no drop pps",
        "% of line",
        "spread %",
        "partial drop pps",
        "p50 µs",
        "p99 µs",
        "max µs",
        "back-to-back",
        "reset s",
    ]);
    for size in &report.sizes {
        let none = || "-".to_owned();
        let no_drop = size.no_drop.as_ref();
        let point = no_drop.and_then(|searched| searched.point);
        let limited = no_drop.is_some_and(|searched| searched.generator_limited);
        let partial = size.partial_drop.as_ref().and_then(|searched| searched.point);
        let us = |pick: fn(&greyhound_pktgen::outcome::Quantiles) -> f64| {
            size.latency_us.as_ref().map_or_else(none, |latency| format!("{:.1}", pick(latency)))
        };
        table.add_row(vec![
            size.size.to_string(),
            point.map_or_else(none, |point| format!("{:.0}{}", point.pps, if limited { " *" } else { "" })),
            point.map_or_else(none, |point| format!("{:.2}", point.percent)),
            no_drop.map_or_else(none, |searched| format!("{:.2}", searched.spread_percent)),
            partial.map_or_else(none, |point| format!("{:.0}", point.pps)),
            us(|latency| latency.p50),
            us(|latency| latency.p99),
            us(|latency| latency.max),
            size.back_to_back.iter().max().map_or_else(none, u64::to_string),
            size.reset_seconds.map_or_else(none, |seconds| format!("{seconds:.3}")),
        ]);
    }
    let limited = report
        .sizes
        .iter()
        .filter_map(|size| size.no_drop.as_ref())
        .any(|searched| searched.generator_limited);
    let note = if limited {
        "* the port took no more: the generator's limit, or a device that pushes back\n"
    } else {
        ""
    };
    format!("{table}\n{note}sizes {}\n", report.frame_sizes)
}
