// SPDX-License-Identifier: Apache-2.0
//! Random configurations that are valid, and keys for them: for tests, simulations and scenarios.
