// SPDX-License-Identifier: Apache-2.0
//! Inbound SAs and the opening of a burst: RFC 4303 §3.4, RFC 4106.
//!
//! A burst goes four steps, each over all its packets:
//!
//! ```text
//!   OpenBurst::push(…)   check: length, alignment, sequence number against the window; stage nonce and AAD
//!   OpenBurst::open()    one call of the cipher for all, then for each packet in order
//!                        check the window again and mark: of two copies in one burst exactly one passes
//!                        strip: padding, pad length, next header
//! ```
//!
//! The window moves only for a packet whose ICV is right (§3.4.3). Packets stay where they are in memory.
//!
//! Not here: which SA an SPI means and who owns its window (`tables`, `pipeline`), the policy check after
//! opening (RFC 4301 §5.2), fragments, and which drop an error is.

use core::mem::offset_of;
use core::ops::Range;

use aead::{BURST, Key, OpenJob};
use arrayvec::ArrayVec;
use pktbuf::Packet;
use static_assertions::const_assert;
use sysmem::CounterWord;
use thiserror::Error;
use wire::esp::Trailer;
use wire::{IpProtocol, ParseError, Spi};

use crate::layout::{self, ALIGNMENT_BYTES, HEADER_BYTES, Salt};
use crate::lifetime::{Bounds, Lifetime, LifetimeState, Usage};
use crate::sequence::SequenceNumber;
use crate::window::{ReplayError, Window, WindowSizeError};

/// Why a packet was not opened, or its content not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The SA's hard lifetime is reached.
    #[error("the SA's hard lifetime is reached")]
    Expired,
    /// Shorter than ESP header, IV, the least ciphertext and ICV.
    #[error("shorter than an ESP packet")]
    TooShort,
    /// The ciphertext does not end on a multiple of four octets (RFC 4303 §2.4).
    #[error("ciphertext not a multiple of 4 octets")]
    Misaligned,
    /// The whole sequence number is 0.
    #[error("sequence number 0")]
    SequenceZero,
    /// The sequence number was seen before.
    #[error("sequence number seen before")]
    Replayed,
    /// The sequence number lies behind the anti-replay window.
    #[error("sequence number behind the anti-replay window")]
    TooOld,
    /// The ICV is wrong: forged, damaged, or sealed under another key or high sequence word.
    #[error("wrong ICV")]
    BadIcv,
    /// The pad length reaches beyond the payload.
    #[error("pad length beyond the payload")]
    BadPadLength,
    /// The padding is not 1, 2, 3, … (RFC 4303 §2.4).
    #[error("padding is not 1, 2, 3, …")]
    BadPadding,
    /// A dummy packet: next header 59 (RFC 4303 §2.6), to be discarded without ado.
    #[error("dummy packet")]
    Dummy,
    /// The burst holds as many packets as it can.
    #[error("the burst is full")]
    BurstFull,
}

impl From<ReplayError> for OpenError {
    #[inline]
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::SequenceZero => Self::SequenceZero,
            ReplayError::Replayed => Self::Replayed,
            ReplayError::TooOld => Self::TooOld,
        }
    }
}

/// What an inbound SA is made of.
pub struct InboundParameters {
    /// The SPI that we chose.
    pub spi: Spi,
    /// The key, expanded.
    pub key: Key,
    /// The end of the keying material.
    pub salt: Salt,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Size of the anti-replay window in packets, a power of two from 64 to 8192; `None`: no anti-replay.
    pub window: Option<u32>,
    /// Soft and hard bounds.
    pub lifetime: Lifetime,
}

/// Why an inbound SA cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InboundSaError {
    /// The window's size.
    #[error(transparent)]
    WindowSize(#[from] WindowSizeError),
    /// Without a window the high word of ESN cannot be told (RFC 4303 §3.3.3).
    #[error("ESN without an anti-replay window: give the SA a window, or no ESN")]
    EsnWithoutWindow,
}

/// What an inbound SA has counted beside its [`Usage`]; the owner worker counts, anybody reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundStatistics {
    /// Opened packets that had been overtaken by one with a higher number.
    pub late: u64,
    /// Packets with the whole sequence number 0.
    pub sequence_zero: u64,
    /// Packets whose number had been seen.
    pub replayed: u64,
    /// Packets whose number lay behind the window.
    pub too_old: u64,
    /// Packets with a wrong ICV.
    pub bad_icv: u64,
    /// Packets whose ICV was right and whose pad length or padding was not.
    pub bad_padding: u64,
    /// Dummy packets.
    pub dummies: u64,
}

/// An inbound SA as the packet path sees it.
///
/// ```text
///   line 0   key  spi  salt  hard deadline             only read
///   line 1   window: edge, ring  usage  hard bounds    written by each packet
///   line 2…  statistics  soft bounds                   off the common way
/// ```
///
/// **One writer.** Only the worker that owns the SA pushes its packets into an [`OpenBurst`]; everybody else
/// only reads.
#[repr(C, align(64))]
pub struct InboundSa {
    key: Key,
    spi: Spi,
    salt: Salt,
    hard_deadline_ns: u64,
    hot: HotLine,
    cold: Cold,
}

