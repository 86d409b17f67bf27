// SPDX-License-Identifier: Apache-2.0
//! Writes the inputs that fuzzing starts from: packets of every format, messages of every variant, configurations.
//!
//! `seeds FOLDER` makes `FOLDER/TARGET/seed-NAME` for every target. `scripts/fuzz.sh seeds` calls it and keeps what a
//! corpus does not cover yet.
#![forbid(unsafe_code)]

mod aead;
mod esp;
mod frames;
mod messages;
mod pktgen;
mod texts;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// A name and what the target gets.
type Seed = (String, Vec<u8>);

fn main() -> io::Result<()> {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("usage: seeds FOLDER"));
    };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = frames::golden(&repository.join("tests/linux-peer/golden"))?;
    let targets = [
        ("wire", frames::wire(&golden)),
        ("codec", messages::codec()),
        ("ring", messages::ring()),
        ("transaction", messages::transactions()),
        ("config", texts::all()),
        ("aead", aead::seeds()),
        ("esp_inbound", esp::seeds()),
        ("pipeline_inbound", frames::pipeline(&golden)),
        ("pktgen_profile", pktgen::profiles(&repository.join("pktgen/profiles"))?),
        ("pktgen_received", pktgen::received(&golden)),
    ];
    for (target, seeds) in targets {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}
