// SPDX-License-Identifier: Apache-2.0
//! Main.
fn main() {}
