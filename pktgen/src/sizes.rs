// SPDX-License-Identifier: Apache-2.0
//! Frame sizes as RFC 2544 counts them, Ethernet header and FCS included, and mixes of them.
//!
//! A mix is a repeating sequence of sizes (RFC 6985), or sizes drawn evenly by a seed. Encapsulation is not counted:
//! a size is that of the frame in clear, and what GRE and ESP add comes on top.

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::random::Random;

/// Bytes of the frame check sequence, which no buffer holds.
pub const FCS_BYTES: usize = 4;
/// Preamble, start of frame delimiter and interframe gap: what a frame takes on the line besides itself.
pub const GAP_BYTES: usize = 20;
/// Shortest frame of Ethernet.
pub const SIZE_MIN: u16 = 64;
/// Longest frame that is sent: a jumbo frame.
pub const SIZE_MAX: u16 = 9_216;
/// The sizes that RFC 2544 §9.1 names for Ethernet, and a jumbo frame.
pub const RFC_2544: [u16; 8] = [64, 128, 256, 512, 1_024, 1_280, 1_518, SIZE_MAX];

/// Seven small frames, four of 576 bytes of IP, one full one.
const IMIX: [u16; 12] = [64, 594, 64, 64, 594, 64, 1_518, 64, 594, 64, 594, 64];
/// IP packets of 64, 280 and 1,400 bytes whose mean is 188: what Cisco's "Point-to-Point GRE over IPsec Design Guide"
/// (scalability test methodology) states from headend to branch. The guide gives the means alone.
const CISCO_DOWN: [u16; 16] = [82, 82, 298, 82, 82, 82, 82, 1_418, 82, 82, 298, 82, 82, 82, 298, 82];
/// From branch to headend: a mean of 144 bytes of IP.
const CISCO_UP: [u16; 16] = [82, 82, 254, 82, 82, 82, 82, 1_018, 82, 82, 82, 82, 82, 254, 82, 82];

/// Which sizes a stream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// These in turn, over and over.
    Sequence(Vec<u16>),
    /// Any between these two, both included, drawn by the profile's seed.
    Uniform(u16, u16),
}

impl Sizes {
    /// Each size once, in rising order: the classes that [`Order`] gives the numbers of.
    #[must_use]
    pub fn classes(&self) -> Vec<u16> {
        match self {
            Self::Sequence(sizes) => {
                let mut classes = sizes.clone();
                classes.sort_unstable();
                classes.dedup();
                classes
            }
            Self::Uniform(least, most) => (*least..=*most).collect(),
        }
    }

    /// The order in which a stream takes its classes.
    #[must_use]
    pub fn order(&self, seed: u64) -> Order {
        match self {
            Self::Sequence(sizes) => {
                let classes = self.classes();
                let class = |size: &u16| classes.binary_search(size).unwrap_or(0) as u16;
                Order::Sequence { classes: sizes.iter().map(class).collect(), next: 0 }
            }
            Self::Uniform(least, most) => {
                Order::Random { count: u64::from(most - least) + 1, random: Random::new(seed) }
            }
        }
    }

    /// Mean size in bytes.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Sequence(sizes) => {
                sizes.iter().map(|size| f64::from(*size)).sum::<f64>() / sizes.len() as f64
            }
            Self::Uniform(least, most) => f64::midpoint(f64::from(*least), f64::from(*most)),
        }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sequence(sizes) if sizes.len() == 1 => sizes[0].fmt(f),
            Self::Sequence(sizes) if sizes[..] == IMIX => f.write_str("imix"),
            Self::Sequence(sizes) if sizes[..] == CISCO_DOWN => f.write_str("cisco-188"),
            Self::Sequence(sizes) if sizes[..] == CISCO_UP => f.write_str("cisco-144"),
            Self::Sequence(sizes) => write!(f, "{} sizes, mean {:.0}", sizes.len(), self.mean()),
            Self::Uniform(least, most) => write!(f, "{least}-{most}"),
        }
    }
}

/// Gives the class of one packet after the other.
#[derive(Clone, Debug)]
pub enum Order {
    /// In turn.
    Sequence {
        /// The classes.
        classes: Box<[u16]>,
        /// Which is next.
        next: usize,
    },
    /// By chance.
    Random {
        /// How many there are.
        count: u64,
        /// Chance.
        random: Random,
    },
}

