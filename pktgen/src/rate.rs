// SPDX-License-Identifier: Apache-2.0
//! Rates, each in exactly one unit.

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::sizes::{FCS_BYTES, GAP_BYTES};

/// How fast a stream is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Packets a second.
    Pps(f64),
    /// Bits a second of frames with preamble and gap: what a line is said to carry.
    L1Bps(f64),
    /// Bits a second of frames with FCS.
    L2Bps(f64),
    /// Percent of the line rate that the profile states.
    LinePercent(f64),
    /// As fast as the port takes them.
    Max,
}

impl Rate {
    /// Seconds from a packet to the next, when the first is `frame_bytes` long without FCS. None at [`Rate::Max`].
    #[must_use]
    pub fn seconds(self, frame_bytes: usize, line_bps: u64) -> f64 {
        let l2_bits = ((frame_bytes + FCS_BYTES) * 8) as f64;
        let l1_bits = l2_bits + (GAP_BYTES * 8) as f64;
        match self {
            Self::Pps(pps) => 1.0 / pps,
            Self::L1Bps(bps) => l1_bits / bps,
            Self::L2Bps(bps) => l2_bits / bps,
            Self::LinePercent(percent) => l1_bits / (line_bps as f64 * percent / 100.0),
            Self::Max => 0.0,
        }
    }

    /// So many times as fast.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        match self {
            Self::Pps(pps) => Self::Pps(pps * factor),
            Self::L1Bps(bps) => Self::L1Bps(bps * factor),
            Self::L2Bps(bps) => Self::L2Bps(bps * factor),
            Self::LinePercent(percent) => Self::LinePercent(percent * factor),
            Self::Max => Self::Max,
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pps(pps) => write!(f, "{pps:.0} packets/s"),
            Self::L1Bps(bps) => write!(f, "{bps:.0} bit/s (L1)"),
            Self::L2Bps(bps) => write!(f, "{bps:.0} bit/s (L2)"),
            Self::LinePercent(percent) => write!(f, "{percent} % of the line"),
            Self::Max => f.write_str("as fast as the port takes"),
        }
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    /// `1000000pps`, `2.5e9l1bps`, `1e9l2bps`, `40%` or `max`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("rate {text:?}: wants a number and one of pps, l1bps, l2bps, %; or max");
        let number = |unit: &str| text.strip_suffix(unit).and_then(|number| number.trim().parse().ok());
        let rate = if text == "max" {
            Self::Max
        } else if let Some(pps) = number("pps") {
            Self::Pps(pps)
        } else if let Some(bps) = number("l1bps") {
            Self::L1Bps(bps)
        } else if let Some(bps) = number("l2bps") {
            Self::L2Bps(bps)
        } else {
            Self::LinePercent(number("%").ok_or_else(wanted)?)
        };
        rate.checked().ok_or_else(wanted)
    }
}

impl Rate {
    fn checked(self) -> Option<Self> {
        let number = match self {
            Self::Pps(number) | Self::L1Bps(number) | Self::L2Bps(number) | Self::LinePercent(number) => {
                number
            }
            Self::Max => return Some(self),
        };
        (number.is_finite() && number > 0.0).then_some(self)
    }
}

const WANTED: &str = "exactly one of pps, l1_bps, l2_bps and line_percent, as in { pps = 1000 }, or \"max\"";

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Units {
    pps: Option<f64>,
    l1_bps: Option<f64>,
    l2_bps: Option<f64>,
    line_percent: Option<f64>,
}

impl<'de> Visitor<'de> for RateVisitor {
    type Value = Rate;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(WANTED)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Rate, E> {
        if word == "max" { Ok(Rate::Max) } else { Err(E::invalid_value(de::Unexpected::Str(word), &self)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rate, A::Error> {
        let Units { pps, l1_bps, l2_bps, line_percent } =
            Units::deserialize(MapAccessDeserializer::new(map))?;
        let units = [
            pps.map(Rate::Pps),
            l1_bps.map(Rate::L1Bps),
            l2_bps.map(Rate::L2Bps),
            line_percent.map(Rate::LinePercent),
        ];
        let mut given = units.into_iter().flatten();
        let (Some(rate), None) = (given.next(), given.next()) else {
            return Err(de::Error::custom(format!("rate: wants {WANTED}")));
        };
        rate.checked().ok_or_else(|| de::Error::custom("rate: wants a number above 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        rate: Rate,
    }

    fn read(text: &str) -> Result<Rate, String> {
        let holder: Result<Holder, _> = toml::from_str(&format!("rate = {text}"));
        holder.map(|holder| holder.rate).map_err(|error| error.to_string())
    }

    #[test]
    fn each_unit_is_understood_in_a_profile_and_on_the_command_line() {
        for (profile, argument, rate) in [
            ("{ pps = 1000 }", "1000pps", Rate::Pps(1e3)),
            ("{ l1_bps = 2.5e9 }", "2.5e9l1bps", Rate::L1Bps(2.5e9)),
            ("{ l2_bps = 1e9 }", "1e9l2bps", Rate::L2Bps(1e9)),
            ("{ line_percent = 40 }", "40%", Rate::LinePercent(40.0)),
            ("\"max\"", "max", Rate::Max),
        ] {
            assert_eq!((read(profile), argument.parse()), (Ok(rate), Ok(rate)));
        }
    }

    #[test]
    fn two_units_none_or_nonsense_are_refused() {
        for text in
            ["{ pps = 1, l2_bps = 1 }", "{}", "{ pps = 0 }", "{ pps = nan }", "{ kpps = 1 }", "5", "\"fast\""]
        {
            let error = read(text).unwrap_err();
            assert!(error.contains("line 1"), "{error}");
        }
        for text in ["", "5", "0pps", "-1%", "infpps", "1 kpps"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn ten_gigabit_of_the_shortest_frames_is_the_well_known_rate() {
        for rate in [Rate::L1Bps(1e10), Rate::LinePercent(100.0)] {
            let pps = 1.0 / rate.seconds(60, 10_000_000_000);
            assert!((pps - 14_880_952.38).abs() < 0.01, "{pps}");
        }
        assert_eq!(Rate::L2Bps(512e6).seconds(60, 0), 1e-6);
    }
}
