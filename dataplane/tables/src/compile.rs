// SPDX-License-Identifier: Apache-2.0
//! From the wanted state to a generation.
//!
//! Two parts. The *frame* is ports, addresses, routes and SPDs: parts that are equal in the previous generation are
//! shared with it, others are built anew. In the frame stand protections, tunnels and SAs. While the frame stays, only
//! those are built that changed or that depend on what changed:
//!
//! ```text
//! SA ──▶ its protection, if outbound ──▶ the tunnels that need this protection
//! ```
//!
//! When the frame changes, all tunnels and protections are built anew: their egress and verdict come from it.

mod frame;
mod ways;

use std::collections::BTreeSet;
use std::sync::Arc;

use messages::{ObjectId, ProtectionIndex, Refusal, TunnelIndex};

use crate::chunked::Chunked;
use crate::{Generation, Limits, Neighbors, Protections, SaConfig, Sas, Shadow, Tunnels};
use frame::Frame;
use ways::Ways;

/// See [`Shadow::compile`].
pub(crate) fn compile(
    wanted: &Shadow,
    number: u64,
    limits: &Limits,
    previous: Option<&Generation>,
    neighbors: &Neighbors,
) -> Result<Generation, Refusal> {
    let base = Base::new(previous);
    frame::check(wanted, &base)?;
    let frame = Frame::build(wanted, previous, neighbors)?;
    let (sas, touched) = sas(wanted, &base)?;
    let frame_stays = base.shares_frame(wanted);
    let ways = Ways { frame: &frame, sas: &sas, neighbors, workers: limits.workers };
    let (protections, touched) = protections(wanted, &base, &ways, frame_stays, touched)?;
    let tunnels = tunnels(wanted, &base, &ways, &protections, frame_stays, &touched)?;
    Ok(Generation {
        number,
        ports: frame.ports,
        addresses: frame.addresses,
        routes: frame.routes,
        tunnels,
        protections,
        spds: frame.spds,
        sas,
        source: wanted.clone(),
        route_pins: frame.route_pins,
        static_pins: frame.static_pins,
    })
}

/// What to start from: the previous generation, or nothing.
pub(crate) struct Base {
    source: Shadow,
    sas: Sas,
    protections: Protections,
    tunnels: Tunnels,
}

impl Base {
    fn new(previous: Option<&Generation>) -> Base {
        match previous {
            None => Base {
                source: Shadow::default(),
                sas: Sas::default(),
                protections: Protections::default(),
                tunnels: Tunnels::default(),
            },
            Some(previous) => Base {
                source: previous.source.clone(),
                sas: previous.sas.clone(),
                protections: previous.protections.clone(),
                tunnels: previous.tunnels.clone(),
            },
        }
    }

    /// Whether everything is equal that egress and verdict of a tunnel come from.
    fn shares_frame(&self, wanted: &Shadow) -> bool {
        same(&self.source.ports, &wanted.ports)
            && same(&self.source.addresses, &wanted.addresses)
            && same(&self.source.routes, &wanted.routes)
            && same(&self.source.policies, &wanted.policies)
    }

    /// Whether nothing that others may name is gone.
    fn lost_nothing(&self, wanted: &Shadow) -> bool {
        vanished(&self.source.tunnels, &wanted.tunnels).next().is_none()
            && vanished(&self.source.protections, &wanted.protections).next().is_none()
    }
}

/// Equal, and most often one and the same.
pub(crate) fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn vanished<T: PartialEq + Clone>(before: &Chunked<T>, after: &Chunked<T>) -> impl Iterator<Item = usize> {
    before.differences(after).into_iter().filter(|index| after.get(*index).is_none())
}

/// The SAs, and the protections whose outbound SA is another one.
fn sas(wanted: &Shadow, base: &Base) -> Result<(Sas, Vec<ProtectionIndex>), Refusal> {
    let refers = |sa: &SaConfig| match wanted.protections.get(sa.protection.index()) {
        Some(_) => Ok(()),
        None => Err(Refusal::Dangling(ObjectId::Sa(sa.sa), ObjectId::Protection(sa.protection))),
    };
    if vanished(&base.source.protections, &wanted.protections).next().is_some() {
        wanted.sas().try_for_each(refers)?;
    } else {
        let changed = base.source.sas.differences(&wanted.sas);
        changed.into_iter().filter_map(|index| wanted.sas.get(index)).try_for_each(refers)?;
    }
    let mut sas = base.sas.clone();
    let touched = sas.update(&wanted.sas)?;
    Ok((sas, touched))
}

/// The protections, and which of them are new or changed.
fn protections(
    wanted: &Shadow,
    base: &Base,
    ways: &Ways<'_>,
    frame_stays: bool,
    touched: Vec<ProtectionIndex>,
) -> Result<(Protections, BTreeSet<usize>), Refusal> {
    if !frame_stays {
        let mut protections = Protections::default();
        for (index, config) in wanted.protections.iter() {
            protections.entries.set(index, Some(ways.protection(config)?));
        }
        return Ok((protections, BTreeSet::new()));
    }
    let mut protections = base.protections.clone();
    let changed = base.source.protections.differences(&wanted.protections);
    let dirty: BTreeSet<usize> =
        changed.into_iter().chain(touched.iter().map(|index| index.index())).collect();
    for index in &dirty {
        let entry = wanted.protections.get(*index).map(|config| ways.protection(config)).transpose()?;
        protections.entries.set(*index, entry);
    }
    Ok((protections, dirty))
}

/// The tunnels. Those that changed leave the indices before they enter again: addresses may pass from one to another.
fn tunnels(
    wanted: &Shadow,
    base: &Base,
    ways: &Ways<'_>,
    protections: &Protections,
    frame_stays: bool,
    touched: &BTreeSet<usize>,
) -> Result<Tunnels, Refusal> {
    let build = |config| ways.tunnel(config, protections, &base.tunnels);
    let conflict = |config: &messages::Tunnel, other| {
        Refusal::Conflict(ObjectId::Tunnel(config.tunnel), ObjectId::Tunnel(other))
    };
    if !frame_stays {
        let mut tunnels = Tunnels::default();
        for config in wanted.tunnels() {
            tunnels.insert(build(config)?).map_err(|other| conflict(config, other))?;
        }
        return Ok(tunnels);
    }
    let mut tunnels = base.tunnels.clone();
    let changed = base.source.tunnels.differences(&wanted.tunnels);
    for tunnel in &changed {
        tunnels.remove(tunnel_index(*tunnel));
    }
    for config in changed.iter().filter_map(|tunnel| wanted.tunnels.get(*tunnel)) {
        tunnels.insert(build(config)?).map_err(|other| conflict(config, other))?;
    }
    for protection in touched.iter().map(|index| ProtectionIndex(index_of(*index))) {
        for tunnel in base.tunnels.of_protection(protection) {
            if changed.binary_search(&tunnel.index()).is_err()
                && let Some(config) = wanted.tunnels.get(tunnel.index())
            {
                tunnels.replace(build(config)?);
            }
        }
    }
    Ok(tunnels)
}

fn tunnel_index(index: usize) -> TunnelIndex {
    TunnelIndex(index_of(index))
}

/// Indices come from 32-bit ones.
fn index_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
