// SPDX-License-Identifier: Apache-2.0
//! What comes in at the packet generator: frames as they are, test packets whole and damaged, texts sealed under an SA that
//! the receiver has, and questions for its address.
//!
//! Every frame is counted once, under one heading; what is answered leaves; every buffer comes home.

use std::net::IpAddr;
use std::sync::OnceLock;

use ::aead::{Engine, IcvLength, Key};
use ::wire::{EtherType, IpProtocol, MacAddr, arp, ethernet, ipv4, udp};
use greyhound_pktgen::answer::Answerer;
use greyhound_pktgen::open::Opener;
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::receive::{Arrived, Receiver, Shared};
use greyhound_pktgen::stamp::{FILLER, Stamp};
use pktbuf::Pool;
use sysmem::Calibration;

use crate::input::Input;
use crate::sealing::{Known, with_trailer};

const STREAMS: usize = 2;
const FRAMES: usize = 32;
const LONGEST: usize = 1_600;
const KEY: [u8; 20] = *b"a key of no secrecy.";
const SPI: u32 = 0x1000;
const OURS: [u8; 4] = [10, 0, 0, 9];
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 1, 0, 1];
const PROFILE: &str = r#"
answer = { addresses = ["10.0.0.9"] }
[[open]]
spi = 0x1000
lab_key = "KEY"
[[stream]]
name = "one"
rate = "max"
size = 64
ip = { source = "10.0.0.1", destination = "10.1.0.1" }
udp = {}
"#;

/// A receiver's life.
///
/// # Panics
/// On a finding.
pub fn pktgen_received(data: &[u8]) {
    let mut input = Input::new(data);
    let profile = Profile::parse(&PROFILE.replace("KEY", &hex())).unwrap();
    let opener = Opener::new(&profile.open, Engine::best(), std::path::Path::new("")).unwrap();
    let shared = Shared::new(STREAMS).unwrap();
    let answerer = Answerer::new(profile.answer.as_ref());
    let mut receiver = Receiver::new(opener, answerer, clock(), shared.clone()).unwrap();
    let pool = Pool::memory(FRAMES, LONGEST + 512).unwrap();
    let (port, wire) = port::memory::wire(1, FRAMES);
    let mut queue = port.queue(0).unwrap();
    let (mut sent, mut sequence, mut answers) = (0, 0, 0);
    while !input.is_empty() && sent < 4 * FRAMES as u64 {
        let burst = 1 + usize::from(input.u8()) % FRAMES;
        for _ in 0..burst {
            let Some(frame) = frame(&mut input, &mut sequence) else { break };
            let Some(packet) = pool.copy_of(&frame) else { break };
            wire.inject(0, packet).unwrap();
            sent += 1;
        }
        while receiver.turn(&mut queue) > 0 {}
        while let Some(answer) = wire.collect() {
            assert_eq!(&answer.data()[6..12], &[2, 0, 0, 0, 0, 1]);
            answers += 1;
        }
    }
    let counted: u64 = shared.streams.iter().map(counts).sum();
    assert_eq!(counted + shared.foreign.read(), sent, "every frame once");
    assert_eq!(shared.answered.read(), answers);
    assert!(answers <= shared.foreign.read());
    assert_eq!(pool.available(), pool.capacity());
}

fn counts(arrived: &Arrived) -> u64 {
    [&arrived.received, &arrived.duplicated, &arrived.too_late, &arrived.corrupt]
        .map(|word| word.read())
        .iter()
        .sum()
}

/// The next frame that the input describes.
fn frame(input: &mut Input<'_>, sequence: &mut u64) -> Option<Vec<u8>> {
    if input.is_empty() {
        return None;
    }
    Some(match input.u8() % 4 {
        0 => {
            let bytes = usize::from(input.u16()) % LONGEST;
            input.bytes(bytes).to_vec()
        }
        1 => {
            let mut frame = ethernet(&datagram(input));
            let (at, flip) = (usize::from(input.u16()) % frame.len(), input.u8());
            frame[at] ^= flip;
            frame
        }
        2 => {
            *sequence += 1 + u64::from(input.u8() % 3);
            let next_header = input.choose([4, 17, 47, 41, 6, 1, 50, 59]);
            let chosen = usize::from(input.u16()) % LONGEST;
            let text = if next_header == 4 { datagram(input) } else { input.bytes(chosen).to_vec() };
            let known = Known { spi: SPI, salt: salt(), esn: false };
            ethernet(&ip(
                IpProtocol::ESP,
                &known.seal(key(), *sequence, sequence.to_be_bytes(), &with_trailer(&text, next_header)),
            ))
        }
        _ => {
            let mut frame = vec![0; 60];
            let target = if input.u8() & 1 == 0 { OURS } else { B };
            let request = arp::Repr::request(MacAddr([2, 0, 0, 0, 0, 2]), A.into(), target.into());
            request.ethernet().emit(&mut frame).unwrap();
            request.emit(&mut frame[14..]).unwrap();
            frame
        }
    })
}

/// A test packet: IPv4, UDP, stamp, filler.
fn datagram(input: &mut Input<'_>) -> Vec<u8> {
    let stamp = Stamp { stream: u16::from(input.u8() % 4), sequence: input.u32(), sent_ns: input.u64() };
    let filler = usize::from(input.u8());
    let mut segment = [&[0; 8][..], &stamp.to_bytes(), &FILLER[..filler]].concat();
    let [source, destination]: [IpAddr; 2] = [A.into(), B.into()];
    udp::Repr { source_port: 1_024, destination_port: 9 }.emit(&mut segment, source, destination).unwrap();
    ip(IpProtocol::UDP, &segment)
}

fn ip(protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_BYTES];
    let payload_bytes = u16::try_from(payload.len()).unwrap();
    ipv4::Repr { payload_bytes, ..ipv4::Repr::new(A.into(), B.into(), protocol) }.emit(&mut packet).unwrap();
    [&packet[..], payload].concat()
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut header = vec![0; ethernet::HEADER_BYTES];
    let (destination, source) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    ethernet::Repr { destination, source, ether_type: EtherType::IPV4 }.emit(&mut header).unwrap();
    [&header[..], packet].concat()
}

fn key() -> &'static Key {
    static KEYS: OnceLock<Key> = OnceLock::new();
    KEYS.get_or_init(|| Engine::best().key(&KEY[..16], IcvLength::Sixteen).unwrap())
}

fn salt() -> [u8; 4] {
    *KEY.last_chunk().unwrap()
}

fn hex() -> String {
    KEY.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Measured once: that takes a while.
fn clock() -> Calibration {
    static CLOCK: OnceLock<Calibration> = OnceLock::new();
    *CLOCK.get_or_init(Calibration::measure)
}
