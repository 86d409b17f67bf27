// SPDX-License-Identifier: Apache-2.0
//! What all entries of a configuration have in common: a kind, and a name within it.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{NeighborEntry, PolicyEntry, PortEntry, ProtectionEntry, RouteEntry, SaEntry, TunnelEntry};

/// The kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A key of the top level, such as `manual_keying`.
    Setting,
    /// An item of `loopbacks`.
    Loopback,
    /// `[[port]]`.
    Port,
    /// `[[neighbor]]`.
    Neighbor,
    /// `[[route]]`.
    Route,
    /// `[[protection]]`.
    Protection,
    /// `[[tunnel]]`.
    Tunnel,
    /// `[[policy]]`.
    Policy,
    /// `[[sa]]`.
    Sa,
    /// `[[class_map]]`.
    #[serde(rename = "class_map")]
    ClassMap,
    /// `[[policy_map]]`.
    #[serde(rename = "policy_map")]
    PolicyMap,
    /// `[[dscp_map]]`.
    #[serde(rename = "dscp_map")]
    DscpMap,
}

impl Kind {
    /// Its word in the file and in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Loopback => "loopback",
            Self::Port => "port",
            Self::Neighbor => "neighbor",
            Self::Route => "route",
            Self::Protection => "protection",
            Self::Tunnel => "tunnel",
            Self::Policy => "policy",
            Self::Sa => "sa",
            Self::ClassMap => "class_map",
            Self::PolicyMap => "policy_map",
            Self::DscpMap => "dscp_map",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// An entry of the configuration.
pub trait Item: Serialize {
    /// Its kind.
    const KIND: Kind;
    /// The fields that its name is made of.
    const NAMED_BY: &'static [&'static str] = &["name"];

    /// Its name among those of its kind, as messages say it.
    fn label(&self) -> String;

    /// Kind and name: "tunnel branch-7".
    fn name(&self) -> String {
        format!("{} {}", Self::KIND, self.label())
    }
}

impl Item for PortEntry {
    const KIND: Kind = Kind::Port;

    fn label(&self) -> String {
        self.name.clone()
    }
}

impl Item for NeighborEntry {
    const KIND: Kind = Kind::Neighbor;
    const NAMED_BY: &'static [&'static str] = &["port", "address"];

    fn label(&self) -> String {
        format!("{} on port {}", self.address, self.port)
    }
}

impl Item for RouteEntry {
    const KIND: Kind = Kind::Route;
    const NAMED_BY: &'static [&'static str] = &["prefix"];

    fn label(&self) -> String {
        self.prefix.to_string()
    }
}

impl Item for ProtectionEntry {
    const KIND: Kind = Kind::Protection;

    fn label(&self) -> String {
        self.name.clone()
    }
}

impl Item for TunnelEntry {
    const KIND: Kind = Kind::Tunnel;

    fn label(&self) -> String {
        self.name.clone()
    }
}

impl Item for PolicyEntry {
    const KIND: Kind = Kind::Policy;

    fn label(&self) -> String {
        self.name.clone()
    }
}

impl Item for SaEntry {
    const KIND: Kind = Kind::Sa;
    const NAMED_BY: &'static [&'static str] = &["direction", "spi"];

    fn label(&self) -> String {
        self.name().to_string()
    }
}
