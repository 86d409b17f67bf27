// SPDX-License-Identifier: Apache-2.0
//! Looks for intel-ipsec-mb and, where it is, compiles the shim and sets the cfg `have_ipsec_mb`.
//!
//! Debian ships no pkg-config file with it, so a probe is compiled and linked. For a copy outside the
//! compiler's own paths set `CPATH` and `LIBRARY_PATH`.

use std::env;
use std::path::Path;
use std::process::Stdio;

const LIBRARY: &str = "IPSec_MB";
const PROBE: &str = "shim/probe.c";
const SHIM: &str = "shim/ipsec_mb.c";

fn main() {
    for file in [PROBE, SHIM, "build.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in ["CPATH", "LIBRARY_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match probe() {
        Ok(()) => build(),
        Err(reason) if env::var_os("CARGO_FEATURE_REQUIRE_IPSEC_MB").is_some() => {
            println!("cargo::error=the feature `require-ipsec-mb` is on, but {reason}");
        }
        Err(_) => {}
    }
}

/// Whether a program that calls the library compiles and links for the target.
fn probe() -> Result<(), String> {
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return Err("intel-ipsec-mb is for x86_64 only".to_owned());
    }
    let out = env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    let compiler = cc::Build::new().try_get_compiler().map_err(|error| format!("no C compiler: {error}"))?;
    let status = compiler
        .to_command()
        .arg(PROBE)
        .arg("-o")
        .arg(Path::new(&out).join("probe"))
        .arg(format!("-l{LIBRARY}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("the C compiler does not run: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("intel-ipsec-mb 1.3 or later was not found (Debian: apt-get install libipsec-mb-dev)".to_owned())
    }
}

fn build() {
    cc::Build::new().file(SHIM).std("c11").warnings(true).extra_warnings(true).compile("greyhound_ipsec_mb");
    println!("cargo::rustc-link-lib={LIBRARY}");
    println!("cargo::rustc-cfg=have_ipsec_mb");
}
