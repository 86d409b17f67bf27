// SPDX-License-Identifier: Apache-2.0
//! What control asks of the dataplane.

use serde::{Deserialize, Serialize};

use crate::{Digest, Object, ObjectId};

/// What a transaction starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The running state: the transaction changes it.
    Running,
    /// Nothing: the transaction replaces the whole state. An SA that is put again with the same SPI, direction,
    /// protection endpoints and key goes on as it is: sequence numbers, window and counters are kept.
    Empty,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum List {
    /// Every SA with its counters, sequence position, limits and fingerprint.
    Sas,
    /// Every tunnel with its counters and the MTU in force.
    Tunnels,
    /// Every neighbour known.
    Neighbors,
    /// Every class of every port and tunnel with a service policy.
    Qos,
}

/// A message from control to dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "a message is decoded in place and consumed at once")]
pub enum Request {
    /// Opens a transaction; one that was open is forgotten.
    Begin {
        /// Chosen by control, echoed in the answer.
        transaction: u32,
        /// What it starts from.
        base: Base,
    },
    /// Adds an object, or replaces the one with the same id.
    Put(Object),
    /// Removes an object.
    Delete(ObjectId),
    /// Compiles what was staged and switches every worker to it, or refuses it whole.
    Commit {
        /// The transaction that was begun.
        transaction: u32,
        /// Digest of the state that results, kept for the next [`crate::Hello`].
        digest: Digest,
    },
    /// As `Commit`, but only checks.
    Check {
        /// The transaction that was begun.
        transaction: u32,
    },
    /// Forgets what was staged.
    Abort,
    /// Asks for a list; answered by its items and [`crate::Event::EndOfList`].
    List {
        /// Chosen by control, echoed in the answer.
        request: u32,
        /// Of what.
        list: List,
    },
}
