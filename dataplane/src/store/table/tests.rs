// SPDX-License-Identifier: Apache-2.0
//! What a file holds after every way in which a write can end.

use proptest::prelude::*;

use super::*;

fn key(number: u8) -> Fingerprint {
    Fingerprint([number; 32])
}

/// A path for a table, and the directory that goes when the test ends.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table");
    (directory, path)
}

fn reopened(path: &Path) -> Result<Entries, StoreError> {
    Table::open(path.to_path_buf()).map(|table| table.entries)
}

fn reopened_from(path: &Path, bytes: &[u8]) -> Result<Entries, StoreError> {
    std::fs::write(path, bytes).unwrap();
    reopened(path)
}

/// A file before a write and after it, and what it holds then.
fn before_and_after(path: &Path) -> [(Vec<u8>, Entries); 2] {
    let mut table = Table::create(path.to_path_buf()).unwrap();
    table.write([(key(1), 10), (key(2), 20)]).unwrap();
    let before = (std::fs::read(path).unwrap(), table.entries.clone());
    table.write([(key(2), 15), (key(3), 30), (key(4), 40)]).unwrap();
    [before, (std::fs::read(path).unwrap(), table.entries)]
}

#[test]
fn a_write_appends_its_records_and_changes_nothing_else_but_the_head() {
    let (_directory, path) = place();
    let [(before, _), (after, _)] = before_and_after(&path);
    assert_eq!(after.len(), before.len() + 3 * RECORD_BYTES);
    assert_eq!(after[HEAD_BYTES..before.len()], before[HEAD_BYTES..]);
    assert_ne!(after[..HEAD_BYTES], before[..HEAD_BYTES]);
    const { assert!(HEAD_BYTES <= 512, "the head lies in one sector") };
}

/// The disk takes the records in any order and to any extent before the head.
#[test]
fn a_crash_before_the_head_is_written_leaves_what_was_there_before() {
    let (_directory, path) = place();
    let [(before, entries), (after, _)] = before_and_after(&path);
    for end in before.len()..=after.len() {
        let mut torn = before.clone();
        torn.extend_from_slice(&after[before.len()..end]);
        assert_eq!(reopened_from(&path, &torn).unwrap(), entries, "cut at {end}");
        torn.resize(after.len(), 0);
        assert_eq!(reopened_from(&path, &torn).unwrap(), entries, "zeros from {end} on");
    }
}

#[test]
fn a_torn_head_is_damage_and_never_a_third_state() {
    let (_directory, path) = place();
    let [(before, old), (after, new)] = before_and_after(&path);
    let mut damaged = 0;
    for torn_at in 0..=HEAD_BYTES {
        for (first, second) in [(&before, &after), (&after, &before)] {
            let mut bytes = after.clone();
            bytes[..torn_at].copy_from_slice(&first[..torn_at]);
            bytes[torn_at..HEAD_BYTES].copy_from_slice(&second[torn_at..HEAD_BYTES]);
            match reopened_from(&path, &bytes) {
                Ok(entries) => assert!(entries == old || entries == new, "torn at {torn_at}"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Damaged(_)));
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged > HEAD_BYTES, "most of them");
}

#[test]
fn what_follows_a_crash_is_written_over_what_the_crash_left() {
    let (_directory, path) = place();
    let [(mut torn, entries), (after, _)] = before_and_after(&path);
    torn.extend_from_slice(&after[torn.len()..after.len() - 7]);
    std::fs::write(&path, torn).unwrap();
    let mut table = Table::open(path.clone()).unwrap();
    table.write([(key(9), 90)]).unwrap();
    let expected: Entries = entries.into_iter().chain([(key(9), 90)]).collect();
    assert_eq!(reopened(&path).unwrap(), expected);
}

#[test]
fn every_flipped_bit_and_every_truncation_is_damage() {
    let (_directory, path) = place();
    let [_, (good, entries)] = before_and_after(&path);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let read = reopened_from(&path, &bad);
            assert!(matches!(read, Err(StoreError::Damaged(_))), "byte {at}, bit {bit}");
        }
        assert!(matches!(reopened_from(&path, &good[..at]), Err(StoreError::Damaged(_))), "cut at {at}");
    }
    assert_eq!(reopened_from(&path, &good).unwrap(), entries);
}

#[test]
fn a_count_that_no_file_can_have_is_damage() {
    let (_directory, path) = place();
    let [_, (mut bytes, _)] = before_and_after(&path);
    for count in [u64::MAX, u64::MAX / RECORD_BYTES as u64, 1 << 40] {
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        assert!(matches!(reopened_from(&path, &bytes), Err(StoreError::Damaged(_))), "{count}");
    }
}

