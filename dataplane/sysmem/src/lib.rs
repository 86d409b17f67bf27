// SPDX-License-Identifier: Apache-2.0
//! Memory maps, locked no-dump memory, one-writer counter words, the cycle clock.
