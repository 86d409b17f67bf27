// SPDX-License-Identifier: Apache-2.0
//! Sealing and opening allocate nothing, whatever the engine and whether the ICV is right.
#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use greyhound_aead::{Aad, Engine, IcvLength, OpenJob, SealJob, open, seal};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on; `pointer` came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn sealing_and_opening_do_not_allocate() {
    for engine in Engine::available() {
        for icv in [IcvLength::Eight, IcvLength::Twelve, IcvLength::Sixteen] {
            let key = engine.key(&[1; 32], icv).unwrap();
            let (mut right, mut wrong) = (vec![7; 1500], vec![7; 1500]);
            let counted = allocations(|| {
                let aad = Aad::short(1, 2);
                let mut jobs =
                    [&mut right, &mut wrong].map(|buffer| SealJob::new(&key, [3; 12], aad, buffer).unwrap());
                seal(&mut jobs);
                wrong[0] ^= 1;
                let mut jobs =
                    [&mut right, &mut wrong].map(|buffer| OpenJob::new(&key, [3; 12], aad, buffer));
                open(&mut jobs);
                assert_eq!(jobs.map(|job| job.verified), [true, false]);
            });
            assert_eq!(counted, 0, "{engine:?}");
        }
    }
}
