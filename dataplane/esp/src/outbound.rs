// SPDX-License-Identifier: Apache-2.0
//! Outbound SAs and the sealing of a burst: RFC 4303 §3.3, RFC 4106.
//!
//! A burst goes three steps, each over all its packets:
//!
//! ```text
//!   reserve(&[SA, SA, …])   one reservation for each run of equal SAs → one Reservation a packet
//!   SealBurst::push(…)      ESP header, IV, padding, trailer, nonce and AAD of each packet
//!   SealBurst::seal()       one call of the cipher for all
//! ```
//!
//! Not here: headers before ESP, which SA a packet takes (`tables`), and which drop an error is (`pipeline`).

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use aead::{BURST, Key, SealJob};
use arrayvec::ArrayVec;
use pktbuf::Packet;
use static_assertions::const_assert;
use thiserror::Error;
use wire::{IpProtocol, Spi};

use crate::layout::{self, HEADER_BYTES, Salt, TRAILER_BYTES};
use crate::lifetime::{Bounds, Lifetime, LifetimeState, Usage};
use crate::sequence::{IvPrefix, SequenceCounter, SequenceError, SequenceNumber};

const_assert!(BURST == pktbuf::BURST);

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The SA's hard lifetime is reached.
    #[error("the SA's hard lifetime is reached")]
    Expired,
    /// The next sequence number is not reserved: the persisted limit must be raised first.
    #[error("sequence number not reserved")]
    NotReserved,
    /// The sequence numbers are used up (RFC 4303 §3.3.3).
    #[error("sequence numbers exhausted")]
    Exhausted,
    /// The packet is shorter than offset, ESP header and IV, or has no tailroom for trailer and ICV.
    #[error("no room in the packet for the ESP header, trailer or ICV")]
    NoRoom,
    /// The burst holds as many packets as it can.
    #[error("the burst is full")]
    BurstFull,
}

impl From<SequenceError> for SealError {
    fn from(error: SequenceError) -> Self {
        match error {
            SequenceError::NotReserved => Self::NotReserved,
            SequenceError::Exhausted => Self::Exhausted,
        }
    }
}

/// What an outbound SA is made of.
pub struct OutboundParameters {
    /// The SPI that the peer chose.
    pub spi: Spi,
    /// The key, expanded.
    pub key: Key,
    /// The end of the keying material.
    pub salt: Salt,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// What stands before the counter in each IV.
    pub iv_prefix: IvPrefix,
    /// Soft and hard bounds.
    pub lifetime: Lifetime,
}

/// An outbound SA as the packet path sees it, shared by all workers that send with it.
///
/// ```text
///   line 0   key  spi  salt  IV prefix  ESN         only read
///   line 1   next  limit  skipped  end  bytes hard  written by each reservation
///   line 2   soft bounds                            housekeeping
/// ```
#[repr(C, align(64))]
pub struct OutboundSa {
    key: Key,
    spi: Spi,
    salt: Salt,
    iv_high_word: u32,
    esn: bool,
    counter: HotLine,
    soft: Bounds,
}

#[repr(C, align(64))]
struct HotLine {
    sequence: SequenceCounter,
    bytes: AtomicU64,
    hard: Bounds,
}

const_assert!(size_of::<HotLine>() == 64);
const_assert!(offset_of!(OutboundSa, counter) == 64);
const_assert!(size_of::<OutboundSa>() == 192);

impl OutboundSa {
    /// An SA whose counter stands at 1 with nothing reserved: see [`SequenceCounter::raise_limit`].
    pub fn new(parameters: OutboundParameters) -> Self {
        let OutboundParameters { spi, key, salt, esn, iv_prefix, lifetime } = parameters;
        let sequence = SequenceCounter::new(esn, iv_prefix);
        Self {
            key,
            spi,
            salt,
            iv_high_word: iv_prefix.high_word(),
            esn,
            counter: HotLine { sequence, bytes: AtomicU64::new(0), hard: lifetime.hard },
            soft: lifetime.soft,
        }
    }

