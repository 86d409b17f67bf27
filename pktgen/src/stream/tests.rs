// SPDX-License-Identifier: Apache-2.0
//! Every shape of packet, judged by the formats' own readers.

use std::net::IpAddr;

use aead::Engine;
use esp::{InboundParameters, InboundSa, Lifetime, OpenBurst, Spi};
use pktbuf::{Batch, Pool};
use wire::checksum;
use wire::{EtherType, IpProtocol, gre, icmpv6, ipv4, ipv6, tcp, udp, vlan};

use super::*;
use crate::generator::Generator;
use crate::profile::Profile;
use crate::schedule::Picks;
use crate::stamp::Stamp;

const V4: &str = r#"{ source = { first = "10.0.0.1", count = 300 }, destination = { first = "10.255.255.0", count = 400, order = "random" }, dscp = { first = 0, last = 63 } }"#;
const V6: &str = r#"{ source = { first = "2001:db8::ffff:fff0", count = 300 }, destination = { first = "2001:db8:1::", count = 400, step = 65537, order = "random" }, dscp = { first = 0, last = 63 } }"#;
const UPPERS: [&str; 3] = [
    "udp = { source_port = { first = 0, last = 65535, step = 257 }, destination_port = { first = 1, count = 999, order = \"random\" } }",
    "tcp = { source_port = { first = 65000, last = 65535 } }",
    "icmp = { identifier = { first = 0, last = 65535, step = 13 } }",
];
const GRES: [&str; 3] = [
    "",
    r#"gre = { source = { first = "192.0.2.0", count = 256 }, destination = "198.51.100.1", key = { first = 4294967200, count = 96 }, checksum = true, sequence = true, dscp = { first = 8, count = 8 } }"#,
    r#"gre = { source = { first = "2001:db8:2::", count = 256 }, destination = "2001:db8:3::1", checksum = true }"#,
];
const ESPS: [&str; 3] = [
    "",
    r#"esp = { spi = 4096, sas = 3, lab_key = "000102030405060708090a0b0c0d0e0f10111213" }"#,
    r#"esp = { mode = "tunnel", source = { first = "203.0.113.0", count = 9 }, destination = "203.0.113.99", spi = 4096, sas = 3, esn = true, lab_key = "000102030405060708090a0b0c0d0e0f10111213" }"#,
];

fn profile(ip: &str, upper: &str, gre: &str, esp: &str, more: &str) -> Profile {
    let text = format!(
        "[[stream]]\nname = \"one\"\nrate = {{ pps = 1000000 }}\nsize = {{ uniform = [128, 400] }}\nip = {ip}\n{upper}\n{gre}\n{esp}\n{more}"
    );
    Profile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The first frames of a profile.
fn frames(profile: &Profile, count: usize) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(profile, Engine::best(), Path::new("")).unwrap();
    let mut schedule = generator.schedule(profile, 1e9, u64::MAX);
    let pool = Pool::memory(64, generator.buffer_bytes().unwrap()).unwrap();
    let mut frames = Vec::new();
    while frames.len() < count {
        let (mut picks, mut batch) = (Picks::new(), Batch::new());
        schedule.take(u64::MAX - 1, &mut picks);
        pool.alloc_into(&mut batch, picks.len());
        generator.write(&picks, &mut batch, |due| due).unwrap();
        frames.extend(batch.iter().map(|packet| packet.data().to_vec()));
    }
    frames
}

