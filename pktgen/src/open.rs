// SPDX-License-Identifier: Apache-2.0
//! Opening of what a device under test has sealed, a burst at a time.

use std::path::Path;

use aead::Engine;
use anyhow::{Context as _, ensure};
use arrayvec::ArrayVec;
use esp::{InboundParameters, InboundSa, OpenBurst, Opened};
use pktbuf::{BURST, Packet};
use wire::Spi;

use crate::locate::{self, Inside};
use crate::profile;

/// The SAs that a receiver opens with.
pub struct Opener {
    sas: Vec<InboundSa>,
}

/// Where a packet's payload lies, if it has one that can be read.
pub type Located = Option<std::ops::Range<usize>>;

impl Opener {
    /// The SAs of a profile's `[[open]]`; none if it has none. Key files are looked for in `folder`.
    ///
    /// # Errors
    /// Keys that cannot be had, or an SPI that stands there twice.
    pub fn new(settings: &[profile::Open], engine: Engine, folder: &Path) -> anyhow::Result<Option<Self>> {
        let mut sas = Vec::new();
        for open in settings {
            let keys = open.keys(folder).map_err(anyhow::Error::msg)?.load(open.sas)?;
            for (number, keying) in (0..).zip(keys) {
                let spi = Spi(open.spi.checked_add(number).context("open: SPIs end at 4294967295")?);
                let (key, salt) = keying.expand(engine, open.icv())?;
                // Copies are to be seen and counted, so there is a window only where ESN cannot do without.
                let window = open.esn.then_some(esp::WINDOW_MAX);
                let lifetime = esp::Lifetime::default();
                sas.push(InboundSa::new(InboundParameters {
                    spi,
                    key,
                    salt,
                    esn: open.esn,
                    window,
                    lifetime,
                })?);
            }
        }
        sas.sort_by_key(|sa| sa.spi().0);
        let twice = sas.windows(2).find(|pair| pair[0].spi() == pair[1].spi());
        ensure!(twice.is_none(), "open: SPI {} stands there twice", twice.map_or(0, |pair| pair[0].spi().0));
        Ok((!sas.is_empty()).then_some(Self { sas }))
    }

    fn find(&self, spi: u32) -> Option<&InboundSa> {
        let place = self.sas.binary_search_by_key(&spi, |sa| sa.spi().0).ok()?;
        self.sas.get(place)
    }

    /// Locates the payload of each packet, opened where it is sealed.
    pub fn locate(&self, batch: &mut [Packet]) -> ArrayVec<Located, BURST> {
        let mut located: ArrayVec<Located, BURST> = ArrayVec::new();
        let mut sealed: ArrayVec<usize, BURST> = ArrayVec::new();
        let mut burst = OpenBurst::new(0);
        for (place, packet) in batch.iter_mut().take(BURST).enumerate() {
            let inside = locate::in_frame(packet.data());
            located.push(match inside {
                Some(Inside::Payload(range)) => Some(range),
                Some(Inside::Esp(range)) => {
                    if self.stage(packet, range, &mut burst) {
                        sealed.push(place);
                    }
                    None
                }
                None => None,
            });
        }
        let outcomes = burst.open();
        for (place, outcome) in sealed.iter().zip(outcomes) {
            let (Ok(Opened { payload, next_header, .. }), Some(packet)) = (outcome, batch.get(*place)) else {
                continue;
            };
            let inside = locate::in_opened(packet.data(), payload, next_header);
            if let (Some(Inside::Payload(range)), Some(entry)) = (inside, located.get_mut(*place)) {
                *entry = Some(range);
            }
        }
        located
    }

    /// Stages an ESP packet for opening, if it is of an SA that is known.
    fn stage<'a>(
        &'a self,
        packet: &'a mut Packet,
        range: std::ops::Range<usize>,
        burst: &mut OpenBurst<'a>,
    ) -> bool {
        packet.truncate(range.end);
        let spi =
            packet.data().get(range.start..).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
        let Some(sa) = spi.and_then(|spi| self.find(spi)) else { return false };
        burst.push(packet, range.start, sa).is_ok()
    }
}
