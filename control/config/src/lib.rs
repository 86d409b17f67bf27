// SPDX-License-Identifier: Apache-2.0
//! `config.toml`: what control is told by people, and how it becomes what the dataplane is told.
//!
//! ```text
//! text ── parse ──▶ Config ── compile (with Indices, Environment, keys) ──▶ objects ── changes ──▶ Put, Delete
//!                     │                         ╲
//!                     └─ diff, to_toml           ▶ tables::Shadow: what the dataplane would say
//! ```
//!
//! In a [`Config`] everything is named; numbers that only the two processes need are handed out by [`Indices`]. All that
//! is wrong is found at once, and each [`Problem`] names the item, what is wrong and what would be right. What the
//! dataplane would refuse is asked of the code that refuses there.
//!
//! Pure: no file, no clock, no socket. Files, key files among them, are read by control, which answers for them through
//! [`KeySource`]. No key is part of a [`Config`], a [`Diff`] or a message.
#![forbid(unsafe_code)]

mod assemble;
mod changes;
mod check;
mod compile;
mod diff;
mod digest;
mod dscp;
mod environment;
mod explain;
mod groups;
mod indices;
mod item;
mod model;
mod parse;
mod problem;
mod quality;
mod scalar;
mod values;
mod write;

#[cfg(any(test, feature = "sample"))]
pub mod sample;
#[cfg(test)]
mod testing;

pub use changes::{Change, changes};
pub use compile::{Compiled, compile};
pub use diff::{Diff, DiffKind, FieldChange, ItemDiff, diff};
pub use digest::digest;
pub use dscp::{DeliveryDscp, DscpChangeEntry, DscpMapEntry, InnerDscp};
pub use environment::{Environment, EnvironmentPort, KeySource};
pub use explain::{Names, explain, name_of};
pub use groups::{GROUP_DEFAULT, GroupEntry};
pub use indices::Indices;
pub use item::{Item, Kind};
pub use model::{
    Config, NeighborEntry, PolicyEntry, PortEntry, ProtectionEntry, RouteEntry, SaEntry, TunnelEntry,
};
pub use parse::{ParseError, ParseProblem};
pub use problem::{Problem, Problems};
pub use quality::{
    Bandwidth, BitRate, CLASS_DEFAULT, ClassMapEntry, CodelEntry, CriterionEntry, DropProfileEntry, Flags,
    Matching, PieEntry, PoliceEntry, PolicyClassEntry, PolicyMapEntry, ProfileEntry, WredEntry,
};
pub use values::{Action, Algorithm, KeyReference, ManualKeying, SaName, UnknownAlgorithm, UnknownSaName};
