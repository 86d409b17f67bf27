// SPDX-License-Identifier: Apache-2.0
//! `police` of a class: one bucket, or the three-colour markers of RFC 2697, RFC 2698 and RFC 4115.

use messages::{ColourAware, DscpSet, Police, PoliceAction, SecondBucket, TrafficProfile};
use serde::{Deserialize, Serialize};
use wire::Dscp;

use super::BitRate;
use crate::scalar::{self, Scalar, Value, within};

/// What is in front of a DSCP that an action sets.
const SET_DSCP: &str = "set_dscp ";

/// A policer. With `excess_burst` alone it is srTCM (RFC 2697), with `peak_rate` trTCM (RFC 2698), with `excess_rate` the
/// marker of RFC 4115.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as in { rate = \"2 Mbit/s\" }")]
pub struct PoliceEntry {
    /// The committed rate on the wire.
    #[serde(with = "scalar")]
    pub rate: BitRate,
    /// The committed burst in bytes on the wire. Default two longest packets, and what the rate carries in 20 ms.
    #[serde(
        deserialize_with = "within::optional::<_, _, 64, 1073741824>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub burst: Option<u32>,
    /// The excess burst in bytes.
    #[serde(
        deserialize_with = "within::optional::<_, _, 64, 1073741824>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub excess_burst: Option<u32>,
    /// The excess rate, beside the committed one.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub excess_rate: Option<BitRate>,
    /// The peak rate, the committed one included.
    #[serde(with = "scalar::optional", default, skip_serializing_if = "Option::is_none")]
    pub peak_rate: Option<BitRate>,
    /// The peak burst in bytes.
    #[serde(
        deserialize_with = "within::optional::<_, _, 64, 1073741824>",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub peak_burst: Option<u32>,
    /// DSCPs of packets that are yellow already. With these or `red` the policer is colour-aware.
    #[serde(with = "scalar::list", default, skip_serializing_if = "Vec::is_empty")]
    pub yellow: Vec<Dscp>,
    /// DSCPs of packets that are red already.
    #[serde(with = "scalar::list", default, skip_serializing_if = "Vec::is_empty")]
    pub red: Vec<Dscp>,
    /// What is done with green packets. Default transmit.
    #[serde(with = "scalar", default = "transmit", skip_serializing_if = "is_transmit")]
    pub conform: PoliceAction,
    /// What is done with yellow packets. Default transmit.
    #[serde(with = "scalar", default = "transmit", skip_serializing_if = "is_transmit")]
    pub exceed: PoliceAction,
    /// What is done with red packets. Default drop.
    #[serde(with = "scalar", default = "discard", skip_serializing_if = "is_discard")]
    pub violate: PoliceAction,
}

impl PoliceEntry {
    /// A policer of one bucket, which drops what is above it.
    #[must_use]
    pub fn of(rate: BitRate) -> Self {
        Self {
            rate,
            burst: None,
            excess_burst: None,
            excess_rate: None,
            peak_rate: None,
            peak_burst: None,
            yellow: Vec::new(),
            red: Vec::new(),
            conform: transmit(),
            exceed: transmit(),
            violate: discard(),
        }
    }

    /// What the dataplane is told.
    pub(super) fn police(&self) -> Police {
        let profile = |BitRate(rate_bps), burst_bytes| TrafficProfile { rate_bps, burst_bytes };
        let second = match (self.peak_rate, self.excess_rate, self.excess_burst) {
            (Some(rate), ..) => SecondBucket::Peak(profile(rate, self.peak_burst)),
            (None, Some(rate), burst) => SecondBucket::ExcessRate(profile(rate, burst)),
            (None, None, Some(burst)) => SecondBucket::ExcessBurst(burst),
            (None, None, None) => SecondBucket::None,
        };
        let set = |list: &[Dscp]| DscpSet(list.iter().fold(0, |set, dscp| set | 1 << dscp.get()));
        let is_aware = !self.yellow.is_empty() || !self.red.is_empty();
        Police {
            committed: profile(self.rate, self.burst),
            second,
            aware: is_aware.then(|| ColourAware { yellow: set(&self.yellow), red: set(&self.red) }),
            conform: self.conform,
            exceed: self.exceed,
            violate: self.violate,
        }
    }

