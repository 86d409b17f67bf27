// SPDX-License-Identifier: Apache-2.0
//! The ways of packets into tunnels and protections: template, verdict, egress.

use core::net::IpAddr;
use std::sync::Arc;

use messages::{
    ClassGroups, DropReason, DscpMapIndex, EspMode, Field, MssClamp, ObjectId, Protection, ProtectionIndex,
    ReceivedDscp, Refusal,
};
use qos::mark::{DscpMap, DscpMark};
use wire::{Dscp, IpProtocol, ipv4};

use super::frame::Frame;
use crate::encapsulation::ICV_BYTES_DEFAULT;
use crate::groups::ByGroup;
use crate::neighbors::Pin;
use crate::shortcuts::ShortcutIn;
use crate::template::{EspHeader, IpHeader, Parts};
use crate::{
    Egress, Encapsulation, MssLimits, Neighbors, NextHop, NextStep, PacketSelectors, ProtectionEntry,
    Protections, Sas, SpdVerdict, Tunnel, TunnelRuntime, Tunnels, Verdict,
};

/// IP and TCP headers without options, in bytes.
const TCP_OVER_IPV4: u16 = 40;
const TCP_OVER_IPV6: u16 = 60;

pub(super) struct Ways<'a> {
    pub(super) frame: &'a Frame,
    pub(super) sas: &'a Sas,
    pub(super) neighbors: &'a Neighbors,
    pub(super) workers: u16,
}

type Exit = Option<(Egress, Option<Pin>)>;

