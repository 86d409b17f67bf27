// SPDX-License-Identifier: Apache-2.0
//! Headers in front of a packet: the template of its tunnel or protection, filled in; and ESP put into or taken out
//! of a packet's own header in transport mode.
//!
//! RFC 4301 §5.1.2 says which fields are copied, RFC 6040 §4.1 ECN, RFC 6864 the identification.

use messages::{DfPolicy, TosPolicy};
use pktbuf::Packet;
use tables::{HeaderPatch, Template};
use wire::flow::Parsed;
use wire::{Dscp, Ecn, EtherType, Family, IpProtocol, ecn, gre, ipv4, ipv6};

use crate::identification::Identification;

/// Bytes of ESP header and IV.
const ESP_BYTES: usize = 16;

/// Why a packet could not be encapsulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncapsulateError {
    /// No headroom, or a length beyond its field.
    NoRoom,
    /// Transport mode cannot take this packet: a fragment, or IPv6 extension headers.
    NotTransport,
}

/// Lengths that the template's headers state, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Lengths {
    /// The outermost packet, sealed.
    pub outer: usize,
    /// The delivery packet inside ESP tunnel mode.
    pub inner: usize,
}

/// What headers in front of a packet take over from it.
#[derive(Clone, Copy)]
pub(crate) struct Inside {
    pub family: Family,
    pub tos: u8,
    pub dont_fragment: bool,
}

impl From<&Parsed> for Inside {
    fn from(parsed: &Parsed) -> Self {
        Self { family: parsed.family, tos: parsed.tos, dont_fragment: parsed.dont_fragment }
    }
}

/// Puts a template in front of a packet and fills in what depends on the packet.
#[inline]
pub(crate) fn encapsulate(
    packet: &mut Packet,
    inside: Inside,
    template: &Template,
    sealed_bytes: impl Fn(usize) -> usize,
    identification: &mut Identification,
) -> Result<(), EncapsulateError> {
    let lengths = lengths(template, packet.len(), sealed_bytes);
    let bytes = template.bytes();
    let front = packet.prepend(bytes.len()).map_err(|_| EncapsulateError::NoRoom)?;
    front.copy_from_slice(bytes);
    let payload = Copied { tos: inside.tos, dont_fragment: inside.dont_fragment };
    // What ESP's header copies is the header that it encapsulates: GRE's delivery header, if there is one.
    let copied = match &template.inner {
        Some(inner) => fill_in(front, inner, lengths.inner, payload, identification)?,
        None => payload,
    };
    fill_in(front, &template.outer, lengths.outer, copied, identification)?;
    match template.gre_offset {
        Some(offset) => set_protocol_type(front, usize::from(offset), inside.family),
        None => Ok(()),
    }
}

fn lengths(template: &Template, payload: usize, sealed_bytes: impl Fn(usize) -> usize) -> Lengths {
    let total = template.bytes().len() + payload;
    let outer = match template.esp_offset.map(usize::from) {
        Some(esp) => esp + sealed_bytes(total.saturating_sub(esp + ESP_BYTES)),
        None => total,
    };
    let inner_offset = template.inner.as_ref().map_or(0, |inner| usize::from(inner.offset));
    Lengths { outer, inner: total.saturating_sub(inner_offset) }
}

/// The next header of ESP: what the template says, or for a bare packet in tunnel mode its version.
#[inline]
pub(crate) fn esp_next_header(template: &Template, inside: Family) -> IpProtocol {
    match (template.gre_offset, inside) {
        (Some(_), _) => IpProtocol(template.esp_next_header),
        (None, Family::Ipv4) => IpProtocol::IPV4,
        (None, Family::Ipv6) => IpProtocol::IPV6,
    }
}

/// What a header in front may copy from the one behind it.
#[derive(Clone, Copy)]
struct Copied {
    tos: u8,
    dont_fragment: bool,
}

/// Fills in length, ToS, DF, identification and checksum of one IP header of the template; tells what a further header
/// in front may copy of it.
#[inline]
fn fill_in(
    front: &mut [u8],
    patch: &HeaderPatch,
    total_bytes: usize,
    inside: Copied,
    identification: &mut Identification,
) -> Result<Copied, EncapsulateError> {
    let total = u16::try_from(total_bytes).map_err(|_| EncapsulateError::NoRoom)?;
    let header = front.get_mut(usize::from(patch.offset)..).ok_or(EncapsulateError::NoRoom)?;
    let tos = outer_tos(patch.tos, inside.tos);
    if patch.family_v6 {
        let (header, _) = ipv6::Header::split_mut(header).map_err(|_| EncapsulateError::NoRoom)?;
        header.set_payload_length(total.saturating_sub(ipv6::HEADER_BYTES as u16));
        header.set_traffic_class(tos);
        return Ok(Copied { tos, dont_fragment: true });
    }
    let (header, _) = ipv4::Header::split_mut(header).map_err(|_| EncapsulateError::NoRoom)?;
    let dont_fragment = outer_df(patch.df, inside.dont_fragment);
    header.fill_template(tos, total, identification.next(), dont_fragment);
    Ok(Copied { tos, dont_fragment })
}

