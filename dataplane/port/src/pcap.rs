// SPDX-License-Identifier: Apache-2.0
//! Capture files in the classic pcap format (draft-ietf-opsawg-pcap), Ethernet, with nanoseconds.
//!
//! For tests and traces; not for the packet path. pcapng is left out.

use std::io::{self, Read, Write};

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET: u32 = 1;
const SNAP_LENGTH: u32 = 262_144;

/// Writes a capture file.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Starts a capture file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn new(mut to: W) -> io::Result<Writer<W>> {
        to.write_all(&MAGIC_NANOSECONDS.to_ne_bytes())?;
        to.write_all(&2u16.to_ne_bytes())?;
        to.write_all(&4u16.to_ne_bytes())?;
        to.write_all(&[0; 8])?;
        to.write_all(&SNAP_LENGTH.to_ne_bytes())?;
        to.write_all(&LINKTYPE_ETHERNET.to_ne_bytes())?;
        Ok(Writer { to })
    }

    /// Adds a frame with the time since the epoch at which it was seen.
    ///
    /// # Errors
    /// If writing fails, the frame is longer than the format allows, or the time is after 2106.
    pub fn write(&mut self, time_ns: u64, frame: &[u8]) -> io::Result<()> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let len = u32::try_from(frame.len()).map_err(invalid)?;
        let seconds = u32::try_from(time_ns / 1_000_000_000).map_err(invalid)?;
        let nanoseconds = (time_ns % 1_000_000_000) as u32;
        for word in [seconds, nanoseconds, len, len] {
            self.to.write_all(&word.to_ne_bytes())?;
        }
        self.to.write_all(frame)
    }

    /// Flushes and returns what was written to.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Time since the epoch.
    pub time_ns: u64,
    /// The bytes, from the destination MAC address on, without FCS.
    pub bytes: Vec<u8>,
}

/// Reads a whole capture file that was written on a machine of the same byte order.
///
/// # Errors
/// If reading fails, it is not such a file, or it ends in the middle of a frame.
pub fn read(mut from: impl Read) -> io::Result<Vec<Frame>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut file = Vec::new();
    from.read_to_end(&mut file)?;
    let mut rest = file.as_slice();
    let unit_ns = match take_word(&mut rest) {
        Some(MAGIC_NANOSECONDS) => 1,
        Some(MAGIC_MICROSECONDS) => 1000,
        _ => return Err(invalid("not a pcap file of this machine's byte order")),
    };
    let header = rest.split_off(..20).ok_or_else(|| invalid("pcap header cut off"))?;
    if header.get(16..) != Some(&LINKTYPE_ETHERNET.to_ne_bytes()) {
        return Err(invalid("not a capture of Ethernet frames"));
    }
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let frame = take_frame(&mut rest, unit_ns).ok_or_else(|| invalid("pcap file ends in a frame"))?;
        frames.push(frame);
    }
    Ok(frames)
}

fn take_frame(rest: &mut &[u8], unit_ns: u64) -> Option<Frame> {
    let [seconds, fraction, captured, _on_wire] =
        [take_word(rest)?, take_word(rest)?, take_word(rest)?, take_word(rest)?];
    let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit_ns;
    let bytes = rest.split_off(..usize::try_from(captured).ok()?)?;
    Some(Frame { time_ns, bytes: bytes.to_vec() })
}

fn take_word(rest: &mut &[u8]) -> Option<u32> {
    let (word, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::{Frame, Writer, read};

    fn file() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.write(1_000_000_007, &[1, 2, 3]).unwrap();
        writer.write(2, &[]).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let frames =
            [Frame { time_ns: 1_000_000_007, bytes: vec![1, 2, 3] }, Frame { time_ns: 2, bytes: vec![] }];
        assert_eq!(read(&file()[..]).unwrap(), frames);
    }

    #[test]
    fn the_file_header_is_that_of_the_format() {
        let header = [
            0xa1b2_3c4d_u32.to_ne_bytes(),
            [2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat().try_into().unwrap(),
        ];
        assert_eq!(file()[..8], header.concat());
        assert_eq!(file()[20..24], 1u32.to_ne_bytes());
    }

    #[test]
    fn microseconds_are_understood() {
        let mut file = file();
        file[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
        assert_eq!(read(&file[..]).unwrap()[0].time_ns, 1_000_007_000);
    }

    #[test]
    fn a_cut_off_or_foreign_file_is_an_error() {
        let whole = file();
        let frame_ends = [24, 43, whole.len()];
        for len in (0..whole.len()).filter(|len| !frame_ends.contains(len)) {
            assert!(read(&whole[..len]).is_err(), "{len} bytes");
        }
        assert!(read(&[0; 24][..]).is_err());
        let mut wifi = whole;
        wifi[20] = 105;
        assert!(read(&wifi[..]).is_err());
    }

    #[test]
    fn a_time_after_2106_is_an_error() {
        assert!(Writer::new(Vec::new()).unwrap().write(u64::MAX, &[]).is_err());
    }
}
