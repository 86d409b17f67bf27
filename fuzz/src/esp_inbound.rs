// SPDX-License-Identifier: Apache-2.0
//! Sealed ESP: the fuzzer chooses what is sealed, under which number, and what happens to it on the way; the ICV is made
//! right here, with a key that both ends have.
//!
//! The input is the SA and a list of packets. Each engine that runs here opens them, in the bursts that the input says,
//! and what becomes of each packet must be what a plain model foretells: a set of numbers for the anti-replay window,
//! RFC 4303 Appendix A2.2 word by word for the high half of an ESN, RFC 4303 §2.4 to §2.6 for the trailer.

mod model;
mod sender;

use std::sync::LazyLock;

use aead::{Engine, IcvLength, Key};
use esp::{
    HEADER_BYTES, InboundParameters, InboundSa, Lifetime, OpenBurst, OpenError, Opened, Salt, SequenceNumber,
    Spi,
};
use pktbuf::{BURST, Packet, Pool};

use crate::input::Input;
use model::Model;
use sender::Sent;

const SPI: Spi = Spi(0x1001);
const SALT: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
/// What stands in front of ESP and must stay as it is.
const BEFORE: [u8; 34] = [0xa5; 34];
/// The most packets of an input; more only take time.
const PACKETS_MAX: usize = 200;

static POOL: LazyLock<Pool> =
    LazyLock::new(|| Pool::memory(2 * BURST, 2048).expect("memory for a small pool"));

/// The SA that an input chooses.
#[derive(Clone, Copy)]
struct Agreed {
    key_bytes: usize,
    icv: IcvLength,
    esn: bool,
    window: Option<u32>,
    /// Where the window begins, as after a restart.
    edge: u64,
    hard_packets: u64,
}

/// An SA and what comes in under it.
///
/// # Panics
/// On a finding.
pub fn esp_inbound(data: &[u8]) {
    let mut input = Input::new(data);
    let agreed = Agreed::read(&mut input);
    let sent = sender::send(&agreed, input);
    Engine::available().for_each(|engine| receive(&agreed, engine, &sent));
}

impl Agreed {
    fn read(input: &mut Input<'_>) -> Self {
        let key_bytes = input.choose([16, 24, 32]);
        let icv = input.choose([IcvLength::Sixteen, IcvLength::Twelve, IcvLength::Eight]);
        let flags = input.u8();
        let esn = flags & 1 != 0;
        // ESN needs a window.
        let window = (esn || flags & 6 != 0).then(|| 64 << (input.u8() % 8));
        let edge = if flags & 8 == 0 { 0 } else { input.u64() };
        let hard_packets = if flags & 16 == 0 { u64::MAX } else { input.u8().into() };
        let mut agreed = Self { key_bytes, icv, esn, window, edge, hard_packets };
        agreed.edge = agreed.number(edge);
        agreed
    }

    /// `sequence` as a number that this SA can have.
    const fn number(&self, sequence: u64) -> u64 {
        if self.esn { sequence } else { sequence & 0xffff_ffff }
    }

    fn key(&self, engine: Engine) -> Key {
        let key: Vec<u8> = (0..32).take(self.key_bytes).collect();
        engine.key(&key, self.icv).expect("a length that AES has")
    }

    fn sa(&self, engine: Engine) -> InboundSa {
        let mut lifetime = Lifetime::default();
        lifetime.hard.packets = self.hard_packets;
        let sa = InboundSa::new(InboundParameters {
            spi: SPI,
            key: self.key(engine),
            salt: Salt::new(SALT),
            esn: self.esn,
            window: self.window,
            lifetime,
        });
        let sa = sa.expect("a window that is allowed");
        if let Some(window) = sa.window() {
            window.resume(SequenceNumber(self.edge));
        }
        sa
    }
}

/// Opens everything in its bursts, with the model beside.
fn receive(agreed: &Agreed, engine: Engine, sent: &[Sent]) {
    let sa = agreed.sa(engine);
    let mut model = Model::new(agreed);
    let mut rest = sent;
    while !rest.is_empty() {
        let end = rest.iter().take(BURST).position(|sent| sent.ends_burst);
        let (burst, behind) = rest.split_at(end.map_or(rest.len().min(BURST), |last| last + 1));
        receive_burst(&sa, &mut model, burst);
        rest = behind;
    }
    model.check_totals(&sa);
}

fn receive_burst(sa: &InboundSa, model: &mut Model, sent: &[Sent]) {
    let mut packets: Vec<Packet> = sent.iter().map(received).collect();
    let mut burst = OpenBurst::new(0);
    let mut staged = Vec::new();
    for ((packet, sent), number) in packets.iter_mut().zip(sent).zip(0..) {
        match (burst.push(packet, BEFORE.len(), sa), model.push(sent)) {
            (Ok(()), Ok(inferred)) => staged.push((number, inferred)),
            (Err(error), Err(expected)) => assert_eq!(error, expected),
            (pushed, expected) => panic!("{pushed:?} when staged, expected was {expected:?}"),
        }
    }
    let outcomes = burst.open();
    assert_eq!(outcomes.len(), staged.len());
    let mut results: Vec<Option<Result<Opened, OpenError>>> = vec![None; sent.len()];
    for (outcome, (number, inferred)) in outcomes.into_iter().zip(staged) {
        let number: usize = number;
        assert_eq!(outcome, model.open(&sent[number], inferred));
        results[number] = Some(outcome);
    }
    for ((packet, sent), result) in packets.iter().zip(sent).zip(&results) {
        check_memory(packet.data(), sent, result.as_ref());
    }
}

fn received(sent: &Sent) -> Packet {
    POOL.copy_of(&[&BEFORE, &sent.esp[..]].concat())
        .expect("a packet is free, and longer than any that is sent")
}

/// What is left in the packet: as it came when it was not staged, the payload when it was opened, and no plaintext when
/// its ICV was wrong.
fn check_memory(data: &[u8], sent: &Sent, result: Option<&Result<Opened, OpenError>>) {
    let (before, esp) = data.split_at(BEFORE.len());
    assert_eq!(before, BEFORE, "written in front of ESP");
    match result {
        None => assert_eq!(esp, sent.esp, "refused and changed"),
        Some(Ok(opened)) => {
            let payload = &data[opened.payload.clone()];
            assert_eq!(opened.payload.start, BEFORE.len() + HEADER_BYTES);
            assert_eq!(payload, &sent.text[..payload.len()]);
        }
        Some(Err(OpenError::BadIcv)) => {
            let text = &esp[HEADER_BYTES..esp.len() - sent.icv_bytes];
            assert!(text.iter().all(|byte| *byte == 0), "text whose ICV is wrong is left");
        }
        Some(Err(_)) => {}
    }
}
