// SPDX-License-Identifier: Apache-2.0
//! What all packets of a stream have in common: one ready frame for each size, and where in it things lie.
//!
//! ```text
//!   clear               Ethernet [802.1Q]                              IP upper stamp filler
//!   GRE                 Ethernet [802.1Q]             delivery-IP  GRE IP upper stamp filler
//!   ESP tunnel mode     Ethernet [802.1Q] outer-IP ESP [delivery-IP GRE] IP upper stamp filler
//!   ESP transport mode  Ethernet [802.1Q] delivery-IP ESP GRE          IP upper stamp filler
//!   ESP transport mode  Ethernet [802.1Q]                              IP ESP upper stamp filler
//! ```
//!
//! A template ends before ESP's trailer; sealing appends it.

use std::net::{IpAddr, Ipv6Addr};

use aead::IcvLength;
use pktbuf::{NoRoom, Packet};
use wire::ethernet::{self, EtherType};
use wire::vlan::{self, VlanId};
use wire::{IpProtocol, dscp::Dscp, ecn::Ecn, esp as wire_esp, gre, icmpv4, icmpv6, ipv4, ipv6, tcp, udp};

use crate::profile::{Esp, EspMode, Stream};
use crate::sizes::FCS_BYTES;
use crate::stamp::{FILLER, STAMP_BYTES};
use crate::values::Values;

const CHUNK: usize = 64;

/// A frame that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The size does not hold headers and stamp.
    #[error("a frame of {size} bytes: these headers{with} need at least {least}")]
    TooShort {
        /// The size asked for.
        size: u16,
        /// What else is in it.
        with: &'static str,
        /// The shortest that works.
        least: usize,
    },
    /// A header cannot be written.
    #[error("{0}")]
    Header(#[from] wire::EmitError),
}

/// Where the headers of a stream's frames begin, in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Tunnel-mode header.
    pub outer: Option<usize>,
    /// ESP.
    pub esp: Option<usize>,
    /// Delivery header of GRE.
    pub delivery: Option<usize>,
    /// GRE.
    pub gre: Option<usize>,
    /// The IP header next to the payload.
    pub inner: usize,
    /// UDP, TCP or ICMP.
    pub upper: usize,
    /// The stamp.
    pub payload: usize,
    /// Bytes of headers that the frame in clear does not have.
    growth: usize,
}

impl Layout {
    /// The layout of a stream.
    #[must_use]
    pub fn of(stream: &Stream) -> Self {
        let link = ethernet::HEADER_BYTES + stream.ethernet.vlan.map_or(0, |_| vlan::HEADER_BYTES);
        let mode = stream.esp.as_ref().map(|esp| esp.mode);
        let mut end = link;
        let mut take = |bytes: usize| {
            let start = end;
            end += bytes;
            start
        };
        let tunnel = stream.esp.as_ref().and_then(|esp| esp.source.as_ref());
        let outer = tunnel.map(|source| take(ip_header_bytes(source)));
        let mut esp = (mode == Some(EspMode::Tunnel)).then(|| take(esp::HEADER_BYTES));
        let delivery = stream.gre.as_ref().map(|gre| take(ip_header_bytes(&gre.source)));
        if mode == Some(EspMode::Transport) && delivery.is_some() {
            esp = Some(take(esp::HEADER_BYTES));
        }
        let gre = stream.gre.as_ref().map(|_| take(gre_repr(stream).header_bytes()));
        let inner = take(ip_header_bytes(&stream.ip.source));
        if mode == Some(EspMode::Transport) && esp.is_none() {
            esp = Some(take(esp::HEADER_BYTES));
        }
        let upper = take(if stream.tcp.is_some() { tcp::HEADER_BYTES } else { udp::HEADER_BYTES });
        let clear = link + ip_header_bytes(&stream.ip.source) + (end - upper);
        Self { outer, esp, delivery, gre, inner, upper, payload: end, growth: end - clear }
    }

