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
use pktbuf::{Packet, prefetch};
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

    /// Asks the CPU for what every packet needs: the first two lines.
    #[inline(always)]
    pub fn prefetch(&self) {
        prefetch(&self.key);
        prefetch(&self.hot);
    }

    /// Asks for what the next packet changes; reads the second of those lines.
    #[inline(always)]
    pub fn prefetch_window(&self) {
        if let Some(window) = &self.hot.window {
            window.prefetch();
        }
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
    #[inline(always)]
    fn accept(&self, sequence: SequenceNumber, text_bytes: usize) -> Result<(), OpenError> {
        if let Some(window) = &self.hot.window {
            let is_overtaken = window.accept(sequence).map_err(|error| self.refuse(error.into()))?;
            if is_overtaken {
                self.cold.late.add(1);
            }
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

/// Packets that have passed the first check, waiting for the cipher; each with a note of its caller.
pub struct OpenBurst<'a, N = ()> {
    jobs: ArrayVec<OpenJob<'a>, BURST>,
    checked: ArrayVec<Checked<'a, N>, BURST>,
    now_ns: u64,
    /// The SA of the packet before, whose lifetime has not ended: nothing is added to its usage before all are staged.
    alive: Option<&'a InboundSa>,
}

/// What is known of a packet before it is opened.
struct Checked<'a, N> {
    sa: &'a InboundSa,
    sequence: SequenceNumber,
    payload_offset: usize,
    note: N,
}

impl<'a> OpenBurst<'a> {
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
        self.stage(packet.data_mut(), esp_offset, sa, ())
    }
}

