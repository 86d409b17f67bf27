// SPDX-License-Identifier: Apache-2.0
//! The digest of a state: equal digests mean that there is nothing to send.

use std::collections::BTreeMap;

use messages::{Digest, Key, MESSAGE_BYTES_MAX, Object, ObjectId, Sa, Secret, encode};
use sha2::{Digest as _, Sha256};

/// Sets these digests apart from any other use of SHA-256, and versions of what is digested from each other.
const LABEL: &[u8] = b"greyhound state v1";

/// SHA-256 over all objects in the order of their ids, with fingerprints in place of keys.
///
/// # Panics
/// Never: every object fits a message.
#[must_use]
pub fn digest(objects: &BTreeMap<ObjectId, Object>) -> Digest {
    let mut hash = Sha256::new_with_prefix(LABEL);
    for object in objects.values() {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let encoded = match object {
            Object::Sa(sa) => encode(&Object::Sa(without_key(sa)), &mut buffer),
            other => encode(other, &mut buffer),
        };
        let encoded = encoded.expect("messages tests that its largest objects fit");
        hash.update((encoded.len() as u64).to_le_bytes());
        hash.update(encoded);
        if let Object::Sa(sa) = object {
            hash.update(sa.key.secret.fingerprint().0);
        }
    }
    Digest(hash.finalize().into())
}

/// The SA with a key of zeros.
fn without_key(sa: &Sa) -> Sa {
    let secret = Secret::from_keymat(&[0; 20]).expect("20 bytes are the shortest keying material");
    Sa { key: Key { secret, icv_bytes: sa.key.icv_bytes }, ..*sa }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Indices;
    use crate::sample::Shape;
    use crate::testing::{compiled, pair, sample};

    proptest! {
        #[test]
        fn digests_are_equal_where_states_are(seed: u64) {
            let (before, after) = pair(seed);
            let (indices, from) = compiled(&before, &Indices::default());
            let (_, to) = compiled(&after, &indices);
            prop_assert_eq!(from.digest == to.digest, from.objects == to.objects);
            prop_assert_eq!(digest(&to.objects), to.digest);
        }
    }

    #[test]
    fn another_key_is_another_state() {
        let (_, mut state) = compiled(&sample(5, &Shape::default()), &Indices::default());
        let before = state.digest;
        let key = state.objects.values_mut().find_map(|object| match object {
            Object::Sa(sa) => Some(&mut sa.key),
            _ => None,
        });
        let key = key.unwrap();
        // Of the same length, so that nothing but its fingerprint tells it.
        let mut keymat = [key.secret.key(), key.secret.salt()].concat();
        keymat[0] ^= 1;
        key.secret = Secret::from_keymat(&keymat).unwrap();
        assert_ne!(digest(&state.objects), before);
    }

    #[test]
    fn nothing_has_a_digest_too() {
        let (_, state) = compiled(&sample(5, &Shape::default()), &Indices::default());
        assert_ne!(digest(&BTreeMap::new()), state.digest);
    }
}
