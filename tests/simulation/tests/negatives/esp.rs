// SPDX-License-Identifier: Apache-2.0
//! ESP packets that are wrong: length, SPI, addresses, sequence number, ICV, trailer, next header (RFC 4303 §3.4).

use greyhound_simulation::packets::{Udp, ip_with};
use greyhound_simulation::sealer::trailed;
use greyhound_simulation::topology::{End, Shape};
use messages::{DropReason, EspMode, LifetimeLimits, Object, WorkerCounter};
use wire::{Dscp, Ecn, IpProtocol};

use crate::support::{Attack, IPV4, IPV6, delivery, forwarded, gre, inner, outbound};

fn shapes() -> impl Iterator<Item = Shape> {
    [(16, false, false), (12, true, false), (8, false, true), (16, true, true)].into_iter().flat_map(
        |(icv_bytes, esn, delivery_v6)| {
            [EspMode::Transport, EspMode::Tunnel].map(move |mode| Shape {
                esp: Some(mode),
                icv_bytes,
                esn,
                // The delivery packet inside tunnel mode is written by hand, for IPv4.
                delivery_v6: delivery_v6 && mode == EspMode::Transport,
                ..Shape::default()
            })
        },
    )
}

#[test]
fn a_flipped_bit_anywhere_in_esp_is_a_bad_icv_or_another_sa_or_number() {
    for shape in shapes() {
        let mut attack = Attack::on(&shape);
        let genuine = attack.genuine();
        let header = if shape.delivery_v6 { 40 } else { 20 };
        for place in header..genuine.len() {
            let mut changed = genuine.clone();
            changed[place] ^= 1 << (place % 8);
            let reason = match place - header {
                0..4 => DropReason::SpiUnknown,
                _ => DropReason::BadIcv,
            };
            attack.drops(reason, &changed);
        }
        // The window has not moved for any of them: the packet itself still passes, once.
        attack.passes(&genuine, &forwarded(&inner()));
        attack.drops(DropReason::Replayed, &genuine);
    }
}

#[test]
fn a_packet_sealed_with_another_key_or_salt_is_a_bad_icv() {
    let mut attack = Attack::transport();
    // The keys of the other direction and of the next generation, under this SA's SPI.
    let spi = attack.bench.shape.sa(End::A, messages::Direction::Inbound, 0);
    let spi = greyhound_simulation::wanted::sa(spi).spi;
    let payload = gre(0, IPV4, &inner().to_bytes());
    for sealer in [attack.bench.peer_opener(0), attack.bench.peer_sealer(1)] {
        let packet = attack.outer(&sealer.with_spi(spi).seal(1, IpProtocol::GRE.0, &payload));
        attack.drops(DropReason::BadIcv, &packet);
    }
    attack.is_alive();
}

#[test]
fn esn_is_part_of_what_is_authenticated() {
    for esn in [false, true] {
        let mut attack = Attack::on(&Shape { esn, ..Shape::default() });
        let other = Attack::on(&Shape { esn: !esn, ..Shape::default() });
        let payload = gre(0, IPV4, &inner().to_bytes());
        let packet = attack.outer(&other.sealer.seal(1, IpProtocol::GRE.0, &payload));
        attack.drops(DropReason::BadIcv, &packet);
        attack.is_alive();
    }
}

#[test]
fn an_spi_without_an_sa_is_unknown() {
    let mut attack = Attack::transport();
    let payload = gre(0, IPV4, &inner().to_bytes());
    // Zero, reserved ones, the outbound SA's, a stranger's.
    let outbound =
        greyhound_simulation::wanted::sa(attack.bench.shape.sa(End::A, messages::Direction::Outbound, 0));
    for spi in [0, 1, 255, outbound.spi, 0xdead_beef, u32::MAX] {
        let sealer = attack.bench.peer_sealer(0).with_spi(spi);
        let packet = attack.outer(&sealer.seal(1, IpProtocol::GRE.0, &payload));
        attack.drops(DropReason::SpiUnknown, &packet);
    }
    attack.is_alive();
}

