// SPDX-License-Identifier: Apache-2.0
//! `greyhound-pktgen render`.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aead::Engine;
use anyhow::{Context as _, ensure};
use clap::Args;
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::render::{Extent, render};

/// Write what a profile would send as a capture file. Needs no port and no privilege.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The profile.
    profile: PathBuf,
    /// The capture file.
    capture: PathBuf,
    /// Packets at most.
    #[arg(long, default_value_t = 1_000)]
    packets: u64,
    /// Seconds at most.
    #[arg(long, default_value_t = 3_600.0)]
    seconds: f64,
    /// AEAD engine: auto, or one by name.
    #[arg(long, default_value = "auto", value_parser = super::engine)]
    engine: Engine,
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        ensure!(self.seconds > 0.0 && self.seconds < 4e9, "--seconds {}: above 0, below 4e9", self.seconds);
        let profile = Profile::read(&self.profile)?;
        let folder = self.profile.parent().unwrap_or(Path::new(""));
        let name = self.capture.display();
        let file = File::create(&self.capture).with_context(|| format!("{name}"))?;
        let extent = Extent { packets: self.packets, ns: (self.seconds * 1e9) as u64 };
        let packets = render(&profile, folder, self.engine, extent, BufWriter::new(file))?;
        if json {
            println!("{}", serde_json::json!({ "packets": packets, "capture": self.capture }));
        } else {
            println!("{packets} packets in {name}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
