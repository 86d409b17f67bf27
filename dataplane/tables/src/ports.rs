// SPDX-License-Identifier: Apache-2.0
//! What holds for a port while a generation is in force.
//!
//! A port without settings neither receives nor sends: there is no entry for it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::sync::Arc;

use messages::{Address, PortIndex, PortSettings, PortSide};

/// A port with settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The largest IP packet in bytes.
    pub mtu: u16,
    /// Side of the IPsec boundary.
    pub side: PortSide,
    /// Answer echo requests to the port's addresses.
    pub answer_ping: bool,
    /// Whether it has an IPv4 address, without which it does not forward IPv4.
    pub has_v4: bool,
    /// Whether it has an IPv6 address.
    pub has_v6: bool,
    /// The IPv4 address that ICMP errors are sent from: the port's lowest.
    pub v4_source: Option<Ipv4Addr>,
    /// The IPv6 address that ICMPv6 errors are sent from: the port's lowest that is not link-local, else the lowest.
    pub v6_source: Option<Ipv6Addr>,
}

/// The ports.
#[derive(Clone, Debug)]
pub struct Ports {
    entries: Arc<[Option<PortEntry>]>,
}

impl Ports {
    /// The port's entry; `None` if it has no settings.
    #[inline]
    #[must_use]
    pub fn get(&self, port: PortIndex) -> Option<&PortEntry> {
        self.entries.get(port.index())?.as_ref()
    }

    /// All ports with settings.
    pub fn iter(&self) -> impl Iterator<Item = (PortIndex, &PortEntry)> {
        (0..)
            .map(PortIndex)
            .zip(self.entries.iter())
            .filter_map(|(port, entry)| Some((port, entry.as_ref()?)))
    }

    pub(crate) fn build(
        settings: &BTreeMap<PortIndex, PortSettings>,
        addresses: &BTreeMap<IpAddr, Address>,
    ) -> Ports {
        let count = settings.keys().last().map_or(0, |last| last.index() + 1);
        let entry = |port| settings.get(&port).map(|settings| entry(settings, addresses));
        Ports { entries: (0..).map(PortIndex).take(count).map(entry).collect() }
    }
}

fn entry(settings: &PortSettings, addresses: &BTreeMap<IpAddr, Address>) -> PortEntry {
    let own = || addresses.values().filter(|address| address.port == Some(settings.port));
    let v4_source = own().find_map(|address| match address.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = || {
        own().filter_map(|address| match address.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    };
    let v6_source = v6().find(|address| !address.is_unicast_link_local()).or_else(|| v6().next());
    PortEntry {
        mtu: settings.mtu,
        side: settings.side,
        answer_ping: settings.answer_ping,
        has_v4: v4_source.is_some(),
        has_v6: v6_source.is_some(),
        v4_source,
        v6_source,
    }
}
