// SPDX-License-Identifier: Apache-2.0
//! Everything a worker consults, as of one commit.

use std::sync::Arc;

use crate::neighbors::Pin;
use crate::{Addresses, Neighbors, Ports, Protections, Quality, Routes, Sas, Shadow, Spds, Tunnels};

/// Immutable; workers hold an `Arc` of it and take another one between two bursts.
pub struct Generation {
    /// Counts up with every commit.
    pub number: u64,
    /// Settings of ports.
    pub ports: Ports,
    /// Addresses of ours.
    pub addresses: Addresses,
    /// Longest-prefix match.
    pub routes: Routes,
    /// GRE tunnels.
    pub tunnels: Tunnels,
    /// ESP endpoint pairs.
    pub protections: Protections,
    /// The SPD of each port.
    pub spds: Spds,
    /// The SAD as configured.
    pub sas: Sas,
    /// What is scheduled, and how.
    pub quality: Quality,
    /// What it was compiled from.
    pub(crate) source: Shadow,
    /// Keep the slots of next hops and of static neighbours.
    pub(crate) route_pins: Arc<[Pin]>,
    pub(crate) static_pins: Arc<[Pin]>,
}

impl Generation {
    /// The generation before the first commit: no port is up, nothing is known.
    #[must_use]
    pub fn empty() -> Generation {
        let source = Shadow::default();
        Generation {
            number: 0,
            ports: Ports::build(&source.ports, &source.addresses),
            addresses: Addresses::build(&source.addresses),
            routes: Routes::build(&std::collections::BTreeMap::new()),
            tunnels: Tunnels::default(),
            protections: Protections::default(),
            spds: Spds::build(&source.ports, &source.policies),
            sas: Sas::default(),
            quality: Quality::default(),
            source,
            route_pins: Arc::from([]),
            static_pins: Arc::from([]),
        }
    }

    /// The state it was compiled from: where the next transaction starts.
    #[must_use]
    pub fn wanted(&self) -> &Shadow {
        &self.source
    }

    /// Sets the static neighbours of this generation, and makes those that only `previous` had ordinary ones. Called by
    /// the commit that makes this generation current, right before the workers switch.
    pub fn switch_neighbors(&self, previous: Option<&Generation>, neighbors: &Neighbors) {
        let wanted = &self.source.neighbors;
        let before = previous.into_iter().flat_map(|previous| previous.source.neighbors.keys());
        for (port, address) in before.filter(|key| !wanted.contains_key(key)) {
            neighbors.remove_static(*port, address);
        }
        for neighbor in wanted.values() {
            // Their slots were reserved when this generation was compiled.
            let _ = neighbors.set_static(neighbor.port, &neighbor.address, neighbor.mac);
        }
    }
}

impl core::fmt::Debug for Generation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Generation").field("number", &self.number).finish_non_exhaustive()
    }
}
