// SPDX-License-Identifier: Apache-2.0
//! The SPSC ring in shared memory, both ends.
