// SPDX-License-Identifier: Apache-2.0
//! ESP by hand: RFC 4303 §2 and RFC 4106, octet by octet, for peers that send what no decent one sends.

use aead::{Aad, Key, OpenJob, SealJob};

/// What both ends of an SA know, beside the key.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) spi: u32,
    pub(crate) salt: [u8; 4],
    pub(crate) esn: bool,
}

impl Known {
    fn aad(&self, sequence: u64) -> Aad {
        let (high, low) = halves(sequence);
        if self.esn { Aad::extended(self.spi, high, low) } else { Aad::short(self.spi, low) }
    }

    fn nonce(&self, iv: [u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv);
        nonce
    }

    /// An ESP packet around a text that may be anything, its trailer included.
    pub(crate) fn seal(&self, key: &Key, sequence: u64, iv: [u8; 8], text: &[u8]) -> Vec<u8> {
        let mut sealed = [text, &vec![0; key.icv_length().bytes()]].concat();
        let job = SealJob::new(key, self.nonce(iv), self.aad(sequence), &mut sealed);
        aead::seal(&mut [job.expect("there is room for the ICV")]);
        [&self.spi.to_be_bytes(), &halves(sequence).1.to_be_bytes(), &iv[..], &sealed].concat()
    }

    /// The text of an ESP packet, its trailer included, if the ICV is right for this whole number.
    pub(crate) fn open(&self, key: &Key, sequence: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let (header, sealed) = packet.split_first_chunk::<16>()?;
        let [_, _, _, _, _, _, _, _, iv @ ..] = *header;
        let mut text = sealed.to_vec();
        let mut jobs = [OpenJob::new(key, self.nonce(iv), self.aad(sequence), &mut text)];
        aead::open(&mut jobs);
        let verified = jobs[0].verified;
        text.truncate(text.len().saturating_sub(key.icv_length().bytes()));
        verified.then_some(text)
    }
}

/// A payload with the padding, pad length and next header that belong to it (RFC 4303 §2.4).
pub(crate) fn with_trailer(payload: &[u8], next_header: u8) -> Vec<u8> {
    let padding = u8::try_from((4 - (payload.len() + 2) % 4) % 4).expect("below 4");
    let padded: Vec<u8> = payload.iter().copied().chain(1..=padding).collect();
    [padded, vec![padding, next_header]].concat()
}

fn halves(sequence: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = sequence.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