#[test]
fn an_sa_is_for_its_two_addresses_only() {
    let mut attack = Attack::transport();
    let esp = attack.sealer.seal(1, IpProtocol::GRE.0, &gre(0, IPV4, &inner().to_bytes()));
    let stranger = "192.0.2.99".parse().expect("an address");
    for (source, destination) in [(stranger, End::A.wan()), (End::B.wan(), End::A.gateway())] {
        let packet = ip_with(&Udp::new(source, destination, &[]), IpProtocol::ESP, &esp);
        attack.drops(DropReason::SaAddress, &packet);
    }
    let over_v6 = ip_with(&Udp::new(End::B.wan_v6(), End::A.wan_v6(), &[]), IpProtocol::ESP, &esp);
    attack.drops(DropReason::SaAddress, &over_v6);
    attack.is_alive();
}

#[test]
fn a_packet_cut_anywhere_with_its_length_told_right_is_truncated_or_a_bad_icv() {
    for shape in shapes() {
        let mut attack = Attack::on(&shape);
        let sequence = attack.next();
        let gre = gre(0, IPV4, &inner().to_bytes());
        let (next_header, payload) = match shape.esp {
            Some(EspMode::Tunnel) => (IpProtocol::IPV4, delivery(&gre)),
            _ => (IpProtocol::GRE, gre),
        };
        let whole = attack.sealer.seal(sequence, next_header.0, &payload);
        let icv = usize::from(shape.icv_bytes);
        for length in 0..whole.len() {
            // SPI, number and IV; at least one word of ciphertext; the ICV; and the ciphertext whole words.
            let is_esp = length >= 16 + 4 + icv && (length - 16 - icv).is_multiple_of(4);
            let reason = if is_esp { DropReason::BadIcv } else { DropReason::EspTruncated };
            let packet = attack.outer(&whole[..length]);
            attack.drops(reason, &packet);
        }
        let packet = attack.outer(&whole);
        attack.passes(&packet, &forwarded(&inner()));
    }
}

#[test]
fn sequence_number_0_is_dropped_with_and_without_esn() {
    for esn in [false, true] {
        let mut attack = Attack::on(&Shape { esn, ..Shape::default() });
        let payload = gre(0, IPV4, &inner().to_bytes());
        let zero = attack.outer(&attack.sealer.seal(0, IpProtocol::GRE.0, &payload));
        attack.drops(DropReason::SequenceZero, &zero);
        attack.is_alive();
        attack.drops(DropReason::SequenceZero, &zero);
    }
}

#[test]
fn with_esn_a_low_word_of_0_is_a_number_like_any_other() {
    let mut attack = Attack::on(&Shape { esn: true, ..Shape::default() });
    let payload = gre(0, IPV4, &inner().to_bytes());
    for sequence in [1, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001] {
        let packet = attack.outer(&attack.sealer.seal(sequence, IpProtocol::GRE.0, &payload));
        attack.passes(&packet, &forwarded(&inner()));
        attack.drops(DropReason::Replayed, &packet);
    }
}

#[test]
fn a_number_that_was_received_is_replayed_and_one_left_of_the_window_too_old() {
    for window in [64u16, 1_024, 8_192] {
        let mut attack = Attack::on(&Shape { replay_window: window, ..Shape::default() });
        let payload = gre(0, IPV4, &inner().to_bytes());
        let edge = 100_000u64;
        let packet = |attack: &Attack, sequence| {
            attack.outer(&attack.sealer.seal(sequence, IpProtocol::GRE.0, &payload))
        };
        let newest = packet(&attack, edge);
        attack.passes(&newest, &forwarded(&inner()));
        attack.drops(DropReason::Replayed, &newest);
        let oldest = packet(&attack, edge - u64::from(window) + 1);
        attack.passes(&oldest, &forwarded(&inner()));
        attack.drops(DropReason::Replayed, &oldest);
        for behind in [0, 1, 1_000, 50_000] {
            let old = packet(&attack, edge - u64::from(window) - behind);
            attack.drops(DropReason::ReplayTooOld, &old);
        }
        attack.sequence = edge;
        attack.is_alive();
    }
}

#[test]
fn two_copies_in_one_burst_pass_once() {
    let mut attack = Attack::transport();
    let genuine = attack.genuine();
    let seen = attack.bench.observe(|bench| (0..3).for_each(|_| bench.wan.send(&genuine)));
    assert_eq!(seen.drops, [(DropReason::Replayed, 2)]);
    assert_eq!(seen.lan.len(), 1);
}

