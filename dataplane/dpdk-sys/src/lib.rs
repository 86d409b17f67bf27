// SPDX-License-Identifier: Apache-2.0
//! DPDK bindings and shim: everything that Greyhound calls of DPDK, and nothing else.
//!
//! `shim/shim.h` declares it, in plain C types; `shim/shim.c` is compiled against the DPDK that pkg-config finds
//! (22.11 or later); the bindings are generated from the header. Without DPDK the crate is empty and the cfg
//! `have_dpdk` is not set, here and in the crates that depend on this one.
//!
//! # Invariants
//! 1. The first cache line of `rte_mbuf` is `gh_mbuf_head`: asserted field by field when the shim is compiled.
//! 2. The shim keeps no state but whether EAL is initialised, and takes no decision: what a call requires is what the DPDK function of the same
//!    name requires.

#[cfg(have_dpdk)]
#[allow(unsafe_code, reason = "foreign functions")]
#[allow(missing_docs, non_camel_case_types, unreachable_pub, reason = "generated; documented in shim.h")]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

#[cfg(have_dpdk)]
pub use bindings::*;
