// SPDX-License-Identifier: Apache-2.0
//! Header formats: no state, no I/O, no allocation, no unsafe.
