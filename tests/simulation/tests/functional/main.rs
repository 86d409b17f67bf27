// SPDX-License-Identifier: Apache-2.0
//! What a headend does with packets that are all right: headers, sizes, ICMP, neighbours, and the four configurations.

mod configurations;
mod headers;
mod icmp;
mod mtu;
mod neighbors;
mod support;
