// SPDX-License-Identifier: Apache-2.0
//! Frames: what a stock Linux kernel sent (`tests/linux-peer/golden`), and formats that it did not send there.

use std::path::Path;
use std::{fs, io};

use super::Seed;

const ETHERNET: &str = "020000000001 020000000002";
/// Checksums are put right on the way, MTU 576, a ToS of 0xb8, some number.
const PARAMETERS: [u8; 8] = [1, 0x02, 0x40, 0xb8, 0, 0, 0, 1];

/// The first frames of each capture; more of a capture say the same again.
pub(super) fn golden(folder: &Path) -> io::Result<Vec<Seed>> {
    let mut frames = Vec::new();
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "pcap")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let capture = fs::read(path)?;
        let packets = packets(&capture).into_iter().take(4).enumerate();
        frames.extend(packets.map(|(number, packet)| (format!("{name}-{number}"), packet)));
    }
    Ok(frames)
}

/// The packets of a pcap file, in the byte order of this machine or the other.
fn packets(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let little = capture.first().is_some_and(|byte| matches!(byte, 0xd4 | 0x4d));
    let mut rest = capture.get(24..).unwrap_or_default();
    while let Some((header, behind)) = rest.split_first_chunk::<16>() {
        let [.., a, b, c, d, _, _, _, _] = *header;
        let bytes = if little { u32::from_le_bytes([a, b, c, d]) } else { u32::from_be_bytes([a, b, c, d]) };
        let Some((packet, behind)) = behind.split_at_checked(bytes as usize) else { break };
        packets.push(packet.to_vec());
        rest = behind;
    }
    packets
}

pub(super) fn wire(golden: &[Seed]) -> Vec<Seed> {
    let with_parameters = |(name, frame): &Seed| (name.clone(), [&PARAMETERS, &frame[..]].concat());
    golden.iter().chain(&other_formats()).map(with_parameters).collect()
}

/// The same frames as steps of a headend's life: see `pipeline_inbound`.
pub(super) fn pipeline(golden: &[Seed]) -> Vec<Seed> {
    let step = |(name, frame): &Seed| {
        let bytes = u16::try_from(frame.len()).unwrap_or(0).to_be_bytes();
        let layer3 = frame.get(14..).unwrap_or_default();
        let layer3_bytes = u16::try_from(layer3.len()).unwrap_or(0).to_be_bytes();
        let as_it_is = [&[0, 0], &bytes[..], frame].concat();
        let for_us = [&[2, 0], &layer3_bytes[..], layer3].concat();
        let receive_and_send = [4, 0, 6, 0, 255, 6, 1, 255];
        (name.clone(), [&as_it_is, &for_us, &receive_and_send[..]].concat())
    };
    let mut seeds: Vec<_> = other_formats().iter().chain(golden.iter().step_by(6)).map(step).collect();
    seeds.extend(lives());
    seeds
}

/// Steps in the language of `pipeline_inbound`: out of the site, into it, neighbours that answer late.
fn lives() -> Vec<Seed> {
    const DATA: &str = "08 00 00 00 00 01 00 02 61 62 63 64 65 66 67 68";
    let turn = "04 00 04 01 06 00 ff 06 01 ff";
    // From the site: site, host, kind, length, data. Sealed: pair, distance, flags, then as before, the delivery ToS.
    let out = |site: u8, kind: u8, bytes: u16| format!("03 {site:02x} 05 {kind:02x} {bytes:04x} {DATA}");
    let syn = |site: u8| format!("03 {site:02x} 05 01 0018");
    let sealed = |pair: u8, ahead: u8, flags: u8, kind: u8| {
        let sequence = if pair == 1 { "01" } else { "" };
        format!("01 {pair:02x} {ahead:02x} {flags:02x} 05 {kind:02x} 0040 {DATA} {sequence} 00")
    };
    let all_out: String = (0..8).map(|site| out(site, 0x00, 64)).collect();
    let all_syn: String = (0..8).map(syn).collect();
    let all_in: String = (0..4).map(|pair| sealed(pair, 0, u8::from(pair == 2), 0x02)).collect();
    let life = |name: &str, text: String| (name.to_owned(), hex(&text));
    vec![
        life("out", format!("{all_out} {turn}")),
        life("out-v6", format!("{} {} {turn}", out(0, 0x22, 64), out(3, 0x20, 1000))),
        life("out-syn", format!("{all_syn} {turn}")),
        life("out-long", format!("{} {} {turn}", out(0, 0x00, 1460), out(1, 0x40, 1460))),
        life("out-no-hops", format!("{} {} {turn}", out(0, 0x80, 64), out(0, 0xa0, 64))),
        life("in", format!("{all_in} {turn}")),
        life("in-v6", format!("{} {turn}", sealed(3, 0, 0, 0x20))),
        life(
            "in-twice",
            format!(
                "{} {} {turn} {} {turn}",
                sealed(0, 0, 0, 0),
                sealed(0, 0xff, 0, 0),
                sealed(0, 0xff, 0, 0)
            ),
        ),
        life("in-wrong-site", format!("{} {turn}", sealed(0, 0, 0x70, 0))),
        life("other-worker", format!("{all_in} 0c 00 0c 01 06 00 ff 06 01 ff")),
        life("time", format!("{} {turn} 05 0400 05 0400 05 2000 {turn}", out(6, 0x00, 256))),
    ]
}

