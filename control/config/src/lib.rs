// SPDX-License-Identifier: Apache-2.0
//! Configuration: parse, validate, diff; pure.
