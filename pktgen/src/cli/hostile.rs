// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen hostile`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use greyhound_pktgen::hostile::{Hostile, Maker};
use greyhound_pktgen::playback::{Playlist, Timing, play};
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::rate::Rate;
use port::pcap::Frame;
use serde::Serialize;

use super::ports::PortArguments;
use super::table::table;

/// Packets a second: slow enough that nothing is lost on the way.
const RATE: Rate = Rate::Pps(10_000.0);
/// How long a counter may take to show what it counted.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Send packets that a headend must drop, and check that it counts each kind under its reason and no other.
///
/// Kinds: bad-icv, replay, too-old, sequence-wrap, unknown-spi, bad-pad, overlapping-fragments, malformed-gre. They are
/// made from the first stream of the profile that is sealed. The device's counters are read with a command that prints
/// JSON as `greyhound drops --json` does: an array of objects with `reason` and `packets`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen hostile esp.toml --transmit net_af_packet0,iface=eth1
  greyhound-pktgen hostile esp.toml --transmit 0000:3b:00.0 --kinds bad-icv,replay --drops 'ssh dut greyhound drops --json'
Exit status: 0 all were dropped and counted as they should, 1 not so, 2 wrong arguments.")]
pub(crate) struct Arguments {
    /// The profile.
    profile: PathBuf,
    /// Which kinds; by default all.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Hostile>,
    /// Packets of each kind.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    packets: u64,
    /// What prints the device's drop counters, for a shell.
    #[arg(long, value_name = "COMMAND", default_value = "greyhound drops --json")]
    drops: String,
    /// Another reason that a kind must be counted under, for a device with names of its own: bad-icv=auth_failed.
    #[arg(long, value_name = "KIND=REASON", value_delimiter = ',', value_parser = expectation)]
    expect: Vec<(Hostile, String)>,
    /// The first ESP sequence number; by default the profile's.
    #[arg(long)]
    first_sequence: Option<u64>,
    #[command(flatten)]
    ports: PortArguments,
}

fn kind(name: &str) -> Result<Hostile, String> {
    let names = || Hostile::ALL.map(Hostile::name).join(", ");
    Hostile::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| format!("{name:?}: one of {}", names()))
}

fn expectation(text: &str) -> Result<(Hostile, String), String> {
    let (name, reason) = text.split_once('=').ok_or("wants KIND=REASON")?;
    Ok((kind(name)?, reason.to_owned()))
}

/// What came of one kind.
#[derive(Serialize)]
struct Verdict {
    kind: Hostile,
    reason: String,
    sent: u64,
    hostile: u64,
    counted: u64,
    /// Counted meanwhile under other reasons.
    others: BTreeMap<String, u64>,
    is_right: bool,
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let mut profile = Profile::read(&self.profile)?;
        if let Some(first) = self.first_sequence {
            profile
                .streams_mut()
                .filter_map(|stream| stream.esp.as_mut())
                .for_each(|esp| esp.first_sequence = first);
        }
        let folder = self.profile.parent().unwrap_or(Path::new(""));
        let stream = profile.streams().find(|stream| stream.esp.is_some());
        let mut maker =
            Maker::new(stream.context("the profile has no sealed stream")?, self.ports.engine, folder)?;
        self.counters()?;
        let ports = self.ports.open(LONGEST_FRAME, LONGEST_FRAME)?;
        let kinds = if self.kinds.is_empty() { &Hostile::ALL[..] } else { &self.kinds };
        let mut verdicts = Vec::new();
        for kind in kinds {
            let made = maker.make(*kind, self.packets)?;
            let before = self.counters()?;
            let sent = made.frames.len() as u64;
            let frames = made.frames.into_iter().map(|bytes| Frame { time_ns: 0, bytes }).collect();
            play(&ports, &Playlist::new(frames, Timing::Rate(RATE, 0))?, 1, &AtomicBool::new(false))?;
            verdicts.push(self.judge(*kind, sent, made.hostile, &before)?);
        }
        let all_right = verdicts.iter().all(|verdict| verdict.is_right);
        if json {
            println!(
                "{}",
                serde_json::json!({ "verdicts": verdicts, "next_sequence": maker.next_sequence() })
            );
        } else {
            print!("{}", text(&verdicts));
            println!("next sequence number {}", maker.next_sequence());
        }
        Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Waits until the reason has counted all, and says what else was counted.
    fn judge(
        &self,
        kind: Hostile,
        sent: u64,
        hostile: u64,
        before: &BTreeMap<String, u64>,
    ) -> anyhow::Result<Verdict> {
        let expected = self.expect.iter().find(|(of, _)| *of == kind).map(|(_, reason)| reason.as_str());
        let reason = expected.unwrap_or(kind.drop_reason());
        let start = Instant::now();
        loop {
            let mut now = self.counters()?;
            for (name, count) in &mut now {
                *count = count.saturating_sub(before.get(name).copied().unwrap_or(0));
            }
            now.retain(|_, count| *count > 0);
            let counted = now.remove(reason).unwrap_or(0);
            if counted >= hostile || start.elapsed() > PATIENCE {
                let is_right = counted == hostile && now.is_empty();
                return Ok(Verdict {
                    kind,
                    reason: reason.to_owned(),
                    sent,
                    hostile,
                    counted,
                    others: now,
                    is_right,
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The device's drops by reason.
    fn counters(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let name = &self.drops;
        let output =
            Command::new("sh").args(["-c", name]).output().with_context(|| format!("--drops {name:?}"))?;
        ensure!(
            output.status.success(),
            "--drops {name:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("--drops {name:?} printed no JSON"))?;
        let list = printed.get("drops").unwrap_or(&printed);
        let Some(list) = list.as_array() else {
            bail!("--drops {name:?}: wants an array of objects with \"reason\" and \"packets\"");
        };
        let entry = |drop: &serde_json::Value| {
            Some((drop.get("reason")?.as_str()?.to_owned(), drop.get("packets")?.as_u64()?))
        };
        let counters = list.iter().map(entry).collect::<Option<_>>();
        counters.with_context(|| format!("--drops {name:?}: an entry without \"reason\" or \"packets\""))
    }
}

/// Longest frame that is made.
const LONGEST_FRAME: usize = 9_400;

fn text(verdicts: &[Verdict]) -> String {
    let mut table = table(&["kind", "reason", "sent", "hostile", "counted", "others", ""]);
    for verdict in verdicts {
        let others: Vec<String> =
            verdict.others.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        table.add_row([
            verdict.kind.name(),
            &verdict.reason,
            &verdict.sent.to_string(),
            &verdict.hostile.to_string(),
            &verdict.counted.to_string(),
            &others.join(", "),
            if verdict.is_right { "right" } else { "WRONG" },
        ]);
    }
    format!("{table}\n")
}
