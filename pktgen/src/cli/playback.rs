// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen replay` and `capture`.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use greyhound_pktgen::capture_file;
use greyhound_pktgen::playback::{Played, Playlist, Timing, capture, play};
use greyhound_pktgen::rate::Rate;
use greyhound_pktgen::trial::pin;
use sysmem::CounterWord;

use super::ports::{PortArguments, stop_on_signals};

/// How often it is looked whether the work is done.
const LOOK: Duration = Duration::from_millis(50);
/// Longest frame that a capture takes, without FCS.
const LONGEST_FRAME: usize = 9_212;

/// Send the frames of a capture file: as timed, faster or slower, or at a rate.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen replay site.pcap --transmit net_af_packet0,iface=eth1
  greyhound-pktgen replay site.pcapng --transmit 0000:3b:00.0 --rate 1000000pps --rounds 100
Exit status: 0 all sent, 1 it could not be done, or was stopped, 2 wrong arguments.")]
pub(crate) struct ReplayArguments {
    /// The capture file, pcap or pcapng.
    capture: PathBuf,
    /// So many times as fast as captured.
    #[arg(long, default_value_t = 1.0, conflicts_with = "rate")]
    speed: f64,
    /// At this rate, whatever the capture's times: 1000000pps, 1e9l1bps, 1e9l2bps, 40% or max.
    #[arg(long)]
    rate: Option<Rate>,
    /// Line rate in bits a second that a rate in percent is of.
    #[arg(long, default_value_t = 0)]
    line_bps: u64,
    /// How often.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    #[command(flatten)]
    ports: PortArguments,
}

/// Keep what comes in at a port in a capture file, until Ctrl-C or SIGTERM.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen capture seen.pcap --receive net_af_packet0,iface=eth1
  greyhound-pktgen capture seen.pcap --receive 0000:3b:00.1 --packets 1000000 --huge-pages
Exit status: 0 written, 1 it could not be done, 2 wrong arguments.")]
pub(crate) struct CaptureArguments {
    /// The capture file (pcap, nanoseconds).
    capture: PathBuf,
    /// Stop after so many packets.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    packets: u64,
    #[command(flatten)]
    ports: PortArguments,
}

impl ReplayArguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let percent = matches!(self.rate, Some(Rate::LinePercent(_)));
        ensure!(!percent || self.line_bps > 0, "--rate in percent: of what line? Give --line-bps");
        ensure!(self.ports.sends(), "replay needs a port to send through: --port or --transmit");
        let file = named(&self.capture, File::open(&self.capture))?;
        let frames = named(&self.capture, capture_file::read(BufReader::new(file)))?;
        let timing = self.rate.map_or(Timing::Captured(self.speed), |rate| Timing::Rate(rate, self.line_bps));
        let playlist = Playlist::new(frames, timing)?;
        let ports = self.ports.open(playlist.longest_frame(), playlist.buffer_bytes())?;
        let stop = stop_on_signals()?;
        pin(self.ports.cpus.first().copied())?;
        let played = live("sent", |done| play(&ports, &playlist, self.rounds, &stop, done))?;
        if json {
            println!("{}", serde_json::to_string(&played)?);
        } else {
            println!("{}", sentence(&played));
        }
        let is_stopped = stop.load(Ordering::Relaxed);
        Ok(if is_stopped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl CaptureArguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        ensure!(self.ports.receives(), "capture needs a port to receive from: --port or --receive");
        let ports = self.ports.open(LONGEST_FRAME, LONGEST_FRAME)?;
        let file = named(&self.capture, File::create(&self.capture))?;
        let stop = stop_on_signals()?;
        pin(self.ports.cpus.first().copied())?;
        let to = BufWriter::new(file);
        let packets = live("kept", |done| capture(&ports, self.packets, &stop, done, to))?;
        if json {
            println!("{}", serde_json::json!({ "packets": packets, "capture": self.capture }));
        } else {
            println!("{packets} packets in {}", self.capture.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What was sent, in words.
fn sentence(played: &Played) -> String {
    let (frames, seconds) = (played.frames, played.seconds);
    let per_second = frames as f64 / seconds.max(f64::MIN_POSITIVE);
    let sent = format!("{frames} frames in {seconds:.3} s, {per_second:.0} a second");
    match played.late_us_max {
        Some(late_us) => {
            format!("{sent} (asked {:.3} s), late by {late_us:.1} µs at most", played.asked_seconds)
        }
        None => sent,
    }
}

/// Does something while another thread says once a second how far it is.
fn live<T>(verb: &str, work: impl FnOnce(&CounterWord) -> T) -> T {
    let (done, is_over) = (CounterWord::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (begun, mut seconds) = (Instant::now(), 1);
            let end = if std::io::stderr().is_terminal() { "\x1b[K\r" } else { "\n" };
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK);
                if begun.elapsed().as_secs() >= seconds {
                    // Nobody is hurt if standard error is closed.
                    let _ = write!(std::io::stderr(), "[{seconds} s] {verb} {} frames{end}", done.read());
                    seconds += 1;
                }
            }
        });
        let result = work(&done);
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

fn named<T>(path: &Path, result: std::io::Result<T>) -> anyhow::Result<T> {
    result.with_context(|| format!("{}", path.display()))
}