    /// What ESP says follows it.
    #[must_use]
    pub fn next_header(&self, stream: &Stream) -> IpProtocol {
        let encapsulated = |address: IpAddr| match address {
            IpAddr::V4(_) => IpProtocol::IPV4,
            IpAddr::V6(_) => IpProtocol::IPV6,
        };
        match (self.outer, &stream.gre) {
            (Some(_), Some(gre)) => encapsulated(gre.source.first),
            (Some(_), None) => encapsulated(stream.ip.source.first),
            (None, Some(_)) => IpProtocol::GRE,
            (None, None) => upper_protocol(stream),
        }
    }
}

/// A ready frame.
pub struct Template {
    chunks: Box<[[u8; CHUNK]]>,
    bytes: usize,
    /// Bytes on the wire without FCS, sealed if it is to be.
    pub wire_bytes: usize,
}

impl Template {
    /// Builds the frame whose size in clear is `size`, with FCS. What changes is 0 in it.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn new(stream: &Stream, layout: &Layout, size: u16) -> Result<Self, TemplateError> {
        let stamp_bytes = if stream.stamp { STAMP_BYTES } else { 0 };
        let bytes = usize::from(size) - FCS_BYTES + layout.growth;
        let payload_bytes = bytes.checked_sub(layout.payload).filter(|bytes| *bytes >= stamp_bytes).ok_or(
            TemplateError::TooShort {
                size,
                with: if stream.stamp { " and the stamp" } else { "" },
                least: layout.payload + stamp_bytes - layout.growth + FCS_BYTES,
            },
        )?;
        let mut frame = vec![0; bytes];
        if let Some(filler) = frame.get_mut(layout.payload + stamp_bytes..) {
            filler.copy_from_slice(&FILLER[..payload_bytes - stamp_bytes]);
        }
        let builder = Builder { stream, layout, wire_bytes: wire_bytes(stream, layout, bytes) };
        builder.write(&mut frame)?;
        let mut chunks = vec![[0; CHUNK]; bytes.div_ceil(CHUNK)];
        chunks.as_flattened_mut()[..bytes].copy_from_slice(&frame);
        Ok(Self { chunks: chunks.into(), bytes, wire_bytes: builder.wire_bytes })
    }

    /// The frame, not sealed.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.chunks.as_flattened()[..self.bytes]
    }

    /// Puts the frame into an empty packet, and returns its bytes.
    ///
    /// # Errors
    /// The packet's buffer is too short.
    #[inline]
    pub fn copy_into<'a>(&self, packet: &'a mut Packet) -> Result<&'a mut [u8], NoRoom> {
        packet.set_lines(&self.chunks, self.bytes)
    }

    /// Bytes of a packet buffer that the frame, sealed if it is to be, needs.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        (self.chunks.len() * CHUNK).max(self.wire_bytes + pktbuf::SEALING_TAILROOM)
    }
}

fn wire_bytes(stream: &Stream, layout: &Layout, bytes: usize) -> usize {
    match (layout.esp, &stream.esp) {
        (Some(at), Some(settings)) => at + esp::sealed_bytes(bytes - at - esp::HEADER_BYTES, icv(settings)),
        _ => bytes,
    }
}

/// The length of the ICV, which was checked when the profile was read.
#[must_use]
pub fn icv(esp: &Esp) -> IcvLength {
    IcvLength::try_from(usize::from(esp.icv_bytes)).unwrap_or(IcvLength::Sixteen)
}

/// Writes the headers of one frame, from the inside out.
struct Builder<'a> {
    stream: &'a Stream,
    layout: &'a Layout,
    wire_bytes: usize,
}

