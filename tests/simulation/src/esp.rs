// SPDX-License-Identifier: Apache-2.0
//! What an eavesdropper reads off an ESP frame: SPI, sequence number, IV. Nothing here opens anything.

use core::net::IpAddr;
use std::collections::HashSet;

use wire::IpProtocol;

use crate::packets;

/// The clear part of an ESP packet (RFC 4303 §2, RFC 4106 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clear {
    /// To whom.
    pub destination: IpAddr,
    /// Under which SA.
    pub spi: u32,
    /// The low word of its number.
    pub sequence: u32,
    /// Its IV.
    pub iv: u64,
}

/// The clear part of the ESP packet in a frame; nothing for any other frame.
///
/// # Panics
/// If it is ESP and ends before its IV does.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Clear> {
    let (parsed, packet) = packets::ip_in(frame)?;
    if parsed.protocol != IpProtocol::ESP {
        return None;
    }
    let (header, rest) = wire::esp::Header::split(parsed.upper_layer(&packet)).expect("an ESP header");
    let iv = *rest.first_chunk().expect("an IV");
    Some(Clear {
        destination: parsed.destination,
        spi: header.spi().0,
        sequence: header.sequence_number(),
        iv: u64::from_be_bytes(iv),
    })
}

/// Every ESP packet in these frames, in order.
#[must_use]
pub fn read_all(frames: &[Vec<u8>]) -> Vec<Clear> {
    frames.iter().filter_map(|frame| read(frame)).collect()
}

/// The packets whose IV was on the wire before under the same SPI. Where every key has an SPI of its own, there is none
/// as long as no key sees an IV twice.
#[must_use]
pub fn repeated_ivs(packets: &[Clear]) -> Vec<Clear> {
    let mut seen = HashSet::new();
    packets.iter().filter(|packet| !seen.insert((packet.spi, packet.iv))).copied().collect()
}
