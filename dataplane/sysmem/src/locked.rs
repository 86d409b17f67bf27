// SPDX-License-Identifier: Apache-2.0
//! Owners for key material: locked, anonymous memory that is not dumped, not inherited by children and zeroed on drop.
//!
//! Slots come from a slab, so that tens of thousands of keys cost neither a page nor a mapping each:
//!
//! ```text
//! class 1024:  chunk (256 KiB, one mapping: mlock, MADV_DONTDUMP, MADV_DONTFORK)
//!              ├─ slot 0 ─┼─ slot 1 ─┼─ slot 2 ─┼ …      free list: slots 2, 1, … (kept outside the chunk)
//! ```
//!
//! Taking and giving back lock a mutex and may map memory: at install and removal of an SA, never for a packet.
//! Chunks are kept until the process ends.
//!
//! Not here: what a key is, parsing, derivation.

use std::io;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::CACHE_LINE_BYTES;
use crate::map::Map;

/// Chunk of a class when it already has one; the first is a quarter of it, for programs with few keys.
const CHUNK_BYTES: usize = 256 << 10;
/// Anything larger gets a mapping of its own.
const LARGEST_CLASS_BYTES: usize = 32 << 10;

/// Types for which every bit pattern is a valid value, all-zero included.
///
/// Not `Copy`, so that a key schedule can be `Pod` without being copied by accident.
///
/// # Safety
/// Every bit pattern of `size_of::<Self>()` bytes must be a valid `Self`, and `Self` must hold no pointer or reference
/// that anything follows. Padding is allowed.
pub unsafe trait Pod: Sized + 'static {}

macro_rules! pod {
    ($($type:ty),* $(,)?) => { $(
        // SAFETY: plain integers (or vectors of them) have no invalid bit pattern.
        unsafe impl Pod for $type {}
    )* };
}
pod!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);
#[cfg(target_arch = "x86_64")]
pod!(core::arch::x86_64::__m128i, core::arch::x86_64::__m256i, core::arch::x86_64::__m512i);

// SAFETY: an array is its elements side by side, each of which takes any bit pattern.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

// SAFETY: `MaybeUninit` has no validity requirement at all.
unsafe impl<T: 'static> Pod for MaybeUninit<T> {}

/// Owner of one `T` in locked memory, 64-byte aligned, zeroed after `T` was dropped.
///
/// It covers the bytes of `T` itself: what a `T` keeps on the heap is not in locked memory. It has no `Debug`.
/// In a forked child the memory is not mapped: touching it there is a fault, not a key of zeros.
pub struct Locked<T> {
    slot: Slot,
    holds: PhantomData<T>,
}

// SAFETY: a `Locked<T>` owns its T alone (invariant 2) as a `Box<T>` does, and slots belong to no thread.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: a shared `Locked<T>` gives out `&T` and nothing more.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T: Pod> Locked<T> {
    /// An all-zero `T`, to be filled in place: the key then never passes through other memory.
    ///
    /// # Errors
    /// When memory can be neither mapped nor locked; the message says which limit to raise.
    pub fn zeroed() -> io::Result<Self> {
        Self::slot_for_one().map(|slot| Self { slot, holds: PhantomData })
    }
}

impl<T> Locked<T> {
    /// Moves `value` into locked memory and wipes the place it was passed in.
    ///
    /// Copies that the compiler made on the way here are out of reach; where `T` is [`Pod`], prefer
    /// [`Locked::zeroed`] and fill it in place.
    ///
    /// # Errors
    /// As [`Locked::zeroed`]; `value` is dropped then.
    pub fn new(value: T) -> io::Result<Self> {
        let slot = Self::slot_for_one()?;
        let mut value = ManuallyDrop::new(value);
        let from: *mut T = &raw mut *value;
        // SAFETY: the slot is ours (invariant 2), aligned and long enough for a T (invariant 3 and the check in
        // `slot_for_one`), and does not overlap our stack. After the copy the T lives in the slot only: the
        // `ManuallyDrop` never drops the source, which is then just bytes to be overwritten.
        unsafe {
            std::ptr::copy_nonoverlapping(from, slot.start.as_ptr().cast::<T>(), 1);
            wipe(from.cast::<u8>(), size_of::<T>());
        }
        Ok(Self { slot, holds: PhantomData })
    }