fn version_1(entries: &Entries) -> Vec<u8> {
    let mut bytes = MAGIC_1.to_vec();
    bytes.extend_from_slice(&encode(entries));
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

#[test]
fn a_file_of_the_format_before_is_taken_over_and_written_anew() {
    let (_directory, path) = place();
    for entries in [Entries::new(), [(key(1), 10), (key(2), 1 << 40)].into()] {
        assert_eq!(reopened_from(&path, &version_1(&entries)).unwrap(), entries);
        assert!(std::fs::read(&path).unwrap().starts_with(MAGIC));
        assert_eq!(reopened(&path).unwrap(), entries);
    }
}

#[test]
fn a_damaged_file_of_the_format_before_is_damage_too() {
    let (_directory, path) = place();
    let good = version_1(&[(key(1), 10)].into());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(matches!(reopened_from(&path, &bad), Err(StoreError::Damaged(_))), "byte {at}");
        assert!(matches!(reopened_from(&path, &good[..at]), Err(StoreError::Damaged(_))), "cut at {at}");
    }
}

#[test]
fn what_does_not_change_is_not_written() {
    let (_directory, path) = place();
    let mut table = Table::create(path.clone()).unwrap();
    table.write([(key(1), 10)]).unwrap();
    let before = std::fs::read(&path).unwrap();
    table.write([(key(1), 10)]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_of_mostly_outdated_records_is_written_anew() {
    let (_directory, path) = place();
    let mut table = Table::create(path.clone()).unwrap();
    let keys = RECORDS_MIN / 3;
    let key = |number: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Fingerprint(bytes)
    };
    for step in 0..9 {
        table.write((0..keys).map(|number| (key(number), step))).unwrap();
        let most = RECORDS_MIN + RECORDS_PER_ENTRY * keys;
        let file = std::fs::metadata(&path).unwrap().len();
        assert!(file <= (HEAD_BYTES + RECORD_BYTES * most) as u64, "{file} bytes");
        assert_eq!(reopened(&path).unwrap(), table.entries);
    }
    assert!(table.log.unwrap().records < 9 * keys, "it was written anew at least once");
}

#[test]
fn a_file_put_in_the_place_of_ours_does_not_take_our_numbers_away() {
    let (_directory, path) = place();
    let mut table = Table::create(path.clone()).unwrap();
    table.write([(key(1), 10)]).unwrap();
    Table::create(path.clone()).unwrap();
    table.write([(key(2), 20)]).unwrap();
    assert_eq!(reopened(&path).unwrap(), [(key(1), 10), (key(2), 20)].into());
}

#[test]
fn what_could_not_be_written_is_not_noted_and_can_be_written_later() {
    let (directory, _) = place();
    let (here, away) = (directory.path().join("here"), directory.path().join("away"));
    std::fs::create_dir(&here).unwrap();
    let mut table = Table::create(here.join("table")).unwrap();
    table.write([(key(1), 10)]).unwrap();
    std::fs::rename(&here, &away).unwrap();
    assert!(matches!(table.write([(key(1), 20), (key(2), 5)]), Err(StoreError::Io { .. })));
    assert_eq!((table.find(&key(1)), table.find(&key(2))), (Some(10), None));
    std::fs::rename(&away, &here).unwrap();
    table.write([(key(1), 30)]).unwrap();
    assert_eq!(reopened(&here.join("table")).unwrap(), [(key(1), 30)].into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any writes, a process that ends in the middle of one finds all of those before it.
    #[test]
    fn it_is_a_map_that_survives_every_crash(
        writes in prop::collection::vec(
            (prop::collection::vec((0..20_u8, any::<u64>()), 0..12), prop::option::of(any::<prop::sample::Index>())),
            1..20,
        ),
    ) {
        let (_directory, path) = place();
        let mut table = Table::create(path.clone()).unwrap();
        let mut model = Entries::new();
        for (records, crash) in writes {
            let records: Vec<_> = records.into_iter().map(|(number, value)| (key(number), value)).collect();
            let before = std::fs::read(&path).unwrap();
            table.write(records.iter().copied()).unwrap();
            match crash {
                None => model.extend(records),
                Some(extent) => {
                    let after = std::fs::read(&path).unwrap();
                    let written = extent.index(after.len().saturating_sub(before.len()) + 1);
                    let kept = before.len().min(after.len());
                    let torn = [&before[..], &after[kept..(kept + written).min(after.len())]].concat();
                    std::fs::write(&path, torn).unwrap();
                    table = Table::open(path.clone()).unwrap();
                }
            }
            prop_assert_eq!(&table.entries, &model);
            prop_assert_eq!(&reopened(&path).unwrap(), &model);
        }
    }
}
