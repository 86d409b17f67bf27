// SPDX-License-Identifier: Apache-2.0
//! From a configuration to what the dataplane is sent, asking the code that decides there what it would say.

use std::collections::{BTreeMap, HashMap, HashSet};

use messages::{Digest, Object, ObjectId, Refusal, Secret};
use tables::{Neighbors, Shadow};

use crate::assemble::{Assembled, assemble};
use crate::check::check;
use crate::explain::{cause, subject};
use crate::problem::{Place, Problem};
use crate::{Config, Environment, Indices, KeySource, Names, Problems, SaEntry, digest};

/// How often the tables are compiled in search of all that is wrong.
const ATTEMPTS: usize = 16;
/// The most neighbours that a table takes.
const NEIGHBORS_MAX: usize = 1 << 19;

/// What the dataplane is sent.
#[derive(Clone)]
pub struct Compiled {
    /// All objects, keys included.
    pub objects: BTreeMap<ObjectId, Object>,
    /// Their [`digest`].
    pub digest: Digest,
}

impl core::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (objects, digest) = (self.objects.len(), self.digest);
        f.debug_struct("Compiled").field("objects", &objects).field("digest", &digest).finish()
    }
}

/// Makes objects of `config`, with the numbers of `indices` ([`Indices::allocate`]), for the dataplane `environment`.
///
/// # Errors
/// All problems that were found: in the entries themselves; if there are none, with ports, sizes and keys; if there are
/// none either, those that the dataplane's own tables have.
pub fn compile(
    config: &Config,
    indices: &Indices,
    environment: &Environment,
    keys: &dyn KeySource,
) -> Result<Compiled, Problems> {
    let objects = checked_objects(config, indices, environment, keys)?;
    Ok(Compiled { digest: digest(&objects), objects })
}

fn checked_objects(
    config: &Config,
    indices: &Indices,
    environment: &Environment,
    keys: &dyn KeySource,
) -> Result<BTreeMap<ObjectId, Object>, Problems> {
    check(config).into_result()?;
    let Assembled { objects, places, problems } = assemble(config, indices, environment, keys);
    problems.into_result()?;
    what_if(&objects, &places, indices, environment).into_result()?;
    Ok(objects)
}

impl Config {
    /// Everything that can be said without the dataplane and without keys.
    ///
    /// # Errors
    /// All problems that were found.
    pub fn check(&self) -> Result<(), Problems> {
        let indices = Indices::default().allocate(self);
        checked_objects(self, &indices, &Environment::assumed(self), &AssumedKeys::new(self)).map(drop)
    }
}

/// A key for each SA, all different, while the real ones are not known. They never leave this module.
struct AssumedKeys {
    numbers: HashMap<crate::SaName, u64>,
}

impl AssumedKeys {
    fn new(config: &Config) -> Self {
        Self { numbers: config.sas.iter().map(SaEntry::name).zip(0..).collect() }
    }
}

impl KeySource for AssumedKeys {
    fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
        let number = self.numbers.get(&sa.name()).copied().unwrap_or(u64::MAX);
        let mut keymat = [0; 20];
        keymat[..8].copy_from_slice(&number.to_le_bytes());
        Secret::from_keymat(&keymat).ok_or_else(|| "no key".into())
    }
}

/// Puts all objects into the dataplane's tables and compiles them. What is refused is taken out and the rest tried
/// again, so that more than the first problem is found.
fn what_if(
    objects: &BTreeMap<ObjectId, Object>,
    places: &HashMap<ObjectId, Place>,
    indices: &Indices,
    environment: &Environment,
) -> Problems {
    let (limits, names) = (environment.limits(), Names::new(indices, environment));
    let mut problems = Problems::default();
    let mut complain = |refusal: &Refusal| {
        let id = subject(refusal);
        let place = id.and_then(|id| places.get(&id)).cloned();
        let item = id.map_or_else(|| "the configuration".to_owned(), |id| names.of(&id));
        problems.add(Problem::new(place, item, names.reason(refusal)));
    };
    let mut shadow = Shadow::default();
    let mut refused = HashSet::new();
    for (id, object) in objects {
        if let Err(refusal) = shadow.put(object, &limits) {
            complain(&refusal);
            refused.insert(*id);
        }
    }
    for _ in 0..ATTEMPTS {
        let neighbors = Neighbors::new(objects.len().clamp(64, NEIGHBORS_MAX));
        let Err(refusal) = shadow.compile(1, &limits, None, &neighbors) else { break };
        if !cause(&refusal).is_some_and(|cause| refused.contains(&cause)) {
            complain(&refusal);
        }
        match subject(&refusal) {
            Some(id) if others_stand_without(&id) && shadow.delete(id).is_ok() => refused.insert(id),
            _ => break,
        };
    }
    problems
}

/// Whether the rest still means the same when this object is left out.
fn others_stand_without(id: &ObjectId) -> bool {
    !matches!(id, ObjectId::Port(_) | ObjectId::Address(_))
}
