// SPDX-License-Identifier: Apache-2.0
//! As many keys as the largest headend holds; alone in its process, as it takes 60 MB of locked memory.

use std::collections::HashSet;
use std::io::Write;

use greyhound_aead::{Aad, Engine, IcvLength, Key, KeyError, SealJob, seal};

const KEYS: u32 = 60_000;

fn key(engine: Engine, number: u32) -> Result<Key, KeyError> {
    engine.key(&u128::from(number).to_be_bytes(), IcvLength::Sixteen)
}

/// The ICV of the empty text: another one for each key.
fn icv(key: &Key) -> [u8; 16] {
    let mut buffer = [0; 16];
    seal(&mut [SealJob::new(key, [1; 12], Aad::short(2, 3), &mut buffer).expect("room for the ICV")]);
    buffer
}

#[test]
fn sixty_thousand_keys_are_all_different_and_all_right() {
    let engine = Engine::best();
    let mut keys = Vec::new();
    for number in 0..KEYS {
        match key(engine, number) {
            Ok(key) => keys.push(key),
            Err(error) if std::env::var_os("GREYHOUND_REQUIRE_ALL").is_none() => {
                let reason = format!("skipped: only {number} of {KEYS} keys: {error:?}");
                writeln!(std::io::stderr(), "{reason}").expect("standard error");
                return;
            }
            Err(error) => panic!("key {number} of {KEYS}: {error:?}"),
        }
    }
    let icvs: HashSet<_> = keys.iter().map(icv).collect();
    assert_eq!(icvs.len(), keys.len());
    for (number, one_of_many) in (0..).zip(&keys).step_by(97) {
        assert_eq!(icv(one_of_many), icv(&key(engine, number).unwrap()), "key {number}");
    }
}
