// SPDX-License-Identifier: Apache-2.0
//! `greyhound-perf ports`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use greyhound_perf::bed::Setting;
use greyhound_perf::machine::Machine;
use greyhound_perf::path::{Course, Memory, Plan as PathPlan};
use greyhound_perf::ports::{self, Dpdk, Plan, Row};
use greyhound_perf::report::{Measured, Report, size_text, table};
use greyhound_perf::traffic::{Size, Way};
use sysmem::Calibration;

use super::Common;
use super::progress::Progress;

/// DPDK's virtual devices: receive and transmit, and the whole headend, with dpdk-testpmd beside.
///
/// `io` receives from net_null and transmits to it, as testpmd does in io mode. `headend` is a whole worker: frames that
/// net_pcap repeats, sealed, into net_null; testpmd swaps MAC addresses on the same devices. `path` is what the path
/// benchmark says of the same packets, `predicted` that with what the devices cost testpmd.
#[derive(Args)]
#[command(after_help = "\
Examples:
  greyhound-perf ports                               ordinary pages, dpdk-testpmd from the path (Debian: dpdk-dev)
  greyhound-perf ports --huge-pages --cpus 3,2
  greyhound-perf ports --testpmd /opt/dpdk/dpdk-testpmd")]
pub(crate) struct Arguments {
    /// dpdk-testpmd; by default the one in the path, if there is one.
    #[arg(long, value_name = "PROGRAM")]
    testpmd: Option<PathBuf>,
    /// CPU that forwards, and CPU of testpmd's console; by default the last and the first.
    #[arg(long, value_delimiter = ',', num_args = 2)]
    cpus: Vec<usize>,
    /// Huge pages (vm.nr_hugepages) for both; ordinary pages otherwise.
    #[arg(long)]
    huge_pages: bool,
    /// Bytes of the inner IP packet for the headend.
    #[arg(long, value_delimiter = ',', default_value = "64,1400")]
    sizes: Vec<Size>,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let clock = Calibration::measure();
        let cpus = super::two_cpus(&self.cpus)?;
        super::pin(cpus[0])?;
        let testpmd = self.testpmd.clone().or_else(ports::find_testpmd);
        if testpmd.is_none() {
            eprintln!(
                "skipped: dpdk-testpmd is not in the path (Debian: dpdk-dev); rates without comparison"
            );
        }
        let runs = usize::from(self.common.runs);
        let dpdk = Dpdk::start(Plan { testpmd, cpus, huge_pages: self.huge_pages, runs })?;
        let pages = if self.huge_pages { "huge" } else { "ordinary" };
        let buffers = format!("DPDK pool, 16,383, {pages} pages");
        let machine = Machine::here(&self.common.engine.describe(), &buffers, &clock);
        let mut report = Report { machine, tables: Vec::new(), rows: Vec::new() };
        let mut progress = Progress::new(1 + self.sizes.len());
        progress.next("receive and transmit");
        report.rows.push(dpdk.io()?);
        for &size in &self.sizes {
            progress.next(&format!("the whole headend, {size} bytes"));
            let mut row = dpdk.headend(&self.setting(), size, &clock)?;
            row.predict(self.path(size, &clock)?);
            report.rows.push(row);
        }
        progress.done();
        super::print(&report, self.common.json, to_table)?;
        Ok(ExitCode::SUCCESS)
    }

    fn setting(&self) -> Setting {
        Setting::usual(1, 1, self.common.engine)
    }

    fn path(&self, size: Size, clock: &Calibration) -> anyhow::Result<Measured> {
        let runs = usize::from(self.common.runs);
        let plan =
            PathPlan { way: Way::Outbound, size, memory: Memory::Warm, runs, quick: self.common.quick };
        Ok(Course::new(&self.setting())?.measure(&plan, clock.hz())?.mpps)
    }
}

fn to_table(report: &Report<Row>) -> String {
    let mut table =
        table(&["what", "size", "Mpps", "spread", "testpmd", "its Mpps", "ratio", "path", "predicted"]);
    let optional = |measured: &Option<Measured>| {
        measured.map_or_else(|| "-".to_owned(), |measured| format!("{:.2}", measured.median))
    };
    for row in &report.rows {
        table.add_row([
            row.what.clone(),
            size_text(&row.size),
            format!("{:.2}", row.mpps.median),
            format!("{:.2}-{:.2}", row.mpps.min, row.mpps.max),
            row.testpmd_mode.clone(),
            optional(&row.testpmd_mpps),
            optional(&row.ratio),
            optional(&row.path_mpps),
            optional(&row.predicted_mpps),
        ]);
    }
    format!("{}{table}\n", report.machine)
}
