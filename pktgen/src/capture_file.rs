// SPDX-License-Identifier: Apache-2.0
//! Capture files that are read: classic pcap, which [`port::pcap`] does, and pcapng (draft-ietf-opsawg-pcapng) by the crate
//! `pcap-parser`.

use std::io::{self, Read};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapNGSlice};
use port::pcap::{self, Frame};

/// What a pcapng file begins with, in either byte order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const NS: u128 = 1_000_000_000;

/// Reads a whole capture of Ethernet frames, of either format.
///
/// # Errors
/// Reading fails, it is no capture, it is cut off, or its frames are not Ethernet's.
pub fn read(mut from: impl Read) -> io::Result<Vec<Frame>> {
    let mut file = Vec::new();
    from.read_to_end(&mut file)?;
    if file.starts_with(&SECTION_HEADER) { read_pcapng(&file) } else { pcap::read(&file[..]) }
}

/// How an interface of a pcapng file tells the time.
struct Interface {
    is_ethernet: bool,
    ticks_per_second: u128,
    offset_seconds: i64,
}

fn read_pcapng(file: &[u8]) -> io::Result<Vec<Frame>> {
    let blocks =
        PcapNGSlice::from_slice(file).map_err(|_| invalid("pcapng file: no section header".to_owned()))?;
    let (mut interfaces, mut frames): (Vec<Interface>, Vec<Frame>) = (Vec::new(), Vec::new());
    for (number, block) in (1..).zip(blocks) {
        let at = |what: &str| invalid(format!("pcapng file: block {number}: {what}"));
        let Ok(PcapBlockOwned::NG(block)) = block else {
            return Err(at("cut off or not as the format has it"));
        };
        match block {
            // Interfaces are those of their section.
            Block::SectionHeader(_) => interfaces.clear(),
            Block::InterfaceDescription(interface) => interfaces.push(Interface {
                is_ethernet: interface.linktype == Linktype::ETHERNET,
                ticks_per_second: ticks_per_second(interface.if_tsresol)
                    .ok_or_else(|| at("a resolution of time finer than 2^-63 s"))?,
                offset_seconds: interface.if_tsoffset,
            }),
            Block::EnhancedPacket(packet) => {
                let interface = usize::try_from(packet.if_id).ok().and_then(|number| interfaces.get(number));
                let interface = interface.ok_or_else(|| at("an interface that is not described"))?;
                let bytes = usize::try_from(packet.caplen).ok().and_then(|bytes| packet.data.get(..bytes));
                let bytes = bytes.ok_or_else(|| at("a frame longer than its block"))?;
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                frames.push(
                    interface.frame(ticks, bytes).ok_or_else(|| at("not a capture of Ethernet frames"))?,
                );
            }
            // It has no time: it comes with the one in front of it.
            Block::SimplePacket(packet) => {
                let is_ethernet = interfaces.first().is_some_and(|interface| interface.is_ethernet);
                let bytes = usize::try_from(packet.origlen).ok().map(|bytes| bytes.min(packet.data.len()));
                let bytes = bytes.filter(|_| is_ethernet).and_then(|bytes| packet.data.get(..bytes));
                let bytes = bytes.ok_or_else(|| at("not a capture of Ethernet frames"))?.to_vec();
                frames.push(Frame { time_ns: frames.last().map_or(0, |frame| frame.time_ns), bytes });
            }
            _ => {}
        }
    }
    Ok(frames)
}