#[repr(C, align(64))]
struct HotLine {
    window: Option<Window>,
    packets: CounterWord,
    bytes: CounterWord,
    hard_packets: u64,
    hard_bytes: u64,
}

#[derive(Default)]
#[repr(C)]
struct Cold {
    late: CounterWord,
    sequence_zero: CounterWord,
    replayed: CounterWord,
    too_old: CounterWord,
    bad_icv: CounterWord,
    bad_padding: CounterWord,
    dummies: CounterWord,
    soft: Bounds,
}

const_assert!(size_of::<HotLine>() == 64);
const_assert!(offset_of!(InboundSa, hot) == 64);
const_assert!(size_of::<InboundSa>() == 256);

impl InboundSa {
    /// An SA that has seen no packet.
    ///
    /// # Errors
    /// The window has an impossible size, or ESN is asked for without a window.
    pub fn new(parameters: InboundParameters) -> Result<Self, InboundSaError> {
        let InboundParameters { spi, key, salt, esn, window, lifetime } = parameters;
        if esn && window.is_none() {
            return Err(InboundSaError::EsnWithoutWindow);
        }
        let window = window.map(|size| Window::new(size, esn)).transpose()?;
        Ok(Self {
            key,
            spi,
            salt,
            hard_deadline_ns: lifetime.hard.deadline_ns,
            hot: HotLine {
                window,
                packets: CounterWord::default(),
                bytes: CounterWord::default(),
                hard_packets: lifetime.hard.packets,
                hard_bytes: lifetime.hard.bytes,
            },
            cold: Cold { soft: lifetime.soft, ..Cold::default() },
        })
    }

    /// The SPI.
    #[inline]
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// Whether sequence numbers have 64 bits.
    #[inline]
    pub const fn esn(&self) -> bool {
        matches!(&self.hot.window, Some(window) if window.esn())
    }

    /// The anti-replay window, if the SA has one.
    pub const fn window(&self) -> Option<&Window> {
        self.hot.window.as_ref()
    }

    /// How much the SA has been used.
    #[inline]
    pub fn usage(&self) -> Usage {
        Usage { packets: self.hot.packets.read(), bytes: self.hot.bytes.read() }
    }

    /// Where the SA stands in its lifetime.
    pub fn lifetime_state(&self, now_ns: u64) -> LifetimeState {
        Lifetime { soft: self.cold.soft, hard: self.hard() }.state(self.usage(), now_ns)
    }

    /// What the SA has counted beside its usage.
    pub fn statistics(&self) -> InboundStatistics {
        let cold = &self.cold;
        InboundStatistics {
            late: cold.late.read(),
            sequence_zero: cold.sequence_zero.read(),
            replayed: cold.replayed.read(),
            too_old: cold.too_old.read(),
            bad_icv: cold.bad_icv.read(),
            bad_padding: cold.bad_padding.read(),
            dummies: cold.dummies.read(),
        }
    }

    #[inline]
    const fn hard(&self) -> Bounds {
        Bounds {
            bytes: self.hot.hard_bytes,
            packets: self.hot.hard_packets,
            deadline_ns: self.hard_deadline_ns,
        }
    }

    /// The whole sequence number that `low` stands for, if a packet with it may come (RFC 4303 §3.4.3).
    #[inline]
    fn check(&self, low: u32) -> Result<SequenceNumber, OpenError> {
        let Some(window) = &self.hot.window else {
            return Ok(SequenceNumber(u64::from(low)));
        };
        let sequence = window.infer(low);
        window.check(sequence).map_err(|error| self.refuse(error.into()))?;
        Ok(sequence)
    }

    /// Checks again what the ICV has now proved, and marks it as seen.
    #[inline]
    fn accept(&self, sequence: SequenceNumber, text_bytes: usize) -> Result<(), OpenError> {
        if let Some(window) = &self.hot.window {
            window.check(sequence).map_err(|error| self.refuse(error.into()))?;
            if sequence < window.right_edge() {
                self.cold.late.add(1);
            }
            window.mark(sequence);
        }
        self.hot.packets.add(1);
        self.hot.bytes.add(text_bytes as u64);
        Ok(())
    }

    /// Counts what was refused.
    #[cold]
    fn refuse(&self, error: OpenError) -> OpenError {
        match error {
            OpenError::SequenceZero => self.cold.sequence_zero.add(1),
            OpenError::Replayed => self.cold.replayed.add(1),
            OpenError::TooOld => self.cold.too_old.add(1),
            OpenError::BadIcv => self.cold.bad_icv.add(1),
            OpenError::BadPadLength | OpenError::BadPadding => self.cold.bad_padding.add(1),
            OpenError::Dummy => self.cold.dummies.add(1),
            OpenError::Expired | OpenError::TooShort | OpenError::Misaligned | OpenError::BurstFull => {}
        }
        error
    }
}

