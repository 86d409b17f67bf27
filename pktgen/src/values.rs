// SPDX-License-Identifier: Apache-2.0
//! What a field of a packet may be: one value, or a range that packets go through.
//!
//! ```toml
//! destination = "10.1.0.1"
//! destination = { first = "10.1.0.1", last = "10.1.0.254" }                    # in turn
//! destination = { first = "10.1.0.0", count = 4096, step = 256 }
//! source_port = { first = 1024, last = 65535, order = "random" }
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use wire::MacAddr;
use wire::dscp::Dscp;

/// What can stand in a field.
pub trait Value: Copy {
    /// What is expected, for errors.
    const WANTED: &str;

    /// From a number.
    fn of_integer(_number: i64) -> Option<Self> {
        None
    }

    /// From a text.
    fn of_text(_text: &str) -> Option<Self> {
        None
    }

    /// The bits that a range counts in.
    fn bits(self) -> u128;

    /// A value `bits` bits from `self`, if there is one of its kind.
    fn with_bits(self, bits: u128) -> Option<Self>;
}

/// In which order a range is gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sequence {
    /// From the first to the last, over and over.
    #[default]
    Increment,
    /// By chance, drawn by the profile's seed.
    Random,
}

/// One value, or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values<T> {
    /// The first.
    pub first: T,
    /// How many there are.
    pub count: u64,
    /// From one to the next.
    pub step: u64,
    /// In which order.
    pub order: Sequence,
}

impl<T: Value> Values<T> {
    /// One value.
    pub const fn one(first: T) -> Self {
        Self { first, count: 1, step: 1, order: Sequence::Increment }
    }

    /// Whether packets differ in it.
    pub fn changes(&self) -> bool {
        self.count > 1
    }
}

impl<'de, T: Value> Deserialize<'de> for Values<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor(PhantomData))
    }
}

struct ValuesVisitor<T>(PhantomData<T>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
struct Range<T: Value> {
    first: One<T>,
    last: Option<One<T>>,
    count: Option<u64>,
    #[serde(default = "one")]
    step: u64,
    #[serde(default)]
    order: Sequence,
}

const fn one() -> u64 {
    1
}

impl<'de, T: Value> Visitor<'de> for ValuesVisitor<T> {
    type Value = Values<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a range such as {{ first = …, last = … }}", T::WANTED)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let value = T::of_integer(number);
        value.map(Values::one).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let value = T::of_text(text);
        value.map(Values::one).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Range { first, last, count, step, order } =
            Range::<T>::deserialize(MapAccessDeserializer::new(map))?;
        let first = first.0;
        let wrong = |what: &str| Err(de::Error::custom(what));
        if step == 0 {
            return wrong("step: 0; a range goes on, so at least 1");
        }
        let count = match (last, count) {
            (Some(last), None) => match last.0.bits().checked_sub(first.bits()) {
                Some(span) => span / u128::from(step) + 1,
                None => return wrong("last is below first"),
            },
            (None, Some(count)) if count > 0 => u128::from(count),
            _ => return wrong("a range wants first and exactly one of last and count, which is at least 1"),
        };
        let end = first.bits().checked_add((count - 1).saturating_mul(u128::from(step)));
        let Some(_) = end.and_then(|end| first.with_bits(end)) else {
            return wrong(&format!("the range goes beyond what the field holds: {}", T::WANTED));
        };
        let Ok(count) = u64::try_from(count) else { return wrong("the range has more than 2^64 values") };
        Ok(Values { first, count, step, order })
    }
}

/// One value, not a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct One<T>(pub T);

impl<'de, T: Value> Deserialize<'de> for One<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneVisitor(PhantomData)).map(One)
    }
}

struct OneVisitor<T>(PhantomData<T>);

impl<T: Value> Visitor<'_> for OneVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        T::of_integer(number).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::of_text(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl Value for IpAddr {
    const WANTED: &str = "an IPv4 or IPv6 address; a range of IPv6 addresses stays within one /64";

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn bits(self) -> u128 {
        match self {
            Self::V4(address) => address.to_bits().into(),
            Self::V6(address) => address.to_bits(),
        }
    }

    fn with_bits(self, bits: u128) -> Option<Self> {
        match self {
            Self::V4(_) => u32::try_from(bits).ok().map(|bits| Self::V4(bits.into())),
            Self::V6(first) => (first.to_bits() >> 64 == bits >> 64).then_some(Self::V6(bits.into())),
        }
    }
}

