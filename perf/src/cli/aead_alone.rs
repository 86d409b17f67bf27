// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf aead`.

use std::process::ExitCode;

use aead::Engine;
use clap::Args;
use greyhound_perf::aead_alone::{self, KEY_BITS, Row, TEXT_BYTES};
use greyhound_perf::machine::Machine;
use greyhound_perf::report::{Report, table};
use sysmem::Calibration;

use super::progress::Progress;

/// Every engine by itself: seal and open, staged bursts.
///
/// Jobs are staged outside the timed part, 64 at a time, as on the packet path. Engines take turns in each run. The
/// length is what ESP encrypts; ICV 16, AAD 8 bytes.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-perf aead                            every engine, every length, AES-128 and AES-256
  greyhound-perf aead --sizes 64,1424 --key-bits 128")]
pub(crate) struct Arguments {
    /// Plaintext lengths in bytes, up to 9216.
    #[arg(long, value_delimiter = ',', default_values_t = TEXT_BYTES, value_parser = text_bytes)]
    sizes: Vec<usize>,
    /// AES key lengths in bits.
    #[arg(long, value_delimiter = ',', default_values_t = KEY_BITS)]
    key_bits: Vec<u16>,
    /// Engines by name; by default all that run here.
    #[arg(long, value_delimiter = ',', value_parser = super::engine)]
    engine: Vec<Engine>,
    /// CPU to measure on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Runs; the median of them is shown, with the least and the most.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(5..=1000))]
    runs: u16,
    /// A quarter of the packets.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        super::pin(self.cpu)?;
        let clock = Calibration::measure();
        let engines = if self.engine.is_empty() { Engine::available().collect() } else { self.engine };
        let described: Vec<String> = engines.iter().map(|engine| engine.describe()).collect();
        let machine = Machine::here(&described.join("; "), "memory pool, 256; 64 of 9,216 bytes", &clock);
        let mut progress = Progress::new(self.key_bits.len() * self.sizes.len());
        let mut rows = Vec::new();
        for &key_bits in &self.key_bits {
            for &size in &self.sizes {
                progress.next(&format!("AES-{key_bits}, {size} bytes"));
                let runs = usize::from(self.runs);
                rows.extend(aead_alone::measure(&engines, key_bits, size, runs, self.quick, clock.hz())?);
            }
        }
        progress.done();
        let report = Report { machine, tables: Vec::new(), rows };
        super::print(&report, self.json, to_table)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (1..=9_216).contains(&bytes) => Ok(bytes),
        _ => Err("a length is 1 to 9216 bytes".to_owned()),
    }
}

fn to_table(report: &Report<Row>) -> String {
    let mut table =
        table(&["engine", "key", "bytes", "direction", "cycles", "spread", "cycles/byte", "Gbit/s"]);
    for row in &report.rows {
        table.add_row([
            row.engine.clone(),
            row.key_bits.to_string(),
            row.size.to_string(),
            row.direction.clone(),
            format!("{:.0}", row.cycles.median),
            format!("{:.0}-{:.0}", row.cycles.min, row.cycles.max),
            format!("{:.2}", row.cycles_per_byte.median),
            format!("{:.1}", row.gbps.median),
        ]);
    }
    format!("{}{table}\n", report.machine)
}
