// SPDX-License-Identifier: Apache-2.0
//! Neighbor discovery for IPv6 over Ethernet (RFC 4861): solicitation, advertisement and their options.
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Code      |          Checksum             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|S|O|                     Reserved                            |   R, S, O: advertisement only
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                  Target Address (128 bits)                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   Options: type, length in units of 8 bytes, data …
//! +-+-+-+-+-+-+-+-+-+-+-+-
//! ```
//!
//! Whole IPv6 packets are read and written here, because the rules of §7.1 look at the IP header too. Left out: router
//! discovery and redirects, the neighbor cache and its clock.

use core::net::Ipv6Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::address::{is_ipv6_host, solicited_node};
use crate::icmpv6::{self, Type};
use crate::view::{put, put_bytes, split};
use crate::{EmitError, IpProtocol, MacAddr, ParseError, ipv6};

/// Neighbor discovery is never forwarded: any other hop limit came from beyond the link (§7.1).
pub const HOP_LIMIT: u8 = 255;
/// Length of a message with one link-layer address option in its IPv6 packet, in bytes.
pub const MAX_PACKET_BYTES: usize = ipv6::HEADER_BYTES + FIXED_BYTES + LINK_LAYER_OPTION_BYTES;

const FIXED_BYTES: usize = 24;
const LINK_LAYER_OPTION_BYTES: usize = 8;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fixed {
    icmp: icmpv6::Header,
    target: [u8; 16],
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpOption<'a> {
    /// The type.
    pub kind: u8,
    /// What follows type and length.
    pub data: &'a [u8],
}

/// The options of a message, one by one; ends after the first bad one.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// A walk over `options`, the bytes behind the fixed part.
    pub const fn new(options: &'a [u8]) -> Options<'a> {
        Options { rest: options }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<NdpOption<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, _) = self.rest.split_first()?;
        let bytes = self.rest.get(1).map_or(0, |units| usize::from(*units) * 8);
        // A length of 0 would not end (§4.6: such a packet is discarded).
        match (self.rest.split_at_checked(bytes), self.rest.get(2..bytes)) {
            (Some((_, rest)), Some(data)) => {
                self.rest = rest;
                Some(Ok(NdpOption { kind, data }))
            }
            _ => {
                self.rest = &[];
                Some(Err(ParseError::BadOption))
            }
        }
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr {
    /// Who has the target address?
    NeighborSolicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The asker's MAC address, if given.
        source_link_layer: Option<MacAddr>,
    },
    /// The target address is here.
    NeighborAdvertisement {
        /// Whether the sender is a router.
        router: bool,
        /// Whether it answers a solicitation.
        solicited: bool,
        /// Whether it replaces what is known (§7.2.5).
        overrides: bool,
        /// The address advertised.
        target: Ipv6Addr,
        /// The target's MAC address, if given.
        target_link_layer: Option<MacAddr>,
    },
}

/// A message that passed the checks of RFC 4861 §7.1, with its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The IPv6 source; `::` when an address is being checked for duplicates.
    pub source: Ipv6Addr,
    /// The IPv6 destination.
    pub destination: Ipv6Addr,
    /// What it says.
    pub repr: Repr,
}

impl Message {
    /// The solicitation for `target`, sent to its solicited-node address (§7.2.2).
    pub const fn solicit(source: Ipv6Addr, hardware: MacAddr, target: Ipv6Addr) -> Message {
        Message {
            source,
            destination: solicited_node(target),
            repr: Repr::NeighborSolicitation { target, source_link_layer: Some(hardware) },
        }
    }

    /// The advertisement that answers this solicitation from the station `hardware`, a router that has the address asked
    /// for (§7.2.4); `None` when this is no solicitation.
    pub fn answer(&self, hardware: MacAddr) -> Option<Message> {
        let Repr::NeighborSolicitation { target, .. } = self.repr else { return None };
        let asks_for_duplicates = self.source.is_unspecified();
        Some(Message {
            source: target,
            destination: if asks_for_duplicates { ALL_NODES } else { self.source },
            repr: Repr::NeighborAdvertisement {
                router: true,
                solicited: !asks_for_duplicates,
                overrides: true,
                target,
                target_link_layer: Some(hardware),
            },
        })
    }

