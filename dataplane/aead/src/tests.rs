// SPDX-License-Identifier: Apache-2.0
//! Published vectors and properties, each on every engine that this machine has.
//!
//! They are inside the crate because many vectors have AADs that ESP cannot have: [`seal_one`] and
//! [`open_one`] go below the burst interface.

mod bursts;
mod cavp;
mod differential;
mod draft_mcgrew;
#[cfg(target_arch = "x86_64")]
mod guard_pages;
mod wycheproof;

use crate::engine::Scratch;
use crate::{Engine, IcvLength, Key, KeyError, KeySize};

const ICV_LENGTHS: [IcvLength; 3] = [IcvLength::Eight, IcvLength::Twelve, IcvLength::Sixteen];
const KEY_SIZES: [KeySize; 3] = [KeySize::Aes128, KeySize::Aes192, KeySize::Aes256];

/// What every test runs on: the engines that are available, and the native one in all its forms.
fn engines() -> impl Iterator<Item = Engine> {
    Engine::in_every_form()
}

/// What the others are held against.
fn reference() -> Engine {
    Engine::named("aes-gcm").unwrap()
}

/// Octets without a pattern that an engine could be blind to.
fn text(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Octets that lie around every buffer under test and must not change.
const GUARD: [u8; 64] = [0xa5; 64];

/// Ciphertext and ICV of one text.
fn seal_one(key: &Key, nonce: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let icv_bytes = key.icv_length().bytes();
    in_guards(&[plaintext, &vec![0x5a; icv_bytes]].concat(), |buffer| {
        let (text, icv) = buffer.split_at_mut(plaintext.len());
        key.seal_parts(&mut Scratch::new(), nonce, aad, text, icv);
    })
    .0
}

/// The plaintext; or, after a failure, the text as it was left.
fn open_one(key: &Key, nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let text_bytes = sealed.len() - key.icv_length().bytes();
    let (mut buffer, verified) = in_guards(sealed, |buffer| {
        let (text, icv) = buffer.split_at_mut(text_bytes);
        key.open_parts(&mut Scratch::new(), nonce, aad, text, icv)
    });
    assert_eq!(buffer[text_bytes..], sealed[text_bytes..], "the ICV is left as it was");
    buffer.truncate(text_bytes);
    if verified { Ok(buffer) } else { Err(buffer) }
}

/// What `work` makes of `content`, and what it returns, with a look at the octets around the buffer.
fn in_guards<R>(content: &[u8], work: impl FnOnce(&mut [u8]) -> R) -> (Vec<u8>, R) {
    let mut memory = [&GUARD, content, &GUARD].concat();
    let end = GUARD.len() + content.len();
    let result = work(&mut memory[GUARD.len()..end]);
    assert_eq!((&memory[..GUARD.len()], &memory[end..]), (&GUARD[..], &GUARD[..]), "written outside");
    (memory[GUARD.len()..end].to_vec(), result)
}

/// The octets of the field `name` in a record of names and hexadecimal values.
fn hex_field(record: &[(&str, &str)], name: &str) -> Vec<u8> {
    let (_, value) = record.iter().find(|(field, _)| *field == name).unwrap_or_else(|| panic!("no {name}"));
    hex::decode(value).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn an_engine_is_available_where_build_and_cpu_have_what_it_needs() {
    let names: Vec<_> = Engine::available().map(Engine::name).collect();
    #[cfg(target_arch = "x86_64")]
    let (instructions, avx) = (
        std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq"),
        std::arch::is_x86_feature_detected!("avx"),
    );
    #[cfg(not(target_arch = "x86_64"))]
    let (instructions, avx) = (false, false);
    assert_eq!(names.contains(&"native"), instructions && avx);
    assert_eq!(names.contains(&"ipsec-mb"), instructions && cfg!(have_ipsec_mb));
    assert_eq!(names.last(), Some(&"aes-gcm"));
}

/// That every test here ran on this form of the native engine too; else a line that says which it was.
#[cfg(target_arch = "x86_64")]
fn ran_on(form: crate::engine::native::Form) {
    use std::io::Write;

    let description = format!("native ({})", form.path());
    if !engines().any(|engine| engine.describe() == description) {
        let line = format!("skipped: native-engine: this CPU does not run {}\n", form.path());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_512_bit_form_of_the_native_engine_is_under_test() {
    ran_on(crate::engine::native::Form::Wide512);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_256_bit_form_of_the_native_engine_is_under_test() {
    ran_on(crate::engine::native::Form::Wide256);
}

#[test]
fn a_key_knows_its_engine_its_size_and_its_icv_length() {
    for engine in engines() {
        for size in KEY_SIZES {
            for icv in ICV_LENGTHS {
                let key = engine.key(&vec![7; size.bytes()], icv).unwrap();
                assert_eq!((key.engine(), key.size(), key.icv_length()), (engine, size, icv));
            }
        }
    }
}

#[test]
fn keys_of_other_lengths_are_refused_and_named_by_length_only() {
    for engine in engines() {
        for length in (0..=64).filter(|length| ![16, 24, 32].contains(length)) {
            let error = engine.key(&vec![0xee; length], IcvLength::Sixteen).err().unwrap();
            assert!(matches!(error, KeyError::Length(bytes) if bytes == length));
            assert!(!error.to_string().contains("ee,") && !error.to_string().contains("238"));
        }
    }
}

#[test]
fn one_key_serves_many_threads_at_once() {
    for engine in engines() {
        let key = engine.key(&[0x42; 32], IcvLength::Sixteen).unwrap();
        let expected = seal_one(&key, &[9; 12], &[1; 12], &[0x33; 700]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert_eq!(seal_one(&key, &[9; 12], &[1; 12], &[0x33; 700]), expected);
                    }
                });
            }
        });
    }
}
