// SPDX-License-Identifier: Apache-2.0
//! Packet memory: pool, Packet with headroom, Batch, prefetch, huge-page arena.
