// SPDX-License-Identifier: Apache-2.0
//! TCP MSS clamping: a SYN through a tunnel announces no more than the tunnel carries (RFC 9293 §3.7.1).

use pktbuf::Packet;
use tables::MssLimits;
use wire::flow::{Fragment, Parsed};
use wire::{Family, IpProtocol, tcp};

/// Lowers the MSS option of a SYN to the tunnel's limit; true if it was higher.
#[inline]
pub(crate) fn clamp(packet: &mut Packet, parsed: &Parsed, limits: Option<MssLimits>) -> bool {
    let Some(limits) = limits else { return false };
    if parsed.protocol != IpProtocol::TCP || parsed.fragment == Fragment::Later {
        return false;
    }
    let limit = match parsed.family {
        Family::Ipv4 => limits.v4,
        Family::Ipv6 => limits.v6,
    };
    tcp::clamp_mss(parsed.upper_layer_mut(packet.data_mut()), limit).is_ok_and(|old| old.is_some())
}
