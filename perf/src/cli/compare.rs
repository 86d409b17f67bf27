// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf compare` and `greyhound-perf svg`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use greyhound_perf::compare::Comparison;
use greyhound_perf::svg;
use serde_json::Value;

/// Two results of --json side by side: faster, slower, or the same within the noise.
///
/// Rows belong together when everything that was not measured is equal. A difference within half of both spreads is
/// noise; measure again with more --runs on a quieter machine if that is too much.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-perf path --json > before.json; …; greyhound-perf path --json > after.json
  greyhound-perf compare before.json after.json
  greyhound-perf compare before.json after.json --fail-above 3     exit code 1 if a row got slower by more than 3 %
  greyhound-perf compare mb.json native.json --ignore engine")]
pub(crate) struct Arguments {
    /// The result to compare with.
    before: PathBuf,
    /// The result in question.
    after: PathBuf,
    /// Exit with code 1 if a row is slower by more than this, beyond the noise.
    #[arg(long, value_name = "PERCENT")]
    fail_above: Option<f64>,
    /// Fields that may differ between rows that belong together.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let comparison = Comparison::of(&read(&self.before)?, &read(&self.after)?, &self.ignore)?;
        super::print(&comparison, self.json, Comparison::to_table)?;
        let worst = comparison.worst_percent();
        match self.fail_above {
            Some(limit) if worst > limit => {
                eprintln!("slower by {worst:.1} %, which is more than {limit} %");
                Ok(ExitCode::FAILURE)
            }
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

/// A result of `path --json` as a picture: cycles by size, engine and path stacked.
///
/// One panel for each direction, memory and number of tunnels.
#[derive(Args)]
pub(crate) struct SvgArguments {
    /// A result of `path --json`.
    result: PathBuf,
    /// The picture.
    picture: PathBuf,
}

impl SvgArguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let drawn = svg::draw(&read(&self.result)?)?;
        std::fs::write(&self.picture, drawn).with_context(|| format!("{}", self.picture.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a result of --json", path.display()))
}
