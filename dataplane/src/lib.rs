// SPDX-License-Identifier: Apache-2.0
//! The fast process: workers, pinning, housekeeping, control link, counters.
