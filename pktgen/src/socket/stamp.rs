// SPDX-License-Identifier: Apache-2.0
//! What each test packet carries, so that it can be recognised behind any tunnel.
//!
//! ```text
//!  0         4         8                 16                24
//!  +---------+---------+-----------------+-----------------+----------------
//!  | "GHPG"  | stream  |    sequence     |  sent_ns        | filler …
//!  +---------+---------+-----------------+-----------------+----------------
//! ```
//!
//! All big-endian. `sent_ns` is CLOCK_MONOTONIC of the sender's machine: latency has a meaning only where both ends
//! read the same clock. The filler follows from stream and sequence, so damage shows.

/// Length of the stamp in bytes.
pub const STAMP_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"GHPG";

/// The stamp of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which stream.
    pub stream: u32,
    /// The packet's place in it, from 0.
    pub sequence: u64,
    /// When it was sent, in nanoseconds.
    pub sent_ns: u64,
}

/// Why bytes carry no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// Not one of our packets.
    #[error("no test packet")]
    Foreign,
    /// One of ours, but its filler is not what was sent.
    #[error("damaged test packet")]
    Corrupt,
}

impl Stamp {
    /// Writes stamp and filler over all of `payload`; false if it is too short.
    #[must_use]
    pub fn emit(&self, payload: &mut [u8]) -> bool {
        let Some((head, filler)) = payload.split_first_chunk_mut::<STAMP_BYTES>() else { return false };
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.stream.to_be_bytes());
        head[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        head[16..].copy_from_slice(&self.sent_ns.to_be_bytes());
        for (place, byte) in filler.iter_mut().enumerate() {
            *byte = self.filler_at(place);
        }
        true
    }

    /// Reads a stamp and checks the filler behind it.
    ///
    /// # Errors
    /// [`StampError`].
    pub fn parse(payload: &[u8]) -> Result<Self, StampError> {
        let ([a, b, c, d, head @ ..], filler) =
            payload.split_first_chunk::<STAMP_BYTES>().ok_or(StampError::Foreign)?;
        if [*a, *b, *c, *d] != MAGIC {
            return Err(StampError::Foreign);
        }
        let word = |at: usize| head[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let stream = head[..4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        let stamp = Self { stream, sequence: word(4), sent_ns: word(12) };
        let intact = filler.iter().enumerate().all(|(place, byte)| *byte == stamp.filler_at(place));
        if intact { Ok(stamp) } else { Err(StampError::Corrupt) }
    }

    fn filler_at(&self, place: usize) -> u8 {
        (self.sequence as u8).wrapping_mul(31).wrapping_add(self.stream as u8).wrapping_add(place as u8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_comes_back_and_any_changed_filler_is_damage(
            stream: u32, sequence: u64, sent_ns: u64, length in STAMP_BYTES..300, at: usize, flip in 1_u8..,
        ) {
            let stamp = Stamp { stream, sequence, sent_ns };
            let mut payload = vec![0xa5; length];
            prop_assert!(stamp.emit(&mut payload));
            prop_assert_eq!(Stamp::parse(&payload), Ok(stamp));
            if length > STAMP_BYTES {
                let at = STAMP_BYTES + at % (length - STAMP_BYTES);
                payload[at] ^= flip;
                prop_assert_eq!(Stamp::parse(&payload), Err(StampError::Corrupt));
            }
        }
    }

    #[test]
    fn what_is_too_short_or_not_ours_is_foreign() {
        assert!(!Stamp { stream: 0, sequence: 0, sent_ns: 0 }.emit(&mut [0; STAMP_BYTES - 1]));
        assert_eq!(Stamp::parse(&[0; STAMP_BYTES - 1]), Err(StampError::Foreign));
        assert_eq!(Stamp::parse(&[0; 64]), Err(StampError::Foreign));
    }
}
