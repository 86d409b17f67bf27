// SPDX-License-Identifier: Apache-2.0
//! Rates, shares, limits, flags: their forms in the file.

use core::fmt;

use messages::{QueueLimit, Share, TcpFlags};
use wire::Dscp;

use crate::scalar::{Scalar, Value};

/// Names and bits of TCP flags (RFC 9293 §3.1, RFC 3168 §6.1).
const FLAGS: [(&str, u8); 8] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];
const UNITS: [(&str, u64); 4] =
    [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];
const RATE_MAX_BPS: u64 = 1_000_000_000_000;

/// Whether all criteria of a class-map have to match, or any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// All.
    #[default]
    All,
    /// One is enough.
    Any,
}

/// A rate in bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(pub u64);

/// A share: percent or a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth(pub Share);

/// TCP flags that are set or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub TcpFlags);

impl Value for Matching {
    const EXPECTED: &'static str = "\"all\" or \"any\"";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            "any" => Some(Self::Any),
            _ => None,
        }
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(if *self == Self::Any { "any" } else { "all" }.into())
    }
}

impl Value for BitRate {
    const EXPECTED: &'static str =
        "a rate up to 1000 Gbit/s, as in \"10 Mbit/s\" or \"512 kbit/s\", or a number of bit/s";

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        decimal(number.trim_end(), *factor).filter(|bps| (1..=RATE_MAX_BPS).contains(bps)).map(Self)
    }

    fn from_number(number: i64) -> Option<Self> {
        u64::try_from(number).ok().filter(|bps| (1..=RATE_MAX_BPS).contains(bps)).map(Self)
    }

    fn to_scalar(&self) -> Scalar {
        let fits = |(_, factor): &&(&str, u64)| self.0.is_multiple_of(*factor);
        let (name, factor) = UNITS.iter().find(fits).unwrap_or(&("bit/s", 1));
        Scalar::Text(format!("{} {name}", self.0 / factor))
    }
}

/// A decimal number times a power of ten, if that is whole.
fn decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || text.ends_with('.') {
        return None;
    }
    let mut value = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let mut place = factor;
    for digit in fraction.bytes() {
        let digit = u64::from(digit - b'0');
        if !place.is_multiple_of(10) && digit != 0 {
            return None;
        }
        place /= 10;
        value = value.checked_add(digit * place)?;
    }
    Some(value)
}

impl Value for Bandwidth {
    const EXPECTED: &'static str = "a share, as in \"30 %\", or a rate, as in \"2 Mbit/s\"";

    fn from_text(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.trim_end().parse().ok().filter(|percent| (1..=100).contains(percent));
                percent.map(|percent| Self(Share::Percent(percent)))
            }
            None => BitRate::from_text(text).map(|BitRate(bps)| Self(Share::Rate(bps))),
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        BitRate::from_number(number).map(|BitRate(bps)| Self(Share::Rate(bps)))
    }

    fn to_scalar(&self) -> Scalar {
        match self.0 {
            Share::Percent(percent) => Scalar::Text(format!("{percent} %")),
            Share::Rate(bps) => BitRate(bps).to_scalar(),
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_scalar() {
            Scalar::Text(text) => f.pad(&text),
            Scalar::Number(number) => number.fmt(f),
        }
    }
}

impl Value for QueueLimit {
    const EXPECTED: &'static str =
        "how much may wait, as in \"64 packets\", \"30000 bytes\", \"50 ms\" or \"500 us\"";

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once(' ')?;
        let number: u32 = number.parse().ok().filter(|number| *number > 0)?;
        match unit {
            "packets" => Some(Self::Packets(number)),
            "bytes" => Some(Self::Bytes(number)),
            "ms" => number.checked_mul(1_000).map(Self::Microseconds),
            "us" => Some(Self::Microseconds(number)),
            _ => None,
        }
    }

    fn to_scalar(&self) -> Scalar {
        Scalar::Text(match self {
            Self::Packets(packets) => format!("{packets} packets"),
            Self::Bytes(bytes) => format!("{bytes} bytes"),
            Self::Microseconds(us) if us.is_multiple_of(1_000) => format!("{} ms", us / 1_000),
            Self::Microseconds(us) => format!("{us} us"),
        })
    }
}