impl Ways<'_> {
    /// A protection as packets without GRE use it.
    pub(super) fn protection(&self, config: &Protection) -> Result<ProtectionEntry, Refusal> {
        let id = ObjectId::Protection(config.protection);
        self.check_ends(id, &config.local, &config.remote)?;
        let tunnel_mode = (config.mode == EspMode::Tunnel).then(|| outer_header(config));
        let by = |group| {
            let parts = Parts { delivery: None, esp: Some(self.esp(config.protection, group, tunnel_mode)) };
            (parts, self.protect(config.protection, group))
        };
        let (exit, pin) = self.exit(id, &config.remote)?.unzip();
        let Both { encapsulation, by_group } = Both::of(id, (&config.class_groups, None), by, exit, None)?;
        Ok(ProtectionEntry {
            encapsulation,
            protection: config.protection,
            outbound: self.sas.outbound(config.protection, 0).map(|sa| sa.sa),
            class_groups: config.class_groups,
            by_group,
            mode: config.mode,
            local: config.local,
            remote: config.remote,
            header: outer_header(config),
            pin: pin.flatten(),
        })
    }

    /// A tunnel; counters and sequence numbers go on if `before` has it with the same addresses and key.
    pub(super) fn tunnel(
        &self,
        config: &messages::Tunnel,
        protections: &Protections,
        before: &Tunnels,
    ) -> Result<Tunnel, Refusal> {
        let id = ObjectId::Tunnel(config.tunnel);
        self.check_ends(id, &config.source, &config.destination)?;
        let verdict = self.verdict(id, config)?;
        let (verdict, protection) = match verdict {
            SpdVerdict::Protect(protection) => {
                let missing = Refusal::Dangling(id, ObjectId::Protection(protection));
                let entry = protections.get(protection).ok_or(missing)?;
                check_transport(id, config, entry)?;
                (self.protect(protection, 0), Some(entry))
            }
            SpdVerdict::Bypass => (Verdict::Clear, None),
            SpdVerdict::Discard => (Verdict::Drop(DropReason::PolicyDiscard), None),
            SpdVerdict::NoMatch => (Verdict::Drop(DropReason::PolicyNone), None),
        };
        let tunnel_mode = protection.filter(|entry| entry.mode == EspMode::Tunnel);
        let delivery = Some((delivery_header(config), config.gre));
        let header = tunnel_mode.map(|entry| entry.header);
        let by = |group| match protection {
            None => (Parts { delivery, esp: None }, verdict),
            Some(entry) => {
                let esp = Some(self.esp(entry.protection, group, header));
                (Parts { delivery, esp }, self.protect(entry.protection, group))
            }
        };
        let outermost = tunnel_mode.map_or(config.destination, |entry| entry.remote);
        let (exit, pin) = self.exit(id, &outermost)?.unzip();
        let groups = protection.map(|entry| entry.class_groups).unwrap_or_default();
        let outward = config.marks.outward.map(|map| self.dscp_map(id, map)).transpose()?;
        let Both { encapsulation, by_group } =
            Both::of(id, (&groups, outward.as_deref()), by, exit, config.mtu)?;
        let names = |tunnel: &Tunnel| (tunnel.source, tunnel.destination, tunnel.gre.key);
        let same = (config.source, config.destination, config.gre.key);
        let goes_on = before.get(config.tunnel).filter(|old| names(old) == same);
        let mut tunnel = Tunnel {
            encapsulation,
            state: match goes_on {
                Some(old) => Arc::clone(&old.state),
                None => Arc::new(TunnelRuntime::new(self.workers)),
            },
            tunnel: config.tunnel,
            mss: mss(config.mss, encapsulation.mtu),
            strict_source: config.strict_source,
            outward,
            receipt: self.receipt(id, config.marks.receipt)?,
            protection: protection.map(|entry| entry.protection),
            gre: config.gre,
            source: config.source,
            destination: config.destination,
            by_group,
            shortcut_in: None,
            pin: pin.flatten(),
        };
        tunnel.shortcut_in = protection.and_then(|entry| ShortcutIn::of(&tunnel, entry));
        Ok(tunnel)
    }

    fn dscp_map(&self, id: ObjectId, map: DscpMapIndex) -> Result<Arc<DscpMap>, Refusal> {
        let missing = Refusal::Dangling(id, ObjectId::DscpMap(map));
        self.frame.dscp_maps.get(&map).cloned().ok_or(missing)
    }

    /// What a packet that comes out of a tunnel gets for the DSCP of the delivery header; none: it keeps its own.
    fn receipt(&self, id: ObjectId, receipt: ReceivedDscp) -> Result<Option<DscpMark>, Refusal> {
        Ok(match receipt {
            ReceivedDscp::Keep => None,
            ReceivedDscp::Copy => Some(DscpMark::Copy),
            ReceivedDscp::Set(dscp) => {
                Some(DscpMark::Set(Dscp::new(dscp).ok_or(Refusal::OutOfRange(id, Field::Dscp))?))
            }
            ReceivedDscp::Map(map) => Some(DscpMark::Map(self.dscp_map(id, map)?)),
        })
    }

    /// Whether a protection leaves the way it left before.
    pub(super) fn keeps_protection(&self, entry: &ProtectionEntry) -> bool {
        self.keeps_exit(&entry.encapsulation, entry.pin.is_some(), &entry.remote)
    }

    /// Whether nothing about a tunnel changes by the routes: its exit stays, and with it the SPD that was asked. An SPD
    /// that led it into a tunnel mode was that of another port than it leaves by; then only asking again tells.
    pub(super) fn keeps_tunnel(
        &self,
        tunnel: &Tunnel,
        config: &messages::Tunnel,
        protections: &Protections,
    ) -> bool {
        let in_tunnel_mode = tunnel.encapsulation.template.inner.is_some();
        let outermost = match tunnel.protection.filter(|_| in_tunnel_mode) {
            None => config.destination,
            Some(_) if config.protection.is_none() => return false,
            Some(protection) => match protections.get(protection) {
                Some(entry) => entry.remote,
                None => return false,
            },
        };
        self.keeps_exit(&tunnel.encapsulation, tunnel.pin.is_some(), &outermost)
    }

    /// A pin of its own has what leaves to its destination itself; a slot without belongs to a route's next hop.
    fn keeps_exit(&self, encapsulation: &Encapsulation, has_pin: bool, destination: &IpAddr) -> bool {
        match (self.frame.routes.lookup(destination), encapsulation.egress) {
            (Some(NextStep::Port { port, neighbor }), Some(before)) => {
                let same_neighbor = match neighbor {
                    NextHop::Slot(_) => !has_pin && before.neighbor == neighbor,
                    NextHop::Connected => has_pin,
                };
                port == before.port && same_neighbor
            }
            (Some(NextStep::Port { .. }), None) => false,
            (_, before) => before.is_none(),
        }
    }

    /// The near end is ours, the far end is not, and is a host.
    fn check_ends(&self, id: ObjectId, ours: &IpAddr, theirs: &IpAddr) -> Result<(), Refusal> {
        let addresses = &self.frame.addresses;
        if !addresses.is_local(ours) {
            return Err(Refusal::Dangling(id, ObjectId::Address(*ours)));
        }
        if addresses.is_local(theirs) {
            return Err(Refusal::Conflict(id, ObjectId::Address(*theirs)));
        }
        if addresses.is_broadcast(theirs) {
            return Err(Refusal::OutOfRange(id, Field::Address));
        }
        Ok(())
    }

    /// What is to become of a tunnel's packets: tunnel protection is a precompiled SPD entry; without it, the SPD of the
    /// port where the delivery packet would leave decides about GRE between the two ends. Without such a port it does
    /// not matter.
    fn verdict(&self, id: ObjectId, config: &messages::Tunnel) -> Result<SpdVerdict, Refusal> {
        if let Some(protection) = config.protection {
            return Ok(SpdVerdict::Protect(protection));
        }
        let Some((egress, _)) = self.exit(id, &config.destination)? else { return Ok(SpdVerdict::NoMatch) };
        let packet = PacketSelectors {
            local: config.source,
            remote: config.destination,
            protocol: IpProtocol::GRE.0,
            ports: None,
        };
        Ok(self.frame.spds.lookup(egress.port, &packet))
    }

    /// Under the outbound SA of a class group.
    fn protect(&self, protection: ProtectionIndex, group: u8) -> Verdict {
        Verdict::Protect { protection, sa: self.sas.outbound(protection, group).map(|sa| sa.sa) }
    }

    /// ESP by the outbound SA of a class group; without one, with room for what it may be.
    fn esp(&self, protection: ProtectionIndex, group: u8, tunnel_mode: Option<IpHeader>) -> EspHeader {
        match self.sas.outbound(protection, group) {
            Some(sa) => EspHeader { tunnel_mode, spi: sa.spi, icv_bytes: sa.icv_bytes },
            None => EspHeader { tunnel_mode, spi: 0, icv_bytes: ICV_BYTES_DEFAULT },
        }
    }

    /// Where packets for `destination` leave. One that is routed into a tunnel, discarded or not routed at all has no
    /// exit: what is encapsulated is not routed a second time.
    fn exit(&self, id: ObjectId, destination: &IpAddr) -> Result<Exit, Refusal> {
        let Some(NextStep::Port { port, neighbor }) = self.frame.routes.lookup(destination) else {
            return Ok(None);
        };
        let Some(entry) = self.frame.ports.get(port) else { return Ok(None) };
        let (neighbor, pin) = match neighbor {
            NextHop::Slot(_) => (neighbor, None),
            NextHop::Connected => {
                let slot = self.neighbors.pin(port, destination).map_err(|_| Refusal::OutOfMemory(id))?;
                (NextHop::Slot(slot.0), Some(slot.1))
            }
        };
        Ok(Some((Egress { port, neighbor, port_mtu: entry.mtu }, pin)))
    }
}