    /// The SPI.
    #[inline]
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// Whether sequence numbers have 64 bits.
    pub const fn esn(&self) -> bool {
        self.esn
    }

    /// The sequence counter, for housekeeping: position, limit, resume.
    pub const fn sequence(&self) -> &SequenceCounter {
        &self.counter.sequence
    }

    /// How much the SA has been used.
    #[inline]
    pub fn usage(&self) -> Usage {
        Usage {
            packets: self.counter.sequence.given_out(),
            bytes: self.counter.bytes.load(Ordering::Relaxed),
        }
    }

    /// Where the SA stands in its lifetime.
    pub fn lifetime_state(&self, now_ns: u64) -> LifetimeState {
        Lifetime { soft: self.soft, hard: self.counter.hard }.state(self.usage(), now_ns)
    }

    /// Octets of the ESP packet around so much payload: see [`layout::sealed_bytes`].
    #[inline]
    pub fn sealed_bytes(&self, payload_bytes: usize) -> usize {
        layout::sealed_bytes(payload_bytes, self.key.icv_length())
    }

    /// The longest payload that fits into so many octets of ESP packet: see [`layout::payload_room`].
    #[inline]
    pub fn payload_room(&self, available_bytes: usize) -> Option<usize> {
        layout::payload_room(available_bytes, self.key.icv_length())
    }

    /// Takes `count` sequence numbers at once: one entry for each, in order.
    ///
    /// Bounds in bytes and packets are looked at once for the whole run, so a run may pass them by a burst.
    #[inline]
    fn reserve_run(
        &self,
        count: u32,
        now_ns: u64,
    ) -> impl Iterator<Item = Result<Reservation<'_>, SealError>> {
        let expired = self.counter.hard.reached(self.usage(), now_ns);
        let reserved = self.counter.sequence.reserve(if expired { 0 } else { count });
        (0..count).map(move |offset| match reserved.number(offset) {
            Ok(sequence) => Ok(Reservation { sa: self, sequence }),
            Err(_) if expired => Err(SealError::Expired),
            Err(error) => Err(error.into()),
        })
    }

    /// The IV: the prefix, then the number; the counter never gives out one that reaches into the prefix.
    #[inline]
    fn iv(&self, sequence: SequenceNumber) -> u64 {
        u64::from(self.iv_high_word) << 32 | sequence.0
    }

    #[inline]
    fn count_bytes(&self, bytes: u64) {
        self.counter.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The right to seal one packet with an SA under one sequence number.
///
/// It cannot be copied, and only [`reserve`] makes it: so no number, and no IV, is used twice. One that is
/// dropped unused leaves a gap, which does no harm.
#[must_use = "a reservation that is not used leaves a gap in the sequence"]
pub struct Reservation<'a> {
    sa: &'a OutboundSa,
    sequence: SequenceNumber,
}

impl<'a> Reservation<'a> {
    /// The SA.
    #[inline]
    pub const fn sa(&self) -> &'a OutboundSa {
        self.sa
    }

    /// The sequence number.
    #[inline]
    pub const fn sequence(&self) -> SequenceNumber {
        self.sequence
    }
}

/// What [`reserve`] gives for a burst: one entry for each SA named, in the same order.
pub type Reservations<'a> = ArrayVec<Result<Reservation<'a>, SealError>, BURST>;

/// Takes a sequence number for each packet of a burst, given the SA of each in the order of sending.
///
/// Neighbours with the same SA take their numbers together, with one `fetch_add`. At most [`BURST`] SAs are
/// looked at.
#[inline]
pub fn reserve<'a>(sas: &[&'a OutboundSa], now_ns: u64) -> Reservations<'a> {
    let mut reservations = Reservations::new();
    for run in sas.get(..BURST).unwrap_or(sas).chunk_by(|a, b| core::ptr::eq(*a, *b)) {
        let (Some(sa), Ok(count)) = (run.first(), u32::try_from(run.len())) else {
            continue;
        };
        reservations.extend(sa.reserve_run(count, now_ns));
    }
    reservations
}

