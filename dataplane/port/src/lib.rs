// SPDX-License-Identifier: Apache-2.0
//! Packet I/O: memory ports and DPDK devices.
