// SPDX-License-Identifier: Apache-2.0
//! What the tests of every format share.

use std::vec::Vec;

/// The bytes of `text`, hexadecimal digits with any white space between them.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("a hexadecimal digit")).unwrap())
        .collect();
    assert!(digits.len().is_multiple_of(2), "pairs of digits");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Calls `parse` on every proper prefix of `bytes`; each must be refused.
pub(crate) fn refuses_every_truncation<'a, T, E>(bytes: &'a [u8], parse: impl Fn(&'a [u8]) -> Result<T, E>) {
    assert!(parse(bytes).is_ok(), "the whole must parse");
    for length in 0..bytes.len() {
        assert!(parse(&bytes[..length]).is_err(), "{length} bytes of {} pass", bytes.len());
    }
}

/// A buffer that nothing legitimate fills by chance.
pub(crate) const DIRTY: [u8; 2048] = [0xa5; 2048];

/// Such a buffer for one use.
pub(crate) fn dirty() -> [u8; 2048] {
    DIRTY
}
