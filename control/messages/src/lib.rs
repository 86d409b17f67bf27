// SPDX-License-Identifier: Apache-2.0
//! What control and dataplane say to each other: types, codec, drop reasons and counters.
