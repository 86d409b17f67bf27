// SPDX-License-Identifier: Apache-2.0
//! What a configuration is compiled for and with: a dataplane's ports and sizes, and keys.

use messages::{Hello, Secret};
use serde::{Deserialize, Serialize};
use tables::{Limits, PortLimits};

use crate::{Config, SaEntry};

/// The dataplane that the configuration is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its ports, in its order.
    pub ports: Vec<EnvironmentPort>,
    /// How many workers it has.
    pub workers: u16,
    /// How many SAs it was sized for.
    pub sas_max: u32,
    /// How many tunnels.
    pub tunnels_max: u32,
}

/// A port as the dataplane opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentPort {
    /// Its name.
    pub name: String,
    /// The largest IP packet that it takes, in bytes.
    pub mtu_max: u16,
    /// Whether its frames have an 802.1Q tag.
    pub is_tagged: bool,
}

impl From<&Hello> for Environment {
    fn from(hello: &Hello) -> Self {
        let port = |port: &messages::HelloPort| EnvironmentPort {
            name: port.name.clone(),
            mtu_max: port.mtu_max,
            is_tagged: port.vlan.is_some(),
        };
        Self {
            ports: hello.ports.iter().map(port).collect(),
            workers: u16::try_from(hello.worker_cpus.len()).unwrap_or(u16::MAX),
            sas_max: hello.sas_max,
            tunnels_max: hello.tunnels_max,
        }
    }
}

impl Environment {
    /// The largest IP packet that any port takes, in bytes.
    const MTU_MAX: u16 = 9216;
    /// As many SAs and tunnels as a dataplane can be started for.
    const SIZE_MAX: u32 = 1 << 20;

    /// A dataplane with room for whatever `config` says, and with as many workers as it names, while the real one is not
    /// known.
    #[must_use]
    pub fn assumed(config: &Config) -> Self {
        let port =
            |name: &String| EnvironmentPort { name: name.clone(), mtu_max: Self::MTU_MAX, is_tagged: false };
        Self {
            ports: config.ports.iter().map(|entry| port(&entry.name)).collect(),
            workers: config
                .sas
                .iter()
                .filter_map(|sa| sa.owner)
                .max()
                .map_or(1, |last| last.saturating_add(1)),
            sas_max: Self::SIZE_MAX,
            tunnels_max: Self::SIZE_MAX,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let port = |port: &EnvironmentPort| PortLimits { mtu_max: port.mtu_max, is_tagged: port.is_tagged };
        Limits {
            sas_max: self.sas_max,
            tunnels_max: self.tunnels_max,
            workers: self.workers,
            ports: self.ports.iter().map(port).collect(),
        }
    }

    /// The names of the ports, for messages: `"lan", "wan"`.
    pub(crate) fn port_names(&self) -> String {
        let names: Vec<_> = self.ports.iter().map(|port| format!("{:?}", port.name)).collect();
        names.join(", ")
    }
}

/// Gives the keys that a configuration refers to.
pub trait KeySource {
    /// The key of an SA.
    ///
    /// # Errors
    /// Why there is none, for people: names the file, what is wrong with it and what would be right. Never the key.
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String>;
}

#[cfg(test)]
mod tests {
    use messages::{CountersLayout, HelloPort, PROTOCOL_VERSION};

    use super::*;

    #[test]
    fn it_is_what_the_dataplane_says_of_itself() {
        let port = |name: &str, mtu_max, vlan| HelloPort {
            name: name.into(),
            device: "net_null0".into(),
            mac: [2; 6],
            mtu_max,
            vlan,
        };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            pid: 1,
            generation: 0,
            digest: None,
            engine: "aes-gcm".into(),
            worker_cpus: vec![2, 3, 5],
            cycles_per_second: 1,
            ports: vec![port("wan", 1500, None), port("lan", 9000, Some(0))],
            sas_max: 10,
            tunnels_max: 20,
            ring_records: 64,
            counters: CountersLayout { workers: 3, ports: 2 },
        };
        let environment = Environment::from(&hello);
        assert_eq!((environment.workers, environment.sas_max, environment.tunnels_max), (3, 10, 20));
        assert_eq!(environment.port_names(), "\"wan\", \"lan\"");
        let limits = environment.limits().ports;
        assert_eq!(
            limits,
            [(1500, false), (9000, true)].map(|(mtu_max, is_tagged)| PortLimits { mtu_max, is_tagged })
        );
    }
}
