// SPDX-License-Identifier: Apache-2.0
//! The burst interface: mixed keys and engines, failures among successes, length bounds.

use super::{ICV_LENGTHS, KEY_SIZES, engines, in_guards, open_one, seal_one};
use crate::{Aad, BURST, IcvLength, Key, LengthError, MAX_TEXT_BYTES, OpenJob, SealJob, open, seal};

/// Keys of every engine, size and ICV length, all different.
fn mixed_keys() -> Vec<Key> {
    let mut keys = Vec::new();
    for engine in engines() {
        for size in KEY_SIZES {
            for icv in ICV_LENGTHS {
                let number = u8::try_from(keys.len()).unwrap();
                keys.push(engine.key(&vec![number; size.bytes()], icv).unwrap());
            }
        }
    }
    keys
}

struct Packet {
    key: usize,
    nonce: [u8; 12],
    aad: Aad,
    plaintext: Vec<u8>,
}

/// Packets of different lengths, AADs and keys.
fn packets(count: usize, keys: usize) -> Vec<Packet> {
    let packet = |number: usize| {
        let octet = (number % 251) as u8;
        let word = u32::try_from(number).unwrap();
        Packet {
            key: number * 7 % keys,
            nonce: [octet; 12],
            aad: if number.is_multiple_of(2) { Aad::short(word, 1) } else { Aad::extended(word, 2, 3) },
            plaintext: vec![octet ^ 0x3c; number * 37 % 1600],
        }
    };
    (0..count).map(packet).collect()
}

fn sealed_alone(keys: &[Key], packet: &Packet) -> Vec<u8> {
    seal_one(&keys[packet.key], &packet.nonce, packet.aad.as_slice(), &packet.plaintext)
}

#[test]
fn a_burst_of_mixed_keys_seals_as_its_packets_do_alone() {
    let keys = mixed_keys();
    for count in [0, 1, 2, 31, BURST, BURST + 1, 3 * BURST] {
        let packets = packets(count, keys.len());
        let mut buffers: Vec<_> = packets
            .iter()
            .map(|packet| [&packet.plaintext[..], &vec![0; keys[packet.key].icv_length().bytes()]].concat())
            .collect();
        let mut jobs: Vec<_> = packets
            .iter()
            .zip(&mut buffers)
            .map(|(packet, buffer)| {
                SealJob::new(&keys[packet.key], packet.nonce, packet.aad, buffer).unwrap()
            })
            .collect();
        seal(&mut jobs);
        for (packet, buffer) in packets.iter().zip(&buffers) {
            assert!(buffer == &sealed_alone(&keys, packet), "{:?}", keys[packet.key].engine());
        }
    }
}

#[test]
fn in_a_burst_exactly_the_damaged_packets_fail() {
    let keys = mixed_keys();
    let packets = packets(2 * BURST, keys.len());
    let damaged = |number: usize| number % 5 == 2;
    let mut buffers: Vec<_> = packets.iter().map(|packet| sealed_alone(&keys, packet)).collect();
    for (number, buffer) in buffers.iter_mut().enumerate().filter(|(number, _)| damaged(*number)) {
        let at = number * 13 % buffer.len();
        buffer[at] ^= 0x10;
    }
    let mut jobs: Vec<_> = packets
        .iter()
        .zip(&mut buffers)
        .map(|(packet, buffer)| OpenJob {
            key: &keys[packet.key],
            nonce: packet.nonce,
            aad: packet.aad,
            buffer,
            // What was there before counts for nothing.
            verified: packet.plaintext.len() % 2 == 0,
        })
        .collect();
    open(&mut jobs);
    for (number, (packet, job)) in packets.iter().zip(&jobs).enumerate() {
        assert_eq!(job.verified, !damaged(number), "packet {number}");
        let text = &job.buffer[..packet.plaintext.len()];
        if damaged(number) {
            assert!(text.iter().all(|&octet| octet == 0), "packet {number}");
        } else {
            assert!(text == packet.plaintext, "packet {number}");
        }
    }
}

#[test]
fn a_buffer_shorter_than_the_icv_is_neither_sealed_nor_verified_nor_touched() {
    for key in mixed_keys() {
        let icv_bytes = key.icv_length().bytes();
        for buffer_bytes in 0..icv_bytes {
            let content = vec![0x99; buffer_bytes];
            let (after, verified) = in_guards(&content, |buffer| {
                let error = SealJob::new(&key, [0; 12], Aad::short(1, 1), buffer).err();
                assert_eq!(error, Some(LengthError { buffer_bytes, icv_bytes }));
                let mut jobs = [OpenJob::new(&key, [0; 12], Aad::short(1, 1), buffer)];
                open(&mut jobs);
                jobs[0].verified
            });
            assert_eq!((after, verified), (content, false));
        }
    }
}

#[test]
fn an_empty_text_has_an_icv_that_verifies() {
    for key in mixed_keys() {
        let sealed = seal_one(&key, &[5; 12], &[6; 8], &[]);
        assert_eq!(sealed.len(), key.icv_length().bytes());
        assert_eq!(open_one(&key, &[5; 12], &[6; 8], &sealed), Ok(vec![]));
        assert_eq!(open_one(&key, &[5; 12], &[7; 8], &sealed), Err(vec![]));
    }
}

#[test]
fn the_longest_text_is_sealed_alike_by_all_engines_and_one_octet_more_is_refused() {
    let nonce = [8; 12];
    let aad = Aad::extended(1, 2, 3);
    let mut sealed_by_first = None;
    for engine in engines() {
        let key = engine.key(&[0x31; 16], IcvLength::Sixteen).unwrap();
        let mut buffer = vec![0x44; MAX_TEXT_BYTES + 16];
        seal(&mut [SealJob::new(&key, nonce, aad, &mut buffer).unwrap()]);
        assert!(&buffer == sealed_by_first.get_or_insert_with(|| buffer.clone()), "{engine:?}");

        let mut jobs = [OpenJob::new(&key, nonce, aad, &mut buffer)];
        open(&mut jobs);
        assert!(jobs[0].verified);
        assert!(buffer[..MAX_TEXT_BYTES].iter().all(|&octet| octet == 0x44));

        let mut too_long = vec![0x55; MAX_TEXT_BYTES + 17];
        assert!(SealJob::new(&key, nonce, aad, &mut too_long).is_err());
        let mut jobs = [OpenJob::new(&key, nonce, aad, &mut too_long)];
        open(&mut jobs);
        assert!(!jobs[0].verified);
        assert!(too_long.iter().all(|&octet| octet == 0x55));
    }
}
