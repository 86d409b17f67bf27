// SPDX-License-Identifier: Apache-2.0
//! DPDK bindings and shim.
