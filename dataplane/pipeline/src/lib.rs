// SPDX-License-Identifier: Apache-2.0
//! The two ways of a packet and their stages: no I/O, no thread, no clock, no unsafe.
