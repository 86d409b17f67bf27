// SPDX-License-Identifier: Apache-2.0
//! `[[dscp_map]]`, and what `[[tunnel]]` says of DSCPs at its ends.

use std::collections::{BTreeSet, HashSet};

use messages::{DscpMap, DscpMapIndex, ReceivedDscp, TosPolicy};
use serde::{Deserialize, Serialize};
use wire::Dscp;

use crate::check::no_such;
use crate::problem::Complaints;
use crate::scalar::{self, Scalar, Value};
use crate::{Config, Indices, Item, Kind, Problems, TunnelEntry};

/// What is in front of a map's name.
const MAP: &str = "map ";

/// `[[dscp_map]]`: DSCPs that become others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DscpMapEntry {
    /// Its name.
    pub name: String,
    /// What becomes what; all others stay.
    pub map: Vec<DscpChangeEntry>,
}

/// DSCPs that become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { from = [\"AF11\"], to = \"CS1\" }")]
pub struct DscpChangeEntry {
    /// Any of these.
    #[serde(with = "scalar::list")]
    pub from: Vec<Dscp>,
    /// Becomes this.
    #[serde(with = "scalar")]
    pub to: Dscp,
}

/// DSCP of a tunnel's delivery header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeliveryDscp {
    /// That of the packet inside.
    #[default]
    Copy,
    /// A fixed one.
    Set(Dscp),
    /// What this map has for that of the packet inside.
    Map(String),
}

/// DSCP of a packet that comes out of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InnerDscp {
    /// As it is inside.
    #[default]
    Keep,
    /// That of the delivery header.
    Copy,
    /// A fixed one.
    Set(Dscp),
    /// What this map has for that of the delivery header.
    Map(String),
}

impl Value for DeliveryDscp {
    const EXPECTED: &'static str =
        "\"copy\", a DSCP's name such as \"EF\", its number from 0 to 63, or a map, as in \"map uplink\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "copy" => Some(Self::Copy),
            _ => map(text).map(Self::Map).or_else(|| Dscp::from_text(text).map(Self::Set)),
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        Dscp::from_number(number).map(Self::Set)
    }

    fn to_scalar(&self) -> Scalar {
        match self {
            Self::Copy => Scalar::Text("copy".into()),
            Self::Set(dscp) => dscp.to_scalar(),
            Self::Map(name) => Scalar::Text(format!("{MAP}{name}")),
        }
    }
}

impl Value for InnerDscp {
    const EXPECTED: &'static str = "\"keep\", \"copy\", a DSCP's name such as \"EF\", its number from 0 to 63, or a map, as in \"map uplink\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "keep" => Some(Self::Keep),
            "copy" => Some(Self::Copy),
            _ => map(text).map(Self::Map).or_else(|| Dscp::from_text(text).map(Self::Set)),
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        Dscp::from_number(number).map(Self::Set)
    }

    fn to_scalar(&self) -> Scalar {
        match self {
            Self::Keep => Scalar::Text("keep".into()),
            Self::Copy => Scalar::Text("copy".into()),
            Self::Set(dscp) => dscp.to_scalar(),
            Self::Map(name) => Scalar::Text(format!("{MAP}{name}")),
        }
    }
}

fn map(text: &str) -> Option<String> {
    text.strip_prefix(MAP).map(|name| name.trim().to_owned())
}

impl Item for DscpMapEntry {
    const KIND: Kind = Kind::DscpMap;

    fn label(&self) -> String {
        self.name.clone()
    }
}

/// What is wrong with maps, and with tunnels that name them.
pub(crate) fn check(config: &Config, problems: &mut Problems) {
    for (position, map) in config.dscp_maps.iter().enumerate() {
        let mut about = Complaints::about(problems, map, position);
        let mut seen = HashSet::new();
        for change in &map.map {
            if change.from.is_empty() {
                about.field("map", format!("from is empty where to is {}; give DSCPs", change.to));
            }
            if let Some(twice) = change.from.iter().find(|dscp| !seen.insert(**dscp)) {
                about.field("map", format!("{twice} is there twice; delete one"));
            }
        }
    }
    let names: BTreeSet<&str> = config.dscp_maps.iter().map(|map| map.name.as_str()).collect();
    for (position, tunnel) in config.tunnels.iter().enumerate() {
        let mut about = Complaints::about(problems, tunnel, position);
        for (field, name) in [("tos", tunnel.tos.map_name()), ("inner_tos", tunnel.inner_tos.map_name())] {
            if let Some(name) = name.filter(|name| !names.contains(name)) {
                about.field(field, no_such("dscp_map", name, config.dscp_maps.iter().map(|map| &map.name)));
            }
        }
    }
}

impl DeliveryDscp {
    fn map_name(&self) -> Option<&str> {
        if let Self::Map(name) = self { Some(name) } else { None }
    }
}

impl InnerDscp {
    fn map_name(&self) -> Option<&str> {
        if let Self::Map(name) = self { Some(name) } else { None }
    }
}

/// A map as an object.
pub(crate) fn dscp_map(entry: &DscpMapEntry, dscp_map: DscpMapIndex) -> DscpMap {
    let changes =
        entry.map.iter().flat_map(|change| change.from.iter().map(|from| (from.get(), change.to.get())));
    DscpMap { dscp_map, changes: changes.collect() }
}

/// What a tunnel is told of DSCPs; `None` if a map has no number.
pub(crate) fn marks(entry: &TunnelEntry, indices: &Indices) -> Option<(TosPolicy, messages::TunnelMarks)> {
    let number = |name: &String| indices.dscp_maps.get(name).copied().map(DscpMapIndex);
    let (tos, outward) = match &entry.tos {
        DeliveryDscp::Copy => (TosPolicy::Copy, None),
        DeliveryDscp::Set(dscp) => (TosPolicy::Dscp(dscp.get()), None),
        DeliveryDscp::Map(name) => (TosPolicy::Copy, Some(number(name)?)),
    };
    let receipt = match &entry.inner_tos {
        InnerDscp::Keep => ReceivedDscp::Keep,
        InnerDscp::Copy => ReceivedDscp::Copy,
        InnerDscp::Set(dscp) => ReceivedDscp::Set(dscp.get()),
        InnerDscp::Map(name) => ReceivedDscp::Map(number(name)?),
    };
    Some((tos, messages::TunnelMarks { outward, receipt }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<T: Value>(value: Option<T>) -> Option<String> {
        Some(match value?.to_scalar() {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
        })
    }

    #[test]
    fn a_rule_is_a_word_a_dscp_or_a_map() {
        for text in ["copy", "EF", "map uplink"] {
            assert_eq!(written(DeliveryDscp::from_text(text)).as_deref(), Some(text));
            assert_eq!(written(InnerDscp::from_text(text)).as_deref(), Some(text));
        }
        assert_eq!(InnerDscp::from_text("keep"), Some(InnerDscp::Keep));
        assert_eq!(written(DeliveryDscp::from_number(5)).as_deref(), Some("5"));
        assert_eq!([DeliveryDscp::from_text("keep"), DeliveryDscp::from_number(64)], [None, None]);
        assert_eq!([InnerDscp::from_text("uplink"), InnerDscp::from_number(-1)], [None, None]);
    }
}
