// SPDX-License-Identifier: Apache-2.0
//! Outbound SAs and the sealing of a burst: RFC 4303 §3.3, RFC 4106.
//!
//! A burst goes three steps, each over all its packets:
//!
//! ```text
//!   OutboundSa::reserve(n)  a Reservation for each packet in a row; reserve(&[SA, SA, …]) run by run
//!   SealBurst::push(…)      ESP header, IV, padding, trailer, nonce and AAD of each packet
//!   SealBurst::seal()       one call of the cipher for all
//! ```
//!
//! Not here: headers before ESP, which SA a packet takes (`tables`), and which drop an error is (`pipeline`).

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use aead::{BURST, Key, SealJob};
use arrayvec::ArrayVec;
use pktbuf::{Packet, prefetch};
use static_assertions::const_assert;
use thiserror::Error;
use wire::{IpProtocol, Spi};

use crate::layout::{self, Envelope, HEADER_BYTES, Salt};
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
///   line 0   key  spi  salt  IV prefix  ESN  senders  only read
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
    has_one_sender: bool,
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
            has_one_sender: false,
            counter: HotLine { sequence, bytes: AtomicU64::new(0), hard: lifetime.hard },
            soft: lifetime.soft,
        }
    }

    /// The same SA for one thread that alone seals with it, without locked instructions.
    ///
    /// A second thread would repeat IVs: this is for a dataplane of one worker.
    #[must_use]
    pub fn with_one_sender(self) -> Self {
        Self { has_one_sender: true, ..self }
    }

    /// Asks the CPU for what every packet needs: the first two lines.
    #[inline(always)]
    pub fn prefetch(&self) {
        prefetch(&self.key);
        prefetch(&self.counter);
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

    /// Octets of its ICVs.
    #[inline]
    pub fn icv_bytes(&self) -> usize {
        self.key.icv_length().bytes()
    }

    /// Octets of the ESP packet around so much payload: see [`layout::sealed_bytes`].
    #[inline]
    pub fn sealed_bytes(&self, payload_bytes: usize) -> usize {
        layout::sealed_bytes(payload_bytes, self.key.icv_length())
    }

    /// How so much payload lies in its ESP packet.
    #[inline(always)]
    pub fn envelope(&self, payload_bytes: usize) -> Envelope {
        Envelope::new(payload_bytes, self.key.icv_length())
    }

    /// The longest payload that fits into so many octets of ESP packet: see [`layout::payload_room`].
    #[inline]
    pub fn payload_room(&self, available_bytes: usize) -> Option<usize> {
        layout::payload_room(available_bytes, self.key.icv_length())
    }

    /// Takes `count` sequence numbers at once, at most [`BURST`]: one entry for each, in order.
    ///
    /// Bounds in bytes and packets are looked at once for the whole run, so a run may pass them by a burst.
    #[inline]
    pub fn reserve(
        &self,
        count: usize,
        now_ns: u64,
    ) -> impl Iterator<Item = Result<Reservation<'_>, SealError>> + use<'_> {
        let count = count.min(BURST) as u32;
        let expired = self.counter.hard.reached(self.usage(), now_ns);
        let wanted = if expired { 0 } else { count };
        let sequence = &self.counter.sequence;
        let reserved =
            if self.has_one_sender { sequence.reserve_alone(wanted) } else { sequence.reserve(wanted) };
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
        let counter = &self.counter.bytes;
        if self.has_one_sender {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        } else {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// The right to seal one packet with an SA under one sequence number.
///
/// It cannot be copied, and only [`OutboundSa::reserve`] makes it: so no number, and no IV, is used twice. One that is
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
        if let Some(sa) = run.first() {
            reservations.extend(sa.reserve(run.len(), now_ns));
        }
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
        if self.jobs.is_full() {
            return Err(SealError::BurstFull);
        }
        let payload_bytes = payload_bytes(packet.len(), esp_offset).ok_or(SealError::NoRoom)?;
        let envelope = reservation.sa.envelope(payload_bytes);
        packet.append(envelope.bytes() - HEADER_BYTES - payload_bytes).map_err(|_| SealError::NoRoom)?;
        let esp = packet.data_mut().get_mut(esp_offset..).ok_or(SealError::NoRoom)?;
        let sa = reservation.sa;
        let text_bytes = self.stage(esp, envelope, reservation, next_header)?;
        self.count(sa, text_bytes);
        Ok(())
    }

    /// Stages a packet that has its final size: `esp` reaches from the SPI to the end of the ICV, and holds the payload
    /// [`HEADER_BYTES`] behind its beginning. Writes everything but the payload and the ICV. Returns the octets that are to be
    /// [`count`](Self::count)ed.
    ///
    /// # Errors
    /// [`SealError::NoRoom`] if `esp` is not as long as its envelope, which is one of the SA, or [`SealError::BurstFull`]; the
    /// packet must be dropped then, and its sequence number is not used again.
    #[inline(always)]
    pub fn stage(
        &mut self,
        esp: &'a mut [u8],
        envelope: Envelope,
        reservation: Reservation<'a>,
        next_header: IpProtocol,
    ) -> Result<usize, SealError> {
        let Reservation { sa, sequence } = reservation;
        debug_assert_eq!(envelope, sa.envelope(envelope.payload_bytes()), "an envelope of the SA");
        if esp.len() != envelope.bytes() {
            return Err(SealError::NoRoom);
        }
        let (header, buffer) = esp.split_first_chunk_mut().ok_or(SealError::NoRoom)?;
        let iv = sa.iv(sequence);
        *header = layout::header(sa.spi, sequence, iv);
        let trailer = buffer.get_mut(envelope.payload_bytes()..).and_then(<[u8]>::first_chunk_mut);
        *trailer.ok_or(SealError::NoRoom)? = layout::trailer(envelope.padding_bytes(), next_header);
        let nonce = sa.salt.nonce(iv.to_be_bytes());
        let job = SealJob::new(&sa.key, nonce, layout::aad(sa.spi, sequence, sa.esn), buffer)
            .map_err(|_| SealError::NoRoom)?;
        self.jobs.try_push(job).map_err(|_| SealError::BurstFull)?;
        Ok(envelope.text_bytes())
    }

    /// Seals all staged packets with one call of the cipher.
    #[inline]
    pub fn seal(self) {}

    /// Counts octets of packets that were staged towards an SA's lifetime: all of a run at once.
    #[inline]
    pub fn count(&mut self, sa: &'a OutboundSa, bytes: usize) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Agreed, BEFORE, GRE, ICVS, payload, pool, seal_one, unsealed};
    use aead::IcvLength;
    use std::collections::HashSet;

    static_assertions::assert_impl_all!(OutboundSa: Send, Sync);
    static_assertions::assert_not_impl_any!(OutboundSa: core::fmt::Debug, Clone);
    static_assertions::assert_not_impl_any!(OutboundParameters: core::fmt::Debug, Clone);
    static_assertions::assert_not_impl_any!(Salt: core::fmt::Debug, Clone);
    static_assertions::assert_not_impl_any!(Reservation<'static>: Clone);

    fn agreed() -> Agreed {
        Agreed::new(1, false, IcvLength::Sixteen)
    }

    fn numbers(reservations: Reservations<'_>) -> Vec<Result<u64, SealError>> {
        reservations.iter().map(|one| one.as_ref().map(|r| r.sequence().0).map_err(|e| *e)).collect()
    }

    fn one(sa: &OutboundSa) -> Reservation<'_> {
        reserve(&[sa], 0).remove(0).unwrap()
    }

    #[test]
    fn a_receiver_built_by_hand_opens_every_length() {
        let pool = pool();
        for icv in ICVS {
            for esn in [false, true] {
                let agreed = Agreed::new(7, esn, icv);
                let sa = agreed.outbound();
                if esn {
                    sa.sequence().resume_at(SequenceNumber(0x5_ffff_ff00));
                }
                for bytes in 0..300 {
                    let sequence = sa.sequence().position().0;
                    let payload = payload(bytes);
                    let esp = seal_one(&pool, &sa, &payload);
                    assert_eq!(esp.len(), sa.sealed_bytes(bytes));
                    assert_eq!(esp[8..16], sequence.to_be_bytes(), "the IV is the counter");
                    let padding: Vec<u8> = (1..=3).take((2 + 4 - bytes % 4) % 4).collect();
                    let pad_length = u8::try_from(padding.len()).unwrap();
                    let expected = [&payload[..], &padding, &[pad_length, 47]].concat();
                    assert_eq!(agreed.open_by_hand(&esp, sequence), Some(expected));
                }
            }
        }
    }

    #[test]
    fn esn_authenticates_the_high_word_and_does_not_send_it() {
        let agreed = Agreed::new(2, true, IcvLength::Sixteen);
        let sa = agreed.outbound();
        sa.sequence().resume_at(SequenceNumber(0x3_0000_0000));
        let esp = seal_one(&pool(), &sa, b"payload");
        assert_eq!(esp[4..8], [0; 4], "a low word of 0 is legal");
        assert!(agreed.open_by_hand(&esp, 0x3_0000_0000).is_some());
        assert!(agreed.open_by_hand(&esp, 0x2_0000_0000).is_none());
        assert!(agreed.open_by_hand(&esp, 0x4_0000_0000).is_none());
    }

    #[test]
    fn what_stands_before_the_esp_header_is_left_alone() {
        let (pool, sa) = (pool(), agreed().outbound());
        let mut packet = unsealed(&pool, b"payload");
        let start = packet.data().as_ptr();
        let mut burst = SealBurst::new();
        burst.push(&mut packet, BEFORE, one(&sa), GRE).unwrap();
        burst.seal();
        assert_eq!(packet.data()[..BEFORE], [0xa5; BEFORE]);
        assert_eq!(packet.data().as_ptr(), start, "the packet has not moved");
        assert_eq!(packet.len(), BEFORE + sa.sealed_bytes(7));
    }

    #[test]
    fn packets_of_many_sas_share_a_burst() {
        let pool = pool();
        let agreed: Vec<Agreed> =
            (0..7).map(|n| Agreed::new(n, n % 2 == 0, ICVS[usize::from(n) % 3])).collect();
        let sas: Vec<OutboundSa> = agreed.iter().map(Agreed::outbound).collect();
        // A fixed shuffle with runs of one and more.
        let order: Vec<usize> = (0..64).map(|i| (i / 2 * 5 + i % 3) % 7).collect();
        let payloads: Vec<Vec<u8>> = (0..64).map(|i| payload(i * 13)).collect();
        let mut packets: Vec<Packet> = payloads.iter().map(|p| unsealed(&pool, p)).collect();
        let named: Vec<&OutboundSa> = order.iter().map(|&i| &sas[i]).collect();
        let mut burst = SealBurst::new();
        for (packet, reservation) in packets.iter_mut().zip(reserve(&named, 0)) {
            burst.push(packet, BEFORE, reservation.unwrap(), GRE).unwrap();
        }
        assert_eq!(burst.len(), 64);
        burst.seal();
        let mut next = [1_u64; 7];
        for ((packet, payload), &i) in packets.iter().zip(&payloads).zip(&order) {
            let text = agreed[i].open_by_hand(&packet.data()[BEFORE..], next[i]).unwrap();
            assert_eq!(text[..payload.len()], payload[..]);
            next[i] += 1;
        }
        for (sa, next) in sas.iter().zip(next) {
            assert_eq!(sa.usage().packets, next - 1);
        }
    }

    #[test]
    fn a_run_of_one_sa_takes_its_numbers_together_and_others_go_on_between() {
        let (a, b) = (agreed().outbound(), agreed().outbound());
        let first = numbers(reserve(&[&a, &a, &b, &a, &b, &b], 0));
        assert_eq!(first, [1, 2, 1, 3, 2, 3].map(Ok));
        assert_eq!(numbers(reserve(&[&b, &a], 0)), [4, 4].map(Ok));
        assert!(reserve(&[], 0).is_empty());
    }

    #[test]
    fn a_reservation_looks_at_one_burst_at_most() {
        let sa = agreed().outbound();
        assert_eq!(reserve(&[&sa; 100], 0).len(), BURST);
        assert_eq!(sa.sequence().position(), SequenceNumber(65));
    }

    #[test]
    fn at_the_limit_the_rest_of_a_burst_is_not_reserved() {
        let sa = agreed().outbound_with(IvPrefix::EMPTY);
        assert_eq!(numbers(reserve(&[&sa], 0)), [Err(SealError::NotReserved)]);
        sa.sequence().raise_limit(SequenceNumber(3));
        let burst = numbers(reserve(&[&sa; 4], 0));
        assert_eq!(burst, [Ok(1), Ok(2), Err(SealError::NotReserved), Err(SealError::NotReserved)]);
        assert_eq!(sa.usage().packets, 2);
    }

    #[test]
    fn at_the_end_the_rest_of_a_burst_is_exhausted() {
        let sa = agreed().outbound();
        sa.sequence().resume_at(SequenceNumber(0xffff_ffff));
        assert_eq!(numbers(reserve(&[&sa; 2], 0)), [Ok(0xffff_ffff), Err(SealError::Exhausted)]);
        assert_eq!(numbers(reserve(&[&sa], 0)), [Err(SealError::Exhausted)]);
    }

    #[test]
    fn an_expired_sa_gives_no_number_and_keeps_its_counter() {
        let hard = [
            Bounds { deadline_ns: 1000, ..Bounds::NONE },
            Bounds { packets: 2, ..Bounds::NONE },
            Bounds { bytes: 24, ..Bounds::NONE },
        ];
        for hard in hard {
            let soft = Bounds { packets: 1, ..Bounds::NONE };
            let sa = Agreed { lifetime: Lifetime { soft, hard }, ..agreed() }.outbound();
            assert_eq!(sa.lifetime_state(0), LifetimeState::Live);
            // Two packets of 12 octets of text each.
            let _ = seal_one(&pool(), &sa, b"payload");
            assert_eq!(sa.lifetime_state(999), LifetimeState::SoftReached);
            let _ = seal_one(&pool(), &sa, b"payload");
            assert_eq!(sa.lifetime_state(1000), LifetimeState::HardReached);
            assert_eq!(numbers(reserve(&[&sa; 2], 1000)), [Err(SealError::Expired); 2]);
            assert_eq!(sa.sequence().position(), SequenceNumber(3));
        }
    }

    #[test]
    fn the_iv_prefix_stands_before_the_counter() {
        let agreed = Agreed::new(3, true, IcvLength::Sixteen);
        let sa = agreed.outbound_with(IvPrefix::new(16, 0xabcd).unwrap());
        sa.sequence().raise_limit(SequenceNumber(u64::MAX));
        sa.sequence().resume_at(SequenceNumber(0x0000_ffff_ffff_ffff));
        let esp = seal_one(&pool(), &sa, b"payload");
        assert_eq!(esp[8..16], 0xabcd_ffff_ffff_ffff_u64.to_be_bytes());
        assert!(agreed.open_by_hand(&esp, 0x0000_ffff_ffff_ffff).is_some());
        let beyond = numbers(reserve(&[&sa], 0));
        assert_eq!(beyond, [Err(SealError::Exhausted)], "the counter never reaches into the prefix");
    }

    #[test]
    fn a_packet_without_room_is_refused_and_its_number_not_used_again() {
        let (pool, sa) = (pool(), agreed().outbound());
        let mut full = unsealed(&pool, b"");
        let tailroom = full.tailroom();
        full.append(tailroom - 17).unwrap();
        let mut too_short = pool.copy_of(&[0; BEFORE + 15]).unwrap();
        let (mut beyond, mut absurd) = (unsealed(&pool, b""), unsealed(&pool, b""));
        let mut good = unsealed(&pool, b"payload");
        let mut burst = SealBurst::new();
        assert_eq!(burst.push(&mut full, BEFORE, one(&sa), GRE), Err(SealError::NoRoom));
        assert_eq!(burst.push(&mut too_short, BEFORE, one(&sa), GRE), Err(SealError::NoRoom));
        assert_eq!(burst.push(&mut beyond, 10_000, one(&sa), GRE), Err(SealError::NoRoom));
        assert_eq!(burst.push(&mut absurd, usize::MAX, one(&sa), GRE), Err(SealError::NoRoom));
        assert!(burst.is_empty());
        assert_eq!(burst.push(&mut good, BEFORE, one(&sa), GRE), Ok(()));
        burst.seal();
        assert!(agreed().open_by_hand(&good.data()[BEFORE..], 5).is_some());
    }

    #[test]
    fn sealing_fits_into_the_tailroom_that_every_packet_has() {
        for icv in ICVS {
            let worst = (0..4).map(|n| crate::overhead(n, icv) - HEADER_BYTES).max().unwrap();
            assert!(worst <= pktbuf::SEALING_TAILROOM);
        }
    }

    #[test]
    fn a_full_burst_takes_no_more_and_seals_what_it_has() {
        let (pool, sa) = (pool(), agreed().outbound());
        let mut packets: Vec<Packet> = (0..=BURST).map(|_| unsealed(&pool, b"payload")).collect();
        let mut burst = SealBurst::new();
        let pushed: Vec<_> =
            packets.iter_mut().map(|packet| burst.push(packet, BEFORE, one(&sa), GRE)).collect();
        assert!(pushed[..BURST].iter().all(Result::is_ok));
        assert_eq!(pushed[BURST], Err(SealError::BurstFull));
        burst.seal();
        for (packet, sequence) in packets[..BURST].iter().zip(1..) {
            assert!(agreed().open_by_hand(&packet.data()[BEFORE..], sequence).is_some());
        }
    }

    #[test]
    fn a_burst_that_is_dropped_leaves_no_packet_in_clear() {
        let (pool, sa) = (pool(), agreed().outbound());
        let mut packet = unsealed(&pool, b"payload");
        let mut burst = SealBurst::new();
        burst.push(&mut packet, BEFORE, one(&sa), GRE).unwrap();
        drop(burst);
        assert!(agreed().open_by_hand(&packet.data()[BEFORE..], 1).is_some());
        assert_eq!(sa.usage(), Usage { packets: 1, bytes: 12 });
    }

    #[test]
    fn bytes_are_counted_for_each_sa_of_a_burst() {
        let pool = pool();
        let (a, b) = (agreed().outbound(), agreed().outbound());
        let mut packets: Vec<Packet> = (0..5).map(|_| unsealed(&pool, &payload(10))).collect();
        let mut burst = SealBurst::new();
        for (packet, reservation) in packets.iter_mut().zip(reserve(&[&a, &a, &b, &a, &b], 0)) {
            burst.push(packet, BEFORE, reservation.unwrap(), GRE).unwrap();
        }
        burst.seal();
        assert_eq!(a.usage(), Usage { packets: 3, bytes: 36 });
        assert_eq!(b.usage(), Usage { packets: 2, bytes: 24 });
    }

    #[test]
    fn payload_room_is_what_sealing_leaves() {
        for icv in ICVS {
            let sa = Agreed::new(1, false, icv).outbound();
            let room = sa.payload_room(1400).unwrap();
            let esp = seal_one(&pool(), &sa, &payload(room));
            assert!(esp.len() <= 1400);
            assert!(seal_one(&pool(), &sa, &payload(room + 1)).len() > 1400);
        }
    }

    #[test]
    fn two_threads_that_share_an_sa_never_use_an_iv_twice() {
        let sa = Agreed::new(5, true, IcvLength::Sixteen).outbound_with(IvPrefix::new(8, 9).unwrap());
        let send = || {
            let pool = pool();
            let mut ivs = Vec::new();
            for round in 1..=200 {
                sa.sequence().raise_limit(SequenceNumber(sa.sequence().position().0 + 40));
                let mut packets: Vec<Packet> = (0..round % 64).map(|_| unsealed(&pool, b"")).collect();
                let mut burst = SealBurst::new();
                let named = [&sa; BURST];
                let mut sent = 0;
                // Beyond the limit every later reservation of the run fails too.
                let granted = reserve(&named[..round % 64], 0).into_iter().map_while(Result::ok);
                for (packet, reservation) in packets.iter_mut().zip(granted) {
                    burst.push(packet, BEFORE, reservation, GRE).unwrap();
                    sent += 1;
                }
                burst.seal();
                let iv = |packet: &Packet| {
                    u64::from_be_bytes(packet.data()[BEFORE + 8..BEFORE + 16].try_into().unwrap())
                };
                ivs.extend(packets[..sent].iter().map(iv));
            }
            ivs
        };
        let (one, two) = std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(send), scope.spawn(send));
            (one.join().unwrap(), two.join().unwrap())
        });
        let distinct: HashSet<u64> = one.iter().chain(&two).copied().collect();
        assert_eq!(distinct.len(), one.len() + two.len());
        assert_eq!(u64::try_from(distinct.len()).unwrap(), sa.usage().packets);
        assert!(distinct.iter().all(|iv| iv >> 56 == 9));
    }
}