    /// Reads the IPv6 packet at the front of `packet`, with every check of §7.1.1 and §7.1.2.
    ///
    /// # Errors
    /// Those of [`ipv6::Packet::parse`]; [`ParseError::BadChecksum`]; [`ParseError::BadOption`];
    /// [`ParseError::BadAddress`] for addresses that may not stand where they stand; [`ParseError::BadValue`] for
    /// another type, a code other than 0 or a hop limit other than 255.
    pub fn parse(packet: &[u8]) -> Result<Message, ParseError> {
        let ipv6::Packet { header, payload } = ipv6::Packet::parse(packet)?;
        let (source, destination) = (header.source(), header.destination());
        let (icmp, _) = icmpv6::Header::split(payload)?;
        if header.next_header() != IpProtocol::ICMPV6
            || header.hop_limit() != HOP_LIMIT
            || icmp.code() != 0
            || !matches!(icmp.kind(), Type::NEIGHBOR_SOLICITATION | Type::NEIGHBOR_ADVERTISEMENT)
        {
            return Err(ParseError::BadValue);
        }
        if !icmpv6::checksum_is_valid(payload, source, destination) {
            return Err(ParseError::BadChecksum);
        }
        let (fixed, options) = split::<Fixed>(payload)?;
        let target = Ipv6Addr::from_octets(fixed.target);
        if !is_ipv6_host(target) {
            return Err(ParseError::BadAddress);
        }
        let repr = if icmp.kind() == Type::NEIGHBOR_SOLICITATION {
            solicitation(source, destination, target, options)?
        } else {
            advertisement(source, destination, target, fixed.icmp.rest[0], options)?
        };
        Ok(Message { source, destination, repr })
    }

    /// Writes the whole IPv6 packet to the front of `buffer`; returns its length, at most [`MAX_PACKET_BYTES`].
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let (kind, flags, target, option) = match self.repr {
            Repr::NeighborSolicitation { target, source_link_layer } => {
                let option = source_link_layer.map(|address| (SOURCE_LINK_LAYER, address));
                (Type::NEIGHBOR_SOLICITATION, 0, target, option)
            }
            Repr::NeighborAdvertisement { router, solicited, overrides, target, target_link_layer } => {
                let option = target_link_layer.map(|address| (TARGET_LINK_LAYER, address));
                let flag = |is_set, bit| if is_set { bit } else { 0 };
                let flags = flag(router, ROUTER) | flag(solicited, SOLICITED) | flag(overrides, OVERRIDE);
                (Type::NEIGHBOR_ADVERTISEMENT, flags, target, option)
            }
        };
        let payload_bytes = if option.is_some() { 32 } else { 24 };
        let ip = ipv6::Repr {
            hop_limit: HOP_LIMIT,
            payload_bytes,
            ..ipv6::Repr::new(self.source, self.destination, IpProtocol::ICMPV6)
        };
        let header_bytes = ip.emit(buffer)?;
        let body = buffer.get_mut(header_bytes..).ok_or(EmitError::NoSpace)?;
        let icmp = icmpv6::Header { kind: kind.0, code: 0, checksum: 0.into(), rest: [flags, 0, 0, 0] };
        let mut end = put(&Fixed { icmp, target: target.octets() }, body)?;
        if let Some((kind, address)) = option {
            end = put_bytes(body, end, &[kind, 1])?;
            end = put_bytes(body, end, &address.0)?;
        }
        let message = body.get_mut(..end).ok_or(EmitError::NoSpace)?;
        icmpv6::fill_checksum(message, self.source, self.destination)?;
        Ok(header_bytes + end)
    }
}

/// Every node on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn solicitation(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    options: &[u8],
) -> Result<Repr, ParseError> {
    let source_link_layer = link_layer_address(options, SOURCE_LINK_LAYER)?;
    if source.is_unspecified() {
        // Duplicate address detection: to the solicited-node address, without a link-layer address.
        if destination != solicited_node(target) {
            return Err(ParseError::BadAddress);
        }
        if source_link_layer.is_some() {
            return Err(ParseError::BadOption);
        }
    } else if !is_ipv6_host(source) {
        return Err(ParseError::BadAddress);
    }
    Ok(Repr::NeighborSolicitation { target, source_link_layer })
}

