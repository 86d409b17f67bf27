// SPDX-License-Identifier: Apache-2.0
//! Indices: what must not be mixed up gets a type of its own.
//!
//! Control hands out the indices, dense from 0, so that the dataplane can use them as array indices.

use serde::{Deserialize, Serialize};

macro_rules! index {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The index as an array index.
            #[inline]
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index! {
    /// A port, in the order of `dataplane.toml`.
    PortIndex(u16)
}
index! {
    /// A GRE tunnel.
    TunnelIndex(u32)
}
index! {
    /// A protection: one pair of ESP endpoints with its SAs.
    ProtectionIndex(u32)
}
index! {
    /// A security association, inbound or outbound.
    SaIndex(u32)
}
index! {
    /// An SPD entry; unique, not its place in the order.
    PolicyIndex(u32)
}
index! {
    /// A class-map: what makes a packet one of a class.
    ClassMapIndex(u32)
}
index! {
    /// A map of DSCPs.
    DscpMapIndex(u32)
}
index! {
    /// A policy-map: classes and how they are served.
    PolicyMapIndex(u32)
}
index! {
    /// A worker thread of the dataplane.
    WorkerId(u16)
}

/// One-way fingerprint of key ‖ salt: SHA-256 under a label of its own. Names a key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub [u8; 32]);

/// SHA-256 over the wanted state; equal digests mean that there is nothing to send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

macro_rules! hex_prefix_debug {
    ($name:ident) => {
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

hex_prefix_debug!(Fingerprint);
hex_prefix_debug!(Digest);
