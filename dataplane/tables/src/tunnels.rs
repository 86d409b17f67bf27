// SPDX-License-Identifier: Apache-2.0
//! GRE tunnels: by index on the way out, by delivery addresses and key on the way in.

use core::net::IpAddr;
use std::sync::Arc;

use messages::{GreOptions, ProtectionIndex, TunnelIndex};
use pktbuf::prefetch;
use qos::mark::{DscpMap, DscpMark};

use crate::addresses::address_words;
use crate::chunked::Chunked;
use crate::encapsulation::Encapsulation;
use crate::groups::ByGroup;
use crate::neighbors::Pin;
use crate::paged::PagedMap;
use crate::runtime::TunnelRuntime;
use crate::shortcuts::{ShortcutIn, ShortcutOut};

/// The largest MSS that a tunnel's MTU leaves, or the one configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MssLimits {
    /// For TCP over IPv4, in bytes.
    pub v4: u16,
    /// For TCP over IPv6, in bytes.
    pub v6: u16,
}

/// A tunnel.
#[derive(Clone)]
#[repr(C)]
pub struct Tunnel {
    /// How payload packets get to the wire. With class groups, those of group 0.
    pub encapsulation: Encapsulation,
    /// Counters and sequence numbers.
    pub state: Arc<TunnelRuntime>,
    /// Which tunnel.
    pub tunnel: TunnelIndex,
    /// What clamps TCP's MSS; nothing if clamping is off.
    pub mss: Option<MssLimits>,
    /// Drop payload packets whose source is not routed to this tunnel.
    pub strict_source: bool,
    /// What the DSCP of a payload packet goes through before the delivery header takes it over.
    pub outward: Option<Arc<DscpMap>>,
    /// What payload packets that come out of it get for the DSCP of the delivery header; none: they keep their own.
    pub receipt: Option<DscpMark>,
    /// What its packets must come under: the configured protection, or the one that the egress port's SPD demands for
    /// GRE between its endpoints. `None`: they come in clear, if the SPD allows it.
    pub protection: Option<ProtectionIndex>,
    /// GRE header options.
    pub gre: GreOptions,
    /// Our delivery address.
    pub source: IpAddr,
    /// The peer's delivery address.
    pub destination: IpAddr,
    /// With class groups, what each of them has instead of `encapsulation`: but for the SA the same.
    pub(crate) by_group: Option<Arc<ByGroup<Encapsulation>>>,
    /// Where its packets can take the fast path on the way in, what it needs to know.
    pub(crate) shortcut_in: Option<ShortcutIn>,
    /// Keeps the egress neighbour's slot.
    pub(crate) pin: Option<Pin>,
}

impl Tunnel {
    /// How a payload packet with this ToS or traffic class gets to the wire.
    #[inline]
    #[must_use]
    pub fn way(&self, tos: u8) -> &Encapsulation {
        let of_group = self.by_group.as_ref().and_then(|by_group| by_group.of_tos(tos));
        of_group.unwrap_or(&self.encapsulation)
    }
}

/// Why no tunnel takes a GRE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTunnel {
    /// No tunnel has these delivery addresses.
    Addresses,
    /// One has them, but not this key.
    Key,
}

/// Both addresses and a word for family and key.
type DeliveryKey = [u64; 5];

/// The tunnels that need a protection: nearly always one, and then without a detour.
#[derive(Clone)]
enum Users {
    One(TunnelIndex),
    Several(Vec<TunnelIndex>),
}

impl Users {
    fn as_slice(&self) -> &[TunnelIndex] {
        match self {
            Self::One(tunnel) => core::slice::from_ref(tunnel),
            Self::Several(tunnels) => tunnels,
        }
    }

    fn with(&self, tunnel: TunnelIndex) -> Self {
        Self::Several(self.as_slice().iter().copied().chain([tunnel]).collect())
    }

