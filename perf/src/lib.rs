// SPDX-License-Identifier: Apache-2.0
//! Benchmarks that drive the very entry a worker calls, over packets in memory: no figure here is a NIC figure.
//!
//! [`profile`] says what a headend carries, [`bed`] builds two of them back to back, [`traffic`] writes their packets
//! and checks them, [`reference`] opens them with another engine. [`path`] measures packets through them with the bare
//! engine ([`bare`]) beside, [`aead_alone`] all engines; [`rig`] has whole workers, for [`scale`] and [`updates`]; [`ports`] has DPDK's;
//! [`mod@qos`] the scheduler under a fake clock. [`report`] and [`machine`] say what
//! came out, and where; [`compare`] and [`svg`] read that again.
#![forbid(unsafe_code)]

pub mod aead_alone;
pub mod bare;
pub mod bed;
pub mod compare;
pub mod control;
pub mod path;
pub mod ports;
pub mod profile;
pub mod qos;
pub mod reference;
pub mod report;
pub mod rig;
pub mod scale;
pub mod svg;
pub mod traffic;
pub mod updates;

pub use machine;