    fn slot_for_one() -> io::Result<Slot> {
        const { assert!(align_of::<T>() <= CACHE_LINE_BYTES, "slots are aligned to cache lines") }
        Slot::take(size_of::<T>())
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the slot holds a valid T since `new` moved one in, or since `zeroed` found it all zero (invariant 3)
        // and T is Pod. Aligned by invariant 3; ours alone by invariant 2, so `&self` rules out a writer.
        unsafe { self.slot.start.cast::<T>().as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` rules out any other reference.
        unsafe { self.slot.start.cast::<T>().as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the slot holds a valid T (see `deref`), dropped once: after this only `slot` is dropped, which
        // treats the memory as bytes.
        unsafe { self.slot.start.cast::<T>().drop_in_place() };
    }
}

/// A byte string in locked memory, of fixed capacity: key material while it is read, parsed or decoded.
///
/// It never grows by moving, so it leaves no copy behind. It has no `Debug`.
pub struct LockedBytes {
    slot: Slot,
    len: usize,
}

// SAFETY: it owns its slot alone (invariant 2), and slots belong to no thread.
unsafe impl Send for LockedBytes {}
// SAFETY: a shared `LockedBytes` gives out `&[u8]` and nothing more.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// An empty string with room for `capacity` bytes (or some more).
    ///
    /// # Errors
    /// As [`Locked::zeroed`].
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        Ok(Self { slot: Slot::take(capacity)?, len: 0 })
    }

    /// `len` zero bytes, to be filled in place.
    ///
    /// # Errors
    /// As [`Locked::zeroed`].
    pub fn zeroed(len: usize) -> io::Result<Self> {
        Ok(Self { slot: Slot::take(len)?, len })
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// As [`Locked::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// Reads `source` to its end, at most `limit` bytes, with no buffer in between.
    ///
    /// # Errors
    /// As [`Locked::zeroed`], what `source` says, and `InvalidData` when there is more than `limit`.
    pub fn read_from(mut source: impl io::Read, limit: usize) -> io::Result<Self> {
        let room = limit.checked_add(1).ok_or_else(|| too_long(limit))?;
        let mut bytes = Self::zeroed(room)?;
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match source.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled > limit {
            return Err(too_long(limit));
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Bytes that fit without a new allocation, at least what was asked for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slot.bytes
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `OutOfMemory` when they do not fit the capacity; nothing is appended then.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> io::Result<()> {
        let old = self.len;
        match old.checked_add(bytes.len()).filter(|&len| len <= self.slot.bytes) {
            Some(len) => self.len = len,
            None => return Err(io::Error::new(io::ErrorKind::OutOfMemory, "locked bytes are full")),
        }
        if let Some(room) = self.get_mut(old..) {
            room.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Shortens to `len` bytes and wipes the rest; does nothing when it is not longer.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rest) = self.get_mut(len..) {
            // SAFETY: `rest` is a live, exclusive byte slice: exactly its bytes are overwritten.
            unsafe { wipe(rest.as_mut_ptr(), rest.len()) };
            self.len = len;
        }
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` never exceeds the slot (every assignment checks), the slot is initialised (invariant 3: zero at
        // first, bytes afterwards) and ours (invariant 2).
        unsafe { std::slice::from_raw_parts(self.slot.start.as_ptr(), self.len) }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` rules out any other reference.
        unsafe { std::slice::from_raw_parts_mut(self.slot.start.as_ptr(), self.len) }
    }
}

/// Forbids core dumps of this process, and reading its memory as another unprivileged process of the same user.
///
/// Call it after the last change of user id, which sets the kernel's flag anew.
///
/// # Errors
/// What `setrlimit` and `prctl` say.
pub fn no_core_dumps() -> io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// One slot of locked memory, wiped and given back when dropped: two words, as every SA holds one.
///
/// What is too large for a class of the slab is a mapping of its own (invariant 4).
struct Slot {
    start: NonNull<u8>,
    bytes: usize,
}

impl Slot {
    fn take(bytes: usize) -> io::Result<Self> {
        let Some((class, slot_bytes)) = class_of(bytes) else {
            let (start, bytes) = locked_map(bytes)?.into_parts();
            return Ok(Self { start, bytes });
        };
        let mut slab = SLAB.lock().unwrap_or_else(PoisonError::into_inner);
        let start = slab.take(class, slot_bytes)?;
        Ok(Self { start, bytes: slot_bytes })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the slot is ours until it is given back below (invariant 2), `bytes` long and mapped (invariant 4);
        // what lived in it was dropped by the owner.
        unsafe { wipe(self.start.as_ptr(), self.bytes) };
        match class_of(self.bytes) {
            Some((class, _)) => {
                SLAB.lock().unwrap_or_else(PoisonError::into_inner).give_back(class, self.start);
            }
            // SAFETY: no class has so many bytes, so these are the parts of a mapping, taken apart in `take`.
            None => drop(unsafe { Map::from_parts(self.start, self.bytes) }),
        }
    }
}

static SLAB: Mutex<Slab> = Mutex::new(Slab { classes: [const { Class::EMPTY }; CLASSES] });

struct Slab {
    classes: [Class; CLASSES],
}

struct Class {
    free: Vec<NonNull<u8>>,
    slots: usize,
}

// SAFETY: the free list holds addresses of slots without an owner; no thread has a reference to them (invariant 2).
unsafe impl Send for Slab {}

impl Class {
    const EMPTY: Self = Self { free: Vec::new(), slots: 0 };
}

impl Slab {
    fn take(&mut self, class: usize, slot_bytes: usize) -> io::Result<NonNull<u8>> {
        let no_class = || io::Error::other("no such class of locked memory");
        let class = self.classes.get_mut(class).ok_or_else(no_class)?;
        if class.free.is_empty() {
            class.grow(slot_bytes)?;
        }
        class.free.pop().ok_or_else(|| io::Error::other("a new chunk of locked memory has no slot"))
    }

    fn give_back(&mut self, class: usize, slot: NonNull<u8>) {
        if let Some(class) = self.classes.get_mut(class) {
            class.free.push(slot);
        }
    }
}

impl Class {
    fn grow(&mut self, slot_bytes: usize) -> io::Result<()> {
        let chunk_bytes = if self.slots == 0 { CHUNK_BYTES / 4 } else { CHUNK_BYTES };
        let map = ManuallyDrop::new(locked_map(chunk_bytes)?);
        let slots = map.len() / slot_bytes;
        self.slots += slots;
        // Room for all slots of the class, so that giving back never allocates.
        self.free.reserve(self.slots - self.free.len());
        for slot in (0..slots).rev() {
            // SAFETY: `slot * slot_bytes + slot_bytes` is at most the length of the mapping, which stays (`ManuallyDrop`,
            // invariant 4). Slots do not overlap, are zero (fresh anonymous memory) and, as the mapping starts at a page
            // and `slot_bytes` is a multiple of 64, aligned (invariant 3).
            self.free.push(unsafe { map.start().add(slot * slot_bytes) });
        }
        Ok(())
    }
}

fn locked_map(bytes: usize) -> io::Result<Map> {
    let map = Map::anonymous(bytes)?;
    map.exclude_from_core_dumps()?;
    map.exclude_from_forks()?;
    map.lock()?;
    Ok(map)
}

/// Lines in each class: four classes to the doubling, so that at most a fifth of a slot lies idle (above 256 bytes).
const CLASS_LINES: [usize; CLASSES] = class_lines();
const CLASSES: usize = 32;

const fn class_lines() -> [usize; CLASSES] {
    let mut lines = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        lines[class] = if class < 4 { class + 1 } else { (5 + class % 4) << (class / 4 - 1) };
        class += 1;
    }
    lines
}

/// Class and slot size in bytes for something of `bytes`, or `None` when it needs a mapping of its own.
fn class_of(bytes: usize) -> Option<(usize, usize)> {
    if bytes > LARGEST_CLASS_BYTES {
        return None;
    }
    let lines = bytes.div_ceil(CACHE_LINE_BYTES).max(1);
    let class = CLASS_LINES.partition_point(|&class_lines| class_lines < lines);
    CLASS_LINES.get(class).map(|&lines| (class, lines * CACHE_LINE_BYTES))
}

fn too_long(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit} bytes of key material"))
}

/// Overwrites with zeros in a way that the compiler must keep.
///
/// # Safety
/// `start` must be valid for writes of `bytes` bytes, and nobody else may hold a reference to them.
unsafe fn wipe(start: *mut u8, bytes: usize) {
    let head = start.align_offset(align_of::<u64>()).min(bytes);
    let words = (bytes - head) / size_of::<u64>();
    let tail = head + words * size_of::<u64>();
    // SAFETY: head + 8 * words <= tail <= bytes, so all writes stay in what the caller vouches for; `start + head` is
    // aligned for u64 by definition of `align_offset` whenever `words` is not 0.
    unsafe {
        (0..head).for_each(|at| start.add(at).write_volatile(0));
        let first_word = start.add(head).cast::<u64>();
        (0..words).for_each(|at| first_word.add(at).write_volatile(0));
        (tail..bytes).for_each(|at| start.add(at).write_volatile(0));
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{in_own_process, vm_flags};

    /// The bytes of a slot without an owner.
    ///
    /// Sound only for a size class that one test alone uses: then nobody takes the slot meanwhile.
    fn bytes_of_free_slot(start: *const u8, bytes: usize) -> Vec<u8> {
        // SAFETY: the slot stays mapped (invariant 4) and has no owner (the caller's promise), so nobody writes it.
        unsafe { std::slice::from_raw_parts(start, bytes) }.to_vec()
    }

    #[repr(C)]
    struct Schedule {
        rounds: [[u8; 16]; 15],
        salt: u32,
        powers: [u128; 16],
    }

    // SAFETY: integers and arrays of them; padding after `salt` is allowed.
    unsafe impl Pod for Schedule {}

    #[test]
    fn a_key_schedule_is_filled_in_place_and_read_back() {
        let mut schedule = Locked::<Schedule>::zeroed().unwrap();
        assert!(schedule.rounds.as_flattened().iter().all(|&byte| byte == 0));
        schedule.rounds[14] = [7; 16];
        schedule.salt = 0xdead_beef;
        schedule.powers[15] = u128::MAX;
        assert_eq!(
            (schedule.rounds[14], schedule.salt, schedule.powers[15]),
            ([7; 16], 0xdead_beef, u128::MAX)
        );
        assert!((&raw const *schedule as usize).is_multiple_of(CACHE_LINE_BYTES));
    }

    #[test]
    fn pages_of_keys_are_locked_undumpable_and_not_inherited() {
        let small = Locked::<[u8; 40]>::zeroed().unwrap();
        let large = Locked::<[u8; 100_000]>::zeroed().unwrap();
        let text = LockedBytes::copy_of(b"a key").unwrap();
        for address in [small.as_ptr() as usize, large.as_ptr() as usize, text.as_ptr() as usize] {
            let flags = vm_flags(address);
            for flag in ["lo", "dd", "dc"] {
                assert!(flags.iter().any(|found| found == flag), "no {flag} in {flags:?}");
            }
        }
    }

    #[test]
    fn dropping_wipes_the_whole_slot() {
        const BYTES: usize = 27 << 10;
        let mut key = Locked::<[u8; BYTES]>::zeroed().unwrap();
        key.fill(0xa5);
        let start = key.as_ptr();
        drop(key);
        assert!(bytes_of_free_slot(start, 28 << 10).iter().all(|&byte| byte == 0));

        let again = Locked::<[u8; BYTES]>::zeroed().unwrap();
        assert_eq!(again.as_ptr(), start, "the slot is used again");
        assert!(again.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_value_with_drop_is_dropped_once_and_then_wiped() {
        struct Counted([u8; 23 << 10], &'static AtomicUsize);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
        static DROPS: AtomicUsize = AtomicUsize::new(0);

        let key = Locked::new(Counted([0x5a; 23 << 10], &DROPS)).unwrap();
        assert_eq!(DROPS.load(Ordering::Relaxed), 0);
        assert!(key.0.iter().all(|&byte| byte == 0x5a));
        let start: *const u8 = (&raw const *key).cast();
        drop(key);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
        assert!(bytes_of_free_slot(start, 24 << 10).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn truncating_wipes_what_is_cut_off() {
        let mut bytes = LockedBytes::copy_of(b"0123456789abcdef").unwrap();
        bytes.truncate(5);
        assert_eq!(&*bytes, b"01234");
        // SAFETY: the slot is owned by `bytes`, which is not touched while this slice lives.
        let slot = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.capacity()) };
        assert!(slot[5..].iter().all(|&byte| byte == 0));
        bytes.truncate(100);
        assert_eq!(bytes.len(), 5);
    }

    #[test]
    fn locked_bytes_fill_up_to_their_capacity_and_not_beyond() {
        let mut bytes = LockedBytes::with_capacity(64).unwrap();
        assert!(bytes.is_empty());
        bytes.extend_from_slice(&[1; 60]).unwrap();
        let start = bytes.as_ptr();
        let room = bytes.capacity() - bytes.len();
        assert!(bytes.extend_from_slice(&vec![2; room + 1]).is_err());
        assert_eq!(bytes.len(), 60);
        bytes.extend_from_slice(&vec![2; room]).unwrap();
        assert_eq!((bytes.as_ptr(), bytes.len()), (start, bytes.capacity()));
    }

    #[test]
    fn a_file_of_keys_is_read_whole_or_refused() {
        let text = [b'x'; 300];
        assert_eq!(&*LockedBytes::read_from(&text[..], 300).unwrap(), &text[..]);
        assert_eq!(&*LockedBytes::read_from(&text[..], 1000).unwrap(), &text[..]);
        assert_eq!(LockedBytes::read_from(&text[..], 299).err().unwrap().kind(), io::ErrorKind::InvalidData);
        assert!(LockedBytes::read_from(&text[..], usize::MAX).is_err());
        assert!(LockedBytes::read_from(io::empty(), 0).unwrap().is_empty());
    }

    #[test]
    fn every_size_gets_a_slot_that_holds_it_without_much_waste() {
        let mut last = 0;
        for bytes in 0..=LARGEST_CLASS_BYTES {
            let (class, slot) = class_of(bytes).unwrap();
            assert!(slot >= bytes && slot.is_multiple_of(CACHE_LINE_BYTES) && class < CLASSES);
            assert!(slot >= last, "sizes ascend");
            assert!(slot <= 256 || slot * 4 <= bytes * 5 + 256, "{bytes} in {slot}");
            assert_eq!(class_of(slot), Some((class, slot)), "a slot is returned to the class it came from");
            last = slot;
        }
        assert_eq!(class_of(LARGEST_CLASS_BYTES + 1), None);
    }

    #[test]
    fn thousands_of_keys_share_few_mappings_and_never_overlap() {
        let mut keys: Vec<_> = (0..2000_u32).map(|_| Locked::<[u32; 250]>::zeroed().unwrap()).collect();
        for (number, key) in (0..).zip(&mut keys) {
            key.fill(number);
        }
        assert!((0..).zip(&keys).all(|(number, key)| key.iter().all(|&word| word == number)));
        let (class, _) = class_of(1000).unwrap();
        let slots = SLAB.lock().unwrap().classes[class].slots;
        assert!((2000..3000).contains(&slots), "{slots} slots for 2000 keys");
    }

    #[test]
    fn threads_take_and_give_back_without_seeing_each_others_bytes() {
        std::thread::scope(|scope| {
            for thread in 1..=4_u8 {
                scope.spawn(move || {
                    for round in 0..300_usize {
                        let mut taken = LockedBytes::zeroed(1 + round * 7 % 2000).unwrap();
                        assert!(taken.iter().all(|&byte| byte == 0));
                        taken.fill(thread);
                        let mut fixed = Locked::<[u8; 333]>::zeroed().unwrap();
                        fixed.fill(thread);
                        std::thread::yield_now();
                        assert!(taken.iter().chain(fixed.iter()).all(|&byte| byte == thread));
                    }
                });
            }
        });
    }

    #[test]
    fn a_failing_lock_names_the_limit_and_the_capability() {
        in_own_process("locked::tests::a_failing_lock_names_the_limit_and_the_capability", || {
            drop_ipc_lock();
            let limit = Rlimit { current: Some(4096), maximum: Some(4096) };
            rustix::process::setrlimit(Resource::Memlock, limit).unwrap();
            let message = LockedBytes::zeroed(5000).err().expect("no room to lock 64 KiB").to_string();
            for part in ["RLIMIT_MEMLOCK", "4096 bytes", "CAP_IPC_LOCK"] {
                assert!(message.contains(part), "no {part} in: {message}");
            }
        });
    }

    fn drop_ipc_lock() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).unwrap();
    }

    #[test]
    fn after_no_core_dumps_there_is_no_dump_and_no_way_back() {
        in_own_process("locked::tests::after_no_core_dumps_there_is_no_dump_and_no_way_back", || {
            no_core_dumps().unwrap();
            let behavior = rustix::process::dumpable_behavior().unwrap();
            assert_eq!(behavior, DumpableBehavior::NotDumpable);
            let limit = rustix::process::getrlimit(Resource::Core);
            assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        });
    }

    proptest! {
        #[test]
        fn wiping_clears_its_bytes_and_no_others(before in 0..40_usize, len in 0..200_usize, after in 0..40_usize) {
            let mut bytes = vec![0xa5_u8; before + len + after];
            // SAFETY: `before + len` is inside the vector.
            unsafe { wipe(bytes.as_mut_ptr().add(before), len) };
            let expected: Vec<u8> = [vec![0xa5; before], vec![0; len], vec![0xa5; after]].concat();
            prop_assert_eq!(bytes, expected);
        }
    }
}
