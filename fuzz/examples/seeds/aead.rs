// SPDX-License-Identifier: Apache-2.0
//! Bursts for `aead`, in its own language.

use super::Seed;
use super::frames::hex;

/// Key size and ICV of two keys, by number, with their octets.
fn keys(first: (u8, u8), second: (u8, u8)) -> String {
    let key = |(size, icv): (u8, u8), octet: u8| format!("{size:02x} {icv:02x} {}", hex_of(octet, 32));
    key(first, 0x11) + &key(second, 0x2e)
}

/// Flags (1 the second key, 2 ESN), nonce, SPI, sequence number, a length, an alignment and what is to be wrong.
fn job(flags: u8, length: usize, alignment: u8, wrong: &str) -> String {
    format!("{:02x} {} 00001001 07 {length:04x} {alignment:02x} {wrong}", flags | 4, hex_of(0x4e, 12))
}

fn hex_of(octet: u8, count: usize) -> String {
    format!("{octet:02x}").repeat(count)
}

/// A bit of the text, one of the nonce, the AAD, cut to nothing, cut by one.
const WRONG: [&str; 5] = ["07 0003", "00 05", "01", "02 ffff", "02 0000"];

pub(super) fn seeds() -> Vec<Seed> {
    let seed = |name: String, text: String| (name, hex(&text));
    let mut seeds = Vec::new();
    for size in 0..3 {
        for icv in 0..3 {
            let jobs: String = (0..12)
                .map(|n| job(n as u8 % 4, n * 23 + usize::from(icv), n as u8 * 5, WRONG[n % 5]))
                .collect();
            seeds.push(seed(format!("key-{size}-icv-{icv}"), keys((size, icv), (2 - size, 2 - icv)) + &jobs));
        }
    }
    // Around the ends of vectors and groups of every width, then of real packets.
    let ends =
        [15, 16, 17, 63, 64, 65, 127, 128, 129, 239, 240, 241, 255, 256, 257, 511, 512, 513, 767, 1_023];
    for lengths in ends.chunks(10).chain([&[1_400, 1_424, 1_439, 4_096][..], &[8_999, 9_215, 9_216]]) {
        let jobs =
            lengths.iter().zip(0..).map(|(length, n)| job(n % 4, *length, n * 9, WRONG[usize::from(n) % 5]));
        let jobs: String = jobs.collect();
        seeds.push(seed(format!("lengths-{}", lengths[0]), keys((0, 0), (2, 1)) + &jobs));
    }
    seeds
}
