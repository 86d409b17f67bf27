// SPDX-License-Identifier: Apache-2.0
//! A configuration that uses every field is read, compiled and written back.

use greyhound_config::{Config, Environment, EnvironmentPort, Indices, KeySource, SaEntry, compile};
use messages::{Object, Secret};

const FULL: &str = include_str!("full.toml");

struct Keys;

impl KeySource for Keys {
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
        let mut keymat = [0; 20];
        keymat[..4].copy_from_slice(&sa.spi.to_le_bytes());
        keymat[4] = sa.direction as u8;
        Secret::from_keymat(&keymat).ok_or_else(|| "no key".into())
    }
}

fn environment() -> Environment {
    let port = |name: &str| EnvironmentPort { name: name.into(), mtu_max: 1500, is_tagged: false };
    Environment { ports: vec![port("lan"), port("wan")], workers: 2, sas_max: 100, tunnels_max: 100 }
}

#[test]
fn the_full_example_is_read_compiled_and_written_back() {
    let config = Config::parse(FULL, "full.toml").unwrap_or_else(|error| panic!("{error}"));
    let indices = Indices::default().allocate(&config);
    let compiled =
        compile(&config, &indices, &environment(), &Keys).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        compiled.objects.values().filter(|object| matches!(object, Object::Sa(_))).count(),
        config.sas.len()
    );
    let text = config.to_toml();
    println!("{text}");
    assert_eq!(Config::parse(&text, "written").unwrap_or_else(|error| panic!("{error}")), config);
}
