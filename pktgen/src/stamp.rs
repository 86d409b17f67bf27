// SPDX-License-Identifier: Apache-2.0
//! What each test packet carries behind its UDP, TCP or ICMP header, so that it is recognised behind any tunnel.
//!
//! ```text
//!  0         2         4                   8                              16        18
//!  +---------+---------+-------------------+-------------------------------+---------+--------
//!  |  "Gp"   | stream  |     sequence      |           sent_ns             |  check  | filler
//!  +---------+---------+-------------------+-------------------------------+---------+--------
//! ```
//!
//! All big-endian. Eighteen bytes are what a frame of 64 bytes leaves behind Ethernet, IPv4 and UDP. The check makes
//! the ones' complement sum of the stamp 0, so that damage shows and no checksum over the packet depends on the
//! stamp. The filler is the same in all packets: it shows damage, and costs nothing to write.
//!
//! `sent_ns` is `CLOCK_MONOTONIC` of the sender's machine: latency has a meaning only where both ends read the same
//! clock.

/// Length of the stamp in bytes.
pub const STAMP_BYTES: usize = 18;

/// Longest filler, longer than any frame.
pub const FILLER_BYTES: usize = 1 << 14;

/// What stands behind the stamp.
pub static FILLER: [u8; FILLER_BYTES] = filler();

const MAGIC: u16 = u16::from_be_bytes(*b"Gp");

/// The stamp of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which stream.
    pub stream: u16,
    /// The packet's place in it: the low 32 bits, from 0.
    pub sequence: u32,
    /// When it was due, in nanoseconds.
    pub sent_ns: u64,
}

/// Why bytes carry no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// Not one of our packets.
    #[error("no test packet")]
    Foreign,
    /// One of ours, of the stream that it says, but not as it was sent.
    #[error("damaged test packet of stream {0}")]
    Corrupt(u16),
}

impl Stamp {
    /// The stamp as it travels.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let first = self.first_word();
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes[16..].copy_from_slice(&(!fold(first, self.sent_ns)).to_be_bytes());
        bytes
    }

    /// Reads the stamp at the front of a payload and checks it and the filler behind it.
    ///
    /// # Errors
    /// [`StampError`].
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, StampError> {
        let (first, rest) = payload.split_first_chunk().ok_or(StampError::Foreign)?;
        let (sent_ns, rest) = rest.split_first_chunk().ok_or(StampError::Foreign)?;
        let (check, filler) = rest.split_first_chunk().ok_or(StampError::Foreign)?;
        let (first, sent_ns) = (u64::from_be_bytes(*first), u64::from_be_bytes(*sent_ns));
        if (first >> 48) as u16 != MAGIC {
            return Err(StampError::Foreign);
        }
        let check = u16::from_be_bytes(*check);
        let intact = check == !fold(first, sent_ns) && FILLER.get(..filler.len()) == Some(filler);
        let stamp = Self { stream: (first >> 32) as u16, sequence: first as u32, sent_ns };
        if intact { Ok(stamp) } else { Err(StampError::Corrupt(stamp.stream)) }
    }

    #[inline]
    fn first_word(self) -> u64 {
        u64::from(MAGIC) << 48 | u64::from(self.stream) << 32 | u64::from(self.sequence)
    }
}

/// The ones' complement sum of both words, as 16 bits. Half of a sum of a word and the same word turned is the sum of its
/// halves, with the carry that comes back in (RFC 1071 §2).
#[inline]
fn fold(a: u64, b: u64) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    let sum = sum + u64::from(carry);
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

const fn filler() -> [u8; FILLER_BYTES] {
    let mut filler = [0; FILLER_BYTES];
    let mut at = 0;
    while at < FILLER_BYTES {
        // Neighbouring 256-byte blocks differ, so that a piece that has moved shows.
        filler[at] = (at as u8).wrapping_mul(29).wrapping_add((at >> 8) as u8).wrapping_add(0x5a);
        at += 1;
    }
    filler
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::checksum::Sum;

    use super::*;

    fn payload(stamp: Stamp, length: usize) -> Vec<u8> {
        [&stamp.to_bytes()[..], &FILLER[..length - STAMP_BYTES]].concat()
    }

    proptest! {
        #[test]
        fn a_stamp_comes_back_and_any_changed_byte_is_damage_or_foreign(
            stream: u16, sequence: u32, sent_ns: u64, length in STAMP_BYTES..300, at: usize, flip in 1_u8..,
        ) {
            let stamp = Stamp { stream, sequence, sent_ns };
            let mut payload = payload(stamp, length);
            prop_assert_eq!(Stamp::parse(&payload), Ok(stamp));
            let at = at % length;
            payload[at] ^= flip;
            let found = Stamp::parse(&payload).unwrap_err();
            prop_assert_eq!(found == StampError::Foreign, at < 2);
        }

        #[test]
        fn every_stamp_adds_nothing_to_a_checksum(stream: u16, sequence: u32, sent_ns: u64) {
            let bytes = Stamp { stream, sequence, sent_ns }.to_bytes();
            prop_assert!(Sum::of(&bytes).is_valid());
        }
    }

    #[test]
    fn what_is_too_short_or_not_ours_is_foreign() {
        assert_eq!(Stamp::parse(&[0; STAMP_BYTES - 1]), Err(StampError::Foreign));
        assert_eq!(Stamp::parse(&[0; 64]), Err(StampError::Foreign));
    }

    #[test]
    fn filler_that_has_moved_shows() {
        let mut payload = payload(Stamp { stream: 1, sequence: 2, sent_ns: 3 }, 1_000);
        payload.copy_within(500.., 500 - 256);
        assert_eq!(Stamp::parse(&payload), Err(StampError::Corrupt(1)));
    }
}
