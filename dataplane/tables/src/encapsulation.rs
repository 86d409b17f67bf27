// SPDX-License-Identifier: Apache-2.0
//! How a payload packet gets to the wire: template, verdict, egress, and the largest payload that fits.
//!
//! Constant within a generation, and laid out so that a packet touches the template's bytes and one line more.

use messages::{DropReason, PortIndex, ProtectionIndex, SaIndex};
use static_assertions::const_assert_eq;
use wire::esp;

use crate::routes::NextHop;
use crate::template::{ESP_AND_IV_BYTES, Template};

/// ESP pads to 32-bit words; AES-GCM asks for no more (RFC 4303 §2.4, RFC 4106 §3).
const ESP_ALIGNMENT: usize = 4;
/// The longest ICV of AES-GCM: assumed while there is no SA to say which.
pub(crate) const ICV_BYTES_DEFAULT: u8 = 16;

/// What the IPsec boundary says of everything that takes this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In clear.
    Clear,
    /// Under ESP; without an SA for the time being, packets are dropped as `no_sa`.
    Protect {
        /// By which protection.
        protection: ProtectionIndex,
        /// Its outbound SA.
        sa: Option<SaIndex>,
    },
    /// Not at all.
    Drop(DropReason),
}

/// Where packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The port.
    pub port: PortIndex,
    /// The neighbour on it. Always a fixed slot, because the outermost destination is constant.
    pub neighbor: NextHop,
    /// The port's MTU.
    pub port_mtu: u16,
}

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Encapsulation {
    /// What goes in front.
    pub template: Template,
    /// The largest payload packet in bytes. While there is no egress, 65,535 or what was configured: such packets are
    /// dropped for the lack of it, not for their size.
    pub mtu: u16,
    /// What the IPsec boundary says.
    pub verdict: Verdict,
    /// The port it leaves by; none while no route leads to the outermost destination by a port. A destination that is
    /// itself routed into a tunnel has none.
    pub egress: Option<Egress>,
}

const_assert_eq!(size_of::<Encapsulation>(), 192);
const_assert_eq!(core::mem::offset_of!(Encapsulation, template), 0);

impl Encapsulation {
    pub(crate) fn new(
        template: Template,
        verdict: Verdict,
        egress: Option<Egress>,
        mtu_configured: Option<u16>,
    ) -> Encapsulation {
        let verdict = if egress.is_some() { verdict } else { Verdict::Drop(DropReason::NoEgress) };
        let fits = egress.map_or(u16::MAX, |egress| payload_max(&template, egress.port_mtu));
        let mtu = mtu_configured.unwrap_or(u16::MAX).min(fits);
        Encapsulation { template, mtu, verdict, egress }
    }

    /// Length of the IP packet on the wire for a payload packet of `payload_bytes`.
    #[inline]
    #[must_use]
    pub fn wire_bytes(&self, payload_bytes: usize) -> usize {
        let in_clear = usize::from(self.template.len) + payload_bytes;
        let Some(esp_offset) = self.template.esp_offset else { return in_clear };
        let encrypted = in_clear.saturating_sub(usize::from(esp_offset) + ESP_AND_IV_BYTES);
        let padding = esp::pad_length::<ESP_ALIGNMENT>(encrypted);
        in_clear + usize::from(padding) + esp::TRAILER_BYTES + usize::from(self.template.icv_bytes)
    }
}