impl Value for Flags {
    const EXPECTED: &'static str = "TCP flags that are set, or with ! not set, as in \"syn !ack\"; there are fin, syn, rst, psh, ack, urg, ece and cwr";

    fn from_text(text: &str) -> Option<Self> {
        let mut flags = TcpFlags { mask: 0, value: 0 };
        for word in text.split_ascii_whitespace() {
            let (name, is_set) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
            let (_, bit) = FLAGS.iter().find(|(other, _)| *other == name)?;
            if flags.mask & bit != 0 {
                return None;
            }
            flags.mask |= bit;
            flags.value |= if is_set { *bit } else { 0 };
        }
        (flags.mask != 0).then_some(Self(flags))
    }

    fn to_scalar(&self) -> Scalar {
        let TcpFlags { mask, value } = self.0;
        let words = FLAGS.iter().filter(|(_, bit)| mask & bit != 0);
        let words =
            words.map(|(name, bit)| if value & bit == 0 { format!("!{name}") } else { (*name).into() });
        Scalar::Text(words.collect::<Vec<String>>().join(" "))
    }
}

impl Value for Dscp {
    const EXPECTED: &'static str = "a DSCP's name such as \"EF\", or its number from 0 to 63";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_number(number: i64) -> Option<Self> {
        u8::try_from(number).ok().and_then(Self::new)
    }

    fn to_scalar(&self) -> Scalar {
        match self.name() {
            Some(name) => Scalar::Text(name.into()),
            None => Scalar::Number(self.get().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text means, as it is written again.
    fn written<T: Value>(text: &str) -> Option<String> {
        match T::from_text(text)?.to_scalar() {
            Scalar::Text(text) => Some(text),
            Scalar::Number(number) => Some(number.to_string()),
        }
    }

    #[test]
    fn rates_have_units_and_no_remainders() {
        for (text, same) in [
            ("10 Mbit/s", "10 Mbit/s"),
            ("10Mbit/s", "10 Mbit/s"),
            ("1.5 Gbit/s", "1500 Mbit/s"),
            ("0.064 Mbit/s", "64 kbit/s"),
            ("999 bit/s", "999 bit/s"),
            ("2000000 bit/s", "2 Mbit/s"),
        ] {
            assert_eq!(written::<BitRate>(text).as_deref(), Some(same), "{text}");
        }
        for bad in [
            "",
            "10",
            "Mbit/s",
            "-1 Mbit/s",
            "0 bit/s",
            "1.5 bit/s",
            "10 Mb",
            "1.2.3 Mbit/s",
            "2000 Gbit/s",
            "10 MBit/s",
            "1. Mbit/s",
            "10 xMbit/s",
        ] {
            assert_eq!(written::<BitRate>(bad), None, "{bad}");
        }
        assert_eq!(BitRate::from_number(64_000), Some(BitRate(64_000)));
        assert_eq!(BitRate::from_number(0), None);
    }

    #[test]
    fn shares_are_percent_or_rates() {
        assert_eq!(Bandwidth::from_text("30 %"), Some(Bandwidth(Share::Percent(30))));
        assert_eq!(Bandwidth::from_text("2 Mbit/s"), Some(Bandwidth(Share::Rate(2_000_000))));
        assert_eq!([Bandwidth::from_text("0 %"), Bandwidth::from_text("101%")], [None, None]);
    }

    #[test]
    fn queue_limits_have_a_unit() {
        for text in ["64 packets", "30000 bytes", "50 ms", "1500 us"] {
            assert_eq!(written::<QueueLimit>(text).as_deref(), Some(text));
        }
        assert_eq!(QueueLimit::from_text("2000 us"), Some(QueueLimit::Microseconds(2_000)));
        for bad in ["64", "0 packets", "64 frames", "5 s", "-1 ms"] {
            assert_eq!(QueueLimit::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_are_set_or_not() {
        assert_eq!(Flags::from_text("syn !ack"), Some(Flags(TcpFlags { mask: 0x12, value: 0x02 })));
        assert_eq!(written::<Flags>("!ack syn").as_deref(), Some("syn !ack"));
        assert_eq!([Flags::from_text(""), Flags::from_text("syn syn"), Flags::from_text("SYN")], [None; 3]);
    }
}
