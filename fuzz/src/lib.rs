// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: one function of bytes each, which panics when something that must always hold does not.
//!
//! libFuzzer calls them through the programs in `fuzz_targets/`; `tests/replay.rs` calls them with every file of
//! `corpus/` and `regressions/`, without libFuzzer. `examples/seeds` writes the inputs to start from. How to run all
//! this: `docs/fuzzing.md` and `scripts/fuzz.sh --help`.
//!
//! A target checks more than that nothing panics: each compares with a model of its own or asks for a round trip.

#![forbid(unsafe_code)]

mod aead;
mod codec;
mod config;
mod esp_inbound;
mod input;
mod pipeline_inbound;
mod pktgen_profile;
mod pktgen_received;
mod ring;
mod sealing;
mod transaction;
mod wire;

pub use aead::aead;
pub use codec::codec;
pub use config::config;
pub use esp_inbound::esp_inbound;
pub use pipeline_inbound::pipeline_inbound;
pub use pktgen_profile::pktgen_profile;
pub use pktgen_received::pktgen_received;
pub use ring::ring;
pub use transaction::transaction;
pub use wire::wire;

/// A target: its name, which is that of its folders too, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 10] = [
    ("wire", wire),
    ("codec", codec),
    ("ring", ring),
    ("transaction", transaction),
    ("config", config),
    ("aead", aead),
    ("esp_inbound", esp_inbound),
    ("pipeline_inbound", pipeline_inbound),
    ("pktgen_profile", pktgen_profile),
    ("pktgen_received", pktgen_received),
];