/// The largest payload packet that leaves in `mtu` bytes at most.
///
/// With ESP, what is encrypted (payload, GRE, inner delivery header, padding and trailer) is a multiple of four bytes.
/// In transport mode without GRE the template is ESP and IV alone and the payload packet brings its own header, which
/// is not encrypted; a multiple of four itself, it changes nothing.
fn payload_max(template: &Template, mtu: u16) -> u16 {
    let (mtu, len) = (usize::from(mtu), usize::from(template.len));
    let payload = match template.esp_offset {
        None => mtu.saturating_sub(len),
        Some(esp_offset) => {
            let in_front = usize::from(esp_offset) + ESP_AND_IV_BYTES;
            let encrypted = mtu.saturating_sub(in_front + usize::from(template.icv_bytes));
            let aligned = encrypted & !(ESP_ALIGNMENT - 1);
            aligned.saturating_sub(esp::TRAILER_BYTES + len.saturating_sub(in_front))
        }
    };
    u16::try_from(payload).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use messages::{DfPolicy, GreOptions, TosPolicy};
    use wire::{IpProtocol, Spi, gre, ipv4, ipv6};

    use super::*;
    use crate::template::{EspHeader, IpHeader, Parts};

    fn header(v6: bool, last: u8) -> IpHeader {
        let address = |host: u8| -> IpAddr {
            if v6 {
                IpAddr::from([0x20, 1, 13, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last, host])
            } else {
                IpAddr::from([192, 0, last, host])
            }
        };
        IpHeader {
            source: address(1),
            destination: address(2),
            ttl: 60 + last,
            tos: TosPolicy::Dscp(last),
            df: DfPolicy::Copy,
        }
    }

    fn gre_options() -> impl Iterator<Item = GreOptions> {
        (0..8).map(|bits| GreOptions {
            key: (bits & 1 != 0).then_some(0x0102_0304),
            checksum: bits & 2 != 0,
            sequence: bits & 4 != 0,
        })
    }

    /// Every way to build a template: delivery v4 or v6 with every set of GRE options or none, ESP in transport mode,
    /// in tunnel mode v4 or v6 or none, every ICV.
    fn all_parts() -> Vec<Parts> {
        let families = [false, true];
        let deliveries =
            families.into_iter().flat_map(|v6| gre_options().map(move |gre| (header(v6, 2), gre)));
        let deliveries: Vec<_> = deliveries.map(Some).chain([None]).collect();
        let modes = [None, Some(header(false, 9)), Some(header(true, 9))];
        let esps = modes.into_iter().flat_map(|tunnel_mode| {
            [16, 12, 8].map(|icv_bytes| Some(EspHeader { tunnel_mode, spi: 0xdead_beef, icv_bytes }))
        });
        let esps: Vec<_> = esps.chain([None]).collect();
        let all = deliveries
            .iter()
            .flat_map(|delivery| esps.iter().map(|esp| Parts { delivery: *delivery, esp: *esp }));
        all.filter(|parts| parts.delivery.is_some() || parts.esp.is_some()).collect()
    }

    /// The length on the wire, counted from the RFCs without a look at the template.
    fn counted(parts: &Parts, payload: usize, own_header: usize) -> usize {
        let ip = |header: &IpHeader| if header.source.is_ipv4() { 20 } else { 40 };
        let gre = |options: &GreOptions| {
            4 + 4
                * (usize::from(options.checksum)
                    + usize::from(options.key.is_some())
                    + usize::from(options.sequence))
        };
        let behind_delivery = parts.delivery.as_ref().map_or(0, |(_, options)| gre(options)) + payload;
        let delivery = parts.delivery.as_ref().map_or(0, |(header, _)| ip(header));
        let Some(esp) = &parts.esp else { return delivery + behind_delivery };
        let (in_front, encrypted) = match &esp.tunnel_mode {
            Some(header) => (ip(header), delivery + behind_delivery),
            None if parts.delivery.is_some() => (delivery, behind_delivery),
            None => (own_header, payload - own_header),
        };
        let mut padded = encrypted + 2;
        while padded % 4 != 0 {
            padded += 1;
        }
        in_front + 8 + 8 + padded + usize::from(esp.icv_bytes)
    }

    fn encapsulation(parts: &Parts, port_mtu: u16) -> Encapsulation {
        let egress = Egress { port: PortIndex(0), neighbor: NextHop::Connected, port_mtu };
        Encapsulation::new(parts.template().unwrap(), Verdict::Clear, Some(egress), None)
    }

    #[test]
    fn the_mtu_is_the_largest_payload_that_fits_for_every_configuration() {
        let all = all_parts();
        assert_eq!(all.len(), 17 * 10 - 1);
        for parts in &all {
            for port_mtu in (576..=640).chain([1280, 1499, 1500, 9000, 9216]) {
                let encapsulation = encapsulation(parts, port_mtu);
                let mtu = usize::from(encapsulation.mtu);
                for own_header in [20, 40] {
                    let fits = |payload| counted(parts, payload, own_header) <= usize::from(port_mtu);
                    let largest = (own_header..=usize::from(port_mtu)).rev().find(|payload| fits(*payload));
                    assert_eq!(Some(mtu), largest, "{parts:?} in {port_mtu}");
                }
            }
        }
    }

    #[test]
    fn the_length_on_the_wire_is_what_the_rfcs_add_up_to() {
        for parts in all_parts() {
            let encapsulation = encapsulation(&parts, 1500);
            for payload in (40..120).chain([576, 1399, 1400]) {
                for own_header in [20, 40] {
                    let expected = counted(&parts, payload, own_header);
                    assert_eq!(encapsulation.wire_bytes(payload), expected, "{parts:?} {payload}");
                }
            }
        }
    }

    #[test]
    fn a_smaller_configured_mtu_holds_and_a_larger_one_does_not() {
        let parts = Parts { delivery: Some((header(false, 2), gre_options().next().unwrap())), esp: None };
        let egress = Some(Egress { port: PortIndex(0), neighbor: NextHop::Connected, port_mtu: 1500 });
        let template = parts.template().unwrap();
        let mtu = |configured| Encapsulation::new(template, Verdict::Clear, egress, configured).mtu;
        assert_eq!([mtu(None), mtu(Some(1400)), mtu(Some(1476)), mtu(Some(1477))], [1476, 1400, 1476, 1476]);
    }

    #[test]
    fn without_egress_everything_is_dropped_for_that_reason() {
        let parts = Parts { delivery: Some((header(false, 2), gre_options().next().unwrap())), esp: None };
        let encapsulation = Encapsulation::new(parts.template().unwrap(), Verdict::Clear, None, None);
        assert_eq!(
            (encapsulation.verdict, encapsulation.mtu),
            (Verdict::Drop(DropReason::NoEgress), u16::MAX)
        );
    }

    /// Checks an IP header of a template with `wire`'s parser, lengths filled in as the packet path does.
    fn check_ip(bytes: &mut [u8], patch: &HeaderPatchAnd<'_>, protocol: IpProtocol) {
        let header = patch.header;
        assert_eq!(patch.patch.family_v6, header.source.is_ipv6());
        assert_eq!((patch.patch.tos, patch.patch.df), (header.tos, header.df));
        let total = bytes.len() as u16;
        if header.source.is_ipv6() {
            let (parsed, _) = ipv6::Header::split_mut(bytes).unwrap();
            assert_eq!((parsed.traffic_class(), parsed.flow_label(), parsed.payload_length()), (0, 0, 0));
            parsed.set_payload_length(total - 40);
            let parsed = ipv6::Repr::parse(&ipv6::Packet::parse(bytes).unwrap());
            assert_eq!(
                (IpAddr::from(parsed.source), IpAddr::from(parsed.destination)),
                (header.source, header.destination)
            );
            assert_eq!((parsed.next_header, parsed.hop_limit), (protocol, header.ttl));
        } else {
            assert!(wire::checksum::is_valid(&bytes[..20]), "the checksum of the constant part");
            assert_eq!(bytes[..2], [0x45, 0]);
            assert_eq!(bytes[2..8], [0; 6], "length, identification, flags and offset are left open");
            let (parsed, _) = ipv4::Header::split_mut(bytes).unwrap();
            let constant = parsed.checksum();
            parsed.make_template();
            parsed.fill_template(0xb8, total, 0x1234, true);
            let added = [(0x4500, 0x45b8), (0, total), (0, 0x1234), (0, 0x4000)];
            let incremental =
                added.iter().fold(constant, |sum, (old, new)| wire::checksum::update_u16(sum, *old, *new));
            assert_eq!(incremental, parsed.checksum(), "filled in by adding");
            let packet = ipv4::Packet::parse(bytes).unwrap();
            assert!(packet.checksum_is_valid());
            let parsed = ipv4::Repr::parse(&packet).unwrap();
            assert_eq!(
                (IpAddr::from(parsed.source), IpAddr::from(parsed.destination)),
                (header.source, header.destination)
            );
            assert_eq!((parsed.protocol, parsed.ttl, parsed.fragment_offset), (protocol, header.ttl, 0));
        }
    }

    struct HeaderPatchAnd<'a> {
        patch: crate::template::HeaderPatch,
        header: &'a IpHeader,
    }

    /// Takes a template apart again, header by header, as a receiver would.
    #[test]
    fn every_template_parses_as_what_it_was_made_of() {
        for parts in all_parts() {
            let template = parts.template().unwrap();
            let mut bytes = template.bytes().to_vec();
            let mut at = 0;
            let ip_bytes = |header: &IpHeader| if header.source.is_ipv4() { 20 } else { 40 };
            let tunnel_mode = parts.esp.as_ref().and_then(|esp| esp.tunnel_mode.as_ref());
            let outermost = tunnel_mode.or(parts.delivery.as_ref().map(|(header, _)| header));
            if let Some(header) = outermost {
                assert_eq!(template.outer.offset, 0);
                let protocol = if parts.esp.is_some() { IpProtocol::ESP } else { IpProtocol::GRE };
                check_ip(&mut bytes, &HeaderPatchAnd { patch: template.outer, header }, protocol);
                at += ip_bytes(header);
            }
            assert_eq!(template.esp_offset.map(usize::from), parts.esp.as_ref().map(|_| at));
            assert_eq!(template.icv_bytes, parts.esp.as_ref().map_or(0, |esp| esp.icv_bytes));
            if let Some(header) = &parts.esp {
                let expected = esp::Repr { spi: Spi(header.spi), sequence_number: 0 };
                assert_eq!(esp::Repr::parse(&bytes[at..]).unwrap(), expected);
                assert_eq!(bytes[at + 8..at + 16], [0; 8], "the IV is left open");
                at += 16;
            }
            if let (Some(_), Some((header, _))) = (tunnel_mode, &parts.delivery) {
                let patch = template.inner.expect("a delivery header inside");
                assert_eq!(usize::from(patch.offset), at);
                check_ip(&mut bytes[at..], &HeaderPatchAnd { patch, header }, IpProtocol::GRE);
                at += ip_bytes(header);
            } else {
                assert_eq!(template.inner, None);
            }
            assert_eq!(template.gre_offset.map(usize::from), parts.delivery.as_ref().map(|_| at));
            if let Some((_, options)) = &parts.delivery {
                if options.checksum {
                    assert_eq!(bytes[at + 4..at + 8], [0; 4], "checksum and Reserved1 are left open");
                    gre::fill_checksum(&mut bytes[at..]).unwrap();
                }
                let packet = gre::Packet::parse(&bytes[at..]).unwrap();
                assert!(packet.payload.is_empty(), "nothing behind GRE");
                let expected = gre::Repr {
                    protocol_type: wire::EtherType(0),
                    checksum_present: options.checksum,
                    key: options.key,
                    sequence_number: options.sequence.then_some(0),
                };
                assert_eq!(gre::Repr::parse(&packet), expected);
            } else {
                assert_eq!(at, bytes.len());
            }
            let next_header = match (&parts.esp, &parts.delivery) {
                (Some(esp), Some((delivery, _))) => match (esp.tunnel_mode, delivery.source.is_ipv4()) {
                    (None, _) => 47,
                    (Some(_), true) => 4,
                    (Some(_), false) => 41,
                },
                _ => 0,
            };
            assert_eq!(template.esp_next_header, next_header);
        }
    }

    #[test]
    fn addresses_of_two_families_make_no_header() {
        let mixed = IpHeader { destination: header(true, 2).destination, ..header(false, 2) };
        let parts = Parts { delivery: Some((mixed, gre_options().next().unwrap())), esp: None };
        assert!(parts.template().is_err());
    }
}
