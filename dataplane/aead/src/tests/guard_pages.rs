// SPDX-License-Identifier: Apache-2.0
//! Buffers against pages that nobody may touch: an octet read or written outside kills the test.
//!
//! ```text
//! | inaccessible | buffer ...              ... buffer | inaccessible |
//!                ^ begins here              or ends here ^
//! ```
#![expect(unsafe_code, reason = "mappings, and references into them")]

use core::ffi::c_void;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::{ICV_LENGTHS, KEY_SIZES, engines, reference, seal_one, text};
use crate::engine::Scratch;
use crate::{Aad, Engine, IcvLength, Key, KeySize, OpenJob, SealJob, open, seal};

/// What lies around a buffer inside its pages.
const UNTOUCHED: u8 = 0xa5;
/// As many octets around a buffer are looked at.
const LOOKED_AT: usize = 256;

/// Accessible pages between two that are not.
struct Guarded {
    start: *mut u8,
    page: usize,
    bytes: usize,
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug)]
enum At {
    Start,
    End,
}

impl Guarded {
    /// Room for `bytes`.
    fn new(bytes: usize) -> Self {
        let page = rustix::param::page_size();
        let bytes = bytes.next_multiple_of(page);
        let (all, nothing) = (ProtFlags::READ | ProtFlags::WRITE, MprotectFlags::empty());
        // SAFETY: the kernel chooses addresses that nothing uses; the two pages lie inside what it returned.
        unsafe {
            let start =
                mmap_anonymous(core::ptr::null_mut(), bytes + 2 * page, all, MapFlags::PRIVATE).unwrap();
            mprotect(start, page, nothing).unwrap();
            mprotect(start.byte_add(page + bytes), page, nothing).unwrap();
            Self { start: start.cast::<u8>().add(page), page, bytes }
        }
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: these pages are ours, readable and writable until `self` goes, and borrowed with `self`.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.bytes) }
    }

    /// The first or the last octets, set to `content`; others that are near are untouched.
    fn hold(&mut self, at: At, content: &[u8]) -> &mut [u8] {
        let (all, length) = (self.all(), content.len());
        let near = length + LOOKED_AT;
        let from = match at {
            At::Start => 0,
            At::End => all.len() - length,
        };
        let around = match at {
            At::Start => 0..near.min(all.len()),
            At::End => all.len().saturating_sub(near)..all.len(),
        };
        all[around].fill(UNTOUCHED);
        let held = &mut all[from..from + length];
        held.copy_from_slice(content);
        held
    }

    /// Whether what lies beside the first or the last `length` octets is untouched.
    fn is_untouched_beside(&mut self, at: At, length: usize) -> bool {
        let all = self.all();
        let beside = match at {
            At::Start => length..(length + LOOKED_AT).min(all.len()),
            At::End => (all.len() - length).saturating_sub(LOOKED_AT)..all.len() - length,
        };
        all[beside].iter().all(|octet| *octet == UNTOUCHED)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which no reference lives longer than `self`.
        unsafe { munmap(self.start.sub(self.page).cast::<c_void>(), self.bytes + 2 * self.page).unwrap() };
    }
}

/// One place for each thing that an engine is given.
struct Places {
    nonce: Guarded,
    aad: Guarded,
    text: Guarded,
    icv: Guarded,
}

impl Places {
    fn new() -> Self {
        let [nonce, aad, icv] = [16; 3].map(Guarded::new);
        Self { nonce, aad, text: Guarded::new(LONGEST + 16), icv }
    }
}

/// A text, and what the reference makes of it.
struct Case<'a> {
    key: &'a Key,
    aad: Aad,
    plaintext: &'a [u8],
    sealed: &'a [u8],
}

const NONCE: [u8; 12] = [0x4e; 12];
const LONGEST: usize = 9_216;
/// Every length to some vectors of every width and more than two of its groups, and some of real packets.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=600).chain([1_023, 1_024, 1_040, 1_400, 1_424, 1_500, 2_047, 4_080, 4_096, 4_097, 8_999, LONGEST])
}

