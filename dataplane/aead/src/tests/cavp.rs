// SPDX-License-Identifier: Apache-2.0
//! NIST CAVP: GCM with a nonce of 96 bits and tags of 64, 96 and 128 bits (`vectors/README.md`).

use super::{engines, hex_field, open_one, seal_one};
use crate::IcvLength;

const ENCRYPT: [&str; 3] = [
    include_str!("../../vectors/cavp/gcmEncryptExtIV128.rsp"),
    include_str!("../../vectors/cavp/gcmEncryptExtIV192.rsp"),
    include_str!("../../vectors/cavp/gcmEncryptExtIV256.rsp"),
];
const DECRYPT: [&str; 3] = [
    include_str!("../../vectors/cavp/gcmDecrypt128.rsp"),
    include_str!("../../vectors/cavp/gcmDecrypt192.rsp"),
    include_str!("../../vectors/cavp/gcmDecrypt256.rsp"),
];

struct Record {
    key: Vec<u8>,
    nonce: [u8; 12],
    aad: Vec<u8>,
    sealed: Vec<u8>,
    icv: IcvLength,
    /// `None` where the tag is wrong.
    plaintext: Option<Vec<u8>>,
}

#[test]
fn every_cavp_encryption_vector_seals_and_opens() {
    for engine in engines() {
        let mut count = 0;
        for record in ENCRYPT.into_iter().flat_map(records) {
            let key = engine.key(&record.key, record.icv).unwrap();
            let plaintext = record.plaintext.unwrap();
            assert_eq!(
                seal_one(&key, &record.nonce, &record.aad, &plaintext),
                record.sealed,
                "{engine:?} {count}"
            );
            assert_eq!(open_one(&key, &record.nonce, &record.aad, &record.sealed), Ok(plaintext));
            count += 1;
        }
        assert_eq!(count, 3 * 1125, "{engine:?}");
    }
}

#[test]
fn every_cavp_decryption_vector_opens_or_fails_as_it_says() {
    for engine in engines() {
        let (mut passed, mut failed) = (0, 0);
        for record in DECRYPT.into_iter().flat_map(records) {
            let key = engine.key(&record.key, record.icv).unwrap();
            let opened = open_one(&key, &record.nonce, &record.aad, &record.sealed);
            let text_bytes = record.sealed.len() - record.icv.bytes();
            match record.plaintext {
                Some(plaintext) => {
                    assert_eq!(opened, Ok(plaintext), "{engine:?}");
                    passed += 1;
                }
                None => {
                    assert_eq!(opened, Err(vec![0; text_bytes]), "{engine:?}");
                    failed += 1;
                }
            }
        }
        assert_eq!((passed, failed), (3 * 1125 - 1694, 1694), "{engine:?}");
    }
}

/// The records of a response file; whatever is no record, comment or group head is an error.
fn records(file: &'static str) -> impl Iterator<Item = Record> {
    file.split("\n\n").filter_map(|paragraph| {
        let lines = paragraph.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
        let fields: Vec<_> = lines.map(|line| line.split_once('=').unwrap_or((line, ""))).collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.trim(), value.trim())).collect();
        (!fields.is_empty()).then(|| record(&fields))
    })
}

fn record(fields: &[(&str, &str)]) -> Record {
    let failing = fields.iter().any(|(name, _)| *name == "FAIL");
    let tag = hex_field(fields, "Tag");
    Record {
        key: hex_field(fields, "Key"),
        nonce: hex_field(fields, "IV").try_into().unwrap(),
        aad: hex_field(fields, "AAD"),
        icv: tag.len().try_into().unwrap(),
        sealed: [hex_field(fields, "CT"), tag].concat(),
        plaintext: (!failing).then(|| hex_field(fields, "PT")),
    }
}
