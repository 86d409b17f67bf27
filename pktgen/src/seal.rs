// SPDX-License-Identifier: Apache-2.0
//! Sealing of a burst: the packets of sealed streams with the SAs of their turn, all with one call of the cipher.

use arrayvec::ArrayVec;
use esp::{OutboundSa, SealBurst, SealError};
use pktbuf::{BURST, Packet};

use crate::stream::{Sealing, Stream};

/// The place of the SA in its stream, for each packet that is to be sealed.
pub type Turns = ArrayVec<usize, BURST>;

/// Seals what is to be sealed of packets just written, each with the place of its stream; a turn for each that is.
///
/// # Errors
/// An SA has no more sequence numbers, or a packet no room: the first such error. Packets behind it are still in clear.
pub fn seal<'a>(
    streams: &[Stream],
    packets: impl Iterator<Item = (u16, &'a mut Packet)>,
    turns: &Turns,
) -> Result<(), SealError> {
    let mut sealed: ArrayVec<(&Sealing, &mut Packet), BURST> = ArrayVec::new();
    let mut sas: ArrayVec<&OutboundSa, BURST> = ArrayVec::new();
    let mut turns = turns.iter();
    for (stream, packet) in packets {
        let Some(sealing) = streams.get(usize::from(stream)).and_then(Stream::sealing) else { continue };
        let Some(sa) = turns.next().and_then(|turn| sealing.sas.get(*turn)) else { break };
        sas.try_push(sa).map_err(|_| SealError::BurstFull)?;
        sealed.try_push((sealing, packet)).map_err(|_| SealError::BurstFull)?;
    }
    let mut burst = SealBurst::new();
    for ((sealing, packet), reservation) in sealed.into_iter().zip(esp::reserve(&sas, 0)) {
        burst.push(packet, sealing.esp_offset, reservation?, sealing.next_header)?;
    }
    burst.seal();
    Ok(())
}
