// SPDX-License-Identifier: Apache-2.0
//! Where the ESP sequence numbers of a profile's streams stand from run to run: a small file, so that no IV is used
//! twice with a key and no device takes a new packet for a replayed one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;

use crate::outcome::Outcome;
use crate::profile::Profile;

/// The first unused number of each sealed stream, by name.
type Numbers = BTreeMap<String, u64>;

/// Lets the profile's streams go on where the file says that they ended; a file that is not there says nothing.
///
/// # Errors
/// The file cannot be read, or is none of this kind.
pub fn resume(profile: &mut Profile, path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("--sequence-file {name}")),
    };
    let numbers: Numbers = serde_json::from_str(&text)
        .with_context(|| format!("--sequence-file {name}: wants stream names and numbers"))?;
    for stream in profile.streams_mut() {
        if let (Some(esp), Some(next)) = (&mut stream.esp, numbers.get(&stream.name)) {
            esp.first_sequence = esp.first_sequence.max(*next);
        }
    }
    Ok(())
}

/// Notes where the streams ended, beside those of other profiles that the file knows.
///
/// # Errors
/// The file cannot be read or written.
pub fn note(outcome: &Outcome, path: &Path) -> anyhow::Result<()> {
    let known =
        std::fs::read_to_string(path).ok().and_then(|text| serde_json::from_str::<Numbers>(&text).ok());
    let mut numbers = known.unwrap_or_default();
    for stream in &outcome.streams {
        if let Some(next) = stream.next_sequence {
            numbers.insert(stream.name.clone(), next);
        }
    }
    let aside = path.with_extension("new");
    let write =
        std::fs::write(&aside, serde_json::to_string(&numbers)?).and_then(|()| std::fs::rename(&aside, path));
    write.with_context(|| format!("--sequence-file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{DeviceCounts, SenderOutcome, StreamOutcome, Volume};

    fn profile() -> Profile {
        let text = "[[stream]]\nname = \"one\"\nrate = { pps = 1 }\nsize = 128\nudp = {}\n\
                    ip = { source = \"10.0.0.1\", destination = \"10.1.0.1\" }\n\
                    esp = { spi = 256, lab_key = \"000102030405060708090a0b0c0d0e0f10111213\" }\n";
        Profile::parse(text).unwrap()
    }

    fn first(profile: &Profile) -> u64 {
        profile.streams().next().unwrap().esp.as_ref().unwrap().first_sequence
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequences");
        let mut before = profile();
        resume(&mut before, &path).unwrap();
        assert_eq!(first(&before), 1);
        for next in [77, 500] {
            let stream = StreamOutcome {
                name: "one".to_owned(),
                size: String::new(),
                rate: String::new(),
                sent: Volume::default(),
                next_sequence: Some(next),
                arrived: None,
            };
            let outcome = Outcome {
                frame_sizes: String::new(),
                seconds: 1.0,
                streams: vec![stream],
                foreign: 0,
                answered: 0,
                sender: SenderOutcome::default(),
                device: DeviceCounts::default(),
            };
            note(&outcome, &path).unwrap();
            let mut after = profile();
            resume(&mut after, &path).unwrap();
            assert_eq!(first(&after), next);
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequences");
        std::fs::write(&path, "[1]").unwrap();
        assert!(resume(&mut profile(), &path).is_err());
    }
}
