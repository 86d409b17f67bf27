// SPDX-License-Identifier: Apache-2.0
//! Benchmarks that drive the very entry a worker calls, over packets in memory: no figure here is a NIC figure.
//!
//! [`profile`] says what a headend carries, [`bed`] builds two of them back to back, [`traffic`] writes their packets
//! and checks them, [`reference`] opens them with another engine. [`path`] measures packets through them with the bare
//! engine ([`bare`]) beside; [`report`] and [`machine`] say what came out, and where.
#![forbid(unsafe_code)]

pub mod bare;
pub mod bed;
pub mod machine;
pub mod path;
pub mod profile;
pub mod reference;
pub mod report;
pub mod traffic;