impl Order {
    /// The class of the next packet.
    #[inline]
    pub fn next_class(&mut self) -> u16 {
        match self {
            Self::Sequence { classes, next } => {
                let class = classes.get(*next).copied().unwrap_or(0);
                *next = if *next + 1 < classes.len() { *next + 1 } else { 0 };
                class
            }
            // Below `count`, which came from two u16.
            Self::Random { count, random } => random.below(*count) as u16,
        }
    }
}

const WANTED: &str = "a frame size in bytes with FCS (64-9216), \"imix\", \"cisco-188\", \"cisco-144\", \
    { list = [64, 1518] } or { uniform = [64, 1518] }";

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizesVisitor)
    }
}

struct SizesVisitor;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Named {
    List(Vec<i64>),
    Uniform([i64; 2]),
}

impl<'de> Visitor<'de> for SizesVisitor {
    type Value = Sizes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(WANTED)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Sizes, E> {
        Ok(Sizes::Sequence(vec![size(bytes)?]))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Sizes, E> {
        match name {
            "imix" => Ok(Sizes::Sequence(IMIX.to_vec())),
            "cisco-188" => Ok(Sizes::Sequence(CISCO_DOWN.to_vec())),
            "cisco-144" => Ok(Sizes::Sequence(CISCO_UP.to_vec())),
            _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sizes, A::Error> {
        match Named::deserialize(MapAccessDeserializer::new(map))? {
            Named::List(list) if list.is_empty() => {
                Err(de::Error::custom("list: no sizes; give at least one"))
            }
            Named::List(list) => list.into_iter().map(size).collect::<Result<_, _>>().map(Sizes::Sequence),
            Named::Uniform([least, most]) => {
                let (least, most) = (size(least)?, size(most)?);
                if least > most {
                    return Err(de::Error::custom(format!("uniform: {least} is above {most}; least first")));
                }
                Ok(Sizes::Uniform(least, most))
            }
        }
    }
}

fn size<E: de::Error>(bytes: i64) -> Result<u16, E> {
    let fits = |size: &u16| (SIZE_MIN..=SIZE_MAX).contains(size);
    u16::try_from(bytes).ok().filter(fits).ok_or_else(|| {
        E::custom(format!("a frame of {bytes} bytes: with FCS it has {SIZE_MIN} to {SIZE_MAX}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        size: Sizes,
    }

    fn read(text: &str) -> Result<Sizes, String> {
        let holder: Result<Holder, _> = toml::from_str(&format!("size = {text}"));
        holder.map(|holder| holder.size).map_err(|error| error.to_string())
    }

    #[test]
    fn ciscos_mixes_have_the_means_that_the_guide_states() {
        let ip_mean = |name: &str| read(name).unwrap().mean() - 18.0;
        assert_eq!((ip_mean("\"cisco-188\""), ip_mean("\"cisco-144\"")), (188.0, 144.0));
    }

    #[test]
    fn imix_is_seven_four_and_one() {
        let Sizes::Sequence(sizes) = read("\"imix\"").unwrap() else { panic!() };
        let count = |size| sizes.iter().filter(|found| **found == size).count();
        assert_eq!([count(64), count(594), count(1_518), sizes.len()], [7, 4, 1, 12]);
    }

    #[test]
    fn a_sequence_repeats_and_its_classes_name_the_sizes() {
        let sizes = read("{ list = [128, 64, 128, 1518] }").unwrap();
        let classes = sizes.classes();
        let mut order = sizes.order(1);
        let taken: Vec<u16> = (0..8).map(|_| classes[usize::from(order.next_class())]).collect();
        assert_eq!(taken, [128, 64, 128, 1_518, 128, 64, 128, 1_518]);
    }

    #[test]
    fn uniform_sizes_are_even_and_follow_the_seed() {
        let sizes = read("{ uniform = [64, 73] }").unwrap();
        let draw = |seed| {
            let mut order = sizes.order(seed);
            (0..10_000).map(|_| order.next_class()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for class in 0..10 {
            let count = draw(7).iter().filter(|found| **found == class).count();
            assert!((800..1_200).contains(&count), "{class}: {count}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_with_what_would_be_right() {
        for (text, word) in [
            ("63", "64 to 9216"),
            ("9217", "64 to 9216"),
            ("\"big\"", "imix"),
            ("{ list = [] }", "at least one"),
            ("{ uniform = [100, 64] }", "least first"),
            ("{ gaussian = [1, 2] }", "gaussian"),
            ("true", "imix"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word) && error.contains("line 1"), "{text}: {error}");
        }
    }
}
