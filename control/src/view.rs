// SPDX-License-Identifier: Apache-2.0
//! What can be told without asking anybody: the state as last published by [`core`](crate::core), and the dataplane's
//! counters, which are read live from shared memory.

use std::sync::Arc;
use std::time::Instant;

use config::Environment;
use messages::{DropReason, Hello, PortCounter, PortIndex, WorkerCounter, WorkerId};
use serde::{Deserialize, Serialize};
use sysmem::CounterReader;

use crate::store::Saved;

/// How the configuration and the dataplane stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is configured.
    #[default]
    Empty,
    /// The dataplane runs the configuration.
    Committed,
    /// The dataplane is not connected; it will be filled when it is.
    Pending,
    /// The configuration cannot be compiled, or the dataplane refused it; the dataplane runs what it ran before.
    Refused,
    /// The dataplane runs a state that this control knows nothing of, and there is no configuration to replace it.
    Foreign,
}

/// What is published at each change.
#[derive(Clone, Default)]
pub struct View {
    /// The running configuration.
    pub saved: Arc<Saved>,
    /// Whether the dataplane runs it.
    pub phase: Phase,
    /// Why not.
    pub trouble: Vec<String>,
    /// The dataplane, while connected.
    pub dataplane: Option<Arc<Dataplane>>,
    /// The generation that it runs.
    pub generation: Option<u64>,
}

/// A dataplane that is connected.
pub struct Dataplane {
    /// What it said of itself.
    pub hello: Hello,
    /// Its ports and sizes.
    pub environment: Environment,
    /// When it was connected.
    pub since: Instant,
    counters: CounterReader,
}

impl Dataplane {
    /// The dataplane that said `hello`.
    #[must_use]
    pub fn new(hello: &Hello, counters: &CounterReader) -> Self {
        let environment = Environment::from(hello);
        Self { hello: hello.clone(), environment, since: Instant::now(), counters: counters.clone() }
    }

    /// Its workers.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.hello.counters.workers).map(WorkerId)
    }

    /// A counter of a worker.
    #[must_use]
    pub fn worker(&self, worker: WorkerId, counter: WorkerCounter) -> u64 {
        self.counters.read(self.hello.counters.worker(worker, counter)).unwrap_or(0)
    }

    /// Packets that a worker dropped for a reason.
    #[must_use]
    pub fn drops(&self, worker: WorkerId, reason: DropReason) -> u64 {
        self.counters.read(self.hello.counters.drops(worker, reason)).unwrap_or(0)
    }

    /// A counter of a port, over all workers.
    #[must_use]
    pub fn port(&self, port: PortIndex, counter: PortCounter) -> u64 {
        let of = |worker| self.counters.read(self.hello.counters.port(worker, port, counter)).unwrap_or(0);
        self.workers().map(of).fold(0, u64::wrapping_add)
    }
}