/// The encapsulation of class group 0, and where there are others that of each.
struct Both {
    encapsulation: Encapsulation,
    by_group: Option<Arc<ByGroup<Encapsulation>>>,
}

impl Both {
    /// `by` says what a group's packets get in front, and what becomes of them; the map is what their DSCPs go through first.
    fn of(
        id: ObjectId,
        (groups, outward): (&ClassGroups, Option<&DscpMap>),
        by: impl Fn(u8) -> (Parts, Verdict),
        egress: Option<Egress>,
        mtu: Option<u16>,
    ) -> Result<Self, Refusal> {
        let one = |group| {
            let (parts, verdict) = by(group);
            let template = parts.template().map_err(|_| Refusal::OutOfRange(id, Field::Address))?;
            let encapsulation = Encapsulation::new(template, verdict, egress, mtu);
            if encapsulation.mtu < ipv4::MIN_MTU {
                return Err(Refusal::NoRoom(id));
            }
            Ok(encapsulation)
        };
        let encapsulation = one(0)?;
        if groups.is_one() {
            return Ok(Self { encapsulation, by_group: None });
        }
        let leaves_as =
            |dscp| encapsulation.template.outermost_dscp(outward.map_or(dscp, |map| map.of(dscp)));
        let mut by_group = ByGroup::build(groups, leaves_as, one)?;
        // What fits may not depend on a packet's DSCP: TCP and path MTU discovery know of one MTU.
        let mtu = by_group.iter().map(|way| way.mtu).fold(encapsulation.mtu, u16::min);
        by_group.iter_mut().for_each(|way| way.mtu = mtu);
        Ok(Self { encapsulation: Encapsulation { mtu, ..encapsulation }, by_group: Some(Arc::new(by_group)) })
    }
}

/// Transport mode leaves the delivery header outside, so that it has to go between the ESP endpoints.
fn check_transport(id: ObjectId, config: &messages::Tunnel, entry: &ProtectionEntry) -> Result<(), Refusal> {
    let same_ends = (config.source, config.destination) == (entry.local, entry.remote);
    if entry.mode == EspMode::Transport && !same_ends {
        return Err(Refusal::Conflict(id, ObjectId::Protection(entry.protection)));
    }
    Ok(())
}

fn delivery_header(config: &messages::Tunnel) -> IpHeader {
    IpHeader {
        source: config.source,
        destination: config.destination,
        ttl: config.ttl,
        tos: config.tos,
        df: config.df,
    }
}

fn outer_header(config: &Protection) -> IpHeader {
    IpHeader {
        source: config.local,
        destination: config.remote,
        ttl: config.ttl,
        tos: config.tos,
        df: config.df,
    }
}

fn mss(clamp: MssClamp, mtu: u16) -> Option<MssLimits> {
    match clamp {
        MssClamp::Off => None,
        MssClamp::Automatic => {
            Some(MssLimits { v4: mtu.saturating_sub(TCP_OVER_IPV4), v6: mtu.saturating_sub(TCP_OVER_IPV6) })
        }
        MssClamp::Fixed(mss) => Some(MssLimits { v4: mss, v6: mss }),
    }
}
