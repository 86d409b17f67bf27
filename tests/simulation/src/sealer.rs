// SPDX-License-Identifier: Apache-2.0
//! The far end of an SA, for tests: seals any plaintext, right or wrong, and opens what was sealed.
//!
//! Straight from RFC 4303 §2 and RFC 4106 §3 to §6 on the reference cipher; of the code under test it shares the AEAD only.

use aead::{Aad, Engine, IcvLength, Key, OpenJob, SealJob};
use messages::Sa;

/// SPI, sequence number and IV.
const HEADER_BYTES: usize = 16;

/// One direction of an SA.
pub struct Sealer {
    key: Key,
    salt: [u8; 4],
    spi: u32,
    esn: bool,
    icv_bytes: usize,
}

/// What an ESP packet was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The SPI.
    pub spi: u32,
    /// The sequence number as it travels.
    pub sequence_low: u32,
    /// The IV.
    pub iv: [u8; 8],
    /// The payload, without padding.
    pub payload: Vec<u8>,
    /// The padding.
    pub padding: Vec<u8>,
    /// The next header.
    pub next_header: u8,
}

impl Sealer {
    /// The far end of `sa`.
    ///
    /// # Panics
    /// If the key or the ICV have no such length.
    #[must_use]
    pub fn new(sa: &Sa) -> Self {
        let icv = IcvLength::try_from(usize::from(sa.key.icv_bytes)).expect("an ICV length");
        let engine = Engine::named("aes-gcm").expect("the reference engine");
        Self {
            key: engine.key(sa.key.secret.key(), icv).expect("a key"),
            salt: *sa.key.secret.salt(),
            spi: sa.spi,
            esn: sa.esn,
            icv_bytes: icv.bytes(),
        }
    }

    /// The same keys under another SPI.
    #[must_use]
    pub fn with_spi(mut self, spi: u32) -> Self {
        self.spi = spi;
        self
    }

    /// A whole ESP packet around a payload, padded as RFC 4303 §2.4 says. The IV is the sequence number.
    #[must_use]
    pub fn seal(&self, sequence: u64, next_header: u8, payload: &[u8]) -> Vec<u8> {
        self.seal_text(sequence, &padded(payload, next_header))
    }

    /// A whole ESP packet around a plaintext that ends, or ought to end, in padding, pad length and next header.
    ///
    /// # Panics
    /// If the text is longer than a packet can be.
    #[must_use]
    pub fn seal_text(&self, sequence: u64, text: &[u8]) -> Vec<u8> {
        let iv = sequence.to_be_bytes();
        let mut packet = self.spi.to_be_bytes().to_vec();
        packet.extend((sequence as u32).to_be_bytes());
        packet.extend(iv);
        packet.extend(text);
        packet.resize(packet.len() + self.icv_bytes, 0);
        let aad = self.aad(sequence);
        let job = SealJob::new(&self.key, self.nonce(iv), aad, &mut packet[HEADER_BYTES..]).expect("a text");
        aead::seal(&mut [job]);
        packet
    }

    /// Opens an ESP packet whose sequence number has the high word `high`; nothing if the ICV or the trailer is wrong.
    #[must_use]
    pub fn open(&self, packet: &[u8], high: u32) -> Option<Plain> {
        let (header, rest) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let (spi, rest_of_header) = header.split_first_chunk::<4>()?;
        let (low, iv) = rest_of_header.split_first_chunk::<4>()?;
        let (low, iv) = (u32::from_be_bytes(*low), *iv.first_chunk::<8>()?);
        let mut buffer = rest.to_vec();
        let aad = self.aad(u64::from(high) << 32 | u64::from(low));
        let mut jobs = [OpenJob::new(&self.key, self.nonce(iv), aad, &mut buffer)];
        aead::open(&mut jobs);
        if u32::from_be_bytes(*spi) != self.spi || !jobs[0].verified {
            return None;
        }
        buffer.truncate(buffer.len() - self.icv_bytes);
        let (text, &[pad_length, next_header]) = buffer.split_last_chunk::<2>()?;
        let (payload, padding) = text.split_at_checked(text.len().checked_sub(usize::from(pad_length))?)?;
        Some(Plain {
            spi: self.spi,
            sequence_low: low,
            iv,
            payload: payload.to_vec(),
            padding: padding.to_vec(),
            next_header,
        })
    }

    fn nonce(&self, iv: [u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv);
        nonce
    }

    fn aad(&self, sequence: u64) -> Aad {
        let (high, low) = ((sequence >> 32) as u32, sequence as u32);
        if self.esn { Aad::extended(self.spi, high, low) } else { Aad::short(self.spi, low) }
    }
}

/// A payload with the least padding that RFC 4303 §2.4 asks for, and its trailer.
#[must_use]
pub fn padded(payload: &[u8], next_header: u8) -> Vec<u8> {
    let padding = (4 - (payload.len() + 2) % 4) % 4;
    trailed(payload, &[1, 2, 3][..padding], next_header)
}

/// A payload with this padding, its length, and a next header.
#[must_use]
pub fn trailed(payload: &[u8], padding: &[u8], next_header: u8) -> Vec<u8> {
    let mut text = payload.to_vec();
    text.extend(padding);
    text.push(padding.len() as u8);
    text.push(next_header);
    text
}
