// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen report`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use greyhound_pktgen::report::{self, Results};

/// Make a page with plots and tables of results that were kept.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-pktgen rfc2544 profile.toml --port 0000:3b:00.0 --json > night.json
  greyhound-pktgen report night.json --html night.html
  greyhound-pktgen report before.json after.json --title 'Before and after' --html both.html
The page needs nothing else: no network, no script. Exit status: 0 written, 1 not, 2 wrong arguments.")]
pub(crate) struct Arguments {
    /// What `run --json` or `rfc2544 --json` printed.
    #[arg(required = true, value_name = "RESULT.json")]
    results: Vec<PathBuf>,
    /// The page.
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
    /// What stands above it.
    #[arg(long, default_value = "Greyhound packet generator")]
    title: String,
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let results: Vec<(String, Results)> = self.results.iter().map(read).collect::<anyhow::Result<_>>()?;
        let page = report::of_all(&self.title, &results);
        std::fs::write(&self.html, &page).with_context(|| format!("{}", self.html.display()))?;
        if json {
            println!(
                "{}",
                serde_json::json!({ "html": self.html, "results": results.len(), "bytes": page.len() })
            );
        } else {
            println!("{}: {} results, {} bytes", self.html.display(), results.len(), page.len());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &PathBuf) -> anyhow::Result<(String, Results)> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    let results = Results::parse(&text).with_context(|| name.clone())?;
    Ok((name, results))
}