/// What an opened packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the payload lies in the packet's data.
    pub payload: Range<usize>,
    /// What the payload is.
    pub next_header: IpProtocol,
    /// The whole sequence number.
    pub sequence: SequenceNumber,
}

/// What became of a burst: one entry for each packet pushed, in the same order.
pub type Outcomes = ArrayVec<Result<Opened, OpenError>, BURST>;

/// Packets that have passed the first check, waiting for the cipher.
pub struct OpenBurst<'a> {
    jobs: ArrayVec<OpenJob<'a>, BURST>,
    checked: ArrayVec<Checked<'a>, BURST>,
    now_ns: u64,
}

/// What is known of a packet before it is opened.
struct Checked<'a> {
    sa: &'a InboundSa,
    sequence: SequenceNumber,
    payload_offset: usize,
}

impl<'a> OpenBurst<'a> {
    /// A burst without packets; lifetimes are measured against `now_ns`.
    #[inline]
    pub fn new(now_ns: u64) -> Self {
        Self { jobs: ArrayVec::new(), checked: ArrayVec::new(), now_ns }
    }

    /// How many packets are staged.
    #[inline]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no packet is staged.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Checks a packet whose ESP header stands at `esp_offset` and whose ICV ends with the packet, and
    /// stages it.
    ///
    /// Whatever a link has put behind the IP packet must have been cut off. `sa` is the one that the SPI
    /// in the header means.
    ///
    /// # Errors
    /// Why the packet is not staged; it is unchanged then.
    #[inline]
    pub fn push(
        &mut self,
        packet: &'a mut Packet,
        esp_offset: usize,
        sa: &'a InboundSa,
    ) -> Result<(), OpenError> {
        if self.jobs.is_full() {
            return Err(OpenError::BurstFull);
        }
        if sa.hard().reached(sa.usage(), self.now_ns) {
            return Err(OpenError::Expired);
        }
        let esp = packet.data_mut().get_mut(esp_offset..).ok_or(OpenError::TooShort)?;
        let (header, buffer) = esp.split_first_chunk_mut::<HEADER_BYTES>().ok_or(OpenError::TooShort)?;
        check_length(buffer.len(), sa)?;
        let (low, iv) = layout::parse_header(header);
        let sequence = sa.check(low)?;
        let aad = layout::aad(sa.spi, sequence, sa.esn());
        let job = OpenJob::new(&sa.key, sa.salt.nonce(iv), aad, buffer);
        self.jobs.try_push(job).map_err(|_| OpenError::BurstFull)?;
        let checked = Checked { sa, sequence, payload_offset: esp_offset + HEADER_BYTES };
        self.checked.try_push(checked).map_err(|_| OpenError::BurstFull)
    }

    /// Opens all staged packets with one call of the cipher, checks again, marks, and strips.
    #[inline]
    pub fn open(mut self) -> Outcomes {
        aead::open(&mut self.jobs);
        let mut outcomes = Outcomes::new();
        outcomes.extend(self.jobs.iter().zip(&self.checked).map(|(job, checked)| finish(job, checked)));
        outcomes
    }
}

/// The ciphertext has at least one whole block of padding, pad length and next header, and is aligned.
#[inline]
fn check_length(buffer_bytes: usize, sa: &InboundSa) -> Result<(), OpenError> {
    let text_bytes = buffer_bytes.checked_sub(sa.key.icv_length().bytes()).ok_or(OpenError::TooShort)?;
    if text_bytes < ALIGNMENT_BYTES {
        return Err(OpenError::TooShort);
    }
    if text_bytes % ALIGNMENT_BYTES != 0 {
        return Err(OpenError::Misaligned);
    }
    Ok(())
}

/// Everything after the cipher.
#[inline]
fn finish(job: &OpenJob<'_>, checked: &Checked<'_>) -> Result<Opened, OpenError> {
    let &Checked { sa, sequence, payload_offset } = checked;
    if !job.verified {
        return Err(sa.refuse(OpenError::BadIcv));
    }
    let text_bytes = job.buffer.len().saturating_sub(sa.key.icv_length().bytes());
    sa.accept(sequence, text_bytes)?;
    let text = job.buffer.get(..text_bytes).unwrap_or_default();
    let (trailer, payload) = strip(text).map_err(|error| sa.refuse(error))?;
    let payload = payload_offset..payload_offset + payload.len();
    Ok(Opened { payload, next_header: trailer.next_header, sequence })
}

/// Trailer and payload of a decrypted text that is neither badly padded nor a dummy.
#[inline]
fn strip(text: &[u8]) -> Result<(Trailer, &[u8]), OpenError> {
    let (trailer, payload) = Trailer::parse(text).map_err(|error| match error {
        ParseError::BadValue => OpenError::BadPadding,
        _ => OpenError::BadPadLength,
    })?;
    if trailer.next_header == IpProtocol::NO_NEXT_HEADER {
        return Err(OpenError::Dummy);
    }
    Ok((trailer, payload))
}

#[cfg(test)]
mod tests {}
