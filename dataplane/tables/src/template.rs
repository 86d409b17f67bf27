// SPDX-License-Identifier: Apache-2.0
//! Ready bytes in front of a payload packet: what is constant for a tunnel and its SA.
//!
//! ```text
//! GRE                         [delivery IP] [GRE]
//! GRE in ESP, transport mode  [delivery IP] [ESP IV] [GRE]
//! GRE in ESP, tunnel mode     [outer IP] [ESP IV] [delivery IP] [GRE]
//! ESP, tunnel mode            [outer IP] [ESP IV]
//! ESP, transport mode         [ESP IV]                    to be put behind the packet's own header
//! ```
//!
//! What the packet path fills in is zero here: lengths, ToS, DF, identification (RFC 791); traffic class (RFC 8200);
//! protocol type, checksum and sequence number of GRE (RFC 2784, RFC 2890); sequence number and IV of ESP (RFC 4303,
//! RFC 4106). An IPv4 header's checksum is that of the header as it stands here, so that what is filled in can be added.

use core::net::IpAddr;

use messages::{DfPolicy, GreOptions, TosPolicy};
use wire::{Dscp, EmitError, EtherType, IpProtocol, Spi, esp, gre, ipv4, ipv6};

/// The IV of AES-GCM in ESP (RFC 4106 §3.1), in bytes.
pub(crate) const IV_BYTES: usize = 8;
/// ESP header and IV, in bytes.
pub(crate) const ESP_AND_IV_BYTES: usize = esp::HEADER_BYTES + IV_BYTES;
const CAPACITY: usize = 128;

const _: () = assert!(
    2 * ipv6::HEADER_BYTES + ESP_AND_IV_BYTES + gre::MAX_HEADER_BYTES <= CAPACITY,
    "the longest template fits"
);

/// What the packet path fills into an IP header of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderPatch {
    /// Where the header begins.
    pub offset: u8,
    /// IPv6: traffic class and payload length. Otherwise IPv4: ToS, total length, identification, DF, checksum.
    pub family_v6: bool,
    /// DSCP. ECN is that of the packet inside (RFC 6040 §4.1).
    pub tos: TosPolicy,
    /// DF, if IPv4.
    pub df: DfPolicy,
}

impl HeaderPatch {
    /// The DSCP that the header gets in front of one with `behind`.
    pub(crate) fn dscp(&self, behind: Dscp) -> Dscp {
        match self.tos {
            TosPolicy::Copy => behind,
            TosPolicy::Dscp(dscp) => Dscp::new(dscp).unwrap_or(behind),
        }
    }
}

/// See the module's head. The bytes come first, so that they begin a cache line where an encapsulation does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Template {
    bytes: [u8; CAPACITY],
    /// Bytes in use.
    pub len: u8,
    /// The outermost IP header, or, where there is none (ESP transport mode without GRE), where one would be.
    pub outer: HeaderPatch,
    /// The delivery header inside ESP tunnel mode.
    pub inner: Option<HeaderPatch>,
    /// Where ESP begins.
    pub esp_offset: Option<u8>,
    /// Where GRE begins.
    pub gre_offset: Option<u8>,
    /// Next header of the ESP trailer; 0 where the payload packet decides (no GRE): in tunnel mode 4 or 41 by its
    /// version, in transport mode its protocol.
    pub esp_next_header: u8,
    /// Length of the ICV behind the trailer; 0 without ESP.
    pub icv_bytes: u8,
}

impl Template {
    /// The DSCP of the outermost header in front of a packet with `payload`.
    pub(crate) fn outermost_dscp(&self, payload: Dscp) -> Dscp {
        let behind = self.inner.map_or(payload, |inner| inner.dscp(payload));
        self.outer.dscp(behind)
    }

    /// The bytes, outermost header first.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl core::fmt::Debug for Template {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Template")
            .field("bytes", &self.bytes())
            .field("outer", &self.outer)
            .field("inner", &self.inner)
            .field("esp_offset", &self.esp_offset)
            .field("gre_offset", &self.gre_offset)
            .field("esp_next_header", &self.esp_next_header)
            .field("icv_bytes", &self.icv_bytes)
            .finish()
    }
}

/// An IP header to put in front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpHeader {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) tos: TosPolicy,
    pub(crate) df: DfPolicy,
}

/// ESP to put in front and behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EspHeader {
    /// The header of tunnel mode; none in transport mode.
    pub(crate) tunnel_mode: Option<IpHeader>,
    pub(crate) spi: u32,
    pub(crate) icv_bytes: u8,
}

/// What a template is made of; without `delivery` there is no GRE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) delivery: Option<(IpHeader, GreOptions)>,
    pub(crate) esp: Option<EspHeader>,
}

