// SPDX-License-Identifier: Apache-2.0
//! The engine alone, on the buffers of the packet path: staged bursts of 64, a key for each tunnel, the same lengths at
//! the same places.

use aead::{Aad, IcvLength, Key, OpenJob, SealJob};
use anyhow::ensure;
use arrayvec::ArrayVec;
use pktbuf::{BURST, Packet};
use sysmem::Cycles;

use crate::bed::{self, Role, Setting};
use crate::traffic::{SEALED_TEXT, Traffic};

/// Keys of all tunnels, expanded by the engine that is measured.
pub struct Keys {
    keys: Vec<Key>,
    salts: Vec<[u8; 4]>,
    esn: bool,
}

impl Keys {
    /// The keys by which the sealer seals.
    ///
    /// # Errors
    /// No memory.
    pub fn new(setting: &Setting) -> anyhow::Result<Self> {
        let mut keys = Vec::with_capacity(setting.tunnels as usize);
        let mut salts = Vec::with_capacity(setting.tunnels as usize);
        for tunnel in 0..setting.tunnels {
            let secret = bed::secret(setting.key_bits, Role::Sealer, tunnel)?;
            keys.push(setting.engine.key(secret.key(), IcvLength::Sixteen)?);
            salts.push(*secret.salt());
        }
        Ok(Self { keys, salts, esn: setting.esn })
    }

    fn of(&self, tunnel: u32, number: u64) -> (&Key, [u8; 12], Aad) {
        let place = tunnel as usize % self.keys.len().max(1);
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salts[place]);
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        let (high, low) = ((number >> 32) as u32, number as u32);
        let spi = bed::spi(tunnel);
        let aad = if self.esn { Aad::extended(spi, high, low) } else { Aad::short(spi, low) };
        (&self.keys[place], nonce, aad)
    }
}

/// Seals all packets in place, numbered from `first` on, with nonces from `nonces` on; returns the cycles.
///
/// # Errors
/// A buffer that the engine does not take.
pub fn seal(
    keys: &Keys,
    traffic: &Traffic,
    first: usize,
    nonces: u64,
    packets: &mut [Packet],
) -> anyhow::Result<u64> {
    run::<SealJob<'_>>(keys, traffic, first, nonces, packets)
}

/// Opens what [`seal`] sealed with the same numbers; returns the cycles.
///
/// # Errors
/// Something does not open.
pub fn open(
    keys: &Keys,
    traffic: &Traffic,
    first: usize,
    nonces: u64,
    packets: &mut [Packet],
) -> anyhow::Result<u64> {
    run::<OpenJob<'_>>(keys, traffic, first, nonces, packets)
}

/// A job of either kind.
trait Job<'a>: Sized {
    fn stage(key: &'a Key, nonce: [u8; 12], aad: Aad, text: &'a mut [u8]) -> anyhow::Result<Self>;
    fn run(burst: &mut [Self]);
    fn check(&self) -> anyhow::Result<()>;
}

impl<'a> Job<'a> for SealJob<'a> {
    fn stage(key: &'a Key, nonce: [u8; 12], aad: Aad, text: &'a mut [u8]) -> anyhow::Result<Self> {
        Ok(Self::new(key, nonce, aad, text)?)
    }

    fn run(burst: &mut [Self]) {
        aead::seal(burst);
    }

    fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl<'a> Job<'a> for OpenJob<'a> {
    fn stage(key: &'a Key, nonce: [u8; 12], aad: Aad, text: &'a mut [u8]) -> anyhow::Result<Self> {
        Ok(Self::new(key, nonce, aad, text))
    }

    fn run(burst: &mut [Self]) {
        aead::open(burst);
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.verified, "the engine does not open what it sealed");
        Ok(())
    }
}

/// Cycles of bursts that are staged outside of the timed part.
fn run<'a, J: Job<'a>>(
    keys: &'a Keys,
    traffic: &Traffic,
    first: usize,
    nonces: u64,
    packets: &'a mut [Packet],
) -> anyhow::Result<u64> {
    let (mut cycles, mut numbers) = (0, (first..).zip(nonces..));
    for burst in packets.chunks_mut(BURST) {
        let mut jobs = ArrayVec::<J, BURST>::new();
        for (packet, (number, nonce)) in burst.iter_mut().zip(&mut numbers) {
            let (key, nonce, aad) = keys.of(traffic.flow(number).tunnel, nonce);
            jobs.push(J::stage(key, nonce, aad, text(packet))?);
        }
        let start = Cycles::tsc();
        J::run(&mut jobs);
        cycles += Cycles::tsc().since(start);
        jobs.iter().try_for_each(J::check)?;
    }
    Ok(cycles)
}

fn text(packet: &mut Packet) -> &mut [u8] {
    packet.data_mut().get_mut(SEALED_TEXT..).unwrap_or(&mut [])
}
