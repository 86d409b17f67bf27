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
//! When routes changed and nothing else of the frame, those are built as well whose packets leave another way than
//! before. When more changed, all tunnels and protections are built anew.

mod frame;
mod ways;

use std::collections::BTreeSet;
use std::sync::Arc;

use messages::{Field, ObjectId, ProtectionIndex, Refusal, TunnelIndex};

use crate::chunked::Chunked;
use crate::quality;
use crate::{Generation, Limits, Neighbors, Protections, SaConfig, Sas, Shadow, Tunnel, Tunnels};
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
    let ways = Ways { frame: &frame, sas: &sas, neighbors, workers: limits.workers };
    let step = Step { wanted, base: &base, ways: &ways, change: base.frame_change(wanted) };
    let (protections, touched) = step.protections(&touched)?;
    let tunnels = step.tunnels(&protections, &touched)?;
    let quality = quality::Inputs { wanted, limits, tunnels: &tunnels, previous }.build()?;
    Ok(Generation {
        number,
        ports: frame.ports,
        addresses: frame.addresses,
        routes: frame.routes,
        tunnels,
        protections,
        spds: frame.spds,
        sas,
        quality,
        source: wanted.clone(),
        route_pins: frame.route_pins,
        static_pins: frame.static_pins,
    })
}

/// How much of the frame changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameChange {
    Nothing,
    Routes,
    More,
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

    /// Egress and verdict of tunnels and protections come from the frame.
    fn frame_change(&self, wanted: &Shadow) -> FrameChange {
        let all_but_routes = same(&self.source.ports, &wanted.ports)
            && same(&self.source.addresses, &wanted.addresses)
            && same(&self.source.policies, &wanted.policies)
            && same(&self.source.dscp_maps, &wanted.dscp_maps);
        match (all_but_routes, same(&self.source.routes, &wanted.routes)) {
            (true, true) => FrameChange::Nothing,
            (true, false) => FrameChange::Routes,
            (false, _) => FrameChange::More,
        }
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
        Some(protection) if !protection.class_groups.has(sa.class_group) => {
            Err(Refusal::OutOfRange(ObjectId::Sa(sa.sa), Field::ClassGroup))
        }
        Some(_) => Ok(()),
        None => Err(Refusal::Dangling(ObjectId::Sa(sa.sa), ObjectId::Protection(sa.protection))),
    };
    let lost_groups = |index: usize| {
        let groups =
            |shadow: &Shadow| shadow.protections.get(index).map(|protection| protection.class_groups);
        groups(&base.source).is_some_and(|before| groups(wanted) != Some(before))
    };
    if base.source.protections.differences(&wanted.protections).into_iter().any(lost_groups) {
        wanted.sas().try_for_each(refers)?;
    } else {
        let changed = base.source.sas.differences(&wanted.sas);
        changed.into_iter().filter_map(|index| wanted.sas.get(index)).try_for_each(refers)?;
    }
    let mut sas = base.sas.clone();
    let touched = sas.update(&wanted.sas)?;
    Ok((sas, touched))
}

/// The step from the previous generation to the next one, inside the frame.
struct Step<'a> {
    wanted: &'a Shadow,
    base: &'a Base,
    ways: &'a Ways<'a>,
    change: FrameChange,
}

impl Step<'_> {
    /// The protections, and which of them were built although the others were not.
    fn protections(&self, touched: &[ProtectionIndex]) -> Result<(Protections, BTreeSet<usize>), Refusal> {
        if self.change == FrameChange::More {
            let mut protections = Protections::default();
            for (index, config) in self.wanted.protections.iter() {
                protections.entries.set(index, Some(self.ways.protection(config)?));
            }
            return Ok((protections, BTreeSet::new()));
        }
        let mut protections = self.base.protections.clone();
        let mut dirty: BTreeSet<usize> = touched.iter().map(|protection| protection.index()).collect();
        dirty.extend(self.base.source.protections.differences(&self.wanted.protections));
        if self.change == FrameChange::Routes {
            let rerouted = self.base.protections.iter().filter(|entry| !self.ways.keeps_protection(entry));
            dirty.extend(rerouted.map(|entry| entry.protection.index()));
        }
        for index in &dirty {
            let config = self.wanted.protections.get(*index);
            protections.entries.set(*index, config.map(|config| self.ways.protection(config)).transpose()?);
        }
        Ok((protections, dirty))
    }

    /// The tunnels. Those whose delivery or protection may be another leave the indices before any enters again:
    /// addresses may pass from one to another.
    fn tunnels(&self, protections: &Protections, touched: &BTreeSet<usize>) -> Result<Tunnels, Refusal> {
        let build = |config: &messages::Tunnel| self.ways.tunnel(config, protections, &self.base.tunnels);
        let insert = |tunnels: &mut Tunnels, config: &messages::Tunnel| {
            let conflict =
                |other| Refusal::Conflict(ObjectId::Tunnel(config.tunnel), ObjectId::Tunnel(other));
            tunnels.insert(build(config)?).map_err(conflict)
        };
        if self.change == FrameChange::More {
            let mut tunnels = Tunnels::default();
            self.wanted.tunnels().try_for_each(|config| insert(&mut tunnels, config))?;
            return Ok(tunnels);
        }
        let mut tunnels = self.base.tunnels.clone();
        let mut dirty: BTreeSet<usize> =
            self.base.source.tunnels.differences(&self.wanted.tunnels).into_iter().collect();
        if self.change == FrameChange::Routes {
            let keeps = |tunnel: &&Tunnel| {
                let config = self.wanted.tunnels.get(tunnel.tunnel.index());
                config.is_some_and(|config| self.ways.keeps_tunnel(tunnel, config, protections))
            };
            let rerouted = self.base.tunnels.iter().filter(|tunnel| !keeps(tunnel));
            dirty.extend(rerouted.map(|tunnel| tunnel.tunnel.index()));
        }
        for tunnel in &dirty {
            tunnels.remove(TunnelIndex(index_of(*tunnel)));
        }
        for config in dirty.iter().filter_map(|tunnel| self.wanted.tunnels.get(*tunnel)) {
            insert(&mut tunnels, config)?;
        }
        for protection in touched.iter().map(|index| ProtectionIndex(index_of(*index))) {
            let users = self.base.tunnels.of_protection(protection).iter();
            for tunnel in users.filter(|tunnel| !dirty.contains(&tunnel.index())) {
                if let Some(config) = self.wanted.tunnels.get(tunnel.index()) {
                    tunnels.replace(build(config)?);
                }
            }
        }
        Ok(tunnels)
    }
}

/// Indices come from 32-bit ones.
fn index_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
