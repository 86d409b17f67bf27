// SPDX-License-Identifier: Apache-2.0
//! Shortcuts: all that the fast path needs to know of a tunnel, in two cache lines on the way out and one on the way in.
//!
//! They say nothing that [`Tunnel`](crate::Tunnel), its protection and its SA do not say; a tunnel for which they cannot
//! say it, as one delivered over IPv6, has none, and its packets go the whole way.
//!
//! ```text
//!   out   line 0   headers: [IPv4] [ESP IV] GRE, or [IPv4] [ESP IV] [IPv4] GRE
//!         line 1   counters  SA  next hop  MTU  what to fill in
//!   in    line 0   ESP's ends  GRE's first words  delivery addresses  tunnel  counters
//! ```

use core::net::IpAddr;
use std::sync::Arc;

use messages::{DfPolicy, EspMode, GreOptions, PortIndex, SaIndex, TosPolicy, TunnelIndex};
use qos::mark::DscpMap;
use static_assertions::const_assert_eq;
use wire::EtherType;
use wire::ipv4::{self, OpenFields};

use crate::encapsulation::{Egress, Encapsulation, Verdict};
use crate::groups::ByGroup;
use crate::neighbors::NeighborIndex;
use crate::routes::NextHop;
use crate::runtime::TunnelCounts;
use crate::template::{ESP_AND_IV_BYTES, HeaderPatch, Template};
use crate::{ProtectionEntry, Tunnel};

/// Both IP headers, ESP with IV, and GRE with a key.
const HEADERS_MAX: usize = 2 * ipv4::HEADER_BYTES + ESP_AND_IV_BYTES + 8;
/// All of ToS but ECN.
const DSCP_BITS: u8 = 0xfc;
/// K, in GRE's first word (RFC 2890 §2).
const GRE_HAS_KEY: u32 = 0x2000_0000;

/// What an IP header in front takes over of ToS and DF from the one behind it, and what is set in it.
fn marking(patch: &HeaderPatch) -> (OpenFields, OpenFields) {
    // ECN always is taken over (RFC 6040 §4.1).
    let (copied, set) = match patch.tos {
        TosPolicy::Copy => (u8::MAX, 0),
        TosPolicy::Dscp(dscp) => (!DSCP_BITS, dscp << 2),
    };
    let (copies_df, sets_df) = match patch.df {
        DfPolicy::Copy => (true, false),
        DfPolicy::Clear => (false, false),
        DfPolicy::Set => (false, true),
    };
    (OpenFields::new(copied, copies_df), OpenFields::new(set, sets_df))
}

/// The way into a tunnel: under ESP, with an SA, to a neighbour with a fixed slot, and with nothing in its GRE header
/// that differs from packet to packet.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct ShortcutOut {
    /// The headers, [`header_bytes`](Self::header_bytes) of them, with ToS and DF as far as they are set; open are the other fields
    /// that a [`Template`] leaves open, but for GRE's protocol type, which is IPv4.
    pub headers: [u8; HEADERS_MAX],
    /// Where payload packets are counted.
    pub counts: TunnelCounts,
    /// The outbound SA.
    pub sa: SaIndex,
    /// The neighbour that packets leave to.
    pub neighbor: NeighborIndex,
    /// The port that they leave by.
    pub port: PortIndex,
    /// The largest payload packet in bytes.
    pub mtu: u16,
    /// Tunnel or transport mode.
    pub mode: EspMode,
    /// Length of all headers in bytes.
    pub header_bytes: u8,
    /// Next header of the ESP trailer.
    pub esp_next_header: u8,
    /// TCP segments that open a connection have to be looked at.
    pub clamps_mss: bool,
    /// What the outer header takes over from the one behind it: of no more than ToS and DF.
    pub outer: OpenFields,
    /// The same of the delivery header behind ESP in tunnel mode.
    pub inner: OpenFields,
    /// What DSCPs go through before the delivery header takes them over.
    pub outward: Option<Arc<DscpMap>>,
    /// With class groups, the shortcut of each that has an SA.
    by_group: Option<Arc<ByGroup<Option<ShortcutOut>>>>,
}

const_assert_eq!(size_of::<ShortcutOut>(), 128);
const_assert_eq!(size_of::<Option<ShortcutOut>>(), 128);

impl ShortcutOut {
    /// The lengths that headers have: transport mode, with a key; tunnel mode, with a key.
    pub const LENGTHS: [u8; 4] = [40, 44, 60, 64];

    /// The shortcut of packets with this ToS, if their class group has one.
    #[inline(always)]
    #[must_use]
    pub fn for_tos(&self, tos: u8) -> Option<&Self> {
        match &self.by_group {
            None => Some(self),
            Some(by_group) => by_group.of_tos(tos)?.as_ref(),
        }
    }

