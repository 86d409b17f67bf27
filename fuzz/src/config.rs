// SPDX-License-Identifier: Apache-2.0
//! Configuration files: `config.toml` of control, as far as objects for the dataplane, and `dataplane.toml`.
//!
//! The first byte says which; the rest is the text. What is refused is refused with sentences; what is read is written so
//! that it reads the same again, differs from itself in nothing, and compiles to what fits records.

use std::collections::BTreeMap;
use std::path::Path;

use config::{
    Change, Config, Environment, EnvironmentPort, Indices, KeySource, SaEntry, changes, compile, diff, digest,
};
use dataplane::config::Config as DataplaneConfig;
use messages::{MESSAGE_BYTES_MAX, Object, ObjectId, Request, Secret, encode};

use crate::input::Input;

const SOURCE: &str = "fuzzed.toml";

/// One file.
///
/// # Panics
/// On a finding.
pub fn config(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let Ok(text) = core::str::from_utf8(input.rest()) else { return };
    if kind & 1 == 0 { control(text) } else { dataplane(text) }
}

fn dataplane(text: &str) {
    match DataplaneConfig::parse(text, Path::new(SOURCE)) {
        Ok(config) => assert!(!config.workers.is_empty() && !config.ports.is_empty()),
        Err(error) => assert!(error.to_string().contains(SOURCE), "{error}"),
    }
}

fn control(text: &str) {
    let config = match Config::parse(text, SOURCE) {
        Ok(config) => config,
        Err(error) => {
            let sentences = error.sentences();
            assert!(!sentences.is_empty() && sentences.iter().all(|sentence| sentence.starts_with(SOURCE)));
            return;
        }
    };
    let written = config.to_toml();
    match Config::parse(&written, SOURCE) {
        Ok(again) => {
            assert_eq!(again, config, "written and read again:\n{written}");
            assert!(diff(&config, &again).is_empty());
        }
        Err(error) => panic!("what was written cannot be read: {error:?}\n{written}"),
    }
    compiled(&config);
}

fn compiled(config: &Config) {
    let environment = environment(config);
    let indices = Indices::default().allocate(config);
    let checked = config.check();
    match compile(config, &indices, &environment, &Keys) {
        Ok(compiled) => {
            if let Err(problems) = checked {
                panic!("compiles, but does not pass the check: {:?}", problems.sentences());
            }
            objects(&compiled.objects);
            assert_eq!(digest(&compiled.objects), compiled.digest);
            assert_eq!(indices.allocate(config), indices, "numbers change without a reason");
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.sentences().iter().all(|text| !text.is_empty()))
        }
    }
}

fn objects(objects: &BTreeMap<ObjectId, Object>) {
    let nothing = BTreeMap::new();
    assert!(changes(objects, objects).is_empty());
    assert_eq!(changes(&nothing, objects).len(), objects.len());
    for change in changes(&nothing, objects).into_iter().chain(changes(objects, &nothing)) {
        let request = match change {
            Change::Put(object) => Request::Put(object),
            Change::Delete(id) => Request::Delete(id),
        };
        assert!(encode(&request, &mut [0; MESSAGE_BYTES_MAX]).is_ok(), "does not fit a record: {request:?}");
    }
}

/// A dataplane with the ports that the configuration names.
fn environment(config: &Config) -> Environment {
    let port = |name: &String| EnvironmentPort { name: name.clone(), mtu_max: 9216, is_tagged: false };
    Environment {
        ports: config.ports.iter().map(|entry| port(&entry.name)).collect(),
        workers: 4,
        sas_max: 256,
        tunnels_max: 256,
    }
}

/// A key for each SA, made of its SPI and direction.
struct Keys;

impl KeySource for Keys {
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
        let mut keymat = [0; 20];
        keymat[..4].copy_from_slice(&sa.spi.to_be_bytes());
        keymat[4] = u8::from(sa.direction == messages::Direction::Inbound);
        Secret::from_keymat(&keymat).ok_or_else(|| "no key".into())
    }
}
