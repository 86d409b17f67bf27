// SPDX-License-Identifier: Apache-2.0
//! Profiles of the packet generator: a text, and what it would send.
//!
//! What is refused is refused with a sentence. What is taken makes packets that have the length announced and that the
//! receiver's own reader follows to the stamp, which is the one that was to be written.

use std::path::Path;

use ::aead::Engine;
use greyhound_pktgen::generator::Generator;
use greyhound_pktgen::locate::{Inside, in_frame};
use greyhound_pktgen::profile::Profile;
use greyhound_pktgen::rate::Rate;
use greyhound_pktgen::schedule::{Pick, Picks};
use greyhound_pktgen::stamp::Stamp;
use pktbuf::{BURST, Batch, Pool};

/// Beyond so many sizes and SAs an input costs time and shows nothing new.
const ENOUGH: usize = 64;
const BURSTS: usize = 2;
const END: u64 = 1 << 60;

/// One profile.
///
/// # Panics
/// On a finding.
pub fn pktgen_profile(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    // Files of this machine are none of the input's business.
    if text.contains("file") {
        return;
    }
    let profile = match Profile::parse(text) {
        Ok(profile) => profile,
        Err(sentence) => return assert!(!sentence.trim().is_empty()),
    };
    let sizes: usize = profile.streams().map(|stream| stream.size.classes().len()).sum();
    let sas =
        |stream: &greyhound_pktgen::profile::Stream| stream.esp.as_ref().map_or(0, |esp| esp.sas as usize);
    if sizes > ENOUGH || profile.streams().map(sas).sum::<usize>() > ENOUGH {
        return;
    }
    match Generator::new(&profile, Engine::best(), Path::new("")) {
        Ok(generator) => send(&profile, generator),
        Err(error) => assert!(!format!("{error:#}").trim().is_empty()),
    }
}

fn send(profile: &Profile, mut generator: Generator) {
    let bytes: Vec<Vec<usize>> = generator.wire_bytes().map(Iterator::collect).collect();
    let pool = Pool::memory(BURST, generator.buffer_bytes().unwrap()).unwrap();
    let mut schedule = generator.schedule(profile, 1e9, END);
    let mut sequences = vec![0; bytes.len()];
    for _ in 0..BURSTS {
        let (mut picks, mut batch) = (Picks::new(), Batch::new());
        schedule.take(END - 1, &mut picks);
        assert!(picks.iter().all(|pick| pick.due < END));
        // What is sent as fast as can be is due whenever it is taken, before what has waited for its time.
        let all_paced = profile.streams().all(|stream| stream.rate != Rate::Max);
        assert!(!all_paced || picks.is_sorted_by_key(|pick| pick.due));
        assert_eq!(pool.alloc_into(&mut batch, picks.len()), picks.len());
        if generator.write(&picks, &mut batch, |due| due).is_err() {
            // Sequence numbers of an SA end.
            return;
        }
        for (pick, packet) in picks.iter().zip(&batch) {
            let stream = usize::from(pick.stream);
            assert_eq!(packet.len(), bytes[stream][usize::from(pick.class)]);
            judge(profile, pick, packet.data(), sequences[stream]);
            sequences[stream] += 1;
        }
    }
}

/// A frame leads to what its stream says.
fn judge(profile: &Profile, pick: &Pick, frame: &[u8], sequence: u32) {
    let stream = profile.streams().nth(usize::from(pick.stream)).unwrap();
    match in_frame(frame) {
        Some(Inside::Esp(range)) => assert!(stream.esp.is_some() && range.end == frame.len()),
        Some(Inside::Payload(range)) => {
            assert!(stream.esp.is_none());
            if stream.stamp {
                let expected = Stamp { stream: pick.stream, sequence, sent_ns: pick.due };
                assert_eq!(Stamp::parse(&frame[range]), Ok(expected));
            }
        }
        None => panic!("stream {}: nobody can read {frame:02x?}", stream.name),
    }
}
