// SPDX-License-Identifier: Apache-2.0
//! draft-mcgrew-gcm-test-01: whole ESP packets, through the burst interface.

use super::{engines, hex_field};
use crate::{Aad, IcvLength, OpenJob, SealJob, open, seal};

const CASES: &str = include_str!("../../vectors/draft-mcgrew-gcm-test-01.txt");
/// SPI, sequence number, IV.
const HEADER_BYTES: usize = 16;

struct Case {
    key: Vec<u8>,
    aad: Aad,
    nonce: [u8; 12],
    plaintext: Vec<u8>,
    packet: Vec<u8>,
}

#[test]
fn every_packet_of_the_draft_is_sealed_and_opened_to_the_octet() {
    for engine in engines() {
        let mut extended = 0;
        for (number, case) in cases().enumerate() {
            let key = engine.key(&case.key, IcvLength::Sixteen).unwrap();
            let (header, expected) = case.packet.split_at(HEADER_BYTES);
            assert_eq!(header[8..], case.nonce[4..], "the packet's IV is the nonce's");
            let mut buffer = [&case.plaintext[..], &[0; 16]].concat();

            let job = SealJob::new(&key, case.nonce, case.aad, &mut buffer);
            seal(&mut [job.unwrap()]);
            assert_eq!(buffer, expected, "{engine:?} case {}", number + 1);

            let mut jobs = [OpenJob::new(&key, case.nonce, case.aad, &mut buffer)];
            open(&mut jobs);
            assert!(jobs[0].verified, "{engine:?} case {}", number + 1);
            assert_eq!(buffer[..case.plaintext.len()], case.plaintext);
            extended += usize::from(case.aad.as_slice().len() == 12);
        }
        assert_eq!((cases().count(), extended), (14, 9), "{engine:?}");
    }
}

fn cases() -> impl Iterator<Item = Case> {
    CASES.split("\n\n").filter_map(|paragraph| {
        let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
        let fields: Vec<_> = lines.map(|line| line.split_once(" = ").unwrap()).collect();
        (!fields.is_empty()).then(|| case(&fields))
    })
}

fn case(fields: &[(&str, &str)]) -> Case {
    let word = |octets: &[u8]| u32::from_be_bytes(octets.try_into().unwrap());
    let (spi, sequence) = (word(&hex_field(fields, "spi")), hex_field(fields, "seq"));
    Case {
        key: hex_field(fields, "key"),
        aad: match sequence.split_at(sequence.len() - 4) {
            ([], low) => Aad::short(spi, word(low)),
            (high, low) => Aad::extended(spi, word(high), word(low)),
        },
        nonce: hex_field(fields, "nonce").try_into().unwrap(),
        plaintext: hex_field(fields, "plaintext"),
        packet: hex_field(fields, "packet"),
    }
}
