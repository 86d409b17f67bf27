// SPDX-License-Identifier: Apache-2.0
//! The first word on the Unix socket, sent by the dataplane together with the shared memory.

use serde::{Deserialize, Serialize};

use crate::{CountersLayout, Digest};

/// Version of everything in this crate; a mismatch is refused.
pub const PROTOCOL_VERSION: u32 = 4;

/// The bytes in front of a greeting: magic, version, length of the body.
pub const PREAMBLE_BYTES: usize = 12;

/// The longest body of a greeting.
const GREETING_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 4] = *b"GHND";

/// A port as the dataplane opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloPort {
    /// Its name in `dataplane.toml`.
    pub name: String,
    /// Its device string.
    pub device: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The largest IP packet its buffers and device take, in bytes.
    pub mtu_max: u16,
    /// The VLAN whose 802.1Q tag its frames have; 0: a tag with a priority and no VLAN.
    pub vlan: Option<u16>,
}

/// What a control process learns when it connects. The order of the file descriptors that come with it:
/// request ring, event ring, counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the dataplane.
    pub version: u32,
    /// Process id of the dataplane.
    pub pid: u32,
    /// The generation that runs; 0 if nothing was ever committed.
    pub generation: u64,
    /// Digest of the state that runs, as control gave it.
    pub digest: Option<Digest>,
    /// Name of the AEAD engine.
    pub engine: String,
    /// CPU of each worker, in order.
    pub worker_cpus: Vec<u32>,
    /// Cycles of the time stamp counter a second, for worker load.
    pub cycles_per_second: u64,
    /// The ports, in order.
    pub ports: Vec<HelloPort>,
    /// How many SAs this dataplane was sized for.
    pub sas_max: u32,
    /// How many tunnels.
    pub tunnels_max: u32,
    /// Records in each ring.
    pub ring_records: u32,
    /// Where each counter lies in the counters memory.
    pub counters: CountersLayout,
}

/// What a peer that connects is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    /// Welcome.
    Hello(Hello),
    /// Go away.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// Why a greeting was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// Something else answers on this socket.
    #[error("this is not the socket of a Greyhound dataplane")]
    NotGreyhound,
    /// Another version of Greyhound.
    #[error(
        "the dataplane speaks version {theirs} of the control protocol, this program version {ours}: install the same release of both"
    )]
    Version {
        /// The dataplane's version.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The body is none.
    #[error("the dataplane's greeting could not be decoded")]
    Malformed,
}

impl Greeting {
    /// Preamble and body, as they go over the socket.
    ///
    /// # Errors
    /// [`GreetingError::Malformed`] if it is longer than any greeting may be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GreetingError> {
        let body = postcard::to_allocvec(self).map_err(|_| GreetingError::Malformed)?;
        let length = u32::try_from(body.len()).map_err(|_| GreetingError::Malformed)?;
        if body.len() > GREETING_BYTES_MAX {
            return Err(GreetingError::Malformed);
        }
        let version = PROTOCOL_VERSION.to_le_bytes();
        Ok([&MAGIC[..], &version, &length.to_le_bytes(), &body].concat())
    }

    /// Length of the body that follows `preamble`, in bytes.
    ///
    /// # Errors
    /// Every [`GreetingError`].
    pub fn body_bytes(preamble: &[u8; PREAMBLE_BYTES]) -> Result<usize, GreetingError> {
        let [a, b, c, d, version @ .., e, f, g, h] = *preamble;
        if [a, b, c, d] != MAGIC {
            return Err(GreetingError::NotGreyhound);
        }
        let theirs = u32::from_le_bytes(version);
        if theirs != PROTOCOL_VERSION {
            return Err(GreetingError::Version { theirs, ours: PROTOCOL_VERSION });
        }
        match usize::try_from(u32::from_le_bytes([e, f, g, h])) {
            Ok(bytes) if bytes <= GREETING_BYTES_MAX => Ok(bytes),
            _ => Err(GreetingError::Malformed),
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`GreetingError::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, GreetingError> {
        crate::decode(body).map_err(|_| GreetingError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting::Refused { reason: "another control process is connected".into() }
    }

    #[test]
    fn a_greeting_comes_back() {
        let bytes = greeting().to_bytes().unwrap();
        let (preamble, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(Greeting::body_bytes(preamble), Ok(body.len()));
        assert_eq!(Greeting::parse(body), Ok(greeting()));
    }

    #[test]
    fn another_version_is_named_before_anything_is_decoded() {
        let mut bytes = greeting().to_bytes().unwrap();
        bytes[4] = 9;
        let ours = PROTOCOL_VERSION;
        assert_eq!(
            Greeting::body_bytes(bytes.first_chunk().unwrap()),
            Err(GreetingError::Version { theirs: 9, ours })
        );
        bytes[0] = b'X';
        assert_eq!(Greeting::body_bytes(bytes.first_chunk().unwrap()), Err(GreetingError::NotGreyhound));
    }
}
