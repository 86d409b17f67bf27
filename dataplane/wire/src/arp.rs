// SPDX-License-Identifier: Apache-2.0
//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227; RFC 1812 §3.3.2 on what to refuse).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |       Hardware type (1)       |    Protocol type (0x0800)     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Hw length (6) | Pr length (4) |           Operation           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |             Sender hardware address                           |
//! +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                               |    Sender protocol address    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |        … (last 16 bits)       |    Target hardware address    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                    Target protocol address                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::{self, EtherType, MacAddr};
use crate::view::{put, split};
use crate::{EmitError, ParseError};

/// Length of the packet in bytes.
pub const PACKET_BYTES: usize = 28;

const HARDWARE_ETHERNET: u16 = 1;

/// What the sender wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation(pub u16);

impl Operation {
    /// Who has the target protocol address?
    pub const REQUEST: Operation = Operation(1);
    /// The sender has the sender protocol address.
    pub const REPLY: Operation = Operation(2);
}

/// The packet, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    hardware_type: U16,
    protocol_type: U16,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16,
    sender_hardware: MacAddr,
    sender_protocol: [u8; 4],
    target_hardware: MacAddr,
    target_protocol: [u8; 4],
}

/// What the packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_hardware: MacAddr,
    /// The sender's IPv4 address; 0.0.0.0 in a probe (RFC 5227 §2.1.1).
    pub sender_protocol: Ipv4Addr,
    /// The target's MAC address; of no meaning in a request.
    pub target_hardware: MacAddr,
    /// The target's IPv4 address.
    pub target_protocol: Ipv4Addr,
}

