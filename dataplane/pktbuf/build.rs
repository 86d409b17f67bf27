// SPDX-License-Identifier: Apache-2.0
//! Sets `have_dpdk` where `dpdk-sys` found DPDK.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(have_dpdk)");
    if std::env::var_os("DEP_DPDK_HAVE").is_some() {
        println!("cargo::rustc-cfg=have_dpdk");
    }
}