impl Value for MacAddr {
    const WANTED: &str = "a MAC address such as \"02:00:00:00:00:01\"; a range changes the last four bytes";

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn bits(self) -> u128 {
        self.0.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }

    fn with_bits(self, bits: u128) -> Option<Self> {
        let [.., a, b, c, d, e, f] = bits.to_be_bytes();
        (self.bits() >> 32 == bits >> 32).then_some(MacAddr([a, b, c, d, e, f]))
    }
}

impl Value for Dscp {
    const WANTED: &str = "a DSCP: 0-63 or a name such as \"EF\"";

    fn of_integer(number: i64) -> Option<Self> {
        u8::try_from(number).ok().and_then(Dscp::new)
    }

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn bits(self) -> u128 {
        self.get().into()
    }

    fn with_bits(self, bits: u128) -> Option<Self> {
        u8::try_from(bits).ok().and_then(Dscp::new)
    }
}

/// Numbers that take every value of their type.
macro_rules! numbers {
    ($($type:ty: $wanted:literal),+) => { $(
        impl Value for $type {
            const WANTED: &str = $wanted;

            fn of_integer(number: i64) -> Option<Self> {
                number.try_into().ok()
            }

            fn bits(self) -> u128 {
                self.into()
            }

            fn with_bits(self, bits: u128) -> Option<Self> {
                bits.try_into().ok()
            }
        }
    )+ };
}

// Ports and identifiers; keys.
numbers!(u16: "a number from 0 to 65535", u32: "a number from 0 to 4294967295");

/// A VLAN ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan(pub u16);

impl Value for Vlan {
    const WANTED: &str = "a VLAN ID from 1 to 4094";

    fn of_integer(number: i64) -> Option<Self> {
        (1..=4_094).contains(&number).then_some(Self(number as u16))
    }

    fn bits(self) -> u128 {
        self.0.into()
    }

    fn with_bits(self, bits: u128) -> Option<Self> {
        i64::try_from(bits).ok().and_then(Self::of_integer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(bound = "")]
    struct Holder<T: Value> {
        field: Values<T>,
    }

    fn read<T: Value>(text: &str) -> Result<Values<T>, String> {
        let holder: Result<Holder<T>, _> = toml::from_str(&format!("field = {text}"));
        holder.map(|holder| holder.field).map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_by_last_and_by_count_are_the_same() {
        let by_last = read::<IpAddr>(r#"{ first = "10.1.0.0", last = "10.1.15.0", step = 256 }"#).unwrap();
        let by_count = read::<IpAddr>(r#"{ first = "10.1.0.0", count = 16, step = 256 }"#).unwrap();
        assert_eq!(by_last, by_count);
        assert_eq!((by_last.count, by_last.changes()), (16, true));
        assert_eq!(read::<Dscp>("\"EF\"").unwrap(), read("46").unwrap());
        assert_eq!(
            read::<u16>("{ first = 7, count = 2, order = \"random\" }").unwrap().order,
            Sequence::Random
        );
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_line() {
        let errors = [
            read::<IpAddr>("\"10.1.0\"").map(drop),
            read::<IpAddr>(r#"{ first = "10.1.0.0", last = "10.0.0.0" }"#).map(drop),
            read::<IpAddr>(r#"{ first = "255.255.255.0", count = 257 }"#).map(drop),
            read::<IpAddr>(r#"{ first = "2001:db8::", last = "2001:db9::" }"#).map(drop),
            read::<u16>("65536").map(drop),
            read::<u16>("{ first = 1 }").map(drop),
            read::<u16>("{ first = 1, last = 2, count = 2 }").map(drop),
            read::<u16>("{ first = 1, last = 2, step = 0 }").map(drop),
            read::<u16>("{ first = 1, lats = 2 }").map(drop),
            read::<Dscp>("64").map(drop),
            read::<Vlan>("{ first = 4094, count = 2 }").map(drop),
            read::<MacAddr>(r#"{ first = "02:00:ff:ff:ff:ff", count = 2 }"#).map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert!(error.contains("line 1"), "{error}");
        }
    }
}