/// Reads a packet to its stamp; whatever is not as it should be panics. ESP is opened with the SAs given.
fn judge(packet: &[u8], ether_type: EtherType, sas: &[InboundSa]) -> Stamp {
    let (protocol, source, destination, payload): (_, IpAddr, IpAddr, _) = if ether_type == EtherType::IPV4 {
        let packet = ipv4::Packet::parse(packet).unwrap();
        assert!(packet.checksum_is_valid());
        let header = packet.header;
        assert_eq!(usize::from(header.total_length()), 20 + packet.payload.len());
        (header.protocol(), header.source().into(), header.destination().into(), packet.payload)
    } else {
        let packet = ipv6::Packet::parse(packet).unwrap();
        let header = packet.header;
        (header.next_header(), header.source().into(), header.destination().into(), packet.payload)
    };
    match protocol {
        IpProtocol::IPV4 => judge(packet, EtherType::IPV4, sas),
        IpProtocol::GRE => judge_gre(payload, sas),
        IpProtocol::ESP => judge_esp(payload, source, destination, sas),
        _ => judge_upper(protocol, payload, source, destination),
    }
}

fn judge_gre(packet: &[u8], sas: &[InboundSa]) -> Stamp {
    let gre = gre::Packet::parse(packet).expect("a good checksum");
    judge(gre.payload, gre.header.protocol_type(), sas)
}

fn judge_esp(packet: &[u8], source: IpAddr, destination: IpAddr, sas: &[InboundSa]) -> Stamp {
    let spi = u32::from_be_bytes(*packet.first_chunk().unwrap());
    let sa = sas.iter().find(|sa| sa.spi() == Spi(spi)).unwrap();
    let pool = Pool::memory(1, 2048).unwrap();
    let mut packet = pool.copy_of(packet).unwrap();
    let mut burst = OpenBurst::new(0);
    burst.push(&mut packet, 0, sa).unwrap();
    let opened = burst.open().remove(0).unwrap();
    let payload = &packet.data()[opened.payload];
    match opened.next_header {
        IpProtocol::GRE => judge_gre(payload, sas),
        IpProtocol::IPV4 => judge(payload, EtherType::IPV4, sas),
        IpProtocol::IPV6 => judge(payload, EtherType::IPV6, sas),
        protocol => judge_upper(protocol, payload, source, destination),
    }
}

fn judge_upper(protocol: IpProtocol, segment: &[u8], source: IpAddr, destination: IpAddr) -> Stamp {
    let payload = match protocol {
        IpProtocol::UDP => {
            let packet = udp::Packet::parse(segment).unwrap();
            assert!(packet.checksum_is_valid(source, destination) && packet.header.checksum() != 0);
            packet.payload
        }
        IpProtocol::TCP => {
            let packet = tcp::Packet::parse(segment).unwrap();
            assert!(packet.checksum_is_valid(source, destination));
            packet.payload
        }
        IpProtocol::ICMP => {
            assert!(checksum::is_valid(segment));
            &segment[8..]
        }
        IpProtocol::ICMPV6 => {
            let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else { panic!() };
            assert!(icmpv6::checksum_is_valid(segment, source, destination));
            &segment[8..]
        }
        other => panic!("{other:?}"),
    };
    Stamp::parse(payload).unwrap()
}

fn opening_sas(profile: &Profile) -> Vec<InboundSa> {
    let Some(esp) = &profile.streams().next().unwrap().esp else { return Vec::new() };
    let keys = esp.keys(Path::new("")).unwrap().load(esp.sas).unwrap();
    let sa = |(number, keying): (u32, crate::keys::Keying)| {
        let (key, salt) = keying.expand(Engine::best(), icv(esp)).unwrap();
        let (spi, lifetime) = (Spi(esp.spi + number), Lifetime::default());
        InboundSa::new(InboundParameters { spi, key, salt, esn: esp.esn, window: Some(64), lifetime })
            .unwrap()
    };
    (0..).zip(keys).map(sa).collect()
}