fn seals_and_opens(case: &Case<'_>, places: &mut Places, at: At) {
    let &Case { key, aad, plaintext, sealed } = case;
    let (ciphertext, right_icv) = sealed.split_at(plaintext.len());
    let what = || format!("{:?}, {} octets, {at:?}", key.engine(), plaintext.len());
    let nonce: &[u8; 12] = (&*places.nonce.hold(at, &NONCE)).try_into().unwrap();
    let aad = &*places.aad.hold(at, aad.as_slice());
    let scratch = &mut Scratch::new();

    // Text and ICV apart, each against its own page.
    let text = places.text.hold(at, plaintext);
    let icv = places.icv.hold(at, &vec![0; right_icv.len()]);
    key.seal_parts(scratch, nonce, aad, text, icv);
    assert!(text == ciphertext && icv == right_icv, "{}", what());
    assert!(key.open_parts(scratch, nonce, aad, text, icv) && text == plaintext, "{}", what());
    icv[0] ^= 1;
    assert!(!key.open_parts(scratch, nonce, aad, text, icv) && text.iter().all(|o| *o == 0), "{}", what());
    assert!(places.text.is_untouched_beside(at, plaintext.len()), "{}", what());
    assert!(places.icv.is_untouched_beside(at, right_icv.len()), "{}", what());
    assert!(
        places.nonce.is_untouched_beside(at, 12)
            && places.aad.is_untouched_beside(at, case.aad.as_slice().len())
    );

    // As a packet has them, through the burst interface.
    let buffer = places.text.hold(at, &[plaintext, &vec![0; right_icv.len()]].concat());
    seal(&mut [SealJob::new(key, NONCE, case.aad, buffer).unwrap()]);
    assert!(buffer == sealed, "{}", what());
    let mut jobs = [OpenJob::new(key, NONCE, case.aad, buffer)];
    open(&mut jobs);
    assert!(jobs[0].verified && jobs[0].buffer[..plaintext.len()] == *plaintext, "{}", what());
    assert!(places.text.is_untouched_beside(at, sealed.len()), "{}", what());
}

fn native_forms() -> impl Iterator<Item = Engine> {
    engines().filter(|engine| engine.name() == "native")
}

fn run(size: KeySize, icv: IcvLength, lengths: impl Iterator<Item = usize>) {
    let octets = vec![0x6b; size.bytes()];
    let keys: Vec<_> = native_forms().map(|engine| engine.key(&octets, icv).unwrap()).collect();
    let reference = reference().key(&octets, icv).unwrap();
    let (mut places, plaintext) = (Places::new(), text(LONGEST, 2_784));
    for plaintext in lengths.map(|length| &plaintext[..length]) {
        for aad in [Aad::short(0x1001, 7), Aad::extended(0x1001, 1, 7)] {
            let sealed = seal_one(&reference, &NONCE, aad.as_slice(), plaintext);
            for key in &keys {
                for at in [At::Start, At::End] {
                    seals_and_opens(&Case { key, aad, plaintext, sealed: &sealed }, &mut places, at);
                }
            }
        }
    }
}

#[test]
fn no_form_touches_an_octet_outside_its_buffers() {
    for icv in ICV_LENGTHS {
        run(KeySize::Aes128, icv, lengths());
    }
}

#[test]
fn nor_does_it_with_longer_keys() {
    for size in KEY_SIZES {
        run(size, IcvLength::Sixteen, lengths().step_by(7));
    }
}

/// An AAD that ESP does not have goes another way through the engine.
#[test]
fn nor_with_any_other_aad() {
    let key = |engine: Engine| engine.key(&[0x6b; 16], IcvLength::Sixteen).unwrap();
    let keys: Vec<_> = native_forms().map(key).collect();
    let reference = key(reference());
    let (mut places, octets) = (Places::new(), text(600, 2_890));
    for aad in (0..=70).map(|length| &octets[..length]) {
        let sealed = seal_one(&reference, &NONCE, aad, &octets[..33]);
        for (key, at) in keys.iter().flat_map(|key| [(key, At::Start), (key, At::End)]) {
            let aad = &*places.aad.hold(at, aad);
            let buffer = places.text.hold(at, &[&octets[..33], &[0; 16]].concat());
            let (text, icv) = buffer.split_at_mut(33);
            key.seal_parts(&mut Scratch::new(), &NONCE, aad, text, icv);
            assert!(buffer == sealed, "{:?}, AAD of {} octets, {at:?}", key.engine(), aad.len());
        }
    }
}

#[test]
fn the_pages_on_both_sides_are_inaccessible() {
    let guarded = Guarded::new(1);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let access = |address: usize| {
        let holds = |line: &&str| {
            let (range, _) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let parse = |text| usize::from_str_radix(text, 16).unwrap();
            (parse(from)..parse(to)).contains(&address)
        };
        maps.lines().find(holds).and_then(|line| line.split(' ').nth(1)).unwrap().to_owned()
    };
    let start = guarded.start.addr();
    let accesses = [start - 1, start, start + guarded.bytes - 1, start + guarded.bytes].map(access);
    assert_eq!(accesses, ["---p", "rw-p", "rw-p", "---p"]);
}