#[inline]
fn set_protocol_type(front: &mut [u8], gre_offset: usize, inside: Family) -> Result<(), EncapsulateError> {
    let ether_type = match inside {
        Family::Ipv4 => EtherType::IPV4,
        Family::Ipv6 => EtherType::IPV6,
    };
    let field = front.get_mut(gre_offset + 2..gre_offset + 4).ok_or(EncapsulateError::NoRoom)?;
    field.copy_from_slice(&ether_type.0.to_be_bytes());
    Ok(())
}

#[inline]
fn outer_tos(policy: TosPolicy, inside: u8) -> u8 {
    let dscp = match policy {
        TosPolicy::Copy => Dscp::of_tos(inside),
        TosPolicy::Dscp(value) => Dscp::new(value).unwrap_or(Dscp::DEFAULT),
    };
    dscp.tos(ecn::encapsulate(Ecn::of_tos(inside)))
}

#[inline]
fn outer_df(policy: DfPolicy, inside: bool) -> bool {
    match policy {
        DfPolicy::Copy => inside,
        DfPolicy::Clear => false,
        DfPolicy::Set => true,
    }
}

/// Numbers and sums the GRE header at `gre_offset`, as its flags ask; the packet must end where its payload ends.
pub(crate) fn finish_gre(
    packet: &mut Packet,
    gre_offset: usize,
    sequence: Option<u32>,
    checksum: bool,
) -> Result<(), EncapsulateError> {
    let bytes = packet.data_mut().get_mut(gre_offset..).ok_or(EncapsulateError::NoRoom)?;
    if let Some(sequence) = sequence {
        gre::set_sequence_number(bytes, sequence).map_err(|_| EncapsulateError::NoRoom)?;
    }
    if checksum {
        gre::fill_checksum(bytes).map_err(|_| EncapsulateError::NoRoom)?;
    }
    Ok(())
}

/// Transport mode on a packet's own header: makes room for ESP behind it. Returns where ESP begins.
pub(crate) fn insert_esp(
    packet: &mut Packet,
    parsed: &Parsed,
    sealed_bytes: impl Fn(usize) -> usize,
) -> Result<usize, EncapsulateError> {
    let header_bytes = own_header_bytes(parsed)?;
    let payload = packet.len().saturating_sub(header_bytes);
    let total = header_bytes + sealed_bytes(payload);
    packet.prepend(ESP_BYTES).map_err(|_| EncapsulateError::NoRoom)?;
    packet.data_mut().copy_within(ESP_BYTES..ESP_BYTES + header_bytes, 0);
    rewrite_header(packet.data_mut(), parsed.family, total, IpProtocol::ESP)?;
    Ok(header_bytes)
}

/// Undoes [`insert_esp`]: moves the IP header up to the payload at `payload_offset`, which is of `protocol`.
pub(crate) fn remove_esp(
    packet: &mut Packet,
    outer: &Parsed,
    payload_offset: usize,
    protocol: IpProtocol,
) -> Result<(), EncapsulateError> {
    let header_bytes = own_header_bytes(outer)?;
    let shift = payload_offset.checked_sub(header_bytes).ok_or(EncapsulateError::NoRoom)?;
    if packet.len() < payload_offset {
        return Err(EncapsulateError::NoRoom);
    }
    packet.data_mut().copy_within(..header_bytes, shift);
    packet.trim_front(shift).map_err(|_| EncapsulateError::NoRoom)?;
    let total = packet.len();
    rewrite_header(packet.data_mut(), outer.family, total, protocol)
}

/// Length of an IP header without options or extension headers; transport mode takes nothing else, and no
/// fragments (RFC 4303 §3.3.4).
fn own_header_bytes(parsed: &Parsed) -> Result<usize, EncapsulateError> {
    let plain = match parsed.family {
        Family::Ipv4 => ipv4::HEADER_BYTES,
        Family::Ipv6 => ipv6::HEADER_BYTES,
    };
    if parsed.is_fragment() || usize::from(parsed.header_bytes) != plain {
        return Err(EncapsulateError::NotTransport);
    }
    Ok(plain)
}

fn rewrite_header(
    l3: &mut [u8],
    family: Family,
    total_bytes: usize,
    protocol: IpProtocol,
) -> Result<(), EncapsulateError> {
    let total = u16::try_from(total_bytes).map_err(|_| EncapsulateError::NoRoom)?;
    match family {
        Family::Ipv4 => {
            let (header, _) = ipv4::Header::split_mut(l3).map_err(|_| EncapsulateError::NoRoom)?;
            header.rewrite_total_length(total);
            header.rewrite_protocol(protocol);
        }
        Family::Ipv6 => {
            let (header, _) = ipv6::Header::split_mut(l3).map_err(|_| EncapsulateError::NoRoom)?;
            header.set_payload_length(total.saturating_sub(ipv6::HEADER_BYTES as u16));
            header.set_next_header(protocol);
        }
    }
    Ok(())
}