#[test]
fn packets_of_every_shape_are_right_to_the_last_checksum() {
    for (ip, gre, esp) in [V4, V6]
        .iter()
        .flat_map(|ip| GRES.iter().flat_map(move |gre| ESPS.iter().map(move |esp| (*ip, *gre, *esp))))
    {
        for upper in UPPERS {
            let profile = profile(ip, upper, gre, esp, "");
            let sas = opening_sas(&profile);
            for (number, frame) in frames(&profile, 640).iter().enumerate() {
                let link = vlan::parse_link(frame).unwrap();
                let stamp = judge(&frame[usize::from(link.header_bytes)..], link.ether_type, &sas);
                assert_eq!((stamp.stream, stamp.sequence as usize), (0, number));
                assert_eq!(stamp.sent_ns, number as u64 * 1_000);
            }
        }
    }
}

#[test]
fn a_frame_of_64_bytes_holds_ipv4_udp_and_the_stamp() {
    let text = "[[stream]]\nname = \"one\"\nrate = { pps = 1 }\nsize = 64\nip = { source = \"10.0.0.1\", destination = \"10.1.0.1\" }\n";
    let profile = Profile::parse(&format!("{text}udp = {{}}")).unwrap();
    assert_eq!(frames(&profile, 1)[0].len(), 60);
    let tcp = Profile::parse(&format!("{text}tcp = {{}}")).unwrap();
    let refused = Generator::new(&tcp, Engine::best(), Path::new("")).err().unwrap();
    assert!(format!("{refused:#}").contains("at least 76"), "{refused:#}");
    let without = Profile::parse(&format!("{text}tcp = {{}}\nstamp = false")).unwrap();
    assert_eq!(frames(&without, 1)[0].len(), 60);
}

#[test]
fn vlan_and_mac_ranges_stay_in_their_fields() {
    let ethernet = r#"ethernet = { vlan = { first = 100, count = 3 }, priority = 5, destination = { first = "02:00:00:00:00:fe", count = 4 } }"#;
    let profile = profile(V4, "udp = {}", "", "", ethernet);
    let frames = frames(&profile, 64);
    for (number, frame) in frames[..6].iter().enumerate() {
        let link = vlan::parse_link(frame).unwrap();
        assert_eq!(usize::from(link.vlan.get()), 100 + number % 3);
        assert_eq!(frame[14] >> 5, 5);
        let last = u16::from_be_bytes([link.destination.0[4], link.destination.0[5]]);
        assert_eq!(usize::from(last), 0xfe + number % 4);
        judge(&frame[18..], EtherType::IPV4, &[]);
    }
}

#[test]
fn flows_begin_all_ranges_and_sas_again_but_numbers_go_on() {
    let profile = profile(V4, UPPERS[0], GRES[1], ESPS[1], "flows = 5");
    let spis = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame[34..38].to_vec()).collect::<Vec<_>>();
    let sealed = frames(&profile, 64);
    assert_eq!(spis(&sealed[..5]), spis(&sealed[5..10]));
    assert_eq!(sealed[3][37], 0, "the SAs: 0, 1, 2, 0, 1");
    let clear = self::profile(V4, UPPERS[0], GRES[1], "", "flows = 5\nburst = 2");
    let clear = frames(&clear, 64);
    let parts = |frame: &[u8]| (frame[26..34].to_vec(), frame[42..46].to_vec(), frame[46..50].to_vec());
    for number in 0..10 {
        let (first, again) = (parts(&clear[number]), parts(&clear[number + 5]));
        assert_eq!((&first.0, &first.1), (&again.0, &again.1), "addresses and key repeat");
        assert_eq!(again.2, (number as u32 + 5).to_be_bytes(), "GRE numbers go on");
    }
}

#[test]
fn the_seed_decides_what_is_by_chance() {
    let text = |seed: u32| {
        format!(
            "seed = {seed}\n[[stream]]\nname = \"one\"\nrate = {{ pps = 1 }}\nsize = \"imix\"\nip = {V4}\n{}",
            UPPERS[0]
        )
    };
    let frames = |seed| frames(&Profile::parse(&text(seed)).unwrap(), 64);
    assert_eq!(frames(1), frames(1));
    assert_ne!(frames(1), frames(2));
}
