// SPDX-License-Identifier: Apache-2.0
//! The slow process: daemon and CLI.