/// Packets with their ESP headers, padding and trailers in place, waiting for the cipher.
///
/// A staged packet is still in clear. Whether [`seal`](Self::seal) is called or the burst is dropped, it is
/// sealed before its borrow ends.
#[derive(Default)]
pub struct SealBurst<'a> {
    jobs: ArrayVec<SealJob<'a>, BURST>,
    run: Option<(&'a OutboundSa, u64)>,
}

impl<'a> SealBurst<'a> {
    /// A burst without packets.
    #[inline]
    pub fn new() -> Self {
        Self { jobs: ArrayVec::new(), run: None }
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

    /// Stages a packet: writes ESP header and IV at `esp_offset` and appends padding, trailer and ICV room.
    ///
    /// The payload begins [`HEADER_BYTES`] behind `esp_offset` and ends with the packet.
    ///
    /// # Errors
    /// [`SealError::NoRoom`] or [`SealError::BurstFull`]; the packet must be dropped then, and its sequence
    /// number is not used again.
    #[inline]
    pub fn push(
        &mut self,
        packet: &'a mut Packet,
        esp_offset: usize,
        reservation: Reservation<'a>,
        next_header: IpProtocol,
    ) -> Result<(), SealError> {
        let Reservation { sa, sequence } = reservation;
        if self.jobs.is_full() {
            return Err(SealError::BurstFull);
        }
        let payload_bytes = payload_bytes(packet.len(), esp_offset).ok_or(SealError::NoRoom)?;
        append_trailer(packet, payload_bytes, sa, next_header).ok_or(SealError::NoRoom)?;
        let esp = packet.data_mut().get_mut(esp_offset..).ok_or(SealError::NoRoom)?;
        let (header, buffer) = esp.split_first_chunk_mut().ok_or(SealError::NoRoom)?;
        let iv = sa.iv(sequence);
        *header = layout::header(sa.spi, sequence, iv);
        let text_bytes = buffer.len().saturating_sub(sa.key.icv_length().bytes());
        let nonce = sa.salt.nonce(iv.to_be_bytes());
        let job = SealJob::new(&sa.key, nonce, layout::aad(sa.spi, sequence, sa.esn), buffer)
            .map_err(|_| SealError::NoRoom)?;
        self.jobs.try_push(job).map_err(|_| SealError::BurstFull)?;
        self.count(sa, text_bytes);
        Ok(())
    }

    /// Seals all staged packets with one call of the cipher.
    #[inline]
    pub fn seal(self) {}

    /// Adds to the bytes of the SA's run; a new SA ends the run before.
    #[inline]
    fn count(&mut self, sa: &'a OutboundSa, bytes: usize) {
        let bytes = bytes as u64;
        match &mut self.run {
            Some((of, sum)) if core::ptr::eq(*of, sa) => *sum += bytes,
            run => {
                if let Some((of, sum)) = run.replace((sa, bytes)) {
                    of.count_bytes(sum);
                }
            }
        }
    }
}

impl Drop for SealBurst<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((sa, bytes)) = self.run.take() {
            sa.count_bytes(bytes);
        }
        aead::seal(&mut self.jobs);
    }
}

#[inline]
fn payload_bytes(packet_bytes: usize, esp_offset: usize) -> Option<usize> {
    packet_bytes.checked_sub(esp_offset)?.checked_sub(HEADER_BYTES)
}

/// Appends padding, pad length, next header, and room for the ICV.
#[inline]
fn append_trailer(
    packet: &mut Packet,
    payload_bytes: usize,
    sa: &OutboundSa,
    next_header: IpProtocol,
) -> Option<()> {
    let padding_bytes = layout::padding_bytes(payload_bytes);
    let tail = packet.append(padding_bytes + TRAILER_BYTES + sa.key.icv_length().bytes()).ok()?;
    *tail.first_chunk_mut()? = layout::trailer(padding_bytes, next_header);
    Some(())
}

#[cfg(test)]
mod tests {}
