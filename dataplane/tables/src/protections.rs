// SPDX-License-Identifier: Apache-2.0
//! Pairs of ESP endpoints, each with its outbound SA, or one for each class group.

use core::net::IpAddr;
use std::sync::Arc;

use messages::{ClassGroups, EspMode, ProtectionIndex, SaIndex};

use crate::chunked::Chunked;
use crate::encapsulation::{Encapsulation, Verdict};
use crate::groups::ByGroup;
use crate::neighbors::Pin;
use crate::template::IpHeader;

/// A protection.
#[derive(Clone)]
#[repr(C)]
pub struct ProtectionEntry {
    /// For packets that the SPD protects without GRE. In transport mode the template is ESP and IV alone, to be put
    /// behind the packet's own header; the caller makes sure that the packet goes between the two endpoints. With class
    /// groups, that of group 0.
    pub encapsulation: Encapsulation,
    /// Which protection.
    pub protection: ProtectionIndex,
    /// The outbound SA of class group 0.
    pub(crate) outbound: Option<SaIndex>,
    /// Transport or tunnel mode.
    pub mode: EspMode,
    /// Our ESP endpoint.
    pub local: IpAddr,
    /// The peer's ESP endpoint.
    pub remote: IpAddr,
    /// Which packets go under which SA.
    pub(crate) class_groups: ClassGroups,
    /// With class groups, what each of them has instead of `encapsulation`: but for the SA the same.
    pub(crate) by_group: Option<Arc<ByGroup<Encapsulation>>>,
    /// The header that tunnel mode puts in front.
    pub(crate) header: IpHeader,
    /// Keeps the egress neighbour's slot.
    pub(crate) pin: Option<Pin>,
}

impl ProtectionEntry {
    /// How a packet with this ToS or traffic class gets to the wire.
    #[inline]
    #[must_use]
    pub fn way(&self, tos: u8) -> &Encapsulation {
        let of_group = self.by_group.as_ref().and_then(|by_group| by_group.of_tos(tos));
        of_group.unwrap_or(&self.encapsulation)
    }

    /// The outbound SA of a packet with this ToS or traffic class.
    #[inline]
    #[must_use]
    pub fn outbound(&self, tos: u8) -> Option<SaIndex> {
        match (&self.by_group, self.way(tos).verdict) {
            (None, _) => self.outbound,
            (Some(_), Verdict::Protect { sa, .. }) => sa,
            (Some(_), Verdict::Clear | Verdict::Drop(_)) => None,
        }
    }
}

/// The protections.
#[derive(Clone, Default)]
pub struct Protections {
    pub(crate) entries: Chunked<ProtectionEntry>,
}

impl Protections {
    /// A protection.
    #[inline]
    #[must_use]
    pub fn get(&self, protection: ProtectionIndex) -> Option<&ProtectionEntry> {
        self.entries.get(protection.index())
    }

    /// All protections by index.
    pub fn iter(&self) -> impl Iterator<Item = &ProtectionEntry> {
        self.entries.iter().map(|(_, entry)| entry)
    }
}

impl core::fmt::Debug for ProtectionEntry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ProtectionEntry")
            .field("protection", &self.protection)
            .field("mode", &self.mode)
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("outbound", &self.outbound)
            .field("encapsulation", &self.encapsulation)
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Protections {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
