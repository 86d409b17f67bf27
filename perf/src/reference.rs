// SPDX-License-Identifier: Apache-2.0
//! Sealed frames opened by another engine than the one that is measured: fast and wrong is not fast.

use aead::{Aad, Engine, IcvLength, OpenJob};
use anyhow::{Context as _, bail, ensure};
use messages::EspMode;
use wire::{ethernet, gre, ipv4};

use crate::bed::{self, Role, Setting};
use crate::traffic::{ICV_BYTES, SEALED_TEXT, Traffic};

/// Opens what the sealer has sealed.
#[derive(Clone, Copy)]
pub struct Reference {
    setting: Setting,
    engine: Engine,
}

impl Reference {
    /// Another engine than the setting's, if this machine has one.
    #[must_use]
    pub fn for_setting(setting: &Setting) -> Option<Self> {
        let engine = Engine::available().find(|engine| *engine != setting.engine)?;
        Some(Self { setting: *setting, engine })
    }

    /// The engine that opens.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Opens the frame that packet `number` has become and compares what is inside.
    ///
    /// # Errors
    /// It does not open, or carries something else.
    pub fn check(&self, traffic: &Traffic, number: usize, frame: &[u8]) -> anyhow::Result<()> {
        let tunnel = traffic.flow(number).tunnel;
        let secret = bed::secret(self.setting.key_bits, Role::Sealer, tunnel)?;
        let key = self.engine.key(secret.key(), IcvLength::Sixteen)?;
        let expected = SEALED_TEXT + traffic.text_bytes(number) + ICV_BYTES;
        ensure!(frame.len() == expected, "a sealed frame has {} bytes instead of {expected}", frame.len());
        let mut frame = frame.to_vec();
        let (front, sealed) = frame.split_at_mut(SEALED_TEXT);
        let word = |at: usize| -> anyhow::Result<u32> {
            let bytes = front.get(at..).and_then(<[u8]>::first_chunk).context("an ESP header")?;
            Ok(u32::from_be_bytes(*bytes))
        };
        let esp = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;
        let (spi, low, iv) = (word(esp)?, word(esp + 4)?, [word(esp + 8)?, word(esp + 12)?]);
        ensure!(spi == bed::spi(tunnel), "a packet of tunnel {tunnel} left with SPI {spi:#x}");
        let aad = if self.setting.esn { Aad::extended(spi, iv[0], low) } else { Aad::short(spi, low) };
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(secret.salt());
        nonce[4..8].copy_from_slice(&iv[0].to_be_bytes());
        nonce[8..].copy_from_slice(&iv[1].to_be_bytes());
        let mut jobs = [OpenJob::new(&key, nonce, aad, sealed)];
        aead::open(&mut jobs);
        let [job] = jobs;
        if !job.verified {
            bail!("{} does not open what {} has sealed", self.engine.name(), self.setting.engine.name());
        }
        let delivery = if self.setting.mode == EspMode::Tunnel { ipv4::HEADER_BYTES } else { 0 };
        let header = job.buffer.get(delivery..).context("GRE")?;
        let gre_bytes = match gre::Packet::parse(header) {
            Ok(packet) => gre::Repr::parse(&packet).header_bytes(),
            Err(error) => bail!("no GRE under ESP: {error}"),
        };
        let inside_bytes = traffic.frame_bytes(number) - ethernet::HEADER_BYTES;
        let inside = header.get(gre_bytes..gre_bytes + inside_bytes).context("the inner packet")?;
        traffic.check_inside(number, 1, inside)
    }
}