impl<'a, N> OpenBurst<'a, N> {
    /// A burst without packets; lifetimes are measured against `now_ns`.
    #[inline]
    pub fn new(now_ns: u64) -> Self {
        Self { jobs: ArrayVec::new(), checked: ArrayVec::new(), now_ns, alive: None }
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

    /// As [`push`](OpenBurst::push), of a packet's bytes; `note` comes back with what becomes of it.
    ///
    /// # Errors
    /// As of [`push`](OpenBurst::push).
    #[inline(always)]
    pub fn stage(
        &mut self,
        data: &'a mut [u8],
        esp_offset: usize,
        sa: &'a InboundSa,
        note: N,
    ) -> Result<(), OpenError> {
        if self.jobs.is_full() {
            return Err(OpenError::BurstFull);
        }
        if !self.alive.is_some_and(|alive| core::ptr::eq(alive, sa)) {
            if sa.hard().reached(sa.usage(), self.now_ns) {
                return Err(OpenError::Expired);
            }
            self.alive = Some(sa);
        }
        let esp = data.get_mut(esp_offset..).ok_or(OpenError::TooShort)?;
        let (header, buffer) = esp.split_first_chunk_mut::<HEADER_BYTES>().ok_or(OpenError::TooShort)?;
        check_length(buffer.len(), sa)?;
        let (low, iv) = layout::parse_header(header);
        let sequence = sa.check(low)?;
        let aad = layout::aad(sa.spi, sequence, sa.esn());
        let job = OpenJob::new(&sa.key, sa.salt.nonce(iv), aad, buffer);
        self.jobs.try_push(job).map_err(|_| OpenError::BurstFull)?;
        let checked = Checked { sa, sequence, payload_offset: esp_offset + HEADER_BYTES, note };
        self.checked.try_push(checked).map_err(|_| OpenError::BurstFull)
    }

    /// Opens all staged packets with one call of the cipher, checks again, marks, and strips.
    #[inline]
    pub fn open(mut self) -> Outcomes {
        let mut outcomes = Outcomes::new();
        self.decipher();
        self.finish(|_, outcome, _| outcomes.push(outcome));
        outcomes
    }

    /// First half of [`open`](Self::open): one call of the cipher for all staged packets.
    #[inline]
    pub fn decipher(&mut self) {
        aead::open(&mut self.jobs);
    }

    /// Second half of [`open`](Self::open): checks again, marks, and strips; tells what became of each packet, with its
    /// note and payload, in the order in which they were pushed. What was not deciphered has a bad ICV. The burst is empty
    /// then.
    #[inline(always)]
    pub fn finish(&mut self, mut each: impl FnMut(&N, Result<Opened, OpenError>, &[u8])) {
        for (job, checked) in self.jobs.iter().zip(&self.checked) {
            let (outcome, payload) = match finish(job, checked) {
                Ok((opened, payload)) => (Ok(opened), payload),
                Err(error) => (Err(error), [].as_slice()),
            };
            each(&checked.note, outcome, payload);
        }
        self.jobs.clear();
        self.checked.clear();
        self.alive = None;
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

/// Everything after the cipher; with the payload.
#[inline(always)]
fn finish<'b, N>(job: &'b OpenJob<'_>, checked: &Checked<'_, N>) -> Result<(Opened, &'b [u8]), OpenError> {
    let &Checked { sa, sequence, payload_offset, .. } = checked;
    if !job.verified {
        return Err(sa.refuse(OpenError::BadIcv));
    }
    let text_bytes = job.buffer.len().saturating_sub(sa.key.icv_length().bytes());
    sa.accept(sequence, text_bytes)?;
    let text = job.buffer.get(..text_bytes).unwrap_or_default();
    let (trailer, payload) = strip(text).map_err(|error| sa.refuse(error))?;
    let place = payload_offset..payload_offset + payload.len();
    Ok((Opened { payload: place, next_header: trailer.next_header, sequence }, payload))
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
mod tests {
    use super::*;
    use crate::testing::{Agreed, BEFORE, GRE, ICVS, payload, pool, received, seal_one};
    use crate::window::WINDOW_DEFAULT;
    use aead::{Engine, IcvLength};
    use pktbuf::Pool;
    use proptest::prelude::*;
    use std::collections::HashSet;

    static_assertions::assert_impl_all!(InboundSa: Send, Sync);
    static_assertions::assert_not_impl_any!(InboundSa: core::fmt::Debug, Clone);
    static_assertions::assert_not_impl_any!(InboundParameters: core::fmt::Debug, Clone);

    fn agreed(esn: bool) -> Agreed {
        Agreed::new(1, esn, IcvLength::Sixteen)
    }

    /// Opens ESP packets as one burst; a packet that was not staged has its error in its place.
    fn open_burst(pool: &Pool, packets: &[(&InboundSa, &[u8])]) -> Vec<Result<Vec<u8>, OpenError>> {
        let mut buffers: Vec<Packet> = packets.iter().map(|(_, esp)| received(pool, esp)).collect();
        let mut burst = OpenBurst::new(0);
        let pushed: Vec<Result<(), OpenError>> =
            buffers.iter_mut().zip(packets).map(|(packet, (sa, _))| burst.push(packet, BEFORE, sa)).collect();
        let mut outcomes = burst.open().into_iter();
        let outcomes: Vec<_> =
            pushed.into_iter().map(|pushed| pushed.and_then(|()| outcomes.next().unwrap())).collect();
        buffers
            .iter()
            .zip(outcomes)
            .map(|(packet, one)| one.map(|o| packet.data()[o.payload].to_vec()))
            .collect()
    }

    fn open_one(sa: &InboundSa, esp: &[u8]) -> Result<Vec<u8>, OpenError> {
        open_burst(&pool(), &[(sa, esp)]).remove(0)
    }

    /// Opens one packet and asserts that nothing but one statistic has changed.
    fn assert_refused(sa: &InboundSa, esp: &[u8], error: OpenError, counted: InboundStatistics) {
        let (usage, edge) = (sa.usage(), sa.window().map(Window::right_edge));
        assert_eq!(open_one(sa, esp), Err(error));
        assert_eq!(sa.statistics(), counted);
        assert_eq!((sa.usage(), sa.window().map(Window::right_edge)), (usage, edge));
    }

    /// A text with a payload of 6 octets and the trailer given.
    fn text(trailer: &[u8]) -> Vec<u8> {
        [b"abcdef", trailer].concat()
    }

    #[test]
    fn every_length_comes_back_as_it_was_sent() {
        let pool = pool();
        for icv in ICVS {
            for esn in [false, true] {
                let agreed = Agreed::new(4, esn, icv);
                let (out, sa) = (agreed.outbound(), agreed.inbound());
                for bytes in 0..=2000 {
                    let esp = seal_one(&pool, &out, &payload(bytes));
                    assert_eq!(open_burst(&pool, &[(&sa, &esp)]), [Ok(payload(bytes))]);
                }
                assert_eq!(sa.usage(), out.usage());
                assert_eq!(sa.statistics(), InboundStatistics::default());
            }
        }
    }

    /// draft-mcgrew-gcm-test-01, test cases 1 (ESN, low word 0) and 2 (without ESN).
    #[test]
    fn the_packets_of_draft_mcgrew_gcm_test_open() {
        struct Case {
            key: &'static str,
            salt: [u8; 4],
            spi: u32,
            sequence: u64,
            esn: bool,
            iv: &'static str,
            plain: &'static str,
            sealed: &'static str,
        }
        let cases = [
            Case {
                key: "4c80cdefbb5d10da906ac73c3613a634",
                salt: [0x2e, 0x44, 0x3b, 0x68],
                spi: 0x4321,
                sequence: 0x8765_4321_0000_0000,
                esn: true,
                iv: "4956ed7e3b244cfe",
                plain: "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000\
                        00000000045f736970045f756470037369700963796265726369747902646b00\
                        0021000101020201",
                sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34\
                         cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce\
                         61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
            },
            Case {
                key: "feffe9928665731c6d6a8f9467308308",
                salt: [0xca, 0xfe, 0xba, 0xbe],
                spi: 0xa5f8,
                sequence: 10,
                esn: false,
                iv: "facedbaddecaf888",
                plain: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100\
                        0001000000000000037369700963796265726369747902646b00000100010001",
                sealed: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c\
                         3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1\
                         83b70d3aa8bc6ee4c309e9d85a41ad4a",
            },
        ];
        for case in cases {
            let sa = InboundSa::new(InboundParameters {
                spi: Spi(case.spi),
                key: Engine::best().key(&hex::decode(case.key).unwrap(), IcvLength::Sixteen).unwrap(),
                salt: Salt::new(case.salt),
                esn: case.esn,
                window: Some(WINDOW_DEFAULT),
                lifetime: Lifetime::default(),
            })
            .unwrap();
            sa.window().unwrap().resume(SequenceNumber(case.sequence - 1));
            let low = u32::try_from(case.sequence & 0xffff_ffff).unwrap();
            let esp = [
                &case.spi.to_be_bytes()[..],
                &low.to_be_bytes(),
                &hex::decode(case.iv).unwrap(),
                &hex::decode(case.sealed).unwrap(),
            ]
            .concat();
            let plain = hex::decode(case.plain).unwrap();
            let [.., pad_length, next_header] = plain[..] else { panic!("a plain text has a trailer") };
            let payload_bytes = plain.len() - 2 - usize::from(pad_length);

            let pool = pool();
            let mut packet = received(&pool, &esp);
            let mut burst = OpenBurst::new(0);
            burst.push(&mut packet, BEFORE, &sa).unwrap();
            let opened = burst.open().remove(0).unwrap();
            assert_eq!(packet.data()[opened.payload.clone()], plain[..payload_bytes]);
            assert_eq!(opened.next_header, IpProtocol(next_header));
            assert_eq!(opened.sequence, SequenceNumber(case.sequence));
        }
    }

    #[test]
    fn a_packet_stays_where_it_is_and_keeps_what_stands_before_esp() {
        let (pool, agreed) = (pool(), agreed(false));
        let sa = agreed.inbound();
        let mut packet = received(&pool, &seal_one(&pool, &agreed.outbound(), b"payload"));
        let start = packet.data().as_ptr();
        let mut burst = OpenBurst::new(0);
        burst.push(&mut packet, BEFORE, &sa).unwrap();
        let opened = burst.open().remove(0).unwrap();
        assert_eq!(opened.payload, BEFORE + 16..BEFORE + 16 + 7);
        assert_eq!((opened.next_header, opened.sequence), (GRE, SequenceNumber(1)));
        assert_eq!(packet.data().as_ptr(), start);
        assert_eq!(packet.data()[..BEFORE], [0xa5; BEFORE]);
    }

    #[test]
    fn a_packet_truncated_at_any_octet_is_refused() {
        for icv in ICVS {
            let agreed = Agreed::new(1, false, icv);
            let sa = agreed.inbound();
            let esp = seal_one(&pool(), &agreed.outbound(), &payload(30));
            for bytes in 0..esp.len() {
                let outcome = open_one(&sa, &esp[..bytes]);
                let expected = match bytes.checked_sub(16 + icv.bytes()) {
                    None | Some(0..4) => OpenError::TooShort,
                    Some(text) if text % 4 != 0 => OpenError::Misaligned,
                    Some(_) => OpenError::BadIcv,
                };
                assert_eq!(outcome, Err(expected), "{bytes} octets");
            }
            assert_eq!(sa.usage(), Usage::default());
            assert_eq!(open_one(&sa, &esp), Ok(payload(30)), "the whole one still passes");
        }
    }

    #[test]
    fn an_esp_header_beyond_the_packet_is_too_short() {
        let (pool, sa) = (pool(), agreed(false).inbound());
        let (mut one, mut two) = (received(&pool, &[]), received(&pool, &[]));
        let mut burst = OpenBurst::new(0);
        assert_eq!(burst.push(&mut one, BEFORE + 1, &sa), Err(OpenError::TooShort));
        assert_eq!(burst.push(&mut two, usize::MAX, &sa), Err(OpenError::TooShort));
        assert!(burst.open().is_empty());
    }

    #[test]
    fn a_misaligned_ciphertext_is_refused_although_its_icv_is_right() {
        let agreed = agreed(false);
        for extra in 1..4 {
            let esp = agreed.seal_by_hand(1, [1; 8], &[&payload(8 + extra)[..], &[0, 47]].concat());
            let outcome = open_one(&agreed.inbound(), &esp);
            assert_eq!(outcome.is_ok(), extra == 2);
            assert!(extra == 2 || outcome == Err(OpenError::Misaligned));
        }
    }

    #[test]
    fn any_flipped_bit_ends_in_a_wrong_icv() {
        for icv in ICVS {
            for esn in [false, true] {
                let agreed = Agreed::new(2, esn, icv);
                let sa = agreed.inbound();
                let esp = seal_one(&pool(), &agreed.outbound(), b"payload");
                // The SPI is authenticated as the SA's own, so a flip there is the lookup's business.
                for bit in 32..esp.len() * 8 {
                    let mut forged = esp.clone();
                    forged[bit / 8] ^= 1 << (bit % 8);
                    // The low bit of sequence number 1 makes 0.
                    if bit == 56 {
                        assert_eq!(open_one(&sa, &forged), Err(OpenError::SequenceZero));
                    } else {
                        assert_eq!(open_one(&sa, &forged), Err(OpenError::BadIcv), "bit {bit}");
                    }
                }
                assert_eq!(sa.window().unwrap().right_edge(), SequenceNumber(0), "the window has not moved");
                assert_eq!(sa.usage(), Usage::default());
                assert_eq!(open_one(&sa, &esp), Ok(b"payload".to_vec()));
            }
        }
    }

    #[test]
    fn a_packet_of_another_sa_is_refused_by_its_icv() {
        let theirs = agreed(false);
        let esp = seal_one(&pool(), &theirs.outbound(), b"payload");
        let other_key = Agreed { spi: theirs.spi, ..Agreed::new(4, false, IcvLength::Sixteen) };
        let other_salt = Agreed { salt: [0; 4], ..theirs.clone() };
        let other_spi = Agreed { spi: Spi(0x9999), ..theirs.clone() };
        let other_esn = Agreed { esn: true, ..theirs.clone() };
        for ours in [other_key, other_salt, other_spi, other_esn] {
            let counted = InboundStatistics { bad_icv: 1, ..InboundStatistics::default() };
            assert_refused(&ours.inbound(), &esp, OpenError::BadIcv, counted);
        }
    }

    #[test]
    fn a_forged_number_far_ahead_does_not_move_the_window() {
        let agreed = agreed(false);
        let (out, sa) = (agreed.outbound(), agreed.inbound());
        let genuine: Vec<Vec<u8>> = (0..3).map(|_| seal_one(&pool(), &out, b"payload")).collect();
        let mut forged = genuine[0].clone();
        forged[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        let counted = InboundStatistics { bad_icv: 1, ..InboundStatistics::default() };
        assert_refused(&sa, &forged, OpenError::BadIcv, counted);
        for esp in &genuine {
            assert!(open_one(&sa, esp).is_ok());
        }
    }

    #[test]
    fn a_replayed_packet_is_refused() {
        let agreed = agreed(false);
        let sa = agreed.inbound();
        let esp = seal_one(&pool(), &agreed.outbound(), b"payload");
        assert!(open_one(&sa, &esp).is_ok());
        let counted = InboundStatistics { replayed: 1, ..InboundStatistics::default() };
        assert_refused(&sa, &esp, OpenError::Replayed, counted);
    }

    #[test]
    fn a_packet_behind_the_window_is_refused() {
        let agreed = agreed(false);
        let sa = agreed.inbound_with(Some(64));
        let trailer = text(&[0, 47]);
        assert!(open_one(&sa, &agreed.seal_by_hand(100, [1; 8], &trailer)).is_ok());
        let counted = InboundStatistics { too_old: 1, ..InboundStatistics::default() };
        assert_refused(&sa, &agreed.seal_by_hand(36, [2; 8], &trailer), OpenError::TooOld, counted);
        assert!(open_one(&sa, &agreed.seal_by_hand(37, [3; 8], &trailer)).is_ok());
        assert_eq!(sa.statistics().late, 1);
    }

    #[test]
    fn sequence_number_zero_is_refused_although_its_icv_is_right() {
        for esn in [false, true] {
            let agreed = agreed(esn);
            let sa = agreed.inbound();
            let esp = agreed.seal_by_hand(0, [1; 8], &text(&[0, 47]));
            let counted = InboundStatistics { sequence_zero: 1, ..InboundStatistics::default() };
            assert_refused(&sa, &esp, OpenError::SequenceZero, counted);
        }
    }

    /// What the ICV has proved is marked as seen even when its content is refused.
    fn assert_marked_and_refused(text: &[u8], error: OpenError, counted: InboundStatistics) {
        let agreed = agreed(false);
        let sa = agreed.inbound();
        let esp = agreed.seal_by_hand(7, [1; 8], text);
        assert_eq!(open_one(&sa, &esp), Err(error));
        assert_eq!(sa.statistics(), counted);
        assert_eq!(open_one(&sa, &esp), Err(OpenError::Replayed));
    }

    #[test]
    fn a_pad_length_beyond_the_payload_is_refused_under_a_valid_icv() {
        let counted = InboundStatistics { bad_padding: 1, ..InboundStatistics::default() };
        for pad_length in 7..=u8::MAX {
            assert_marked_and_refused(&text(&[pad_length, 47]), OpenError::BadPadLength, counted);
        }
    }

    #[test]
    fn wrong_padding_is_refused_under_a_valid_icv() {
        let counted = InboundStatistics { bad_padding: 1, ..InboundStatistics::default() };
        for wrong in [[0, 0, 0], [1, 2, 2], [0, 2, 3], [1, 3, 3], [3, 2, 1]] {
            let [a, b, c] = wrong;
            let text = [b"abc", &[a, b, c, 3, 47][..]].concat();
            assert_marked_and_refused(&text, OpenError::BadPadding, counted);
        }
    }

    #[test]
    fn longer_padding_than_needed_is_taken() {
        let agreed = agreed(false);
        for pad_length in [4, 6, 200, 254] {
            let padding: Vec<u8> = (1..=pad_length).collect();
            let text = [&payload(10 - usize::from(pad_length) % 4)[..], &padding, &[pad_length, 47]].concat();
            let esp = agreed.seal_by_hand(1, [1; 8], &text);
            assert_eq!(open_one(&agreed.inbound(), &esp), Ok(payload(10 - usize::from(pad_length) % 4)));
        }
    }

    #[test]
    fn a_dummy_packet_is_told_from_all_others() {
        let counted = InboundStatistics { dummies: 1, ..InboundStatistics::default() };
        assert_marked_and_refused(&text(&[0, 59]), OpenError::Dummy, counted);
    }

    #[test]
    fn of_two_copies_in_one_burst_exactly_one_passes() {
        for esn in [false, true] {
            let agreed = agreed(esn);
            let sa = agreed.inbound();
            let esp = seal_one(&pool(), &agreed.outbound(), b"payload");
            let outcomes = open_burst(&pool(), &[(&sa, &esp), (&sa, &esp), (&sa, &esp)]);
            let passed = Ok(b"payload".to_vec());
            assert_eq!(outcomes, [passed, Err(OpenError::Replayed), Err(OpenError::Replayed)]);
            assert_eq!(sa.usage().packets, 1);
            assert_eq!(sa.statistics().replayed, 2);
        }
    }

    #[test]
    fn a_forged_copy_before_the_genuine_one_in_a_burst_does_no_harm() {
        let agreed = agreed(false);
        let sa = agreed.inbound();
        let esp = seal_one(&pool(), &agreed.outbound(), b"payload");
        let mut forged = esp.clone();
        *forged.last_mut().unwrap() ^= 1;
        let outcomes = open_burst(&pool(), &[(&sa, &forged), (&sa, &esp)]);
        assert_eq!(outcomes, [Err(OpenError::BadIcv), Ok(b"payload".to_vec())]);
    }

    #[test]
    fn a_packet_that_the_burst_itself_pushes_out_of_the_window_is_too_old() {
        let agreed = agreed(false);
        let sa = agreed.inbound_with(Some(64));
        let trailer = text(&[0, 47]);
        let (ahead, behind) =
            (agreed.seal_by_hand(1000, [1; 8], &trailer), agreed.seal_by_hand(1, [2; 8], &trailer));
        let outcomes = open_burst(&pool(), &[(&sa, &ahead), (&sa, &behind)]);
        assert_eq!(outcomes, [Ok(b"abcdef".to_vec()), Err(OpenError::TooOld)]);
    }

    #[test]
    fn esn_goes_on_across_two_to_the_32_with_loss_and_reorder() {
        let agreed = agreed(true);
        let (out, sa) = (agreed.outbound(), agreed.inbound());
        let pool = pool();
        out.sequence().resume_at(SequenceNumber(0x0_ffff_ff00));
        sa.window().unwrap().resume(SequenceNumber(0x0_ffff_fe00));
        let mut sealed: Vec<Vec<u8>> = (0..512).map(|_| seal_one(&pool, &out, b"payload")).collect();
        // Every seventh is lost, and each group of ten arrives backwards.
        let mut kept: Vec<_> = sealed.drain(..).enumerate().filter(|(i, _)| i % 7 != 0).collect();
        kept.chunks_mut(10).for_each(<[_]>::reverse);
        for group in kept.chunks(50) {
            let burst: Vec<(&InboundSa, &[u8])> = group.iter().map(|(_, esp)| (&sa, &esp[..])).collect();
            assert!(open_burst(&pool, &burst).iter().all(Result::is_ok));
        }
        assert_eq!(sa.window().unwrap().right_edge(), SequenceNumber(0x0_ffff_ff00 + 510));
        for (_, esp) in &kept {
            assert_eq!(open_one(&sa, esp), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn after_resuming_nothing_up_to_the_edge_is_opened() {
        let agreed = agreed(false);
        let sa = agreed.inbound();
        sa.window().unwrap().resume(SequenceNumber(50));
        let trailer = text(&[0, 47]);
        for sequence in [1, 49, 50] {
            let esp = agreed.seal_by_hand(sequence, [1; 8], &trailer);
            assert_eq!(open_one(&sa, &esp), Err(OpenError::Replayed));
        }
        assert!(open_one(&sa, &agreed.seal_by_hand(51, [1; 8], &trailer)).is_ok());
    }

    #[test]
    fn without_a_window_sequence_numbers_are_not_looked_at() {
        let agreed = agreed(false);
        let sa = agreed.inbound_with(None);
        for sequence in [5, 5, 0, 1] {
            let esp = agreed.seal_by_hand(sequence, [1; 8], &text(&[0, 47]));
            assert_eq!(open_one(&sa, &esp), Ok(b"abcdef".to_vec()));
        }
    }

    #[test]
    fn impossible_sas_are_refused() {
        let with = |esn, window| {
            let agreed = agreed(esn);
            let key = Engine::best().key(&agreed.key, agreed.icv).unwrap();
            let salt = Salt::new(agreed.salt);
            let lifetime = Lifetime::default();
            InboundSa::new(InboundParameters { spi: agreed.spi, key, salt, esn, window, lifetime }).err()
        };
        assert_eq!(with(true, None), Some(InboundSaError::EsnWithoutWindow));
        assert_eq!(with(true, Some(100)), Some(InboundSaError::WindowSize(WindowSizeError(100))));
        assert_eq!(with(false, None), None);
    }

    #[test]
    fn an_expired_sa_opens_nothing() {
        let hard = [
            Bounds { deadline_ns: 1000, ..Bounds::NONE },
            Bounds { packets: 2, ..Bounds::NONE },
            Bounds { bytes: 24, ..Bounds::NONE },
        ];
        for hard in hard {
            let soft = Bounds { bytes: 12, ..Bounds::NONE };
            let agreed = Agreed { lifetime: Lifetime { soft, hard }, ..agreed(false) };
            let sa = agreed.inbound();
            for (sequence, state) in [(1, LifetimeState::Live), (2, LifetimeState::SoftReached)] {
                assert_eq!(sa.lifetime_state(999), state);
                let esp = agreed.seal_by_hand(sequence, [1; 8], &[&payload(10)[..], &[0, 47]].concat());
                assert!(open_one(&sa, &esp).is_ok());
            }
            assert_eq!(sa.lifetime_state(1000), LifetimeState::HardReached);
            let pool = pool();
            let mut third = received(&pool, &agreed.seal_by_hand(3, [1; 8], &text(&[0, 47])));
            assert_eq!(OpenBurst::new(1000).push(&mut third, BEFORE, &sa), Err(OpenError::Expired));
        }
    }

    #[test]
    fn a_full_burst_takes_no_more_and_opens_what_it_has() {
        let (pool, agreed) = (pool(), agreed(false));
        let (out, sa) = (agreed.outbound(), agreed.inbound());
        let mut packets: Vec<Packet> =
            (0..=BURST).map(|_| received(&pool, &seal_one(&pool, &out, b"payload"))).collect();
        let mut burst = OpenBurst::new(0);
        let pushed: Vec<_> = packets.iter_mut().map(|packet| burst.push(packet, BEFORE, &sa)).collect();
        assert_eq!(pushed[BURST], Err(OpenError::BurstFull));
        assert_eq!(burst.len(), BURST);
        assert!(burst.open().iter().all(Result::is_ok));
    }

    /// What may happen to a packet between sender and receiver.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Arrives,
        IsDamaged,
        IsLost,
        ArrivesAgain(usize),
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            6 => Just(Fate::Arrives),
            1 => Just(Fate::IsDamaged),
            1 => Just(Fate::IsLost),
            3 => (0_usize..200).prop_map(Fate::ArrivesAgain),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 512, ..ProptestConfig::default() })]

        /// Bursts of mixed SAs with loss, damage, reorder and duplicates, against one set for each SA.
        #[test]
        fn each_genuine_packet_passes_once_and_nothing_else_does(
            fates in prop::collection::vec((0_usize..3, fate(), 0_usize..100), 1..300),
            chunk in 1_usize..=64,
        ) {
            let pool = pool();
            let agreed: Vec<Agreed> = (0..3_u8)
                .map(|n| Agreed::new(n, n != 0, ICVS[usize::from(n)]))
                .collect();
            let outbound: Vec<_> = agreed.iter().map(Agreed::outbound).collect();
            let inbound: Vec<_> = agreed.iter().map(|one| one.inbound_with(Some(512))).collect();
            for (out, sa) in outbound.iter().zip(&inbound).skip(1) {
                out.sequence().resume_at(SequenceNumber(0xffff_ffc0));
                sa.window().unwrap().resume(SequenceNumber(0xffff_ffbf));
            }
            let mut sent: Vec<(usize, u64, Vec<u8>)> = Vec::new();
            let mut wire: Vec<(usize, Option<u64>, Vec<u8>)> = Vec::new();
            for &(of, fate, bytes) in &fates {
                let sequence = outbound[of].sequence().position().0;
                let mut esp = seal_one(&pool, &outbound[of], &payload(bytes));
                sent.push((of, sequence, esp.clone()));
                match fate {
                    Fate::Arrives => wire.push((of, Some(sequence), esp)),
                    Fate::IsDamaged => {
                        *esp.last_mut().unwrap() ^= 0x80;
                        wire.push((of, None, esp));
                    }
                    Fate::IsLost => {}
                    Fate::ArrivesAgain(which) => {
                        let (of, sequence, esp) = &sent[which % sent.len()];
                        wire.push((*of, Some(*sequence), esp.clone()));
                    }
                }
            }
            let mut seen: HashSet<(usize, u64)> = HashSet::new();
            for burst in wire.chunks(chunk) {
                let named: Vec<_> = burst.iter().map(|(of, _, esp)| (&inbound[*of], &esp[..])).collect();
                for ((of, genuine, _), outcome) in burst.iter().zip(open_burst(&pool, &named)) {
                    match genuine {
                        Some(sequence) if seen.insert((*of, *sequence)) => prop_assert!(outcome.is_ok()),
                        Some(_) => prop_assert_eq!(outcome, Err(OpenError::Replayed)),
                        None => prop_assert!(matches!(
                            outcome,
                            Err(OpenError::BadIcv | OpenError::Replayed)
                        )),
                    }
                }
            }
        }

        /// Texts that a peer with the key may make: never a panic, and a payload only from a right trailer.
        #[test]
        fn any_text_under_a_valid_icv_is_judged_as_rfc_4303_says(
            words in prop::collection::vec(any::<[u8; 4]>(), 1..80),
            pad_length in prop_oneof![0_u8..8, any::<u8>()],
            sequential in any::<bool>(),
            next_header: u8,
        ) {
            let mut text = words.concat();
            let body_bytes = text.len() - 2;
            text[body_bytes..].copy_from_slice(&[pad_length, next_header]);
            let payload_bytes = body_bytes.checked_sub(usize::from(pad_length));
            if let (true, Some(start)) = (sequential, payload_bytes) {
                (1..).zip(&mut text[start..body_bytes]).for_each(|(n, octet)| *octet = n);
            }
            let expected = match payload_bytes {
                None => Err(OpenError::BadPadLength),
                Some(n) if !text[n..body_bytes].iter().eq(&Vec::from_iter(1..=pad_length)) => {
                    Err(OpenError::BadPadding)
                }
                Some(_) if next_header == 59 => Err(OpenError::Dummy),
                Some(n) => Ok(text[..n].to_vec()),
            };
            let agreed = agreed(true);
            let outcome = open_one(&agreed.inbound(), &agreed.seal_by_hand(9, [1; 8], &text));
            prop_assert_eq!(outcome, expected);
        }
    }
}
