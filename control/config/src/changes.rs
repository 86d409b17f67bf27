// SPDX-License-Identifier: Apache-2.0
//! From one state to another in the fewest messages.

use std::collections::BTreeMap;

use messages::{Object, ObjectId, Request};

/// One message of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "most of them are puts")]
pub enum Change {
    /// Adds an object, or replaces the one with its id.
    Put(Object),
    /// Removes an object.
    Delete(ObjectId),
}

impl Change {
    /// The object that it is about.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Put(object) => object.id(),
            Self::Delete(id) => *id,
        }
    }
}

impl From<Change> for Request {
    fn from(change: Change) -> Self {
        match change {
            Change::Put(object) => Self::Put(object),
            Change::Delete(id) => Self::Delete(id),
        }
    }
}

/// What makes `to` of `from`: first what goes, users before what they use; then what comes or changes, what is used
/// before its users. From an empty map: all of `to`.
#[must_use]
pub fn changes(from: &BTreeMap<ObjectId, Object>, to: &BTreeMap<ObjectId, Object>) -> Vec<Change> {
    let mut gone: Vec<_> = from.keys().filter(|id| !to.contains_key(id)).copied().collect();
    gone.sort_by_key(|id| (core::cmp::Reverse(rank(id)), *id));
    let mut wanted: Vec<_> = to.iter().filter(|(id, object)| from.get(id) != Some(object)).collect();
    wanted.sort_by_key(|(id, _)| (rank(id), **id));
    let puts = wanted.into_iter().map(|(_, object)| Change::Put(object.clone()));
    gone.into_iter().map(Change::Delete).chain(puts).collect()
}

/// Objects name only objects of a lower rank.
fn rank(id: &ObjectId) -> u8 {
    match id {
        ObjectId::Port(_) => 0,
        ObjectId::Address(_) => 1,
        ObjectId::Neighbor(..) => 2,
        ObjectId::Protection(_) => 3,
        ObjectId::Tunnel(_) => 4,
        ObjectId::Route(_) => 5,
        ObjectId::Policy(_) => 6,
        ObjectId::Sa(_) => 7,
    }
}