impl Parts {
    /// Puts the parts together.
    ///
    /// # Errors
    /// For addresses of two families in one header.
    pub(crate) fn template(&self) -> Result<Template, EmitError> {
        let mut writer = Writer { bytes: [0; CAPACITY], len: 0 };
        let mut outer = None;
        let mut inner = None;
        let mut esp_offset = None;
        let mut gre_offset = None;
        if let Some(esp) = &self.esp {
            outer = match (&esp.tunnel_mode, &self.delivery) {
                (Some(header), _) => Some(writer.ip(header, IpProtocol::ESP)?),
                (None, Some((delivery, _))) => Some(writer.ip(delivery, IpProtocol::ESP)?),
                (None, None) => None,
            };
            esp_offset = Some(writer.len);
            writer.esp(esp.spi)?;
        }
        if let Some((delivery, options)) = &self.delivery {
            match (&self.esp, outer) {
                (None, _) => outer = Some(writer.ip(delivery, IpProtocol::GRE)?),
                (Some(EspHeader { tunnel_mode: Some(_), .. }), _) => {
                    inner = Some(writer.ip(delivery, IpProtocol::GRE)?);
                }
                _ => {}
            }
            gre_offset = Some(writer.len);
            writer.gre(options)?;
        }
        Ok(Template {
            bytes: writer.bytes,
            len: writer.len,
            outer: outer.unwrap_or(NO_HEADER),
            inner,
            esp_offset,
            gre_offset,
            esp_next_header: self.esp_next_header(),
            icv_bytes: self.esp.map_or(0, |esp| esp.icv_bytes),
        })
    }

    fn esp_next_header(&self) -> u8 {
        let protocol = match (&self.esp, &self.delivery) {
            (Some(EspHeader { tunnel_mode: None, .. }), Some(_)) => IpProtocol::GRE,
            (Some(_), Some((delivery, _))) if delivery.source.is_ipv4() => IpProtocol::IPV4,
            (Some(_), Some(_)) => IpProtocol::IPV6,
            _ => IpProtocol(0),
        };
        protocol.0
    }
}

/// Transport mode without GRE: the packet keeps the header it has.
const NO_HEADER: HeaderPatch =
    HeaderPatch { offset: 0, family_v6: false, tos: TosPolicy::Copy, df: DfPolicy::Copy };

struct Writer {
    bytes: [u8; CAPACITY],
    len: u8,
}

impl Writer {
    fn ip(&mut self, header: &IpHeader, protocol: IpProtocol) -> Result<HeaderPatch, EmitError> {
        let offset = self.len;
        match (header.source, header.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.append(|room| {
                let repr = ipv4::Repr { ttl: header.ttl, ..ipv4::Repr::new(source, destination, protocol) };
                let bytes = repr.emit(room)?;
                let (emitted, _) = ipv4::Header::split_mut(room).map_err(|_| EmitError::NoSpace)?;
                emitted.make_template();
                Ok(bytes)
            })?,
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.append(|room| {
                ipv6::Repr { hop_limit: header.ttl, ..ipv6::Repr::new(source, destination, protocol) }
                    .emit(room)
            })?,
            _ => return Err(EmitError::NotAllowed),
        }
        Ok(HeaderPatch { offset, family_v6: header.source.is_ipv6(), tos: header.tos, df: header.df })
    }

    fn esp(&mut self, spi: u32) -> Result<(), EmitError> {
        self.append(|room| esp::Repr { spi: Spi(spi), sequence_number: 0 }.emit(room))?;
        self.append(|_| Ok(IV_BYTES))
    }

    /// The checksum is computed over each packet, so it is zero here.
    fn gre(&mut self, options: &GreOptions) -> Result<(), EmitError> {
        self.append(|room| {
            let repr = gre::Repr {
                protocol_type: EtherType(0),
                checksum_present: options.checksum,
                key: options.key,
                sequence_number: options.sequence.then_some(0),
            };
            let bytes = repr.emit(room)?;
            if options.checksum {
                room.get_mut(gre::HEADER_BYTES..gre::HEADER_BYTES + 2).ok_or(EmitError::NoSpace)?.fill(0);
            }
            Ok(bytes)
        })
    }

    fn append(&mut self, emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) -> Result<(), EmitError> {
        let room = self.bytes.get_mut(usize::from(self.len)..).ok_or(EmitError::NoSpace)?;
        let bytes = u8::try_from(emit(room)?).map_err(|_| EmitError::TooLong)?;
        self.len = self.len.checked_add(bytes).ok_or(EmitError::TooLong)?;
        Ok(())
    }
}
