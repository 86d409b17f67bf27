// SPDX-License-Identifier: Apache-2.0
//! GRE headers that are wrong or belong to no tunnel, each under a valid ICV and in clear (RFC 2784 §2.3, RFC 2890 §2).

use greyhound_simulation::packets::{Udp, ip_with};
use greyhound_simulation::topology::{End, Shape};
use messages::{DropReason, EspMode, GreOptions, Object};
use wire::IpProtocol;

use crate::support::{
    Attack, CHECKSUM_PRESENT, IPV4, IPV6, KEY_PRESENT, PLAIN, SEQUENCE_PRESENT, delivery, forwarded, gre,
    gre_with, inner, sum_gre,
};

/// The same attack under ESP in both modes and in clear: `send` wraps a GRE packet as each needs it.
fn everywhere(options: GreOptions, test: impl Fn(&mut Attack, &dyn Fn(&mut Attack, &[u8]) -> Vec<u8>)) {
    let shape = |esp| Shape { esp: Some(esp), gre: options, ..Shape::default() };
    let mut attack = Attack::on(&shape(EspMode::Transport));
    test(&mut attack, &|attack, gre| attack.esp(IpProtocol::GRE, gre));
    let mut attack = Attack::on(&shape(EspMode::Tunnel));
    test(&mut attack, &|attack, gre| attack.esp(IpProtocol::IPV4, &delivery(gre)));
    let mut attack = Attack::clear(options);
    test(&mut attack, &|_, gre| delivery(gre));
}

#[test]
fn a_version_other_than_0_is_discarded() {
    everywhere(PLAIN, |attack, wrap| {
        for version in 1..=7 {
            let packet = wrap(attack, &gre(version, IPV4, &inner().to_bytes()));
            attack.drops(DropReason::GreVersion, &packet);
        }
        attack.is_alive();
    });
}

#[test]
fn a_word_of_ones_is_no_header_of_a_tunnel_with_sequence_numbers() {
    everywhere(GreOptions { sequence: true, ..PLAIN }, |attack, wrap| {
        let packet = wrap(attack, &gre(u16::MAX, u16::MAX, &inner().to_bytes()));
        attack.drops(DropReason::GreVersion, &packet);
    });
}

#[test]
fn bits_1_4_and_5_are_discarded_and_bits_6_to_12_ignored() {
    everywhere(PLAIN, |attack, wrap| {
        for bit in [1, 4, 5] {
            let packet = wrap(attack, &gre(0x8000 >> bit, IPV4, &inner().to_bytes()));
            attack.drops(DropReason::GreReservedBits, &packet);
        }
        for bit in 6..=12 {
            let packet = wrap(attack, &gre(0x8000 >> bit, IPV4, &inner().to_bytes()));
            attack.passes(&packet, &forwarded(&inner()));
        }
    });
}

#[test]
fn a_checksum_that_is_there_must_be_right() {
    everywhere(PLAIN, |attack, wrap| {
        let right = sum_gre(gre_with(CHECKSUM_PRESENT, IPV4, &[0], &inner().to_bytes()));
        let packet = wrap(attack, &right);
        attack.passes(&packet, &forwarded(&inner()));
        // In the checksum itself, in the header, and in the payload's last byte.
        for place in [4, 5, 7, right.len() - 1] {
            let mut wrong = right.clone();
            wrong[place] ^= 1;
            let packet = wrap(attack, &wrong);
            attack.drops(DropReason::GreChecksum, &packet);
        }
        attack.is_alive();
    });
}

#[test]
fn a_payload_for_the_tunnels_far_end_is_discarded() {
    everywhere(PLAIN, |attack, wrap| {
        let looping = Udp { destination: End::B.wan(), ..inner() };
        let packet = wrap(attack, &gre(0, IPV4, &looping.to_bytes()));
        attack.drops(DropReason::DestinationInvalid, &packet);
        attack.is_alive();
    });
}

#[test]
fn a_protocol_that_we_do_not_carry_is_discarded_whatever_follows() {
    everywhere(PLAIN, |attack, wrap| {
        // PPP, transparent Ethernet, ISO, MPLS, NHRP, ARP.
        for protocol in [0x880b, 0x6558, 0x00fe, 0x8847, 0x2001, 0x0806, 0] {
            for payload in [inner().to_bytes(), vec![0xff; 40], Vec::new()] {
                let packet = wrap(attack, &gre(0, protocol, &payload));
                attack.drops(DropReason::GreProtocol, &packet);
            }
        }
        attack.is_alive();
    });
}

#[test]
fn a_payload_of_another_version_than_the_protocol_type_says_is_malformed() {
    everywhere(PLAIN, |attack, wrap| {
        let packet = wrap(attack, &gre(0, IPV6, &inner().to_bytes()));
        attack.drops(DropReason::IpMalformed, &packet);
        let inner_v6 = Udp::new(End::B.host_v6(), End::A.host_v6(), b"").to_bytes();
        let packet = wrap(attack, &gre(0, IPV4, &inner_v6));
        attack.drops(DropReason::IpMalformed, &packet);
        attack.is_alive();
    });
}

