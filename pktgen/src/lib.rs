// SPDX-License-Identifier: Apache-2.0
//! The packet generator, in its first form: a stamped stream between two UDP sockets.
//!
//! The [`stamp`] inside each packet says which stream it belongs to, its place in it and when it was sent; the
//! [`sink`] tells from the stamps alone what was lost, duplicated, reordered or damaged, and how long it took.
//!
//! Not here yet: ports (DPDK, memory), profiles, sealed streams, RFC 2544.
#![forbid(unsafe_code)]

pub mod ledger;
pub mod sink;
pub mod stamp;
pub mod stream;
