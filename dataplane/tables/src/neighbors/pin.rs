// SPDX-License-Identifier: Apache-2.0
//! Pins: as long as one lives, its slot keeps its neighbour.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// A count held on a slot. It keeps the counters alive, not the table.
pub(crate) struct Pin {
    pins: Arc<[AtomicU32]>,
    slot: u32,
}

impl Pin {
    /// Only under the editing right: see `EditingRight::forget`.
    pub(super) fn new(pins: &Arc<[AtomicU32]>, slot: usize) -> Self {
        let pin = Self { pins: Arc::clone(pins), slot: u32::try_from(slot).unwrap_or(u32::MAX) };
        pin.add();
        pin
    }

    fn counter(&self) -> Option<&AtomicU32> {
        self.pins.get(self.slot as usize)
    }

    fn add(&self) {
        if let Some(counter) = self.counter() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Clone for Pin {
    /// The slot is pinned already, so no right is needed.
    fn clone(&self) -> Self {
        let pin = Self { pins: Arc::clone(&self.pins), slot: self.slot };
        pin.add();
        pin
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(counter) = self.counter() {
            counter.fetch_sub(1, Ordering::Release);
        }
    }
}
