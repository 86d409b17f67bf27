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
        ObjectId::Protection(_) | ObjectId::DscpMap(_) => 3,
        ObjectId::Tunnel(_) => 4,
        ObjectId::Route(_) => 5,
        ObjectId::Policy(_) => 6,
        ObjectId::Sa(_) => 7,
        ObjectId::ClassMap(_) => 8,
        ObjectId::Criterion(..) => 9,
        ObjectId::PolicyMap(_) => 10,
        ObjectId::PolicyClass(..) => 11,
        ObjectId::ServicePolicy(_) => 12,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Indices;
    use crate::testing::{compiled, pair, references};

    fn apply(state: &mut BTreeMap<ObjectId, Object>, change: &Change) {
        match change {
            Change::Put(object) => drop(state.insert(object.id(), object.clone())),
            Change::Delete(id) => assert!(state.remove(id).is_some(), "{id} was not there"),
        }
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_state_to_the_other_in_the_fewest_steps(seed: u64) {
            let (before, after) = pair(seed);
            let (indices, from) = compiled(&before, &Indices::default());
            let (_, to) = compiled(&after, &indices);
            let steps = changes(&from.objects, &to.objects);
            let mut state = from.objects.clone();
            steps.iter().for_each(|step| apply(&mut state, step));
            prop_assert_eq!(&state, &to.objects);
            let mut differing: Vec<_> = from.objects.keys().chain(to.objects.keys()).copied().collect();
            differing.retain(|id| from.objects.get(id) != to.objects.get(id));
            differing.sort();
            differing.dedup();
            let mut touched: Vec<_> = steps.iter().map(Change::id).collect();
            touched.sort();
            prop_assert_eq!(touched, differing);
        }

        #[test]
        fn what_an_object_names_is_put_before_it_and_deleted_after_it(seed: u64) {
            let (before, after) = pair(seed);
            let (indices, from) = compiled(&before, &Indices::default());
            let (_, to) = compiled(&after, &indices);
            let mut state = BTreeMap::new();
            for step in changes(&state, &to.objects) {
                let Change::Put(object) = &step else { panic!("nothing to delete") };
                prop_assert!(references(object).iter().all(|id| state.contains_key(id)), "{:?}", object);
                apply(&mut state, &step);
            }
            let mut state = from.objects.clone();
            for step in changes(&from.objects, &BTreeMap::new()) {
                apply(&mut state, &step);
                prop_assert!(state.values().all(|object| !references(object).contains(&step.id())), "{:?}", step);
            }
            prop_assert!(state.is_empty());
        }
    }

    #[test]
    fn without_a_difference_there_is_nothing_to_do() {
        let (config, _) = pair(3);
        let (indices, compiled_once) = compiled(&config, &Indices::default());
        let (again, compiled_twice) = compiled(&config, &indices);
        assert_eq!(again, indices);
        assert_eq!(changes(&compiled_once.objects, &compiled_twice.objects), []);
    }
}
