// SPDX-License-Identifier: Apache-2.0
//! Finds DPDK, builds the shim and its bindings, and tells dependent crates through `DEP_DPDK_HAVE`.
//!
//! Without DPDK the crate is empty; with the feature `require-dpdk` the build fails instead. The environment
//! variable `GREYHOUND_WITHOUT_DPDK=1` builds as on a machine without it.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian 12 carries 22.11; 23.11 and 24.11 are the LTS releases after it.
const OLDEST: &str = "22.11";
/// Libraries that the shim calls. Drivers are plugins, which EAL loads from its own directory.
const LIBRARIES: [&str; 4] = ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"];
const INSTALL: &str = "install libdpdk-dev, pkg-config, libclang-dev and clang (Debian's names)";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(have_dpdk)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    for name in ["GREYHOUND_WITHOUT_DPDK", "PKG_CONFIG_PATH", "LIBCLANG_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match build() {
        Ok(version) => {
            println!("cargo::rustc-cfg=have_dpdk");
            println!("cargo::metadata=have={version}");
        }
        Err(reason) if env::var_os("CARGO_FEATURE_REQUIRE_DPDK").is_some() => {
            println!(
                "cargo::error=DPDK {OLDEST} or later is required (feature require-dpdk): {reason}; {INSTALL}"
            );
            std::process::exit(1);
        }
        Err(reason) => {
            println!("cargo::warning=building without DPDK ports: {reason}; to have them, {INSTALL}");
            watch_for_installation();
        }
    }
}

fn build() -> Result<String, Box<dyn Error>> {
    if env::var("GREYHOUND_WITHOUT_DPDK").is_ok_and(|value| value == "1") {
        return Err("GREYHOUND_WITHOUT_DPDK=1 is set".into());
    }
    let library = pkg_config::Config::new()
        .atleast_version(OLDEST)
        .cargo_metadata(false)
        .probe("libdpdk")
        .map_err(|error| first_line(&error.to_string()))?;
    generate_bindings()?;
    compile_shim()?;
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES {
        println!("cargo::rustc-link-lib={name}");
    }
    Ok(library.version)
}

/// Compiles the shim with the flags that DPDK's headers ask for: they hold inline code for a CPU baseline.
fn compile_shim() -> Result<(), Box<dyn Error>> {
    let output = Command::new("pkg-config").args(["--cflags", "libdpdk"]).output()?;
    let flags = String::from_utf8(output.stdout)?;
    let mut compiler = cc::Build::new();
    compiler
        .file("shim/shim.c")
        .include("shim")
        .std("gnu11")
        .warnings(true)
        .flag("-Werror=implicit-function-declaration");
    let mut words = flags.split_whitespace();
    while let Some(word) = words.next() {
        match word.strip_prefix("-I") {
            Some(path) => compiler.flag("-isystem").flag(path),
            None => compiler.flag(word),
        };
        if word == "-include" {
            compiler.flag(words.next().ok_or("pkg-config: -include without a file")?);
        }
    }
    compiler.try_compile("greyhound_dpdk_shim")?;
    Ok(())
}

fn generate_bindings() -> Result<(), Box<dyn Error>> {
    choose_libclang();
    let generate = || {
        bindgen::Builder::default()
            .header("shim/shim.h")
            .allowlist_item("(gh|GH)_.*")
            .prepend_enum_name(false)
            .generate()
    };
    // bindgen panics where it finds no libclang.
    let bindings = std::panic::catch_unwind(generate).map_err(|_| "no usable libclang")??;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs");
    bindings.write_to_file(out)?;
    Ok(())
}

/// Where several LLVMs are installed, takes the newest libclang that has its own headers beside it.
fn choose_libclang() {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return;
    }
    let newest =
        (11..40).rev().map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/lib"))).find(|lib| {
            let has_library = files(lib).any(|name| name.starts_with("libclang") && name.contains(".so"));
            let has_headers =
                files(&lib.join("clang")).any(|v| lib.join("clang").join(v).join("include").exists());
            has_library && has_headers
        });
    if let Some(lib) = newest {
        // SAFETY: the build script has one thread.
        #[allow(unsafe_code, reason = "bindgen is told where libclang is by the environment only")]
        unsafe {
            env::set_var("LIBCLANG_PATH", lib);
        }
    }
}

fn files(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Runs this script again once a package has been added where pkg-config looks.
fn watch_for_installation() {
    let directories =
        ["/usr/lib/x86_64-linux-gnu/pkgconfig", "/usr/lib/pkgconfig", "/usr/local/lib/pkgconfig"];
    for directory in directories.iter().filter(|directory| Path::new(directory).exists()) {
        println!("cargo::rerun-if-changed={directory}");
    }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("libdpdk.pc not found").to_owned()
}