#[test]
fn another_key_or_none_belongs_to_no_tunnel() {
    for key in [7, 0, u32::MAX] {
        everywhere(GreOptions { key: Some(key), ..PLAIN }, |attack, wrap| {
            let inner_bytes = inner().to_bytes();
            let packet = wrap(attack, &gre_with(KEY_PRESENT, IPV4, &[key], &inner_bytes));
            attack.passes(&packet, &forwarded(&inner()));
            for wrong in [key ^ 1, key ^ 0x8000_0000, !key] {
                let packet = wrap(attack, &gre_with(KEY_PRESENT, IPV4, &[wrong], &inner_bytes));
                attack.drops(DropReason::GreKey, &packet);
            }
            let packet = wrap(attack, &gre(0, IPV4, &inner_bytes));
            attack.drops(DropReason::GreKey, &packet);
        });
    }
    everywhere(PLAIN, |attack, wrap| {
        let packet = wrap(attack, &gre_with(KEY_PRESENT, IPV4, &[0], &inner().to_bytes()));
        attack.drops(DropReason::GreKey, &packet);
    });
}

#[test]
fn an_old_or_missing_sequence_number_is_out_of_order() {
    everywhere(GreOptions { sequence: true, ..PLAIN }, |attack, wrap| {
        let numbered = |number| gre_with(SEQUENCE_PRESENT, IPV4, &[number], &inner().to_bytes());
        for number in [0, 1, 5, 1_000] {
            let packet = wrap(attack, &numbered(number));
            attack.passes(&packet, &forwarded(&inner()));
        }
        for number in [1_000, 999, 6, 0, 1_000u32.wrapping_sub(0x7fff_ffff)] {
            let packet = wrap(attack, &numbered(number));
            attack.drops(DropReason::GreSequence, &packet);
        }
        let packet = wrap(attack, &gre(0, IPV4, &inner().to_bytes()));
        attack.drops(DropReason::GreSequence, &packet);
        let packet = wrap(attack, &numbered(1_001));
        attack.passes(&packet, &forwarded(&inner()));
    });
}

#[test]
fn a_gre_packet_cut_anywhere_is_malformed_and_so_is_its_payload() {
    let options = GreOptions { key: Some(7), checksum: false, sequence: true };
    everywhere(options, |attack, wrap| {
        let flags = KEY_PRESENT | SEQUENCE_PRESENT;
        let bytes = gre_with(flags, IPV4, &[7, 0], &inner().to_bytes()).len();
        for length in 0..bytes {
            // Each number once: behind the header it is taken, and then the payload looked at.
            let whole = gre_with(flags, IPV4, &[7, length as u32], &inner().to_bytes());
            let packet = wrap(attack, &whole[..length]);
            let reason = if length < 12 { DropReason::GreMalformed } else { DropReason::IpMalformed };
            attack.drops(reason, &packet);
        }
    });
}

#[test]
fn a_checksum_does_not_hide_a_cut_header() {
    everywhere(PLAIN, |attack, wrap| {
        let flags = CHECKSUM_PRESENT | KEY_PRESENT | SEQUENCE_PRESENT;
        let whole = gre_with(flags, IPV4, &[0, 7, 1], &[]);
        for length in 4..whole.len() {
            let packet = wrap(attack, &whole[..length]);
            attack.drops(DropReason::GreMalformed, &packet);
        }
    });
}

#[test]
fn delivery_addresses_of_no_tunnel_are_that() {
    // In clear, from a stranger, and to another address of ours.
    let mut attack = Attack::clear(PLAIN);
    let gre_bytes = gre(0, IPV4, &inner().to_bytes());
    let stranger = "192.0.2.99".parse().expect("an address");
    for (source, destination) in [(stranger, End::A.wan()), (End::B.wan(), End::A.gateway())] {
        let packet = ip_with(&Udp::new(source, destination, &[]), IpProtocol::GRE, &gre_bytes);
        attack.drops(DropReason::GreNoTunnel, &packet);
    }
    attack.is_alive();
    // Under a valid ICV of tunnel mode.
    let mut attack = Attack::tunnel();
    for (source, destination) in [(stranger, End::A.wan()), (End::B.wan(), End::A.gateway())] {
        let inside = ip_with(&Udp::new(source, destination, &[]), IpProtocol::GRE, &gre_bytes);
        let packet = attack.esp(IpProtocol::IPV4, &inside);
        attack.drops(DropReason::GreNoTunnel, &packet);
    }
    attack.is_alive();
    // A protection that no tunnel uses any more.
    let mut attack = Attack::with(&Shape::default(), |objects| {
        objects.retain(|object| !matches!(object, Object::Tunnel(_) | Object::Route(_)));
    });
    let packet = attack.esp(IpProtocol::GRE, &gre_bytes);
    attack.drops(DropReason::GreNoTunnel, &packet);
}

pub(crate) const CASES: &[fn()] = &[
    a_version_other_than_0_is_discarded,
    bits_1_4_and_5_are_discarded_and_bits_6_to_12_ignored,
    a_checksum_that_is_there_must_be_right,
    a_protocol_that_we_do_not_carry_is_discarded_whatever_follows,
    another_key_or_none_belongs_to_no_tunnel,
    an_old_or_missing_sequence_number_is_out_of_order,
    a_gre_packet_cut_anywhere_is_malformed_and_so_is_its_payload,
    delivery_addresses_of_no_tunnel_are_that,
];
