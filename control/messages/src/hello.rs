// SPDX-License-Identifier: Apache-2.0
//! The first word on the Unix socket, sent by the dataplane together with the shared memory.

use serde::{Deserialize, Serialize};

use crate::{CountersLayout, Digest};

/// Version of everything in this crate; a mismatch is refused.
pub const PROTOCOL_VERSION: u32 = 1;

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