    /// `None` if no other is left.
    fn without(&self, tunnel: TunnelIndex) -> Option<Self> {
        let others: Vec<_> = self.as_slice().iter().copied().filter(|user| *user != tunnel).collect();
        match others[..] {
            [] => None,
            [one] => Some(Self::One(one)),
            _ => Some(Self::Several(others)),
        }
    }
}

/// The tunnels.
#[derive(Clone, Default)]
pub struct Tunnels {
    entries: Chunked<Tunnel>,
    by_delivery: PagedMap<DeliveryKey, TunnelIndex>,
    /// How many tunnels have a pair of addresses.
    pairs: PagedMap<DeliveryKey, u32>,
    /// Which tunnels need a protection.
    by_protection: Chunked<Users>,
    shortcuts_out: Chunked<ShortcutOut>,
    /// By protection.
    shortcuts_in: Chunked<ShortcutIn>,
}

impl Tunnel {
    /// The ToS that the delivery header takes over from a packet with `tos`.
    #[inline]
    #[must_use]
    pub fn outward(&self, tos: u8) -> u8 {
        self.outward.as_ref().map_or(tos, |map| map.apply_to_tos(tos))
    }
}

impl Tunnels {
    /// A tunnel.
    #[inline]
    #[must_use]
    pub fn get(&self, tunnel: TunnelIndex) -> Option<&Tunnel> {
        self.entries.get(tunnel.index())
    }

    /// The shortcut into a tunnel, if it has one.
    #[inline]
    #[must_use]
    pub fn shortcut_out(&self, tunnel: TunnelIndex) -> Option<&ShortcutOut> {
        self.shortcuts_out.get(tunnel.index())
    }

    /// The shortcut of packets that come under a protection, if a tunnel needs it and has one.
    #[inline]
    #[must_use]
    pub fn shortcut_in(&self, protection: ProtectionIndex) -> Option<&ShortcutIn> {
        self.shortcuts_in.get(protection.index())
    }

    /// Asks the CPU for what [`shortcut_out`](Self::shortcut_out) finds, and tells where that is.
    #[inline]
    pub fn prefetch_out(&self, tunnel: TunnelIndex) -> Option<&Option<ShortcutOut>> {
        let place = self.shortcuts_out.place(tunnel.index())?;
        prefetch(place);
        Some(place)
    }

    /// Asks the CPU for what [`shortcut_in`](Self::shortcut_in) finds.
    #[inline]
    pub fn prefetch_in(&self, protection: ProtectionIndex) {
        self.shortcuts_in.prefetch(protection.index());
    }

    /// The tunnel of a GRE packet for `local` from `remote` with this key, or without one.
    ///
    /// # Errors
    /// [`NoTunnel`].
    #[inline]
    pub fn by_delivery(
        &self,
        local: &IpAddr,
        remote: &IpAddr,
        key: Option<u32>,
    ) -> Result<TunnelIndex, NoTunnel> {
        let pair = pair_words(local, remote);
        match self.by_delivery.get(&with_key(pair, key)) {
            Some(tunnel) => Ok(*tunnel),
            None if self.pairs.get(&pair).is_some() => Err(NoTunnel::Key),
            None => Err(NoTunnel::Addresses),
        }
    }