impl Builder<'_> {
    fn write(&self, frame: &mut [u8]) -> Result<(), TemplateError> {
        let Self { stream, layout, .. } = *self;
        let (source, destination) = (fixed_address(&stream.ip.source), fixed_address(&stream.ip.destination));
        write_upper(stream, source, destination, &mut frame[layout.upper..])?;
        let in_front_of_esp = |at: usize| layout.esp.is_some_and(|esp| at < esp);
        let inner = if in_front_of_esp(layout.inner) && layout.delivery.is_none() && layout.outer.is_none() {
            IpProtocol::ESP
        } else {
            upper_protocol(stream)
        };
        let ip = &stream.ip;
        let header = Fixed { source, destination, dscp: fixed(&ip.dscp, Dscp::DEFAULT), ttl: ip.ttl };
        self.write_ip(layout.inner, &header, inner, ip.dont_fragment, frame)?;
        if let (Some(at), Some(settings), Some(gre_at)) = (layout.delivery, &stream.gre, layout.gre) {
            gre_repr(stream).emit(&mut frame[gre_at..])?;
            let protocol = if in_front_of_esp(at) { IpProtocol::ESP } else { IpProtocol::GRE };
            let header = Fixed {
                source: fixed_address(&settings.source),
                destination: fixed_address(&settings.destination),
                dscp: fixed(&settings.dscp, Dscp::DEFAULT),
                ttl: settings.ttl,
            };
            self.write_ip(at, &header, protocol, false, frame)?;
        }
        if let (Some(at), Some(Esp { source: Some(source), destination: Some(destination), .. })) =
            (layout.outer, &stream.esp)
        {
            let header = Fixed {
                source: fixed_address(source),
                destination: fixed_address(destination),
                dscp: Dscp::DEFAULT,
                ttl: stream.ip.ttl,
            };
            self.write_ip(at, &header, IpProtocol::ESP, false, frame)?;
        }
        self.write_link(frame)
    }

    fn write_ip(
        &self,
        at: usize,
        header: &Fixed,
        protocol: IpProtocol,
        dont_fragment: bool,
        frame: &mut [u8],
    ) -> Result<(), TemplateError> {
        // All but a header inside ESP reaches to the end of what is on the wire.
        let end = if self.layout.esp.is_some_and(|esp| esp < at) { frame.len() } else { self.wire_bytes };
        let tos = header.dscp.tos(Ecn::NotEct);
        let long = |_| TemplateError::Header(wire::EmitError::TooLong);
        match (header.source, header.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let payload_bytes = u16::try_from(end - at - ipv4::HEADER_BYTES).map_err(long)?;
                let repr = ipv4::Repr {
                    tos,
                    ttl: header.ttl,
                    dont_fragment,
                    payload_bytes,
                    ..ipv4::Repr::new(source, destination, protocol)
                };
                repr.emit(&mut frame[at..])?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let payload_bytes = u16::try_from(end - at - ipv6::HEADER_BYTES).map_err(long)?;
                let repr = ipv6::Repr {
                    traffic_class: tos,
                    hop_limit: header.ttl,
                    payload_bytes,
                    ..ipv6::Repr::new(source, destination, protocol)
                };
                repr.emit(&mut frame[at..])?;
            }
            _ => return Err(wire::EmitError::NotAllowed.into()),
        }
        Ok(())
    }

    fn write_link(&self, frame: &mut [u8]) -> Result<(), TemplateError> {
        let Self { stream, layout, .. } = *self;
        let link = &stream.ethernet;
        let first_ip = layout.outer.or(layout.delivery).unwrap_or(layout.inner);
        let payload_type = if frame[first_ip] >> 4 == 4 { EtherType::IPV4 } else { EtherType::IPV6 };
        let mac = |values: &Values<wire::MacAddr>| match (values.changes(), values.first.0) {
            (true, [a, b, ..]) => wire::MacAddr([a, b, 0, 0, 0, 0]),
            (false, mac) => wire::MacAddr(mac),
        };
        let ether_type = if link.vlan.is_some() { EtherType::VLAN } else { payload_type };
        ethernet::Repr { destination: mac(&link.destination), source: mac(&link.source), ether_type }
            .emit(frame)?;
        if let Some(values) = &link.vlan {
            let id = if values.changes() { 0 } else { values.first.0 };
            let vlan = VlanId::new(id).unwrap_or(VlanId::NONE);
            vlan::Repr { priority: link.priority, drop_eligible: false, vlan, ether_type: payload_type }
                .emit(&mut frame[ethernet::HEADER_BYTES..])?;
        }
        Ok(())
    }
}

