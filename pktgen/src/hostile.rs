// SPDX-License-Identifier: Apache-2.0
//! Hostile packets: what a headend must drop, each kind under a name, and the reason it must be counted under.
//!
//! They are made from an ordinary sealed stream of a profile, so that all but one thing about them is right, and stand
//! between good ones: what a device drops must not cost it those. One frame after the other, not for speed.

pub mod judge;

use std::collections::BTreeSet;
use std::path::Path;

use aead::{Aad, Engine, SealJob};
use anyhow::{Context as _, anyhow, ensure};
use pktbuf::Pool;
use serde::{Deserialize, Serialize};
use wire::esp::PADDING;
use wire::{EtherType, ethernet, ipv4, ipv6, vlan};

use crate::keys::Keying;
use crate::profile::{Esp, Stream};
use crate::schedule::Pick;
use crate::seal::Turns;
use crate::stream;
use crate::template::{Layout, icv};

/// Sequence numbers between a good packet and those that no window reaches back to.
const FAR: u64 = 1 << 16;
/// Padding of ESP's trailer ends on a multiple of this.
const ALIGNMENT: usize = 4;
/// Bytes of the first of two fragments, and where the second begins.
const FRAGMENT_BYTES: usize = 48;
const OVERLAP_AT: usize = 24;
/// A GRE header that promises a key and a sequence number.
const PROMISING_GRE: [u8; 4] = [0x30, 0x00, 0x08, 0x00];

/// What is wrong with the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hostile {
    /// The ICV has a flipped bit.
    BadIcv,
    /// Each packet comes twice.
    Replay,
    /// The sequence number lies far behind one that came before.
    TooOld,
    /// The sequence number is 0, as behind the last of 2^32.
    SequenceWrap,
    /// No SA has the SPI.
    UnknownSpi,
    /// The ICV is right, and the padding inside is not 1, 2, 3, ….
    BadPad,
    /// The ESP packet in two IPv4 fragments that overlap.
    OverlappingFragments,
    /// The ICV is right, and GRE inside ends before what its flags promise.
    MalformedGre,
}

impl Hostile {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::BadIcv,
        Self::Replay,
        Self::TooOld,
        Self::SequenceWrap,
        Self::UnknownSpi,
        Self::BadPad,
        Self::OverlappingFragments,
        Self::MalformedGre,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadIcv => "bad-icv",
            Self::Replay => "replay",
            Self::TooOld => "too-old",
            Self::SequenceWrap => "sequence-wrap",
            Self::UnknownSpi => "unknown-spi",
            Self::BadPad => "bad-pad",
            Self::OverlappingFragments => "overlapping-fragments",
            Self::MalformedGre => "malformed-gre",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The reason that Greyhound counts it under (`docs/drops.md`).
    #[must_use]
    pub const fn drop_reason(self) -> &'static str {
        match self {
            Self::BadIcv => "bad_icv",
            Self::Replay => "replayed",
            Self::TooOld => "replay_too_old",
            Self::SequenceWrap => "sequence_zero",
            Self::UnknownSpi => "spi_unknown",
            Self::BadPad => "pad_bytes",
            Self::OverlappingFragments => "esp_fragment",
            Self::MalformedGre => "gre_malformed",
        }
    }
}

/// What is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// All frames, in order.
    pub frames: Vec<Vec<u8>>,
    /// How many of them are to be dropped.
    pub hostile: u64,
    /// The numbers in the stamps of those that are to come through.
    pub good: BTreeSet<u32>,
}

/// Makes frames of each kind from one sealed stream; sequence numbers go on from kind to kind.
pub struct Maker {
    stream: stream::Stream,
    pool: Pool,
    keying: Keying,
    engine: Engine,
    settings: Settings,
    at: usize,
    has_gre: bool,
    next_sequence: u64,
    /// The number in the next packet's stamp.
    next_stamp: u32,
}

/// Of the stream's SA.
struct Settings {
    spi: u32,
    esn: bool,
    icv: aead::IcvLength,
    next_header: u8,
}

