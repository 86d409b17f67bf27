// SPDX-License-Identifier: Apache-2.0
//! Two dataplanes in one process over memory ports and a fake clock.