    /// All tunnels by index.
    pub fn iter(&self) -> impl Iterator<Item = &Tunnel> {
        self.entries.iter().map(|(_, tunnel)| tunnel)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tunnels that are not what they are in `before` as far as `what` tells.
    pub(crate) fn changed_in<T: PartialEq>(
        &self,
        before: &Self,
        what: impl Fn(&Tunnel) -> T,
    ) -> impl Iterator<Item = TunnelIndex> {
        let same = |ours: Option<&Tunnel>, theirs: Option<&Tunnel>| ours.map(&what) == theirs.map(&what);
        let changed = self.entries.differences_by(&before.entries, same).into_iter();
        changed.filter_map(|index| u32::try_from(index).ok().map(TunnelIndex))
    }

    /// The tunnels that need a protection.
    #[inline]
    pub(crate) fn of_protection(&self, protection: ProtectionIndex) -> &[TunnelIndex] {
        self.by_protection.get(protection.index()).map_or(&[], Users::as_slice)
    }

    pub(crate) fn remove(&mut self, index: TunnelIndex) -> Option<Tunnel> {
        let tunnel = self.entries.set(index.index(), None)?;
        let pair = pair_words(&tunnel.source, &tunnel.destination);
        self.by_delivery.remove(&with_key(pair, tunnel.gre.key));
        match self.pairs.get_mut(&pair) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.pairs.remove(&pair)),
        }
        self.shortcuts_out.set(index.index(), None);
        if let Some(protection) = tunnel.protection {
            let left = self.by_protection.get(protection.index()).and_then(|users| users.without(index));
            self.by_protection.set(protection.index(), left);
            self.choose_shortcut_in(protection);
        }
        Some(tunnel)
    }

    /// Adds a tunnel whose index is free.
    ///
    /// # Errors
    /// The tunnel that has these addresses and this key already.
    pub(crate) fn insert(&mut self, tunnel: Tunnel) -> Result<(), TunnelIndex> {
        let pair = pair_words(&tunnel.source, &tunnel.destination);
        self.by_delivery.insert(with_key(pair, tunnel.gre.key), tunnel.tunnel)?;
        if self.pairs.insert(pair, 1).is_err()
            && let Some(count) = self.pairs.get_mut(&pair)
        {
            *count += 1;
        }
        if let Some(protection) = tunnel.protection {
            let users = self.by_protection.get(protection.index());
            let users = users.map_or(Users::One(tunnel.tunnel), |users| users.with(tunnel.tunnel));
            self.by_protection.set(protection.index(), Some(users));
        }
        self.replace(tunnel);
        Ok(())
    }

    /// Replaces a tunnel whose addresses, key and protection stay.
    pub(crate) fn replace(&mut self, tunnel: Tunnel) {
        let (index, protection) = (tunnel.tunnel.index(), tunnel.protection);
        self.shortcuts_out.set(index, ShortcutOut::of(&tunnel));
        self.entries.set(index, Some(tunnel));
        if let Some(protection) = protection {
            self.choose_shortcut_in(protection);
        }
    }

    fn choose_shortcut_in(&mut self, protection: ProtectionIndex) {
        let shortcut = |tunnel: &TunnelIndex| self.get(*tunnel).and_then(|tunnel| tunnel.shortcut_in.clone());
        let chosen = match self.by_protection.get(protection.index()) {
            Some(Users::One(tunnel)) => shortcut(tunnel),
            Some(Users::Several(tunnels)) => {
                tunnels.iter().min().and_then(shortcut).map(ShortcutIn::of_several)
            }
            None => None,
        };
        self.shortcuts_in.set(protection.index(), chosen);
    }
}

impl core::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tunnel")
            .field("tunnel", &self.tunnel)
            .field("source", &self.source)
            .field("destination", &self.destination)
            .field("gre", &self.gre)
            .field("protection", &self.protection)
            .field("mss", &self.mss)
            .field("strict_source", &self.strict_source)
            .field("encapsulation", &self.encapsulation)
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Families in the last word: addresses of two of them match no tunnel.
#[inline]
fn pair_words(local: &IpAddr, remote: &IpAddr) -> DeliveryKey {
    let [a, b, local_family] = address_words(local);
    let [c, d, remote_family] = address_words(remote);
    [a, b, c, d, local_family << 8 | remote_family]
}

/// No key is another key than 0.
#[inline]
fn with_key(pair: DeliveryKey, key: Option<u32>) -> DeliveryKey {
    let [a, b, c, d, families] = pair;
    let key = key.map_or(0, |key| 1 << 31 | u64::from(key) << 32);
    [a, b, c, d, families | key]
}
