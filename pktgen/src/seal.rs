// SPDX-License-Identifier: Apache-2.0
//! Sealing of a burst: the packets of sealed streams with the SAs of their turn, all with one call of the cipher.

use arrayvec::ArrayVec;
use esp::{OutboundSa, SealBurst, SealError};
use pktbuf::{BURST, Batch};

use crate::schedule::Pick;
use crate::stream::Stream;

/// The place of the SA in its stream, for each packet that is to be sealed.
pub type Turns = ArrayVec<usize, BURST>;

/// Seals what is to be sealed of a burst just written: a pick for each packet, a turn for each that is to be sealed.
///
/// # Errors
/// An SA has no more sequence numbers, or a packet no room: the first such error. Packets behind it are still in clear.
pub fn seal(streams: &[Stream], picks: &[Pick], turns: &Turns, batch: &mut Batch) -> Result<(), SealError> {
    let sealing = |pick: &Pick| streams.get(usize::from(pick.stream)).and_then(Stream::sealing);
    let mut sas: ArrayVec<&OutboundSa, BURST> = ArrayVec::new();
    sas.extend(
        picks.iter().filter_map(sealing).zip(turns).filter_map(|(sealing, turn)| sealing.sas.get(*turn)),
    );
    let mut reservations = esp::reserve(&sas, 0).into_iter();
    let mut burst = SealBurst::new();
    for (pick, packet) in picks.iter().zip(batch) {
        let Some(sealing) = sealing(pick) else { continue };
        let Some(reservation) = reservations.next() else { break };
        burst.push(packet, sealing.esp_offset, reservation?, sealing.next_header)?;
    }
    burst.seal();
    Ok(())
}
