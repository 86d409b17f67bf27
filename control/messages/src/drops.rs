// SPDX-License-Identifier: Apache-2.0
//! The closed list of drop reasons: enum, counter, CLI and metric name, and the manual's sentence in one place.
//!
//! A reason is added, never renamed.

use serde::{Deserialize, Serialize};

macro_rules! drop_reasons {
    ($($(#[$group:meta])* $variant:ident $name:literal $meaning:literal;)*) => {
        /// Why a packet was dropped. Every dropped packet has exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)*
        }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name of the counter, in the CLI and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, for the manual and `greyhound drops`.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

drop_reasons! {
    EthernetTruncated "ethernet_truncated" "Shorter than an Ethernet header.";
    NotForUs "not_for_us" "The destination Ethernet address is not the port's.";
    VlanUnknown "vlan_unknown" "A frame that is not of the port's VLAN: another tag, or none.";
    EthertypeUnknown "ethertype_unknown" "Neither IPv4, IPv6 nor ARP.";
    ArpMalformed "arp_malformed" "Not an ARP message for IPv4 over Ethernet.";
    NdMalformed "nd_malformed" "A neighbour discovery message that RFC 4861 says to discard.";
    IpMalformed "ip_malformed" "Version, header length or total length contradict the packet.";
    IpChecksum "ip_checksum" "Wrong IPv4 header checksum.";
    IpOptions "ip_options" "IPv4 options; Greyhound forwards and terminates only packets without.";
    IpExtensionHeaders "ip_extension_headers" "IPv6 extension headers that are malformed, or more than the walk allows.";
    SourceInvalid "source_invalid" "The source address is multicast, broadcast, loopback, unspecified or one of ours.";
    DestinationInvalid "destination_invalid" "The destination is multicast, broadcast, loopback or unspecified; or, out of a GRE tunnel, that tunnel's far end (RFC 2784 §3.1).";
    TtlExceeded "ttl_exceeded" "TTL or hop limit ran out; answered with time exceeded.";
    NoRoute "no_route" "No route to the destination; answered with destination unreachable.";
    RouteDiscard "route_discard" "The route says discard.";
    PortDown "port_down" "Came in on, or should leave by, a port that has no settings yet.";
    LocalFragment "local_fragment" "A fragment for an address of ours, other than of ESP; they are not reassembled yet.";
    LocalProtocol "local_protocol" "For an address of ours, but nothing there takes this protocol or port.";
    LocalIcmp "local_icmp" "An ICMP message for us that is malformed or that nothing takes.";
    PolicyDiscard "policy_discard" "The SPD entry that matches says DISCARD.";
    PolicyNone "policy_none" "No SPD entry of the unprotected port matches.";
    ClearButProtected "clear_but_protected" "In clear although the SPD or the tunnel demands ESP (RFC 4301 §5.2).";
    GreMalformed "gre_malformed" "Too short for the GRE header that its flags promise.";
    GreVersion "gre_version" "A GRE version other than 0 (RFC 2784 §2.3).";
    GreReservedBits "gre_reserved_bits" "Reserved GRE bits 1, 4 or 5 are set (RFC 2784 §2.3).";
    GreProtocol "gre_protocol" "GRE carries something other than IPv4 or IPv6.";
    GreChecksum "gre_checksum" "Wrong GRE checksum.";
    GreNoTunnel "gre_no_tunnel" "No tunnel has these delivery addresses.";
    GreKey "gre_key" "A tunnel has these delivery addresses, but another key or none.";
    GreSequence "gre_sequence" "Out of order on a tunnel with sequence numbers (RFC 2890 §2.2).";
    EspTruncated "esp_truncated" "Too short for ESP header, IV, trailer and ICV, or not 4-byte aligned.";
    EspFragment "esp_fragment" "A fragment of an ESP packet; they are not reassembled yet.";
    SpiUnknown "spi_unknown" "No inbound SA has this SPI.";
    SaAddress "sa_address" "The outer addresses are not those of the SA's protection.";
    SaExpired "sa_expired" "The SA reached a hard lifetime limit.";
    SequenceZero "sequence_zero" "The 64-bit sequence number 0, which no sender uses (RFC 4303 §2.2).";
    Replayed "replayed" "The sequence number was received before (RFC 4303 §3.4.3).";
    ReplayTooOld "replay_too_old" "The sequence number lies left of the anti-replay window.";
    BadIcv "bad_icv" "The ICV is wrong: modified, or sealed under another key.";
    PadLength "pad_length" "The pad length exceeds the payload, under a valid ICV.";
    PadBytes "pad_bytes" "The padding is not 1, 2, 3, … (RFC 4303 §2.4).";
    DummyPacket "dummy_packet" "Next header 59: traffic flow confidentiality, discarded as RFC 4303 §2.6 says.";
    EspNextHeader "esp_next_header" "The next header is not what the SA's mode carries.";
    SaTunnelMismatch "sa_tunnel_mismatch" "Valid ESP, but under an SA that does not protect this tunnel (RFC 4301 §5.2).";
    SelectorMismatch "selector_mismatch" "Valid ESP, but the packet inside is outside the SA's selectors (RFC 4301 §5.2).";
    EcnInvalid "ecn_invalid" "Outer CE on an inner packet that is not ECN-capable (RFC 6040 §4.2).";
    StrictSource "strict_source" "The inner source is not routed to the tunnel it came from.";
    NoSa "no_sa" "The packet must be protected and there is no outbound SA.";
    SequenceExhausted "sequence_exhausted" "The outbound SA used its last sequence number.";
    SequenceNotReserved "sequence_not_reserved" "The outbound SA is at the limit that is reserved on disk.";
    TooBig "too_big" "Larger than the path with DF set, or IPv6; answered with fragmentation needed or packet too big.";
    MtuChanged "mtu_changed" "No longer fits after the MTU changed while it waited.";
    FragmentFailed "fragment_failed" "Fragmentation needed, but it is not possible for this packet.";
    NoEgress "no_egress" "No route leads to the tunnel's or protection's outer destination.";
    NoHeadroom "no_headroom" "The buffer has no room for the headers or trailer.";
    NoBuffer "no_buffer" "The packet pool is empty.";
    NeighborPending "neighbor_pending" "Too many packets already wait for neighbours.";
    NeighborUnresolved "neighbor_unresolved" "The neighbour did not answer in time.";
    NeighborTableFull "neighbor_table_full" "The neighbour table is full.";
    HandoverFull "handover_full" "The ring to the worker that owns the SA, or the queues of the tunnel, is full.";
    QosPoliced "qos_policed" "Above the policer of its class.";
    QosQueueLimit "qos_queue_limit" "The queue of its class is at its limit.";
    QosWred "qos_wred" "Dropped early by WRED.";
    QosCodel "qos_codel" "Dropped by CoDel: packets have waited too long for too long.";
    QosPie "qos_pie" "Dropped by PIE: packets wait too long.";
    QosNoRoom "qos_no_room" "The scheduler of its port has no room for more packets.";
    QosGone "qos_gone" "Its tunnel, route or service policy went or changed while it was queued.";
    TransmitFull "transmit_full" "The device took no more packets.";
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_snake_case_and_explained() {
        let mut seen = HashSet::new();
        for reason in DropReason::ALL {
            assert!(seen.insert(reason.name()), "{reason} twice");
            assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{reason}");
            assert!(reason.meaning().ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn the_discriminant_is_the_place_in_the_list() {
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }
}
