// SPDX-License-Identifier: Apache-2.0
//! Classes by the original headers of a packet: ordered rules, the first that matches decides.
//!
//! - [`Rule`] says what a packet must be, [`Match`] is a class-map: conditions with any, all and not, which expands into
//!   rules.
//! - [`Classifier`] answers for a burst at once what [`first_match`] finds by looking at one rule after the other.
//! - [`FlowCache`] remembers answers for flows.
//!
//! Where the code point alone decides, a table says the class of whole packets (`by_dscp`).
//! Rules become boxes over 16-bit lanes of the headers (`cube`), and all boxes for the packets of a family take the
//! forms in which they are found fastest (`family`). Later fragments, which have no ports, have boxes of their own.
//!
//! ```text
//! few boxes                      columns: each of them against eight packets at once
//! the same bits in common        table:   a hash of these bits (masks says which) → entry → entry
//! the rest                       tree:    level by level to a leaf (build) → entry → entry
//! ```
//!
//! Left out: what a class means; reassembly.

mod build;
mod by_dscp;
mod columns;
mod cube;
mod entry;
mod expression;
mod family;
mod flow_cache;
mod key;
mod lanes;
mod masks;
mod places;
mod rule;
mod table;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wire::Dscp;

use by_dscp::ByDscp;
use cube::{Extra, Extras, Part};
use family::Family;
use key::AnyKey;

pub use expression::{Budget, Match, TooManyRules};
pub use flow_cache::FlowCache;
pub use key::{KeyV4, KeyV6, WholeV4};
pub use rule::{
    Addresses, Arrival, Class, Dscps, Fragments, Headers, NO_TUNNEL, Rule, Span, TcpFlags, VlanPriorities,
    first_match,
};

/// A classifier has at most this many rules.
pub const RULES_MAX: usize = 1 << 20;
/// The place of no rule.
const NO_RULE: usize = u32::MAX as usize;

/// Rules that cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Too many rules.
    #[error("{rules} rules: at most {RULES_MAX} are possible")]
    TooManyRules {
        /// How many there are.
        rules: usize,
    },
    /// Ranges that are no prefixes, and ports without a protocol, are several boxes each.
    #[error(
        "at rule {rule} the rules have become more than {max} boxes: use prefixes in place of ranges of addresses"
    )]
    TooManyBoxes {
        /// The rule at which there were too many.
        rule: usize,
        /// How many there may be.
        max: usize,
    },
}

/// Compiled rules. A clone is the same classifier.
#[derive(Clone)]
pub struct Classifier(Arc<Compiled>);

struct Compiled {
    by_dscp: ByDscp,
    whole: Families,
    later: Later,
    extras: Box<[Extra]>,
    default: Class,
    /// Told apart from every other one of the process; never 0.
    generation: u32,
}

/// The rules for packets of both families.
struct Families {
    v4: Family<1, 16>,
    v6: Family<3, 32>,
}

enum Later {
    Class(Class),
    Rules(Box<Families>),
}

impl Classifier {
    /// Compiles `rules`; a packet that matches none is of class `default`.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(rules: &[Rule], default: Class, fragments: Fragments) -> Result<Self, BuildError> {
        if rules.len() > RULES_MAX {
            return Err(BuildError::TooManyRules { rules: rules.len() });
        }
        let by_dscp = ByDscp::of(rules, default);
        let mut extras = Extras::new();
        let whole = Families::build(rules, Part::Whole, default, &mut extras)?;
        let later = match fragments {
            Fragments::Class(class) => Later::Class(class),
            _ => {
                let part = Part::Later(fragments);
                Later::Rules(Box::new(Families::build(rules, part, default, &mut extras)?))
            }
        };
        let generation = next_generation();
        Ok(Self(Arc::new(Compiled {
            by_dscp,
            whole,
            later,
            extras: extras.into_boxed(),
            default,
            generation,
        })))
    }

    /// The class of every whole packet with this code point, if nothing else of it has to be looked at.
    #[inline(always)]
    #[must_use]
    pub fn by_dscp(&self, dscp: Dscp) -> Option<Class> {
        self.0.by_dscp.class(dscp)
    }

    /// The class of any packet.
    #[must_use]
    pub fn classify(&self, packet: &Headers) -> Class {
        let families = match &self.0.later {
            _ if !packet.later_fragment => &self.0.whole,
            Later::Rules(families) => families,
            Later::Class(class) => return *class,
        };
        let mut class = [self.0.default];
        match AnyKey::of(packet) {
            Some(AnyKey::V4(key)) => families.v4.lookup(&[key], &self.0.extras, &mut class),
            Some(AnyKey::V6(key)) => families.v6.lookup(&[key], &self.0.extras, &mut class),
            None => {}
        }
        let [class] = class;
        class
    }

    /// The classes of whole IPv4 packets, as many as there are keys and places for classes.
    #[inline]
    pub fn classify_v4(&self, keys: &[KeyV4], classes: &mut [Class]) {
        self.0.whole.v4.lookup(keys, &self.0.extras, classes);
    }

    /// The classes of whole IPv6 packets, as many as there are keys and places for classes.
    #[inline]
    pub fn classify_v6(&self, keys: &[KeyV6], classes: &mut [Class]) {
        self.0.whole.v6.lookup(keys, &self.0.extras, classes);
    }

    /// The same for clones, another for every other classifier of the process.
    fn generation(&self) -> u32 {
        self.0.generation
    }

    /// Memory of the trees.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let later = match &self.0.later {
            Later::Rules(families) => families.memory_bytes(),
            Later::Class(_) => 0,
        };
        self.0.whole.memory_bytes() + later + size_of_val(&*self.0.extras)
    }
}

/// A number that no classifier had before, until 2^32 of them have been built.
fn next_generation() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    match LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1) {
        0 => LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
        generation => generation,
    }
}

impl Families {
    fn build(rules: &[Rule], part: Part, default: Class, extras: &mut Extras) -> Result<Self, BuildError> {
        Ok(Self {
            v4: Family::build(cube::cubes::<2, 16>(rules, part, extras)?, default),
            v6: Family::build(cube::cubes::<8, 32>(rules, part, extras)?, default),
        })
    }

    fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }
}
