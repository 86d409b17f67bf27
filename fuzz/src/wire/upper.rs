// SPDX-License-Identifier: Apache-2.0
//! TCP with its MSS, UDP, GRE, ESP header and trailer.

use ::wire::esp::{self, Trailer};
use ::wire::flow::{Fragment, Parsed};
use ::wire::{gre, tcp, udp};

use super::Parameters;

/// Formats that need no addresses, at the front of `bytes`, and ESP's trailer at the end.
pub(super) fn check(bytes: &[u8]) {
    let mut buffer = [0xa5; esp::MAX_PAD_BYTES + esp::TRAILER_BYTES];
    if let Ok(header) = esp::Repr::parse(bytes) {
        assert_eq!(header.emit(&mut buffer), Ok(esp::HEADER_BYTES));
        assert_eq!(buffer[..esp::HEADER_BYTES], bytes[..esp::HEADER_BYTES]);
    }
    if let Ok((trailer, payload)) = Trailer::parse(bytes) {
        let end = trailer.emit(&mut buffer).expect("there is room");
        assert_eq!(end, trailer.bytes());
        assert_eq!([payload, &buffer[..end]].concat(), bytes);
    }
    let padded = bytes.len() + usize::from(esp::pad_length::<4>(bytes.len())) + esp::TRAILER_BYTES;
    assert!(padded.is_multiple_of(4) && padded < bytes.len() + 6);
    let _ = tcp::find_mss(bytes);
    let _ = udp::Packet::parse(bytes);
    let _ = gre::Packet::parse(bytes);
}

pub(super) fn check_tcp(segment: &[u8], parsed: &Parsed, parameters: Parameters) {
    let (source, destination) = (parsed.source, parsed.destination);
    let mut clamped = segment.to_vec();
    let limit = parameters.mtu;
    match tcp::clamp_mss(&mut clamped, limit) {
        Ok(Some(old)) => {
            let at = |segment| tcp::find_mss(segment).ok().flatten().map(|mss| mss.value);
            assert_eq!((at(segment), at(&clamped)), (Some(old), Some(limit)));
            assert!(old > limit);
        }
        Ok(None) | Err(_) => assert_eq!(clamped, segment),
    }
    let Ok(packet) = tcp::Packet::parse(segment) else { return };
    if parsed.fragment == Fragment::None && packet.checksum_is_valid(source, destination) {
        let clamped = tcp::Packet::parse(&clamped).expect("as before");
        assert!(clamped.checksum_is_valid(source, destination), "the checksum does not follow");
    }
    let Ok(repr) = tcp::Repr::parse(&packet) else { return };
    let mut again = vec![0xa5; repr.header_bytes()];
    again.extend(packet.payload);
    assert_eq!(repr.emit(&mut again, source, destination), Ok(repr.header_bytes()));
    let reparsed = tcp::Packet::parse(&again).expect("what was emitted");
    assert!(reparsed.checksum_is_valid(source, destination));
    assert_eq!(tcp::Repr::parse(&reparsed), Ok(repr));
    assert_eq!(reparsed.payload, packet.payload);
}

pub(super) fn check_udp(datagram: &[u8], parsed: &Parsed) {
    let Ok(packet) = udp::Packet::parse(datagram) else { return };
    let mut again = [&[0xa5; udp::HEADER_BYTES], packet.payload].concat();
    let repr = udp::Repr::parse(&packet);
    assert_eq!(repr.emit(&mut again, parsed.source, parsed.destination), Ok(udp::HEADER_BYTES));
    let reparsed = udp::Packet::parse(&again).expect("what was emitted");
    assert!(reparsed.header.checksum() != 0 && reparsed.checksum_is_valid(parsed.source, parsed.destination));
    assert_eq!(udp::Repr::parse(&reparsed), repr);
    assert_eq!(reparsed.payload, packet.payload);
}

/// The payload packet, if it is GRE.
pub(super) fn check_gre(bytes: &[u8], parameters: Parameters) -> Option<&[u8]> {
    let packet = gre::Packet::parse(bytes).ok()?;
    let repr = gre::Repr::parse(&packet);
    assert_eq!(packet.header.header_bytes() + packet.payload.len(), bytes.len());
    let mut again = vec![0xa5; repr.header_bytes()];
    again.extend(packet.payload);
    assert_eq!(repr.emit(&mut again), Ok(repr.header_bytes()));
    let renumbered = gre::set_sequence_number(&mut again, parameters.word);
    assert_eq!(renumbered.is_ok(), repr.sequence_number.is_some());
    assert_eq!(gre::fill_checksum(&mut again).is_ok(), repr.checksum_present);
    let reparsed = gre::Packet::parse(&again).expect("what was emitted");
    let expected = gre::Repr { sequence_number: repr.sequence_number.map(|_| parameters.word), ..repr };
    assert_eq!(gre::Repr::parse(&reparsed), expected);
    assert_eq!(reparsed.payload, packet.payload);
    Some(packet.payload)
}
