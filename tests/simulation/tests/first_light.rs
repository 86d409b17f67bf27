// SPDX-License-Identifier: Apache-2.0
//! Packets cross two headends and come out as they went in, less a hop or two.

use greyhound_simulation::packets::{Udp, ip_in};
use greyhound_simulation::topology::{End, Shape, Topology};
use messages::{EspMode, GreOptions, WorkerCounter};
use wire::{Dscp, Ecn};

/// Sends packets both ways and checks what arrives; returns the network for more.
fn cross(shape: Shape) -> Topology {
    let mut net = Topology::new(shape);
    for (from, length) in [(End::A, 10), (End::B, 11), (End::A, 1_200), (End::B, 0), (End::A, 333)] {
        for v6 in [false, true] {
            let to = from.other();
            let ends = if v6 { (from.host_v6(), to.host_v6()) } else { (from.host(), to.host()) };
            let sent = Udp::new(ends.0, ends.1, &vec![0x5a; length]).tos(Dscp::EF, Ecn::NotEct);
            net.site(from).send(&sent.to_bytes());
            net.settle();
            let expected = Udp { ttl: 62, ..sent }.to_bytes();
            let arrived = net.site(to).take();
            let drops = [net.headend(End::A).drops(), net.headend(End::B).drops()];
            assert_eq!(arrived, [expected], "{from:?} {length} v6 {v6}: {drops:?}");
        }
    }
    for end in [End::A, End::B] {
        assert_eq!(net.headend(end).drops(), []);
        assert_eq!(net.headend(end).unaccounted(), 0);
        assert_eq!(net.headend(end).buffers_out(), 0);
    }
    net
}

#[test]
fn gre_in_esp_transport_mode_carries_both_families_both_ways() {
    let mut net = cross(Shape::default());
    assert_eq!(net.frames_in_clear(), 0);
    assert_eq!(net.headend(End::A).counter(WorkerCounter::Sealed), 6);
    assert_eq!(net.headend(End::A).counter(WorkerCounter::Opened), 4);
}

#[test]
fn gre_in_esp_tunnel_mode_carries_both_families_both_ways() {
    let net = cross(Shape { esp: Some(EspMode::Tunnel), ..Shape::default() });
    assert_eq!(net.frames_in_clear(), 0);
}

#[test]
fn every_mix_of_options_carries_both_families_both_ways() {
    for (key, checksum, sequence) in [(Some(7), false, false), (None, true, true), (Some(0), true, true)] {
        for (esn, key_bytes, icv_bytes, delivery_v6) in
            [(true, 32, 16, false), (false, 24, 12, true), (true, 16, 8, true)]
        {
            let gre = GreOptions { key, checksum, sequence };
            for esp in [EspMode::Transport, EspMode::Tunnel] {
                let net = cross(Shape {
                    gre,
                    esn,
                    key_bytes,
                    icv_bytes,
                    delivery_v6,
                    esp: Some(esp),
                    ..Shape::default()
                });
                assert_eq!(net.frames_in_clear(), 0);
            }
        }
    }
}

#[test]
fn the_tos_byte_is_on_the_outer_header() {
    let net = cross(Shape::default());
    let seen = net.seen.lock().unwrap();
    let esp: Vec<_> = seen.iter().filter(|frame| greyhound_simulation::packets::is_esp(frame)).collect();
    assert_eq!(esp.len(), 10);
    for frame in esp {
        assert_eq!(ip_in(frame).unwrap().0.tos, Dscp::EF.tos(Ecn::NotEct));
    }
}