fn advertisement(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    flags: u8,
    options: &[u8],
) -> Result<Repr, ParseError> {
    let solicited = flags & SOLICITED != 0;
    if solicited && destination.is_multicast() {
        return Err(ParseError::BadValue);
    }
    if !is_ipv6_host(source) {
        return Err(ParseError::BadAddress);
    }
    Ok(Repr::NeighborAdvertisement {
        router: flags & ROUTER != 0,
        solicited,
        overrides: flags & OVERRIDE != 0,
        target,
        target_link_layer: link_layer_address(options, TARGET_LINK_LAYER)?,
    })
}

/// The link-layer address in the first option of type `kind`; every option is looked at.
fn link_layer_address(options: &[u8], kind: u8) -> Result<Option<MacAddr>, ParseError> {
    let mut found = None;
    for option in Options::new(options) {
        let option = option?;
        if option.kind != kind || found.is_some() {
            continue;
        }
        let address = MacAddr(*option.data.as_array().ok_or(ParseError::BadOption)?);
        if !address.is_station() {
            return Err(ParseError::BadAddress);
        }
        found = Some(address);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, dirty, hex, refuses_every_truncation};
    use proptest::prelude::*;
    use std::vec::Vec;

    // All made with Scapy.
    const SOLICITATION: &str =
        "60000000 00203aff 20010db8 00000000 00000000 00000001 ff020000 00000000 00000001 ff000009
        87006b18 00000000 20010db8 00000000 00000000 00000009 01010200 5e005301";
    const ADVERTISEMENT: &str =
        "60000000 00203aff 20010db8 00000000 00000000 00000009 20010db8 00000000 00000000 00000001
        88005962 e0000000 20010db8 00000000 00000000 00000009 02010200 5e005302";
    const DUPLICATE_CHECK: &str =
        "60000000 00183aff 00000000 00000000 00000000 00000000 ff020000 00000000 00000001 ff000009
        87004cdd 00000000 20010db8 00000000 00000000 00000009";
    const ASKER: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);
    const ANSWERER: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 2]);

    fn solicitation() -> Message {
        Message::solicit("2001:db8::1".parse().unwrap(), ASKER, "2001:db8::9".parse().unwrap())
    }

    /// `text` with `change` made and the checksum right again.
    fn changed(text: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = hex(text);
        change(&mut bytes);
        let payload = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&payload.to_be_bytes());
        let (header, _) = ipv6::Header::split(&bytes).unwrap();
        let (source, destination) = (header.source(), header.destination());
        icmpv6::fill_checksum(&mut bytes[40..], source, destination).unwrap();
        bytes
    }

    #[test]
    fn known_messages_read_as_what_they_are() {
        assert_eq!(Message::parse(&hex(SOLICITATION)), Ok(solicitation()));
        assert_eq!(Message::parse(&hex(ADVERTISEMENT)), Ok(solicitation().answer(ANSWERER).unwrap()));
        assert_eq!(solicitation().answer(ANSWERER).unwrap().answer(ASKER), None);
    }

    #[test]
    fn a_check_for_duplicates_is_answered_to_all_nodes() {
        let check = Message::parse(&hex(DUPLICATE_CHECK)).unwrap();
        assert!(check.source.is_unspecified());
        let answer = check.answer(ANSWERER).unwrap();
        assert_eq!(answer.destination, ALL_NODES);
        assert!(matches!(answer.repr, Repr::NeighborAdvertisement { solicited: false, overrides: true, .. }));
    }

    #[test]
    fn messages_overwrite_a_dirty_buffer_and_nothing_behind_it() {
        let without_option = Message {
            source: Ipv6Addr::UNSPECIFIED,
            repr: Repr::NeighborSolicitation {
                target: "2001:db8::9".parse().unwrap(),
                source_link_layer: None,
            },
            ..solicitation()
        };
        for (message, text) in [
            (solicitation(), SOLICITATION),
            (solicitation().answer(ANSWERER).unwrap(), ADVERTISEMENT),
            (without_option, DUPLICATE_CHECK),
        ] {
            let mut buffer = DIRTY;
            let length = message.emit(&mut buffer).unwrap();
            assert_eq!(buffer[..length], hex(text));
            assert!(buffer[length..].iter().all(|byte| *byte == 0xa5) && length <= MAX_PACKET_BYTES);
            for short in 0..length {
                assert_eq!(message.emit(&mut dirty()[..short]), Err(EmitError::NoSpace));
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for text in [SOLICITATION, ADVERTISEMENT] {
            refuses_every_truncation(&hex(text), Message::parse);
        }
        // With a length that says so, and a right checksum. At 64 the option is cut off whole, which is allowed.
        for length in 48..72 {
            let cut = changed(SOLICITATION, |bytes| bytes.truncate(length));
            assert_eq!(Message::parse(&cut).is_ok(), length == 64, "{length}");
        }
    }

    #[test]
    fn what_section_7_1_forbids_is_refused() {
        let refused = |text, error, at: usize, value: u8| {
            let bytes = changed(text, |bytes| bytes[at] = value);
            assert_eq!(Message::parse(&bytes), Err(error), "byte {at} = {value}");
        };
        for text in [SOLICITATION, ADVERTISEMENT] {
            refused(text, ParseError::BadValue, 7, 254);
            refused(text, ParseError::BadValue, 41, 1);
            refused(text, ParseError::BadValue, 40, 137);
            refused(text, ParseError::BadAddress, 48, 0xff);
            refused(text, ParseError::BadAddress, 8, 0xff);
            refused(text, ParseError::BadOption, 65, 0);
            refused(text, ParseError::BadOption, 65, 2);
            refused(text, ParseError::BadAddress, 66, 3);
            let mut damaged = hex(text);
            damaged[70] ^= 1;
            assert_eq!(Message::parse(&damaged), Err(ParseError::BadChecksum));
        }
        // A solicited advertisement to a group.
        refused(ADVERTISEMENT, ParseError::BadValue, 24, 0xff);
        // From nobody: to another group than the target's; with a link-layer address.
        refused(DUPLICATE_CHECK, ParseError::BadAddress, 39, 8);
        let bytes = changed(SOLICITATION, |bytes| bytes[8..24].fill(0));
        assert_eq!(Message::parse(&bytes), Err(ParseError::BadOption));
        let bytes = changed(ADVERTISEMENT, |bytes| bytes[8..24].fill(0));
        assert_eq!(Message::parse(&bytes), Err(ParseError::BadAddress));
    }

    #[test]
    fn unknown_options_are_passed_and_the_first_of_its_kind_counts() {
        let bytes = changed(SOLICITATION, |bytes| {
            let option = bytes.split_off(64);
            bytes.extend_from_slice(&hex("fd020000 00000000 00000000 00000000"));
            bytes.extend_from_slice(&option);
            bytes.extend_from_slice(&hex("01010200 00000099"));
        });
        assert_eq!(Message::parse(&bytes), Ok(solicitation()));
        let bytes = changed(SOLICITATION, |bytes| bytes.extend_from_slice(&hex("fd00")));
        assert_eq!(Message::parse(&bytes), Err(ParseError::BadOption));
        assert_eq!(Options::new(&[]).count(), 0);
        assert_eq!(Options::new(&[1]).next(), Some(Err(ParseError::BadOption)));
    }

    fn any_host() -> impl Strategy<Value = Ipv6Addr> {
        any::<[u8; 16]>().prop_map(|mut octets| {
            octets[0] = 0x20;
            Ipv6Addr::from(octets)
        })
    }

    fn any_station() -> impl Strategy<Value = MacAddr> {
        any::<[u8; 6]>().prop_map(|mut octets| {
            octets[0] = octets[0] & !1 | 2;
            MacAddr(octets)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            source in any_host(), destination in any_host(), target in any_host(),
            flags: (bool, bool, bool), address in prop::option::of(any_station()), asks: bool,
        ) {
            let repr = if asks {
                Repr::NeighborSolicitation { target, source_link_layer: address }
            } else {
                Repr::NeighborAdvertisement {
                    router: flags.0, solicited: flags.1, overrides: flags.2, target, target_link_layer: address,
                }
            };
            let message = Message { source, destination, repr };
            let mut buffer = DIRTY;
            let length = message.emit(&mut buffer).unwrap();
            prop_assert_eq!(Message::parse(&buffer[..length]), Ok(message));
        }

        #[test]
        fn options_of_any_kind_end(options in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Options::new(&options).count() <= options.len());
        }
    }
}
