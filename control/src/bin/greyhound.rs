// SPDX-License-Identifier: Apache-2.0
//! `greyhound`: the command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    control::cli::main()
}
