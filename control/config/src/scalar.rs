// SPDX-License-Identifier: Apache-2.0
//! Values that are a word, a text or a number in TOML and JSON, with errors that say what would be right.
//!
//! For `#[serde(with = …)]`: [`self`] for a value, [`optional`] for an `Option`, [`list`] for a `Vec`; and
//! [`within`] for numbers of a range.

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// What stands in the file.
pub(crate) enum Scalar {
    Number(i64),
    Text(String),
}

/// A type with a form in the file.
pub(crate) trait Value: Sized {
    /// What would be right: completes "give …".
    const EXPECTED: &'static str;

    fn from_text(text: &str) -> Option<Self>;

    fn from_number(_number: i64) -> Option<Self> {
        None
    }

    fn to_scalar(&self) -> Scalar;
}

pub(crate) fn serialize<T: Value, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    match value.to_scalar() {
        Scalar::Number(number) => serializer.serialize_i64(number),
        Scalar::Text(text) => serializer.serialize_str(&text),
    }
}

pub(crate) fn deserialize<'de, T: Value, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(ValueVisitor(PhantomData))
}

struct ValueVisitor<T>(PhantomData<T>);

impl<T: Value> Visitor<'_> for ValueVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| unfit(&format_args!("{text:?}"), T::EXPECTED))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::from_number(number).ok_or_else(|| unfit(&number, T::EXPECTED))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let value = i64::try_from(number).ok().and_then(T::from_number);
        value.ok_or_else(|| unfit(&number, T::EXPECTED))
    }
}

fn unfit<E: Error>(given: &dyn fmt::Display, expected: &str) -> E {
    E::custom(format_args!("{given} will not do; give {expected}"))
}

/// A [`Value`] as serde sees it.
struct Wrapped<T>(T);

impl<T: Value> Serialize for Wrapped<&T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.0, serializer)
    }
}

impl<'de, T: Value> serde::Deserialize<'de> for Wrapped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Wrapped)
    }
}

/// A value that may be absent.
pub(crate) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Value, Wrapped};

    pub(crate) fn serialize<T: Value, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Wrapped).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Value, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let value = Option::<Wrapped<T>>::deserialize(deserializer)?;
        Ok(value.map(|Wrapped(value)| value))
    }
}

/// A list of values.
pub(crate) mod list {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Value, Wrapped};

    pub(crate) fn serialize<T: Value, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Wrapped))
    }

    pub(crate) fn deserialize<'de, T: Value, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let values = Vec::<Wrapped<T>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|Wrapped(value)| value).collect())
    }
}

/// Numbers of a range.
pub(crate) mod within {
    use core::fmt;
    use core::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, Error, Visitor};

    struct Number<T, const LEAST: i64, const MOST: i64>(T);

    struct NumberVisitor<T, const LEAST: i64, const MOST: i64>(PhantomData<T>);

    impl<T: TryFrom<i64>, const LEAST: i64, const MOST: i64> NumberVisitor<T, LEAST, MOST> {
        fn take<E: Error>(number: i64) -> Result<T, E> {
            let in_range = (LEAST..=MOST).contains(&number);
            let value = T::try_from(number).ok().filter(|_| in_range);
            value.ok_or_else(|| Self::out_of_range(&number))
        }

        fn out_of_range<E: Error>(number: &dyn fmt::Display) -> E {
            E::custom(format_args!("{number} is out of range; give {LEAST} to {MOST}"))
        }
    }

    impl<T: TryFrom<i64>, const LEAST: i64, const MOST: i64> Visitor<'_> for NumberVisitor<T, LEAST, MOST> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a number from {LEAST} to {MOST}")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            Self::take(number)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            Self::take(i64::try_from(number).map_err(|_| Self::out_of_range(&number))?)
        }
    }

    impl<'de, T: TryFrom<i64>, const LEAST: i64, const MOST: i64> Deserialize<'de> for Number<T, LEAST, MOST> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_i64(NumberVisitor::<T, LEAST, MOST>(PhantomData)).map(Number)
        }
    }

    /// A number from `LEAST` to `MOST`.
    pub(crate) fn number<'de, D, T, const LEAST: i64, const MOST: i64>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<i64>,
    {
        Number::<T, LEAST, MOST>::deserialize(deserializer).map(|Number(value)| value)
    }

    /// Such a number, or none.
    pub(crate) fn optional<'de, D, T, const LEAST: i64, const MOST: i64>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<i64>,
    {
        let number = Option::<Number<T, LEAST, MOST>>::deserialize(deserializer)?;
        Ok(number.map(|Number(value)| value))
    }
}
