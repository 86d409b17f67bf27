// SPDX-License-Identifier: Apache-2.0
//! Every input in the tree goes through its target, without libFuzzer.
//!
//! `GREYHOUND_FUZZ_TARGET` names a target to replay alone.

use std::fs;
use std::path::{Path, PathBuf};

use greyhound_fuzz::TARGETS;

#[test]
fn every_input_in_the_tree_passes_its_target() {
    let only = std::env::var("GREYHOUND_FUZZ_TARGET").ok();
    for (name, target) in TARGETS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
    {
        let corpus = inputs("corpus", name);
        let regressions = inputs("regressions", name);
        assert!(!corpus.is_empty(), "{name}: the corpus is empty");
        for path in corpus.iter().chain(&regressions) {
            // The harness prints what was captured when a target panics: the last line names the input.
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
        }
        println!("{name}: {} inputs of the corpus, {} regressions", corpus.len(), regressions.len());
    }
}

#[test]
fn no_target_minds_an_empty_input() {
    for (_, target) in TARGETS {
        target(&[]);
    }
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target() {
    for folder in ["corpus", "regressions"] {
        for entry in list(&root().join(folder)) {
            let name = entry.file_name().unwrap().to_str().unwrap();
            assert!(
                TARGETS.iter().any(|(target, _)| *target == name) || !entry.is_dir(),
                "{}",
                entry.display()
            );
        }
    }
}

fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    list(&root().join(folder).join(target))
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