impl Repr {
    /// Reads the packet at the front of `bytes`; what follows is Ethernet padding.
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::BadValue`] when it is not IPv4 over Ethernet, or neither request nor
    /// reply; [`ParseError::BadAddress`] when the sender claims a group address (RFC 1812 §3.3.2) or none.
    pub fn parse(bytes: &[u8]) -> Result<Repr, ParseError> {
        let (header, _) = split::<Header>(bytes)?;
        let operation = Operation(header.operation.get());
        if header.hardware_type.get() != HARDWARE_ETHERNET
            || header.protocol_type.get() != EtherType::IPV4.0
            || header.hardware_length != 6
            || header.protocol_length != 4
            || !matches!(operation, Operation::REQUEST | Operation::REPLY)
        {
            return Err(ParseError::BadValue);
        }
        if !header.sender_hardware.is_station() {
            return Err(ParseError::BadAddress);
        }
        Ok(Repr {
            operation,
            sender_hardware: header.sender_hardware,
            sender_protocol: header.sender_protocol.into(),
            target_hardware: header.target_hardware,
            target_protocol: header.target_protocol.into(),
        })
    }

    /// The request that asks who has `target`.
    pub fn request(sender_hardware: MacAddr, sender_protocol: Ipv4Addr, target: Ipv4Addr) -> Repr {
        Repr {
            operation: Operation::REQUEST,
            sender_hardware,
            sender_protocol,
            target_hardware: MacAddr::ZERO,
            target_protocol: target,
        }
    }

    /// The reply to this request from the station `hardware` that has the address asked for.
    pub fn reply(&self, hardware: MacAddr) -> Repr {
        Repr {
            operation: Operation::REPLY,
            sender_hardware: hardware,
            sender_protocol: self.target_protocol,
            target_hardware: self.sender_hardware,
            target_protocol: self.sender_protocol,
        }
    }

    /// Whether the sender announces or asks for its own address (gratuitous ARP).
    pub fn is_announcement(&self) -> bool {
        self.sender_protocol == self.target_protocol
    }

    /// Writes the packet to the front of `buffer`; returns its length, [`PACKET_BYTES`].
    ///
    /// # Errors
    /// [`EmitError::NoSpace`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let header = Header {
            hardware_type: U16::new(HARDWARE_ETHERNET),
            protocol_type: U16::new(EtherType::IPV4.0),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(self.operation.0),
            sender_hardware: self.sender_hardware,
            sender_protocol: self.sender_protocol.octets(),
            target_hardware: self.target_hardware,
            target_protocol: self.target_protocol.octets(),
        };
        put(&header, buffer)
    }

    /// The Ethernet header this packet travels in: a request is broadcast, a reply goes to its target.
    pub fn ethernet(&self) -> ethernet::Repr {
        let destination = match self.operation {
            Operation::REQUEST => MacAddr::BROADCAST,
            _ => self.target_hardware,
        };
        ethernet::Repr { destination, source: self.sender_hardware, ether_type: EtherType::ARP }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DIRTY, hex, refuses_every_truncation};
    use proptest::prelude::*;

    // Both made with Scapy.
    const REQUEST: &str = "00010800 06040001 02005e00 5301c000 02010000 00000000 c0000209";
    const REPLY: &str = "00010800 06040002 02005e00 5302c000 02090200 5e005301 c0000201";
    const ASKER: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);
    const ANSWERER: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 2]);

    fn request() -> Repr {
        Repr::request(ASKER, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9))
    }

    #[test]
    fn known_packets_read_as_what_they_are() {
        assert_eq!(Repr::parse(&hex(REQUEST)), Ok(request()));
        let reply = Repr::parse(&hex(REPLY)).unwrap();
        assert_eq!(reply, request().reply(ANSWERER));
        assert_eq!(reply.ethernet().destination, ASKER);
        assert_eq!(request().ethernet().destination, MacAddr::BROADCAST);
        assert_eq!(request().ethernet().ether_type, EtherType::ARP);
    }

    #[test]
    fn a_packet_overwrites_a_dirty_buffer_and_nothing_behind_it() {
        let mut buffer = DIRTY;
        assert_eq!(request().reply(ANSWERER).emit(&mut buffer), Ok(PACKET_BYTES));
        assert_eq!(buffer[..PACKET_BYTES], hex(REPLY));
        assert!(buffer[PACKET_BYTES..].iter().all(|byte| *byte == 0xa5));
        assert_eq!(request().emit(&mut buffer[..27]), Err(EmitError::NoSpace));
    }

    #[test]
    fn every_truncation_is_refused() {
        refuses_every_truncation(&hex(REQUEST), Repr::parse);
    }

    #[test]
    fn other_hardware_protocols_lengths_and_operations_are_refused() {
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (4, 0), (5, 0), (7, 0), (7, 3), (6, 1)] {
            let mut bytes = hex(REQUEST);
            bytes[at] = value;
            assert_eq!(Repr::parse(&bytes), Err(ParseError::BadValue), "byte {at} = {value}");
        }
    }

    #[test]
    fn a_sender_that_claims_a_group_address_is_not_believed() {
        for hardware in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0; 6]] {
            let mut bytes = hex(REPLY);
            bytes[8..14].copy_from_slice(&hardware);
            assert_eq!(Repr::parse(&bytes), Err(ParseError::BadAddress));
        }
    }

    #[test]
    fn an_announcement_is_told_from_a_question() {
        assert!(!request().is_announcement());
        let own = Ipv4Addr::new(192, 0, 2, 1);
        assert!(Repr::request(ASKER, own, own).is_announcement());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            operation in 1u16..=2, mut sender: [u8; 6], target: [u8; 6],
            sender_protocol: core::net::Ipv4Addr, target_protocol: core::net::Ipv4Addr,
        ) {
            sender[0] = sender[0] & !1 | 2;
            let repr = Repr {
                operation: Operation(operation),
                sender_hardware: MacAddr(sender),
                sender_protocol,
                target_hardware: MacAddr(target),
                target_protocol,
            };
            let mut buffer = DIRTY;
            repr.emit(&mut buffer).unwrap();
            prop_assert_eq!(Repr::parse(&buffer), Ok(repr));
        }
    }
}