    /// What is wrong with it.
    pub(super) fn complaint(&self) -> Option<String> {
        let has_second =
            self.excess_burst.is_some() || self.excess_rate.is_some() || self.peak_rate.is_some();
        let is_both = self.peak_rate.is_some() && (self.excess_burst.is_some() || self.excess_rate.is_some());
        if is_both {
            return Some(
                "police: peak_rate counts what is above the rate from 0 (RFC 2698), excess_burst and excess_rate beside it (RFC 2697, RFC 4115); give one kind".into(),
            );
        }
        if self.peak_burst.is_some() && self.peak_rate.is_none() {
            return Some("police: peak_burst needs a peak_rate beside it".into());
        }
        if self.peak_rate.is_some_and(|peak| peak < self.rate) {
            return Some(
                "police: peak_rate is below rate, which it includes; raise it, or use excess_rate".into(),
            );
        }
        if !has_second && self.exceed != transmit() {
            return Some(
                "police: exceed needs a second bucket, by excess_burst, excess_rate or peak_rate; with one bucket, what is above it violates".into(),
            );
        }
        let twice = self.yellow.iter().find(|dscp| self.red.contains(dscp))?;
        Some(format!("police: {twice} is both yellow and red; delete it from one"))
    }
}

impl Value for PoliceAction {
    const EXPECTED: &'static str = "\"transmit\", \"drop\", or a DSCP to set, as in \"set_dscp AF12\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "transmit" => Some(Self::Transmit),
            "drop" => Some(Self::Drop),
            _ => {
                let dscp = text.strip_prefix(SET_DSCP)?.trim();
                let by_number = || dscp.parse().ok().and_then(Dscp::new);
                let dscp = Dscp::from_text(dscp).or_else(by_number)?;
                Some(Self::SetDscp(dscp.get()))
            }
        }
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(match self {
            Self::Transmit => "transmit".into(),
            Self::Drop => "drop".into(),
            Self::SetDscp(dscp) => {
                let name = Dscp::new(*dscp).and_then(Dscp::name);
                name.map_or_else(|| format!("{SET_DSCP}{dscp}"), |name| format!("{SET_DSCP}{name}"))
            }
        })
    }
}

const fn transmit() -> PoliceAction {
    PoliceAction::Transmit
}

fn is_transmit(action: &PoliceAction) -> bool {
    *action == transmit()
}

const fn discard() -> PoliceAction {
    PoliceAction::Drop
}

fn is_discard(action: &PoliceAction) -> bool {
    *action == discard()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> PoliceEntry {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn profile(rate_bps: u64, burst_bytes: Option<u32>) -> TrafficProfile {
        TrafficProfile { rate_bps, burst_bytes }
    }

    #[test]
    fn the_fields_that_are_there_say_which_rfc_it_is() {
        let one = entry("rate = 1000");
        assert_eq!(one.police(), Police::dropping(profile(1_000, None)));
        for (text, second) in [
            ("excess_burst = 3000", SecondBucket::ExcessBurst(3_000)),
            ("peak_rate = 2000", SecondBucket::Peak(profile(2_000, None))),
            ("peak_rate = 2000\npeak_burst = 5000", SecondBucket::Peak(profile(2_000, Some(5_000)))),
            ("excess_rate = 500", SecondBucket::ExcessRate(profile(500, None))),
            ("excess_rate = 500\nexcess_burst = 3000", SecondBucket::ExcessRate(profile(500, Some(3_000)))),
        ] {
            let entry = entry(&format!("rate = 1000\n{text}"));
            assert_eq!((entry.police().second, entry.complaint()), (second, None), "{text}");
            assert_eq!(entry.police().exceed, PoliceAction::Transmit);
        }
    }

    #[test]
    fn colours_that_packets_come_with_are_sets_of_dscps() {
        let police = entry("rate = 1000\nyellow = [\"AF12\", 1]\nred = [\"AF13\"]").police();
        let (yellow, red) = (DscpSet(1 << 12 | 1 << 1), DscpSet(1 << 14));
        assert_eq!(police.aware, Some(ColourAware { yellow, red }));
    }

    #[test]
    fn an_action_is_a_word_or_a_dscp() {
        let action = |text: &str| PoliceAction::from_text(text);
        assert_eq!(action("set_dscp AF12"), Some(PoliceAction::SetDscp(12)));
        assert_eq!(action("set_dscp 5"), Some(PoliceAction::SetDscp(5)));
        assert_eq!(["", "set_dscp", "set_dscp 64", "AF12", "Drop"].map(action), [None; 5]);
        for dscp in 0..64 {
            let Scalar::Text(text) = PoliceAction::SetDscp(dscp).to_scalar() else { panic!("a text") };
            assert_eq!(action(&text), Some(PoliceAction::SetDscp(dscp)), "{text}");
        }
    }
}
