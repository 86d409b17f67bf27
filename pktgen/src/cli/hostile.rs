// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen hostile`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use greyhound_pktgen::counters::Source;
use greyhound_pktgen::hostile::judge::{Judge, Verdict};
use greyhound_pktgen::hostile::{Frames, Hostile, Maker};
use greyhound_pktgen::open::Opener;
use greyhound_pktgen::profile::{Profile, Stream};

use super::ports::{PortArguments, stop_on_signals};
use super::table::table;

/// Longest frame that is made.
const LONGEST_FRAME: usize = 9_400;

/// Send packets that a headend must drop, and check that it counts each kind under its reason and no other.
///
/// Kinds: bad-icv, replay, too-old, sequence-wrap, unknown-spi, bad-pad, overlapping-fragments, malformed-gre. They are
/// made from the first stream of the profile that is sealed, and stand between good packets of it; with a port to
/// receive from, all of those must come through, and nothing else. The device's counters are read from
/// greyhound-control, or with a command.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen hostile all esp.toml --transmit 0000:3b:00.0 --receive 0000:3b:00.1
  greyhound-pktgen hostile bad-icv,replay esp.toml --transmit net_af_packet0,iface=eth1 --control-socket /run/gh/control.sock
  greyhound-pktgen hostile bad-icv esp.toml --port 0000:3b:00.0 --counters-command 'ssh dut counters' --expect bad-icv=auth_failed
The command prints JSON: [{\"reason\": \"bad_icv\", \"packets\": 1}, …], as greyhound --json drops does, or {\"bad_icv\": 1, …}.
Exit status: 0 all were dropped and counted as they should, 1 not so, 2 wrong arguments.")]
pub(crate) struct Arguments {
    /// Which kinds, with commas between, or all.
    #[arg(value_name = "KIND[,KIND…]|all", value_parser = kinds)]
    kinds: Kinds,
    /// The profile.
    profile: PathBuf,
    /// Packets of each kind.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    packets: u64,
    /// Unix socket of the greyhound-control whose drop counters are read.
    #[arg(long, value_name = "PATH", default_value = "/run/greyhound/main/control.sock")]
    control_socket: PathBuf,
    /// What prints the device's drop counters instead, for a shell.
    #[arg(long, value_name = "COMMAND", conflicts_with = "control_socket")]
    counters_command: Option<String>,
    /// Another reason that a kind must be counted under, for a device with names of its own: bad-icv=auth_failed.
    #[arg(long, value_name = "KIND=REASON", value_delimiter = ',', value_parser = expectation)]
    expect: Vec<(Hostile, String)>,
    /// The first ESP sequence number; by default the profile's.
    #[arg(long)]
    first_sequence: Option<u64>,
    #[command(flatten)]
    ports: PortArguments,
}

/// As a type of its own, for one argument has several.
#[derive(Clone)]
struct Kinds(Vec<Hostile>);

fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "all" {
        return Ok(Kinds(Hostile::ALL.to_vec()));
    }
    text.split(',').map(kind).collect::<Result<_, _>>().map(Kinds)
}

fn kind(name: &str) -> Result<Hostile, String> {
    let names = || Hostile::ALL.map(Hostile::name).join(", ");
    Hostile::named(name).ok_or_else(|| format!("{name:?}: all, or of {}", names()))
}

fn expectation(text: &str) -> Result<(Hostile, String), String> {
    let (name, reason) = text.split_once('=').ok_or("wants KIND=REASON")?;
    Ok((kind(name)?, reason.to_owned()))
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let mut profile = Profile::read(&self.profile)?;
        if let Some(first) = self.first_sequence {
            let sealed = profile.streams_mut().filter_map(|stream| stream.esp.as_mut());
            sealed.for_each(|esp| esp.first_sequence = first);
        }
        let folder = self.profile.parent().unwrap_or(Path::new(""));
        let stream = profile.streams().find(|stream| stream.esp.is_some());
        let stream =
            stream.context("the profile has no sealed stream: hostile packets are made from one with esp")?;
        let (made, next_sequence) = self.make(stream, folder)?;
        let counters = self.source();
        counters.read()?;
        let ports = self.ports.open(LONGEST_FRAME, LONGEST_FRAME)?;
        let judge = Judge {
            ports: &ports,
            receives: self.ports.receives(),
            opener: Opener::new(&profile.open, self.ports.engine, folder)?,
            counters,
            stop: &*stop_on_signals()?,
        };
        let mut verdicts = Vec::new();
        for (kind, frames) in &made {
            eprintln!("{} …", kind.name());
            verdicts.push(judge.judge(*kind, self.reason(*kind), frames)?);
        }
        if json {
            println!("{}", serde_json::json!({ "verdicts": verdicts, "next_sequence": next_sequence }));
        } else {
            println!("{}next sequence number {next_sequence}", text(&verdicts));
        }
        let all_right = verdicts.iter().all(|verdict| verdict.is_right);
        Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// All frames, before any is sent: what cannot be made is said at once. And the first sequence number left.
    fn make(&self, stream: &Stream, folder: &Path) -> anyhow::Result<(Vec<(Hostile, Frames)>, u64)> {
        let unstamped = "has no stamps: good packets are not recognised; leave out the port to receive from";
        ensure!(stream.stamp || !self.ports.receives(), "stream {:?} {unstamped}", stream.name);
        let mut maker = Maker::new(stream, self.ports.engine, folder)?;
        let made = self.kinds.0.iter().map(|kind| Ok((*kind, maker.make(*kind, self.packets)?)));
        let made = made.collect::<anyhow::Result<_>>()?;
        Ok((made, maker.next_sequence()))
    }

    fn source(&self) -> Source {
        match &self.counters_command {
            Some(command) => Source::Command(command.clone()),
            None => Source::Socket(self.control_socket.clone()),
        }
    }

    /// What a kind must be counted under.
    fn reason(&self, kind: Hostile) -> &str {
        let expected = self.expect.iter().find(|(of, _)| *of == kind).map(|(_, reason)| reason.as_str());
        expected.unwrap_or(kind.drop_reason())
    }
}

fn text(verdicts: &[Verdict]) -> String {
    let heads = ["kind", "reason", "hostile", "counted", "others", "good", "came", "let through", ""];
    let mut table = table(&heads);
    for verdict in verdicts {
        let others: Vec<String> =
            verdict.others.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let looked = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        table.add_row([
            verdict.kind.name(),
            &verdict.reason,
            &verdict.hostile.to_string(),
            &verdict.counted.to_string(),
            &others.join(", "),
            &verdict.good.to_string(),
            &looked(verdict.good_received),
            &looked(verdict.let_through),
            if verdict.is_right { "right" } else { "WRONG" },
        ]);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_all_or_named_and_others_are_refused_with_the_names() {
        assert_eq!(kinds("all").unwrap().0, Hostile::ALL);
        assert_eq!(kinds("replay,bad-icv").unwrap().0, [Hostile::Replay, Hostile::BadIcv]);
        for wrong in ["", "worse", "bad-icv,", "all,replay"] {
            assert!(kinds(wrong).is_err_and(|error| error.contains("overlapping-fragments")), "{wrong:?}");
        }
        assert_eq!(expectation("bad-icv=auth").unwrap(), (Hostile::BadIcv, "auth".to_owned()));
        assert!(expectation("bad-icv").is_err() && expectation("worse=x").is_err());
    }
}