impl Maker {
    /// A maker that uses the first SA of a sealed stream; key files are looked for in `folder`.
    ///
    /// # Errors
    /// A stream that is not sealed, or that cannot be.
    pub fn new(settings: &Stream, engine: Engine, folder: &Path) -> anyhow::Result<Self> {
        let layout = Layout::of(settings);
        let name = &settings.name;
        let none = || format!("stream {name:?} is not sealed: hostile packets are made from one with esp");
        let (esp, at): (&Esp, usize) = settings.esp.as_ref().zip(layout.esp).with_context(none)?;
        let mut keys = esp.keys(folder).map_err(anyhow::Error::msg)?.load(1)?;
        let stream = stream::Stream::new(0, settings, 0, engine, folder)?;
        Ok(Self {
            pool: Pool::memory(1, stream.buffer_bytes())?,
            stream,
            keying: keys.pop().context("a key")?,
            engine,
            settings: Settings {
                spi: esp.spi,
                esn: esp.esn,
                icv: icv(esp),
                next_header: layout.next_header(settings).0,
            },
            at,
            has_gre: settings.gre.is_some(),
            next_sequence: esp.first_sequence,
            next_stamp: 0,
        })
    }

    /// The first sequence number that has not been used.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// `count` hostile packets of a kind between good ones.
    ///
    /// # Errors
    /// A kind that the stream is not made for: fragments of IPv6, GRE where there is none, a wrap with ESN.
    pub fn make(&mut self, kind: Hostile, count: u64) -> anyhow::Result<Frames> {
        let mut made = Frames { hostile: count, ..Frames::default() };
        let mut behind = self.next_sequence;
        if kind == Hostile::TooOld {
            ensure!(count < FAR, "{count} packets behind the window: fewer than {FAR}");
            self.next_sequence += FAR + count;
        }
        for _ in 0..count {
            self.push_good(&mut made)?;
            if kind == Hostile::TooOld {
                made.frames.push(self.good(behind)?);
                behind += 1;
            } else {
                self.push_hostile(kind, &mut made).with_context(|| kind.name())?;
            }
        }
        self.push_good(&mut made)?;
        Ok(made)
    }

    fn push_good(&mut self, made: &mut Frames) -> anyhow::Result<()> {
        let sequence = self.take_sequence();
        made.good.insert(self.next_stamp);
        made.frames.push(self.good(sequence)?);
        Ok(())
    }

    fn push_hostile(&mut self, kind: Hostile, made: &mut Frames) -> anyhow::Result<()> {
        match kind {
            Hostile::BadIcv => {
                let sequence = self.take_sequence();
                let mut frame = self.good(sequence)?;
                *frame.last_mut().context("a frame")? ^= 1;
                made.frames.push(frame);
            }
            Hostile::Replay => {
                self.push_good(made)?;
                made.frames.extend(made.frames.last().cloned());
            }
            Hostile::SequenceWrap => {
                ensure!(!self.settings.esn, "with ESN 0 stands for 2^32; give the stream's SA no esn");
                let (text, iv) = (self.text()?, self.take_sequence());
                made.frames.push(self.padded(text, 0, iv)?);
            }
            Hostile::UnknownSpi => {
                let sequence = self.take_sequence();
                let mut frame = self.good(sequence)?;
                *frame.get_mut(self.at).context("an SPI")? ^= 0x80;
                made.frames.push(frame);
            }
            Hostile::BadPad => {
                let mut text = self.text()?;
                let padding = pad_bytes(text.1.len()) + ALIGNMENT;
                text.1.extend(std::iter::repeat_n(0xff, padding));
                let sequence = self.take_sequence();
                made.frames.push(self.sealed(text, padding, sequence, sequence)?);
            }
            Hostile::OverlappingFragments => {
                let sequence = self.take_sequence();
                let frame = self.good(sequence)?;
                made.frames.extend(overlapping(&frame, self.at).context("IPv4 only, and larger packets")?);
                // Both are.
                made.hostile += 1;
            }
            Hostile::MalformedGre => {
                let is_gre = self.has_gre && self.settings.next_header == 47;
                ensure!(is_gre, "wants GRE in ESP transport mode");
                let (before, _) = self.text()?;
                let sequence = self.take_sequence();
                made.frames.push(self.padded((before, PROMISING_GRE.to_vec()), sequence, sequence)?);
            }
            // Its packets need numbers that were left out before.
            Hostile::TooOld => {}
        }
        Ok(())
    }

    fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    /// A packet with which nothing is wrong.
    fn good(&mut self, sequence: u64) -> anyhow::Result<Vec<u8>> {
        let text = self.text()?;
        self.padded(text, sequence, sequence)
    }

