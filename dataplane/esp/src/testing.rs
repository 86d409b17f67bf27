// SPDX-License-Identifier: Apache-2.0
//! Pairs of SAs for the tests, and a sender and receiver of their own that build nonce, AAD and header octet
//! by octet.

use aead::{Aad, Engine, IcvLength, OpenJob, SealJob};
use pktbuf::{Packet, Pool};
use wire::{IpProtocol, Spi};

use crate::{
    InboundParameters, InboundSa, IvPrefix, Lifetime, OutboundParameters, OutboundSa, Salt, SealBurst,
    SequenceNumber, WINDOW_DEFAULT, reserve,
};

pub(crate) const ICVS: [IcvLength; 3] = [IcvLength::Eight, IcvLength::Twelve, IcvLength::Sixteen];
pub(crate) const GRE: IpProtocol = IpProtocol::GRE;
/// Octets that stand before the ESP header in the tests' packets: Ethernet and IPv4.
pub(crate) const BEFORE: usize = 34;

/// What both ends of an SA agree on.
#[derive(Clone)]
pub(crate) struct Agreed {
    pub(crate) spi: Spi,
    pub(crate) key: Vec<u8>,
    pub(crate) salt: [u8; 4],
    pub(crate) icv: IcvLength,
    pub(crate) esn: bool,
    pub(crate) lifetime: Lifetime,
}

impl Agreed {
    /// An SA of its own key for each `number`.
    pub(crate) fn new(number: u8, esn: bool, icv: IcvLength) -> Self {
        let key_bytes = [16, 24, 32][usize::from(number) % 3];
        Self {
            spi: Spi(0x1000 + u32::from(number)),
            key: (0..key_bytes).map(|i| i ^ number).collect(),
            salt: [0xca, 0xfe, number, 0xbe],
            icv,
            esn,
            lifetime: Lifetime::default(),
        }
    }

    fn key(&self) -> aead::Key {
        Engine::best().key(&self.key, self.icv).unwrap()
    }

    pub(crate) fn outbound_with(&self, iv_prefix: IvPrefix) -> OutboundSa {
        OutboundSa::new(OutboundParameters {
            spi: self.spi,
            key: self.key(),
            salt: Salt::new(self.salt),
            esn: self.esn,
            iv_prefix,
            lifetime: self.lifetime,
        })
    }

    /// An outbound SA all of whose numbers are reserved.
    pub(crate) fn outbound(&self) -> OutboundSa {
        let sa = self.outbound_with(IvPrefix::EMPTY);
        sa.sequence().raise_limit(SequenceNumber(u64::MAX));
        sa
    }

    pub(crate) fn inbound_with(&self, window: Option<u32>) -> InboundSa {
        InboundSa::new(InboundParameters {
            spi: self.spi,
            key: self.key(),
            salt: Salt::new(self.salt),
            esn: self.esn,
            window,
            lifetime: self.lifetime,
        })
        .unwrap()
    }

    pub(crate) fn inbound(&self) -> InboundSa {
        self.inbound_with(Some(WINDOW_DEFAULT))
    }

    fn aad(&self, sequence: u64) -> Aad {
        let (high, low) =
            (u32::try_from(sequence >> 32).unwrap(), u32::try_from(sequence << 32 >> 32).unwrap());
        if self.esn { Aad::extended(self.spi.0, high, low) } else { Aad::short(self.spi.0, low) }
    }

    /// An ESP packet around a text that may be anything, its trailer included.
    pub(crate) fn seal_by_hand(&self, sequence: u64, iv: [u8; 8], text: &[u8]) -> Vec<u8> {
        let key = self.key();
        let mut sealed = [text, &vec![0; self.icv.bytes()]].concat();
        let nonce = [&self.salt[..], &iv].concat().try_into().unwrap();
        aead::seal(&mut [SealJob::new(&key, nonce, self.aad(sequence), &mut sealed).unwrap()]);
        let low = u32::try_from(sequence << 32 >> 32).unwrap();
        [&self.spi.0.to_be_bytes()[..], &low.to_be_bytes(), &iv, &sealed].concat()
    }

    /// The text of an ESP packet, its trailer included, if the ICV is right for this whole number.
    pub(crate) fn open_by_hand(&self, esp: &[u8], sequence: u64) -> Option<Vec<u8>> {
        let key = self.key();
        assert_eq!(esp[..4], self.spi.0.to_be_bytes());
        assert_eq!(esp[4..8], sequence.to_be_bytes()[4..]);
        let mut sealed = esp[16..].to_vec();
        let nonce = [&self.salt[..], &esp[8..16]].concat().try_into().unwrap();
        let mut jobs = [OpenJob::new(&key, nonce, self.aad(sequence), &mut sealed)];
        aead::open(&mut jobs);
        let verified = jobs[0].verified;
        sealed.truncate(sealed.len() - self.icv.bytes());
        verified.then_some(sealed)
    }
}

pub(crate) fn pool() -> Pool {
    Pool::memory(256, 4096).unwrap()
}

pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// A packet with [`BEFORE`] octets of 0xa5, room for ESP header and IV, and the payload.
pub(crate) fn unsealed(pool: &Pool, payload: &[u8]) -> Packet {
    pool.copy_of(&[&[0xa5; BEFORE][..], &[0xee; 16], payload].concat()).unwrap()
}

/// A packet that has come in: [`BEFORE`] octets of 0xa5 and the ESP packet.
pub(crate) fn received(pool: &Pool, esp: &[u8]) -> Packet {
    pool.copy_of(&[&[0xa5; BEFORE][..], esp].concat()).unwrap()
}

/// Seals one payload under the SA's next number; returns the ESP packet.
pub(crate) fn seal_one(pool: &Pool, sa: &OutboundSa, payload: &[u8]) -> Vec<u8> {
    let mut packet = unsealed(pool, payload);
    let reservation = reserve(&[sa], 0).remove(0).unwrap();
    let mut burst = SealBurst::new();
    burst.push(&mut packet, BEFORE, reservation, GRE).unwrap();
    burst.seal();
    packet.data()[BEFORE..].to_vec()
}