impl Interface {
    /// A frame of this interface; none if it is not Ethernet's.
    fn frame(&self, ticks: u64, bytes: &[u8]) -> Option<Frame> {
        let ns = u128::from(ticks) * NS / self.ticks_per_second;
        let ns = i128::try_from(ns)
            .unwrap_or(i128::MAX)
            .saturating_add(i128::from(self.offset_seconds) * NS as i128);
        let time_ns = u64::try_from(ns.max(0)).unwrap_or(u64::MAX);
        self.is_ethernet.then(|| Frame { time_ns, bytes: bytes.to_vec() })
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 with the highest bit set.
fn ticks_per_second(resolution: u8) -> Option<u128> {
    let power = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u128.checked_pow(power) } else { 1_u128.checked_shl(power) }
        .filter(|ticks| *ticks <= 1 << 63)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block of a pcapng file in this byte order.
    fn block(kind: u32, body: &[u8], word: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
        let length = word((12 + body.len() + padding.len()) as u32);
        [&word(kind)[..], &length, body, &padding, &length].concat()
    }

    /// A file with one interface with these options, and packets with their ticks.
    fn file(link: u16, options: &[u8], packets: &[(u64, &[u8])], little: bool) -> Vec<u8> {
        let word = if little { u32::to_le_bytes } else { u32::to_be_bytes };
        let half = if little { u16::to_le_bytes } else { u16::to_be_bytes };
        let header = [&word(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat();
        let mut file = block(0x0a0d_0d0a, &header, word);
        file.extend(block(1, &[&half(link)[..], &half(0), &word(0), options].concat(), word));
        for (ticks, bytes) in packets {
            let length = word(bytes.len() as u32);
            let head = [word(0), word((ticks >> 32) as u32), word(*ticks as u32), length, length].concat();
            file.extend(block(6, &[&head, *bytes].concat(), word));
        }
        file
    }

    #[test]
    fn pcapng_is_read_in_either_byte_order_with_its_times() {
        for little in [true, false] {
            let frames = read(&file(1, &[], &[(5, &[1, 2, 3]), (1 << 33, &[4; 60])], little)[..]).unwrap();
            assert_eq!(frames[0], Frame { time_ns: 5_000, bytes: vec![1, 2, 3] });
            assert_eq!((frames[1].time_ns, frames[1].bytes.len()), ((1 << 33) * 1_000, 60));
        }
    }

    #[test]
    fn resolutions_of_ten_and_of_two_and_an_offset_count() {
        let half = u16::to_le_bytes;
        let resolution = |value: u8| [&half(9)[..], &half(1), &[value, 0, 0, 0]].concat();
        let time =
            |options: &[u8], ticks| read(&file(1, options, &[(ticks, &[0])], true)[..]).unwrap()[0].time_ns;
        assert_eq!(time(&resolution(9), 7), 7);
        assert_eq!(time(&resolution(0x80 | 10), 512), 500_000_000);
        let offset = [&half(14)[..], &half(8), &2_i64.to_le_bytes()].concat();
        assert_eq!(time(&offset, 1), 2_000_001_000);
    }

    #[test]
    fn what_is_no_capture_of_ethernet_is_refused_with_its_block() {
        let error = |file: &[u8]| read(file).unwrap_err().to_string();
        assert!(error(&file(113, &[], &[(1, &[0])], true)).contains("block 3: not a capture of Ethernet"));
        let whole = file(1, &[], &[(1, &[0; 20])], true);
        assert!(error(&whole[..whole.len() - 3]).contains("block 3: cut off"));
        assert!(error(&whole[..10]).contains("no section header"));
        assert!(error(b"text").contains("pcap"));
    }

    #[test]
    fn classic_pcap_is_read_as_before() {
        let mut writer = pcap::Writer::new(Vec::new()).unwrap();
        writer.write(9, &[1; 60]).unwrap();
        let file = writer.finish().unwrap();
        assert_eq!(read(&file[..]).unwrap(), [Frame { time_ns: 9, bytes: vec![1; 60] }]);
    }

    proptest! {
        #[test]
        fn no_damage_hangs_or_panics(at: usize, flip in 1_u8.., cut: usize) {
            let mut file = file(1, &[], &[(1, &[7; 61]), (2, &[8; 64])], true);
            let at = at % file.len();
            file[at] ^= flip;
            let _ = read(&file[..]);
            let _ = read(&file[..cut % file.len()]);
        }
    }
}