    /// The next packet of the stream, not sealed: what stands before ESP, and what goes into it.
    fn text(&mut self) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let mut packet = self.pool.alloc().context("a packet")?;
        let pick = Pick { stream: 0, class: 0, due: 0 };
        self.stream.write(1, std::iter::once((pick, &mut packet)), |_| 0, &mut Turns::new())?;
        self.next_stamp = self.next_stamp.wrapping_add(1);
        let (before, rest) = packet.data().split_at(self.at);
        Ok((before.to_vec(), rest.get(esp::HEADER_BYTES..).unwrap_or_default().to_vec()))
    }

    fn padded(&self, mut text: (Vec<u8>, Vec<u8>), sequence: u64, iv: u64) -> anyhow::Result<Vec<u8>> {
        let padding = pad_bytes(text.1.len());
        text.1.extend_from_slice(&PADDING[..padding]);
        self.sealed(text, padding, sequence, iv)
    }

    /// Seals a text that ends with so much padding, under whatever sequence number; no IV is used twice.
    fn sealed(
        &self,
        (mut frame, mut text): (Vec<u8>, Vec<u8>),
        padding: usize,
        sequence: u64,
        iv: u64,
    ) -> anyhow::Result<Vec<u8>> {
        let Settings { spi, esn, icv, next_header } = self.settings;
        text.extend([u8::try_from(padding)?, next_header]);
        text.resize(text.len() + icv.bytes(), 0);
        let (high, low) = ((sequence >> 32) as u32, sequence as u32);
        let aad = if esn { Aad::extended(spi, high, low) } else { Aad::short(spi, low) };
        let iv = iv.to_be_bytes();
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.keying.salt());
        nonce[4..].copy_from_slice(&iv);
        let (key, _) = self.keying.expand(self.engine, icv)?;
        aead::seal(&mut [SealJob::new(&key, nonce, aad, &mut text)?]);
        for part in [&spi.to_be_bytes()[..], &low.to_be_bytes(), &iv, &text] {
            frame.extend_from_slice(part);
        }
        set_length(&mut frame)?;
        Ok(frame)
    }
}

fn pad_bytes(text_bytes: usize) -> usize {
    usize::from(wire::esp::pad_length::<ALIGNMENT>(text_bytes))
}

/// Where the IP header in front of ESP begins, and whether it is IPv4: it is always the first.
fn first_ip(frame: &[u8]) -> anyhow::Result<(usize, bool)> {
    let link = vlan::parse_link(frame).map_err(|error| anyhow!("{error}"))?;
    Ok((usize::from(link.header_bytes), link.ether_type == EtherType::IPV4))
}

/// Writes the length of the IP packet around ESP into its header.
fn set_length(frame: &mut [u8]) -> anyhow::Result<()> {
    let (ip, is_v4) = first_ip(frame)?;
    let bytes = u16::try_from(frame.len() - ip)?;
    let packet = frame.get_mut(ip..).context("an IP header")?;
    if is_v4 {
        let (header, _) = ipv4::Header::split_mut(packet).map_err(|error| anyhow!("{error}"))?;
        header.rewrite_total_length(bytes);
    } else {
        let (header, _) = ipv6::Header::split_mut(packet).map_err(|error| anyhow!("{error}"))?;
        header.set_payload_length(bytes - ipv6::HEADER_BYTES as u16);
    }
    Ok(())
}

/// Two fragments of an IPv4 packet, the second of which begins within the first.
fn overlapping(frame: &[u8], at: usize) -> Option<[Vec<u8>; 2]> {
    let (ip, is_v4) = first_ip(frame).ok()?;
    if !is_v4 {
        return None;
    }
    let packet = ipv4::Packet::parse(frame.get(ip..)?).ok()?;
    let whole = ipv4::Repr::parse(&packet).ok()?;
    let payload = packet.payload;
    let fragment = |range: std::ops::Range<usize>, more_fragments| {
        let part = payload.get(range.clone())?;
        let repr = ipv4::Repr {
            payload_bytes: part.len() as u16,
            fragment_offset: (range.start / 8) as u16,
            more_fragments,
            identification: 0x6768,
            ..whole
        };
        let mut bytes = frame.get(..at)?.to_vec();
        repr.emit(bytes.get_mut(ip..)?).ok()?;
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().max(ethernet::MIN_FRAME_BYTES), 0);
        Some(bytes)
    };
    Some([fragment(0..FRAGMENT_BYTES, true)?, fragment(OVERLAP_AT..payload.len(), false)?])
}

#[cfg(test)]
mod tests;