#[test]
fn a_pad_length_beyond_the_payload_is_dropped_under_a_valid_icv() {
    let mut attack = Attack::transport();
    // Payloads that need no padding to end on a word.
    for payload_bytes in [2u8, 6, 30, 62, 154] {
        for beyond in [1, 2, 100] {
            let mut text = trailed(&vec![0x5a; payload_bytes.into()], &[], IpProtocol::GRE.0);
            text[usize::from(payload_bytes)] = payload_bytes + beyond;
            let packet = attack.esp_text(&text);
            attack.drops(DropReason::PadLength, &packet);
        }
    }
    attack.is_alive();
}

#[test]
fn padding_that_does_not_count_from_1_is_dropped_under_a_valid_icv() {
    let mut attack = Attack::transport();
    let inside = gre(0, IPV4, &inner().to_bytes());
    let fill = (4 - (inside.len() + 2) % 4) % 4;
    for length in [fill, fill + 4, fill + 8, fill + 240].into_iter().filter(|length| *length > 0) {
        let right: Vec<u8> = (1..=length as u8).collect();
        for place in [0, length / 2, length - 1] {
            let mut wrong = right.clone();
            wrong[place] ^= 0x80;
            let packet = attack.esp_text(&trailed(&inside, &wrong, IpProtocol::GRE.0));
            attack.drops(DropReason::PadBytes, &packet);
        }
        let packet = attack.esp_text(&trailed(&inside, &right, IpProtocol::GRE.0));
        attack.passes(&packet, &forwarded(&inner()));
    }
}

#[test]
fn a_dummy_packet_is_dropped_silently_in_both_modes() {
    for mut attack in [Attack::transport(), Attack::tunnel()] {
        for payload in [Vec::new(), vec![0; 2], vec![0xa5; 1_200]] {
            let packet = attack.esp(IpProtocol::NO_NEXT_HEADER, &payload);
            attack.drops(DropReason::DummyPacket, &packet);
        }
        attack.is_alive();
    }
}

#[test]
fn next_headers_that_the_mode_does_not_carry_are_dropped() {
    let mut attack = Attack::transport();
    // Transport mode carries GRE here; a packet in a packet is tunnel mode's. What else may come is what the SPD says,
    // and it says nothing.
    for next_header in (0..=255).map(IpProtocol).filter(|next| *next != IpProtocol::GRE) {
        let reason = match next_header {
            IpProtocol::IPV4 | IpProtocol::IPV6 => DropReason::EspNextHeader,
            IpProtocol::NO_NEXT_HEADER => DropReason::DummyPacket,
            _ => DropReason::SelectorMismatch,
        };
        let packet = attack.esp(next_header, &inner().to_bytes());
        attack.drops(reason, &packet);
    }
    attack.is_alive();

    let mut attack = Attack::tunnel();
    for next_header in (0..=255).map(IpProtocol) {
        let reason = match next_header {
            IpProtocol::IPV4 => DropReason::SelectorMismatch,
            IpProtocol::IPV6 => DropReason::IpMalformed,
            IpProtocol::NO_NEXT_HEADER => DropReason::DummyPacket,
            _ => DropReason::EspNextHeader,
        };
        let packet = attack.esp(next_header, &inner().to_bytes());
        attack.drops(reason, &packet);
    }
    attack.is_alive();
}

#[test]
fn what_was_inside_cut_anywhere_is_malformed_under_a_valid_icv() {
    let mut attack = Attack::tunnel();
    let inside = delivery(&gre(0, IPV4, &inner().to_bytes()));
    for length in 0..inside.len() {
        let packet = attack.esp(IpProtocol::IPV4, &inside[..length]);
        attack.drops(DropReason::IpMalformed, &packet);
    }
    attack.is_alive();
    // With TFC padding it is not too long (RFC 4303 §2.7).
    let mut padded = inside.clone();
    padded.resize(inside.len() + 100, 0);
    let packet = attack.esp(IpProtocol::IPV4, &padded);
    attack.passes(&packet, &forwarded(&inner()));
}

