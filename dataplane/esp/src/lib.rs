// SPDX-License-Identifier: Apache-2.0
//! ESP: SA hot state, sequence numbers and IVs, replay window, staging, seal and open.
