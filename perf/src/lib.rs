// SPDX-License-Identifier: Apache-2.0
//! Benchmarks that drive the very entry a worker calls, over packets in memory: no figure here is a NIC figure.
//!
//! [`bed`] builds two headends joined back to back; [`path`] measures packets through them, with the bare engine on the
//! same lengths in the same run; [`report`] prints it.
//!
//! Not here yet: several workers, DPDK ports, the control ring, stages.
#![forbid(unsafe_code)]

pub mod bed;
pub mod machine;
pub mod path;
pub mod report;