#[test]
fn congestion_that_the_inner_packet_cannot_carry_drops_it() {
    let mut attack = Attack::transport();
    for (protocol, inside) in
        [(IPV4, inner().to_bytes()), (IPV6, Udp::new(End::B.host_v6(), End::A.host_v6(), b"").to_bytes())]
    {
        let sequence = attack.next();
        let esp = attack.sealer.seal(sequence, IpProtocol::GRE.0, &gre(0, protocol, &inside));
        let outer = Udp::new(End::B.wan(), End::A.wan(), &[]).tos(Dscp::DEFAULT, Ecn::Ce);
        attack.drops(DropReason::EcnInvalid, &ip_with(&outer, IpProtocol::ESP, &esp));
    }
    attack.is_alive();
    // Tunnel mode: between the outer and the delivery header already.
    let mut attack = Attack::tunnel();
    let sequence = attack.next();
    let inside = delivery(&gre(0, IPV4, &inner().to_bytes()));
    let esp = attack.sealer.seal(sequence, IpProtocol::IPV4.0, &inside);
    let outer = Udp::new(End::B.wan(), End::A.wan(), &[]).tos(Dscp::DEFAULT, Ecn::Ce);
    attack.drops(DropReason::EcnInvalid, &ip_with(&outer, IpProtocol::ESP, &esp));
    attack.is_alive();
}

fn lifetime(object: &mut Object, limits: LifetimeLimits) {
    if let Object::Sa(sa) = object {
        sa.lifetime = limits;
    }
}

#[test]
fn an_sa_at_its_hard_limit_carries_nothing_more_either_way() {
    let packets = LifetimeLimits { hard_packets: 2, ..LifetimeLimits::default() };
    let bytes = LifetimeLimits { hard_bytes: 60, ..LifetimeLimits::default() };
    for limits in [packets, bytes] {
        let mut attack = Attack::with(&Shape::default(), |objects| {
            objects.iter_mut().for_each(|object| lifetime(object, limits));
        });
        // Two of 44 bytes of payload and trailer.
        attack.is_alive();
        attack.is_alive();
        let genuine = attack.genuine();
        attack.drops(DropReason::SaExpired, &genuine);
        attack.drops_from_host(DropReason::SaExpired, &outbound().to_bytes());
    }
    let seconds = LifetimeLimits { hard_seconds: 10, ..LifetimeLimits::default() };
    let mut attack = Attack::with(&Shape::default(), |objects| {
        objects.iter_mut().for_each(|object| lifetime(object, seconds));
    });
    attack.bench.pass(9_000_000_000);
    attack.is_alive();
    attack.bench.pass(1_100_000_000);
    let genuine = attack.genuine();
    attack.drops(DropReason::SaExpired, &genuine);
    attack.drops_from_host(DropReason::SaExpired, &outbound().to_bytes());
}

#[test]
fn the_window_moves_only_for_what_has_a_right_icv() {
    let mut attack = Attack::transport();
    let genuine = attack.genuine();
    let payload = gre(0, IPV4, &inner().to_bytes());
    let forged = attack.bench.peer_sealer(1).with_spi(attack_spi(&attack));
    let far_ahead = attack.outer(&forged.seal(1_000_000, IpProtocol::GRE.0, &payload));
    attack.drops(DropReason::BadIcv, &far_ahead);
    attack.passes(&genuine, &forwarded(&inner()));
    // One with a right ICV and a wrong inside does move it: it was the peer's.
    let sequence = attack.sequence + 5_000;
    let odd = attack.outer(&attack.sealer.seal(sequence, IpProtocol::GRE.0, &gre(1, IPV4, &[])));
    attack.drops(DropReason::GreVersion, &odd);
    attack.drops(DropReason::ReplayTooOld, &genuine);
    let opened = attack.bench.headend.counter(WorkerCounter::Opened);
    assert_eq!(opened, 2);
}

fn attack_spi(attack: &Attack) -> u32 {
    greyhound_simulation::wanted::sa(attack.bench.shape.sa(End::A, messages::Direction::Inbound, 0)).spi
}

pub(crate) const CASES: &[fn()] = &[
    a_flipped_bit_anywhere_in_esp_is_a_bad_icv_or_another_sa_or_number,
    an_sa_is_for_its_two_addresses_only,
    a_packet_cut_anywhere_with_its_length_told_right_is_truncated_or_a_bad_icv,
    sequence_number_0_is_dropped_with_and_without_esn,
    a_number_that_was_received_is_replayed_and_one_left_of_the_window_too_old,
    a_pad_length_beyond_the_payload_is_dropped_under_a_valid_icv,
    padding_that_does_not_count_from_1_is_dropped_under_a_valid_icv,
    a_dummy_packet_is_dropped_silently_in_both_modes,
    next_headers_that_the_mode_does_not_carry_are_dropped,
    congestion_that_the_inner_packet_cannot_carry_drops_it,
    an_sa_at_its_hard_limit_carries_nothing_more_either_way,
];
