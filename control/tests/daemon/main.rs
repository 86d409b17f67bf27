// SPDX-License-Identifier: Apache-2.0
//! The daemon and the CLI as processes, against a dataplane without packets.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api;
mod changes;
mod fake;
mod lab;
mod sas;
mod takeover;
