// SPDX-License-Identifier: Apache-2.0
//! A stamped stream between two UDP sockets of the kernel: for scenarios and the demo, where a site is a namespace.
//!
//! The [`stamp`] inside each datagram says which stream it belongs to, its place in it and when it was sent; the
//! [`sink`] tells from the stamps alone what was lost, duplicated, reordered or damaged, and how long it took.
//!
//! Not here: ports, profiles, rates beyond what a socket carries.

pub mod ledger;
pub mod sink;
pub mod stamp;
pub mod stream;