fn other_formats() -> Vec<Seed> {
    let ipv4 = |protocol: &str, bytes: u16| {
        format!("4500 {bytes:04x} 1234 0000 40 {protocol} 0000 c0000209 c0000201")
    };
    let ipv6 = |next: &str, bytes: u16| {
        format!(
            "6000 0000 {bytes:04x} {next} ff 20010db8000000000000000000000009 20010db8000000000000000000000001"
        )
    };
    let tcp = "0400 0050 00000001 00000000 8002 ffff 0000 0000 0204 05b4 0402 01 03 03 07 00";
    let frame = |name: &str, ether_type: &str, rest: &str| {
        (name.to_owned(), hex(&format!("{ETHERNET} {ether_type} {rest}")))
    };
    vec![
        frame("arp-request", "0806", "0001 0800 06 04 0001 020000000002 c0000209 000000000000 c0000201"),
        frame("arp-reply", "0806", "0001 0800 06 04 0002 020000000002 c0000209 020000000001 c0000201"),
        frame("vlan", "8100 2007 0800", &format!("{} 0000 0000 0001 0002", ipv4("01", 28))),
        frame("tcp-syn", "0800", &format!("{} {tcp}", ipv4("06", 52))),
        frame("tcp-syn-v6", "86dd", &format!("{} {tcp}", ipv6("06", 32))),
        frame("udp", "0800", &format!("{} 1000 0035 000c 0000 61626364", ipv4("11", 32))),
        frame("udp-v6", "86dd", &format!("{} 1000 0035 000c 0000 61626364", ipv6("11", 12))),
        frame(
            "options",
            "0800",
            "4700 0024 1234 0000 40 01 0000 c0000209 c0000201 8903 0400 0101 0100 0800 0000 0001 0002",
        ),
        frame(
            "fragment",
            "0800",
            &format!("{} {}", "4500 0034 1234 2003 40 11 0000 c0000209 c0000201", "a5".repeat(32)),
        ),
        frame("echo", "0800", &format!("{} 0800 0000 0001 0002 6162", ipv4("01", 30))),
        frame("echo-reply", "0800", &format!("{} 0000 0000 0001 0002 6162", ipv4("01", 30))),
        frame(
            "unreachable",
            "0800",
            &format!("{} 0304 0000 0000 0578 {} 0001 0002 0008 0000", ipv4("01", 56), ipv4("11", 28)),
        ),
        frame(
            "time-exceeded",
            "0800",
            &format!("{} 0b00 0000 0000 0000 {} 0001 0002 0008 0000", ipv4("01", 56), ipv4("11", 28)),
        ),
        frame(
            "parameter-problem",
            "0800",
            &format!("{} 0c00 0000 1400 0000 {} 0001 0002 0008 0000", ipv4("01", 56), ipv4("11", 28)),
        ),
        frame("echo-v6", "86dd", &format!("{} 8000 0000 0001 0002 6162", ipv6("3a", 10))),
        frame(
            "too-big",
            "86dd",
            &format!("{} 0200 0000 0000 0500 {} 0001 0002 0008 0000", ipv6("3a", 56), ipv6("11", 8)),
        ),
        frame(
            "solicitation",
            "86dd",
            &format!(
                "{} 8700 0000 0000 0000 20010db8000000000000000000000001 0101 020000000002",
                ipv6("3a", 32)
            ),
        ),
        frame(
            "advertisement",
            "86dd",
            &format!(
                "{} 8800 0000 6000 0000 20010db8000000000000000000000009 0201 020000000002",
                ipv6("3a", 32)
            ),
        ),
        frame(
            "extensions",
            "86dd",
            &format!(
                "{} 3c00 0502 0000 0100 2b00 0104 0000 0000 2c00 0000 0000 0000 3200 0000 0000 0007 00001001 00000001",
                ipv6("00", 40)
            ),
        ),
        frame(
            "fragment-v6",
            "86dd",
            &format!("{} 1100 0001 00000007 1000 0035 0010 0000 6162636465666768", ipv6("2c", 24)),
        ),
        frame("gre", "0800", &format!("{} 0000 0800 {} 1000 0035 0008 0000", ipv4("2f", 52), ipv4("11", 28))),
        frame(
            "gre-all",
            "0800",
            &format!("{} b000 86dd 0000 0000 00000007 00000009 {}", ipv4("2f", 76), ipv6("3b", 0)),
        ),
        frame("gre-pptp", "0800", &format!("{} 3001 880b 0000 0000 00000007", ipv4("2f", 32))),
        frame("esp", "0800", &format!("{} 00001001 00000001 {}", ipv4("32", 60), "5a".repeat(32))),
        frame("esp-text", "0800", &format!("{} 6162 0102 0204", ipv4("32", 26))),
        ("mac".into(), b"02:00:5e:00:53:01".to_vec()),
        ("protocol".into(), b"udp-lite".to_vec()),
        ("dscp".into(), b"AF21".to_vec()),
    ]
}

/// Bytes from hexadecimal digits; spaces do not count.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect()
}