/// What stands in an IP header of a template.
struct Fixed {
    source: IpAddr,
    destination: IpAddr,
    dscp: Dscp,
    ttl: u8,
}

/// The value, or what stands in its place in a template.
fn fixed<T: crate::values::Value>(values: &Values<T>, blank: T) -> T {
    if values.changes() { blank } else { values.first }
}

fn fixed_address(values: &Values<IpAddr>) -> IpAddr {
    match values.first {
        IpAddr::V4(_) => fixed(values, IpAddr::from([0; 4])),
        IpAddr::V6(first) => fixed(values, Ipv6Addr::from_bits(first.to_bits() >> 64 << 64).into()),
    }
}

fn write_upper(
    stream: &Stream,
    source: IpAddr,
    destination: IpAddr,
    segment: &mut [u8],
) -> Result<(), TemplateError> {
    if let Some(ports) = &stream.udp {
        let (source_port, destination_port) =
            (fixed(&ports.source_port, 0), fixed(&ports.destination_port, 0));
        udp::Repr { source_port, destination_port }.emit(segment, source, destination)?;
    } else if let Some(ports) = &stream.tcp {
        let repr = tcp::Repr {
            source_port: fixed(&ports.source_port, 0),
            destination_port: fixed(&ports.destination_port, 0),
            sequence_number: 1,
            acknowledgment_number: 1,
            flags: tcp::Flags::ACK | tcp::Flags::PSH,
            window: u16::MAX,
            urgent_pointer: 0,
            mss: None,
        };
        repr.emit(segment, source, destination)?;
    } else if let Some(icmp) = &stream.icmp {
        let identifier = fixed(&icmp.identifier, 0);
        let data = segment.get(icmpv4::HEADER_BYTES..).unwrap_or_default().to_vec();
        match (source, destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                icmpv6::Repr::EchoRequest { identifier, sequence_number: 0, data: &data }.emit(
                    segment,
                    source,
                    destination,
                )?;
            }
            _ => {
                icmpv4::Repr::Echo { identifier, sequence_number: 0, data: &data }.emit(segment)?;
            }
        }
    }
    Ok(())
}

fn gre_repr(stream: &Stream) -> gre::Repr {
    let protocol_type = if stream.ip.source.first.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let Some(gre) = &stream.gre else { return gre::Repr::new(protocol_type) };
    gre::Repr {
        protocol_type,
        checksum_present: gre.checksum,
        key: gre.key.as_ref().map(|key| fixed(key, 0)),
        sequence_number: gre.sequence.then_some(0),
    }
}

/// What IP says of the header above it.
pub(crate) fn upper_protocol(stream: &Stream) -> IpProtocol {
    match (&stream.udp, &stream.tcp, stream.ip.source.first) {
        (Some(_), ..) => IpProtocol::UDP,
        (_, Some(_), _) => IpProtocol::TCP,
        (_, _, IpAddr::V4(_)) => IpProtocol::ICMP,
        (_, _, IpAddr::V6(_)) => IpProtocol::ICMPV6,
    }
}

fn ip_header_bytes(source: &Values<IpAddr>) -> usize {
    if source.first.is_ipv4() { ipv4::HEADER_BYTES } else { ipv6::HEADER_BYTES }
}

const _: () = assert!(wire_esp::HEADER_BYTES + 8 == esp::HEADER_BYTES);
