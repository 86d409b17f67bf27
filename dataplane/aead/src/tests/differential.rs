// SPDX-License-Identifier: Apache-2.0
//! Every engine against the reference, and properties of each.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{ICV_LENGTHS, KEY_SIZES, engines, open_one, reference, seal_one, text};
use crate::{Aad, Engine, IcvLength, Key, KeySize};

fn aad() -> impl Strategy<Value = Aad> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(spi, number)| Aad::short(spi, number)),
        any::<(u32, u32, u32)>().prop_map(|(spi, high, low)| Aad::extended(spi, high, low)),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..=2048_usize, 1 => 2049..=9216_usize]
}

/// A key's octets: of a size that AES has.
fn key_octets() -> impl Strategy<Value = Vec<u8>> {
    select(&KEY_SIZES[..]).prop_flat_map(|size: KeySize| vec(any::<u8>(), size.bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn engines_agree_and_open_what_the_others_seal(
        octets in key_octets(),
        icv in select(&ICV_LENGTHS[..]),
        nonce in any::<[u8; 12]>(),
        aad in aad(),
        length in length(),
        seed in any::<u64>(),
    ) {
        let plaintext = text(length, seed);
        let expected = seal_one(&reference().key(&octets, icv).unwrap(), &nonce, aad.as_slice(), &plaintext);
        for engine in engines() {
            let key = engine.key(&octets, icv).unwrap();
            prop_assert!(seal_one(&key, &nonce, aad.as_slice(), &plaintext) == expected, "{:?}", engine);
            let opened = open_one(&key, &nonce, aad.as_slice(), &expected);
            prop_assert!(opened.as_ref() == Ok(&plaintext), "{:?}", engine);
        }
    }

    #[test]
    fn a_shorter_icv_is_the_beginning_of_the_longest(
        octets in key_octets(),
        nonce in any::<[u8; 12]>(),
        aad in aad(),
        length in 0..=300_usize,
        seed in any::<u64>(),
    ) {
        let plaintext = text(length, seed);
        for engine in engines() {
            let sealed = |icv| seal_one(&engine.key(&octets, icv).unwrap(), &nonce, aad.as_slice(), &plaintext);
            let longest = sealed(IcvLength::Sixteen);
            for icv in [IcvLength::Eight, IcvLength::Twelve] {
                prop_assert_eq!(&sealed(icv)[..], &longest[..length + icv.bytes()], "{:?}", engine);
            }
        }
    }

    #[test]
    fn any_flipped_bit_of_a_long_packet_fails_and_wipes(
        octets in key_octets(),
        icv in select(&ICV_LENGTHS[..]),
        length in length(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        for engine in engines() {
            let key = engine.key(&octets, icv).unwrap();
            let mut sealed = seal_one(&key, &[3; 12], &[4; 8], &text(length, 77));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(open_one(&key, &[3; 12], &[4; 8], &sealed), Err(vec![0; length]), "{:?}", engine);
        }
    }
}

/// The longest text of this test: what a jumbo frame carries.
const LONGEST: usize = 9216;

#[test]
fn engines_agree_with_the_reference_on_every_length_to_9216() {
    let plaintext = text(LONGEST, 4303);
    let engines: Vec<_> = engines().filter(|&engine| engine != reference()).collect();
    std::thread::scope(|scope| {
        for size in KEY_SIZES {
            for aad in [&[0x22; 8][..], &[0x23; 12]] {
                let (engines, plaintext) = (&engines, &plaintext);
                scope.spawn(move || {
                    let octets = vec![0x61 + size.bytes() as u8; size.bytes()];
                    let key = |engine: Engine| engine.key(&octets, IcvLength::Sixteen).unwrap();
                    let (reference, keys) =
                        (key(reference()), engines.iter().map(|&engine| key(engine)).collect::<Vec<_>>());
                    for length in 0..=LONGEST {
                        agree(&reference, &keys, aad, &plaintext[..length]);
                    }
                });
            }
        }
    });
}

/// All `keys` seal as `reference` does, and open it.
fn agree(reference: &Key, keys: &[Key], aad: &[u8], plaintext: &[u8]) {
    let nonce = [0x11; 12];
    let sealed = seal_one(reference, &nonce, aad, plaintext);
    for key in keys {
        let (engine, length) = (key.engine(), plaintext.len());
        assert!(seal_one(key, &nonce, aad, plaintext) == sealed, "{engine:?} at {length}");
        assert!(open_one(key, &nonce, aad, &sealed).as_deref() == Ok(plaintext), "{engine:?} at {length}");
    }
}

#[test]
fn every_single_flipped_bit_of_packet_aad_and_nonce_fails_and_wipes() {
    let (nonce, aad, plaintext) = ([0x0c; 12], Aad::extended(0x1001, 1, 2), text(45, 9));
    for engine in engines() {
        for icv in ICV_LENGTHS {
            let key = engine.key(&[0x77; 16], icv).unwrap();
            let whole =
                [&nonce[..], aad.as_slice(), &seal_one(&key, &nonce, aad.as_slice(), &plaintext)].concat();
            let open_whole =
                |whole: &[u8]| open_one(&key, whole[..12].try_into().unwrap(), &whole[12..24], &whole[24..]);
            assert_eq!(open_whole(&whole).as_ref(), Ok(&plaintext));
            for bit in 0..whole.len() * 8 {
                let mut wrong = whole.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open_whole(&wrong), Err(vec![0; 45]), "{engine:?} {icv:?} bit {bit}");
            }
        }
    }
}

#[test]
fn another_key_size_icv_length_or_aad_length_does_not_open() {
    for engine in engines() {
        let key = engine.key(&[0; 16], IcvLength::Sixteen).unwrap();
        let sealed = seal_one(&key, &[0; 12], &[0; 8], &[0; 64]);
        for size in [KeySize::Aes192, KeySize::Aes256] {
            let other = engine.key(&vec![0; size.bytes()], IcvLength::Sixteen).unwrap();
            assert_eq!(open_one(&other, &[0; 12], &[0; 8], &sealed), Err(vec![0; 64]), "{engine:?}");
        }
        assert_eq!(open_one(&key, &[0; 12], &[0; 12], &sealed), Err(vec![0; 64]), "{engine:?}");
        let shorter = engine.key(&[0; 16], IcvLength::Twelve).unwrap();
        assert_eq!(open_one(&shorter, &[0; 12], &[0; 8], &sealed), Err(vec![0; 68]), "{engine:?}");
    }
}
