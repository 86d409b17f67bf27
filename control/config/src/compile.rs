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

#[cfg(test)]
mod tests {
    use messages::{IpPrefix, PortIndex, SaIndex};

    use super::*;
    use crate::{EnvironmentPort, sample};

    const FULL: &str = include_str!("../tests/full.toml");

    fn full() -> Config {
        Config::parse(FULL, "full.toml").unwrap_or_else(|error| panic!("{error}"))
    }

    fn environment() -> Environment {
        let port = |name: &str, mtu_max| EnvironmentPort { name: name.into(), mtu_max, is_tagged: false };
        Environment {
            ports: vec![port("lan", 1500), port("wan", 1400)],
            workers: 2,
            sas_max: 3,
            tunnels_max: 2,
        }
    }

    /// What is said of `full.toml` for an environment that was changed.
    fn said(change: impl FnOnce(&mut Environment)) -> Vec<String> {
        let (config, mut environment) = (full(), environment());
        change(&mut environment);
        let indices = Indices::default().allocate(&config);
        compile(&config, &indices, &environment, &sample::Keys)
            .map_or_else(|problems| problems.sentences(), |_| Vec::new())
    }

    #[test]
    fn what_does_not_fit_the_dataplane_is_named() {
        assert_eq!(said(|_| {}), [""; 0]);
        assert_eq!(
            said(|it| it.ports[1].name = "uplink".into()),
            ["port wan: name: the dataplane has no such port; its dataplane.toml has \"lan\", \"uplink\""]
        );
        assert_eq!(
            said(|it| it.ports[1].mtu_max = 1300),
            [
                "port wan: mtu: 1400 is more than the 1300 that the dataplane opened the port with; lower it, or raise mtu_max in dataplane.toml"
            ]
        );
        assert_eq!(
            said(|it| it.workers = 1),
            ["sa inbound 0x00001001: owner: the dataplane has no worker 1; give 0 to 0, or leave it out"]
        );
        assert_eq!(
            said(|it| (it.sas_max, it.tunnels_max) = (2, 1)),
            [
                "[[tunnel]]: there are 2, but the dataplane was started with room for 1; raise tunnels_max in dataplane.toml and restart it, or delete some",
                "[[sa]]: there are 3, but the dataplane was started with room for 2; raise sas_max in dataplane.toml and restart it, or delete some"
            ]
        );
    }

    #[test]
    fn the_mtu_is_the_dataplanes_unless_it_is_configured() {
        let (config, indices) = (full(), Indices::default().allocate(&full()));
        let compiled = compile(&config, &indices, &environment(), &sample::Keys).unwrap();
        let mtus = compiled.objects.values().filter_map(|object| match object {
            Object::Port(port) => Some((port.port, port.mtu)),
            _ => None,
        });
        assert_eq!(mtus.collect::<Vec<_>>(), [(PortIndex(0), 1500), (PortIndex(1), 1400)]);
    }

    #[test]
    fn defaults_become_values() {
        let (config, indices) = (full(), Indices::default().allocate(&full()));
        let compiled = compile(&config, &indices, &environment(), &sample::Keys).unwrap();
        let sa = |name: &str| match &compiled.objects[&ObjectId::Sa(SaIndex(indices.sas[name]))] {
            Object::Sa(sa) => sa.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(sa("inbound 0x00001001").replay_window, 64);
        assert_eq!(sa("inbound 0x00002002").replay_window, 0);
        assert_eq!(sa("outbound 0x00001001").replay_window, 0);
        let mut plain = full();
        plain.sas[2].replay_window = None;
        let compiled = compile(&plain, &indices, &environment(), &sample::Keys).unwrap();
        let Object::Sa(sa) = &compiled.objects[&ObjectId::Sa(SaIndex(2))] else { panic!() };
        assert_eq!((sa.replay_window, sa.key.icv_bytes, sa.esn, sa.owner), (1024, 16, false, None));
        let discard = ObjectId::Route(IpPrefix { address: "10.0.0.0".parse().unwrap(), length: 8 });
        assert!(
            matches!(&compiled.objects[&discard], Object::Route(route) if route.target == messages::RouteTarget::Discard)
        );
    }

    #[test]
    fn numbers_of_another_configuration_are_refused() {
        let indices = Indices::default();
        let problems = compile(&full(), &indices, &environment(), &sample::Keys).unwrap_err();
        assert!(problems.sentences().iter().any(|said| said.contains("has no number")), "{problems}");
    }

    struct Same;

    impl KeySource for Same {
        fn secret(&self, sa: &SaEntry) -> Result<Secret, String> {
            match sa.spi {
                0x2002 => Err("key file keys/branch-8-in.key: no such file".into()),
                _ => Ok(Secret::from_keymat(&[7; 36]).unwrap()),
            }
        }
    }

    #[test]
    fn a_key_that_cannot_be_had_or_serves_twice_is_named() {
        let (config, indices) = (full(), Indices::default().allocate(&full()));
        let problems = compile(&config, &indices, &environment(), &Same).unwrap_err();
        assert_eq!(
            problems.sentences(),
            [
                "sa inbound 0x00001001: key_id: is the same key and salt as that of sa outbound 0x00001001, which would use nonces twice (RFC 4106 §2); give every SA a key of its own",
                "sa inbound 0x00002002: key_file: key file keys/branch-8-in.key: no such file"
            ]
        );
    }

    #[test]
    fn what_follows_from_a_problem_is_not_told_beside_it() {
        let mut config = full();
        // Its tunnel and its SAs stand on it.
        config.protections[0].local = "192.0.2.77".parse().unwrap();
        config.tunnels[1].source = "192.0.2.78".parse().unwrap();
        let problems = config.check().unwrap_err();
        assert_eq!(
            problems.sentences(),
            [
                "protection branch-7: its local endpoint 192.0.2.77 is no address of ours; add it to a port or to loopbacks",
                "tunnel branch-8: its source 192.0.2.78 is no address of ours; add it to a port or to loopbacks"
            ]
        );
    }
}