    /// Whether ToS makes a difference.
    #[inline(always)]
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.by_group.is_some()
    }

    /// The shortcut of a tunnel, if it can have one.
    pub(crate) fn of(tunnel: &Tunnel) -> Option<Self> {
        let Some(ways) = &tunnel.by_group else { return Self::by(tunnel, &tunnel.encapsulation) };
        let by_group = ways.map(|way| Self::by(tunnel, way));
        let any = by_group.iter().flatten().next()?.clone();
        Some(Self { by_group: Some(Arc::new(by_group)), ..any })
    }

    fn by(tunnel: &Tunnel, way: &Encapsulation) -> Option<Self> {
        let Encapsulation { template, mtu, verdict, egress } = way;
        let Verdict::Protect { sa: Some(sa), .. } = *verdict else { return None };
        let Egress { port, neighbor: NextHop::Slot(neighbor), .. } = (*egress)? else { return None };
        let has_open_gre = tunnel.gre.sequence || tunnel.gre.checksum;
        let is_over_ipv6 = template.outer.family_v6 || template.inner.is_some_and(|inner| inner.family_v6);
        let has_length = ShortcutOut::LENGTHS.contains(&template.len);
        (has_length && !has_open_gre && !is_over_ipv6).then_some(())?;
        Some(Self {
            headers: headers(template)?,
            counts: tunnel.state.counts().clone(),
            sa,
            neighbor,
            port,
            mtu: *mtu,
            outer: marking(&template.outer).0,
            inner: marking(template.inner.as_ref().unwrap_or(&template.outer)).0,
            mode: if template.inner.is_some() { EspMode::Tunnel } else { EspMode::Transport },
            header_bytes: template.len,
            esp_next_header: template.esp_next_header,
            clamps_mss: tunnel.mss.is_some(),
            outward: tunnel.outward.clone(),
            by_group: None,
        })
    }
}

fn headers(template: &Template) -> Option<[u8; HEADERS_MAX]> {
    let mut headers = [0; HEADERS_MAX];
    headers.get_mut(..template.bytes().len())?.copy_from_slice(template.bytes());
    let protocol_type = usize::from(template.gre_offset?) + 2;
    headers.get_mut(protocol_type..protocol_type + 2)?.copy_from_slice(&EtherType::IPV4.0.to_be_bytes());
    for patch in [Some(template.outer), template.inner].into_iter().flatten() {
        let header = headers.get_mut(usize::from(patch.offset)..)?.first_chunk_mut()?;
        ipv4::Header::emit_template(header, &header.clone(), marking(&patch).1);
    }
    Some(headers)
}

/// The way out of the tunnel that needs a protection, IPv4 inside and out.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct ShortcutIn {
    /// Our ESP endpoint.
    pub local: u32,
    /// The peer's ESP endpoint.
    pub remote: u32,
    /// Our delivery address.
    pub source: u32,
    /// The peer's delivery address.
    pub destination: u32,
    /// The first word of its GRE header around IPv4 (RFC 2784 §2.1, RFC 2890 §2); none where more than that has to be looked at.
    pub gre_word: Option<u32>,
    /// The second, if it has a key.
    pub gre_key: Option<u32>,
    /// Which tunnel.
    pub tunnel: TunnelIndex,
    /// Where payload packets are counted.
    pub counts: TunnelCounts,
    /// Tunnel or transport mode.
    pub mode: EspMode,
    /// Payload packets must come from a source that is routed to this tunnel.
    pub strict_source: bool,
    /// TCP segments that open a connection have to be looked at.
    pub clamps_mss: bool,
}

const_assert_eq!(size_of::<ShortcutIn>(), 64);

impl ShortcutIn {
    /// The shortcut of a tunnel under a protection, if it can have one.
    pub(crate) fn of(tunnel: &Tunnel, protection: &ProtectionEntry) -> Option<Self> {
        let GreOptions { key, sequence, .. } = tunnel.gre;
        let with_key = if key.is_some() { GRE_HAS_KEY } else { 0 };
        let [local, remote] = [ipv4_bits(protection.local)?, ipv4_bits(protection.remote)?];
        let [source, destination] = [ipv4_bits(tunnel.source)?, ipv4_bits(tunnel.destination)?];
        // In transport mode the header of what ESP protects is the one that it came with.
        let is_its_own = protection.mode == EspMode::Tunnel || (source, destination) == (local, remote);
        let is_plain = is_its_own && !sequence && tunnel.receipt.is_none();
        Some(Self {
            local,
            remote,
            source,
            destination,
            gre_word: is_plain.then_some(with_key | u32::from(EtherType::IPV4.0)),
            gre_key: key,
            tunnel: tunnel.tunnel,
            counts: tunnel.state.counts().clone(),
            mode: protection.mode,
            strict_source: tunnel.strict_source,
            clamps_mss: tunnel.mss.is_some(),
        })
    }

    /// The same for a protection that several tunnels need: only GRE says which one it is.
    pub(crate) fn of_several(self) -> Self {
        Self { gre_word: None, ..self }
    }
}

fn ipv4_bits(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    }
}
