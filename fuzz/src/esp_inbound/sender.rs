// SPDX-License-Identifier: Apache-2.0
//! The other end of the SA: any text under any number, and what happens to it on the way.

use std::sync::LazyLock;

use aead::{Engine, IcvLength, Key};

use super::{Agreed, PACKETS_MAX, SALT, SPI};
use crate::input::Input;
use crate::sealing::{Known, with_trailer};

const TEXT_BYTES_MAX: usize = 1024;
const ICVS: [IcvLength; 3] = [IcvLength::Eight, IcvLength::Twelve, IcvLength::Sixteen];

/// Keys of the reference engine, by [`key_index`].
static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let engine = Engine::named("aes-gcm").expect("the reference is always there");
    let agreed =
        |key_bytes, icv| Agreed { key_bytes, icv, esn: false, window: None, edge: 0, hard_packets: 0 };
    let sizes = [16, 24, 32].into_iter();
    sizes.flat_map(|bytes| ICVS.map(|icv| agreed(bytes, icv).key(engine))).collect()
});

/// A packet as it arrives.
pub(super) struct Sent {
    /// From the SPI to the ICV, or as much of it as came through.
    pub(super) esp: Vec<u8>,
    /// The number it was sealed under.
    pub(super) sequence: u64,
    /// What was sealed, its trailer included.
    pub(super) text: Vec<u8>,
    /// Whether IV, ciphertext and ICV are as they were sealed.
    pub(super) intact: bool,
    /// Whether it is the last of its burst.
    pub(super) ends_burst: bool,
    /// The length of the SA's ICV.
    pub(super) icv_bytes: usize,
}

/// Seals what the input lists.
pub(super) fn send(agreed: &Agreed, mut input: Input<'_>) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut last = agreed.edge;
    while !input.is_empty() && sent.len() < PACKETS_MAX {
        let packet = send_one(agreed, last, &mut input);
        last = packet.sequence;
        sent.push(packet);
    }
    sent
}

fn send_one(agreed: &Agreed, last: u64, input: &mut Input<'_>) -> Sent {
    let flags = input.u8();
    let sequence = agreed.number(match flags & 3 {
        0 => last.wrapping_add(1),
        1 => last.wrapping_add_signed(i64::from(input.u8().cast_signed())),
        2 => last.wrapping_add_signed(i64::from(input.u16().cast_signed())),
        _ => input.u64(),
    });
    let text = text(flags, input);
    let known = Known { spi: SPI.0, salt: SALT, esn: agreed.esn };
    let mut esp = known.seal(&KEYS[key_index(agreed)], sequence, [input.u8(); 8], &text);
    let intact = match flags >> 5 {
        6 => damage(&mut esp, input),
        7 => cut(&mut esp, input),
        _ => true,
    };
    Sent { esp, sequence, text, intact, ends_burst: flags & 4 != 0, icv_bytes: agreed.icv.bytes() }
}

/// Anything at all, or a payload with the trailer that belongs to it.
fn text(flags: u8, input: &mut Input<'_>) -> Vec<u8> {
    let bytes = usize::from(if flags & 8 == 0 { u16::from(input.u8()) } else { input.u16() });
    let text = input.bytes(bytes.min(TEXT_BYTES_MAX));
    if flags & 16 == 0 { text.to_vec() } else { with_trailer(text, input.u8()) }
}

fn key_index(agreed: &Agreed) -> usize {
    (agreed.key_bytes - 16) / 8 * ICVS.len() + (agreed.icv.bytes() - 8) / 4
}

/// Changes one byte from the sequence number on; says whether it leaves all behind the number as it was.
fn damage(esp: &mut [u8], input: &mut Input<'_>) -> bool {
    let at = 4 + usize::from(input.u16()) % (esp.len() - 4);
    let change = input.u8();
    esp[at] ^= change;
    at < 8 || change == 0
}

fn cut(esp: &mut Vec<u8>, input: &mut Input<'_>) -> bool {
    let whole = esp.len();
    esp.truncate(usize::from(input.u16()) % (whole + 1));
    esp.len() == whole
}
