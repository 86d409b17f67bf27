// SPDX-License-Identifier: Apache-2.0
//! The packets that go through the bed: written into their buffers between rounds, checked where they come out.
//!
//! ```text
//!   outbound buffers                           inbound buffers, as received from the other headend
//!   |headroom|Eth|IP|…     written here        |headroom|······|Eth|IP|…   written here, `growth` bytes behind
//!   |····|Eth|IP|ESP|GRE|IP|…|ICV|  sealed     |headroom|Eth|IP|ESP|GRE|IP|…|ICV|   sealed: begins at the headroom
//! ```

use core::net::IpAddr;

use anyhow::{Context as _, anyhow, bail, ensure};
use messages::EspMode;
use pktbuf::{ALIGN_INBOUND, ALIGN_OUTBOUND, Packet, Pool, PoolConfig, SEALING_TAILROOM};
use wire::{EtherType, Family, IpProtocol, ethernet, ipv4, ipv6};

use crate::bed::{LAN, MTU, Role, Setting, core_mac, mac};
use crate::profile::{self, Flow};

/// Bytes of SPI, sequence number and IV.
const ESP_BYTES: usize = 16;
/// Bytes of the ICV.
pub const ICV_BYTES: usize = 16;
const GRE_BYTES: usize = 4;
const UDP_BYTES: usize = 8;
/// Ethernet and 802.1Q, as the dataplane reckons its buffers.
const LINK_BYTES: usize = 18;
const FRAME_BYTES_MIN: usize = 2_048;
/// Where the ciphertext of a sealed frame begins: behind Ethernet, the delivery header, SPI, sequence number and IV.
pub const SEALED_TEXT: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + ESP_BYTES;
/// Packet sizes of the mix: 7 × 64 + 4 × 576 + 1 × 1,400 bytes.
const IMIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1_400, 64, 576, 64, 576, 64];
/// Longest inner packet that is measured.
pub const SIZE_MAX: usize = 1_400;

/// Sizes of the inner IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of this many bytes.
    Fixed(usize),
    /// The mix.
    Imix,
}

impl Size {
    /// The size of packet number `packet`.
    #[must_use]
    pub fn of(self, packet: usize) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Imix => IMIX[packet % IMIX.len()],
        }
    }

    /// As it stands in results: a number, or `imix`.
    #[must_use]
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Fixed(bytes) => bytes.into(),
            Self::Imix => "imix".into(),
        }
    }

    /// The mean over many packets, in bytes.
    #[must_use]
    pub fn mean(self) -> f64 {
        match self {
            Self::Fixed(bytes) => bytes as f64,
            Self::Imix => IMIX.iter().sum::<usize>() as f64 / IMIX.len() as f64,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(bytes) => bytes.fmt(f),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        match text.parse() {
            Ok(bytes) if (64..=SIZE_MAX).contains(&bytes) => Ok(Self::Fixed(bytes)),
            _ => Err(format!("a size is 64 to {SIZE_MAX} bytes of IP, or imix")),
        }
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the sealer.
    Outbound,
    /// Through the opener.
    Inbound,
}

impl Way {
    /// As it stands in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    /// A pool as the dataplane makes it for ports that this way's packets come from.
    ///
    /// # Errors
    /// No memory.
    pub fn pool(self, packets: usize) -> std::io::Result<Pool> {
        let align_at = match self {
            Self::Outbound => ALIGN_OUTBOUND,
            Self::Inbound => ALIGN_INBOUND,
        };
        let data_bytes = (usize::from(MTU) + LINK_BYTES + SEALING_TAILROOM).max(FRAME_BYTES_MIN);
        Pool::memory_with(&PoolConfig { packets, data_bytes, align_at, ..PoolConfig::default() })
    }
}

/// The packets of one size: their headers, ready to be written.
pub struct Traffic {
    size: Size,
    mode: EspMode,
    flows: Vec<Flow>,
    headers: Vec<u8>,
    header_bytes: usize,
    payload: Vec<u8>,
}

impl Traffic {
    /// Packets of `size` for these flows.
    ///
    /// # Errors
    /// A size that does not hold the headers.
    pub fn new(setting: &Setting, size: Size, flows: &[Flow]) -> anyhow::Result<Self> {
        let header_bytes = ethernet::HEADER_BYTES + ip_header_bytes(setting.family) + UDP_BYTES;
        let mut headers = vec![0; header_bytes * flows.len()];
        for (number, (flow, header)) in flows.iter().zip(headers.chunks_exact_mut(header_bytes)).enumerate() {
            emit(setting.family, flow, number, size.of(number), header)?;
        }
        let payload = (0..SIZE_MAX + 256).map(|at| (at * 31 % 251) as u8).collect();
        Ok(Self { size, mode: setting.mode, flows: flows.to_vec(), headers, header_bytes, payload })
    }

    /// Flow of packet `number`.
    ///
    /// # Panics
    /// If there are no packets.
    #[must_use]
    pub fn flow(&self, number: usize) -> &Flow {
        &self.flows[number % self.flows.len()]
    }

    /// The header of packet `number`.
    fn header(&self, number: usize) -> &[u8] {
        let at = (number % self.flows.len()) * self.header_bytes;
        &self.headers[at..at + self.header_bytes]
    }

    /// Bytes of the frame of packet `number`.
    #[must_use]
    pub fn frame_bytes(&self, number: usize) -> usize {
        ethernet::HEADER_BYTES + self.size.of(number % self.flows.len())
    }

    /// The whole frame of packet `number`.
    #[must_use]
    pub fn frame(&self, number: usize) -> Vec<u8> {
        let mut frame = self.header(number).to_vec();
        frame.extend_from_slice(self.payload(number));
        frame
    }

    fn payload(&self, number: usize) -> &[u8] {
        let start = number % 256;
        &self.payload[start..start + self.frame_bytes(number) - self.header_bytes]
    }

    /// Bytes that a packet grows in front when it is sealed.
    #[must_use]
    pub fn growth(&self) -> usize {
        let tunnel = if self.mode == EspMode::Tunnel { ipv4::HEADER_BYTES } else { 0 };
        tunnel + SEALED_TEXT + GRE_BYTES - ethernet::HEADER_BYTES
    }

    /// Bytes that ESP encrypts of packet `number`: delivery header in tunnel mode, GRE, the packet, padding and trailer.
    #[must_use]
    pub fn text_bytes(&self, number: usize) -> usize {
        let inside = self.frame_bytes(number) - ethernet::HEADER_BYTES;
        let before = self.growth() + ethernet::HEADER_BYTES - SEALED_TEXT;
        (before + inside + 2).next_multiple_of(4)
    }

    /// Where a frame is written: where it was received, or so that it will have been received sealed.
    fn place(&self, way: Way) -> usize {
        match way {
            Way::Outbound => 0,
            Way::Inbound => self.growth(),
        }
    }

    /// Puts the headers of packet `number` into a buffer; what lies behind them is whatever was there.
    ///
    /// # Errors
    /// The buffer is too short.
    #[inline]
    pub fn write_header(&self, way: Way, number: usize, packet: &mut Packet) -> anyhow::Result<()> {
        packet.clear();
        packet.append(self.place(way) + self.frame_bytes(number))?;
        packet.trim_front(self.place(way))?;
        let front = packet.data_mut().get_mut(..self.header_bytes).context("room for the headers")?;
        front.copy_from_slice(self.header(number));
        Ok(())
    }

    /// Puts all of packet `number` into a buffer.
    ///
    /// # Errors
    /// The buffer is too short.
    pub fn write_frame(&self, way: Way, number: usize, packet: &mut Packet) -> anyhow::Result<()> {
        self.write_header(way, number, packet)?;
        let behind = packet.data_mut().get_mut(self.header_bytes..).context("room for the payload")?;
        behind.copy_from_slice(self.payload(number));
        Ok(())
    }

    /// Puts a buffer into the shape that packet `number` has once it is sealed: same place, same length, its headers
    /// touched.
    ///
    /// # Errors
    /// The buffer is too short.
    #[inline]
    pub fn shape_sealed(&self, way: Way, number: usize, packet: &mut Packet) -> anyhow::Result<()> {
        let front = self.growth() - self.place(way);
        packet.clear();
        packet.append(SEALED_TEXT + self.text_bytes(number) + ICV_BYTES - front)?;
        packet.prepend(front)?;
        let front = packet.data_mut().get_mut(..self.header_bytes).context("room for the headers")?;
        front.copy_from_slice(self.header(number));
        Ok(())
    }

    /// Checks that what came out of the opener, or what ESP carried, is packet `number` after `hops` hops. `inside`
    /// begins with the inner IP header.
    ///
    /// # Errors
    /// What differs.
    pub fn check_inside(&self, number: usize, hops: u8, inside: &[u8]) -> anyhow::Result<()> {
        let sent = self.frame(number);
        let sent = sent.get(ethernet::HEADER_BYTES..).unwrap_or(&[]);
        let mut expected = sent.to_vec();
        match expected.first().map(|byte| byte >> 4) {
            Some(4) => {
                let (header, _) =
                    ipv4::Header::split_mut(&mut expected).map_err(|error| anyhow!("{error}"))?;
                header.rewrite_ttl(header.ttl() - hops);
            }
            _ => {
                let (header, _) =
                    ipv6::Header::split_mut(&mut expected).map_err(|error| anyhow!("{error}"))?;
                header.set_hop_limit(header.hop_limit() - hops);
            }
        }
        if inside != expected {
            let at = inside.iter().zip(&expected).position(|(a, b)| a != b);
            bail!(
                "packet {number} changed: {} bytes instead of {}, first difference at byte {at:?}",
                inside.len(),
                expected.len()
            );
        }
        Ok(())
    }
}

fn ip_header_bytes(family: Family) -> usize {
    match family {
        Family::Ipv4 => ipv4::HEADER_BYTES,
        Family::Ipv6 => ipv6::HEADER_BYTES,
    }
}

/// Writes Ethernet, IP and UDP headers of a packet of `bytes` bytes.
fn emit(family: Family, flow: &Flow, number: usize, bytes: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
    let wrong = |error| anyhow!("{error}");
    let ether_type = match family {
        Family::Ipv4 => EtherType::IPV4,
        Family::Ipv6 => EtherType::IPV6,
    };
    let link = ethernet::Repr { destination: mac(Role::Sealer, LAN), source: core_mac(), ether_type };
    link.emit(buffer).map_err(wrong)?;
    let ip_bytes = ip_header_bytes(family);
    ensure!(bytes >= ip_bytes + UDP_BYTES, "a packet of {bytes} bytes has no room for IP and UDP headers");
    let payload_bytes = u16::try_from(bytes - ip_bytes)?;
    let address = |v4| profile::address(family, v4);
    let packet = buffer.get_mut(ethernet::HEADER_BYTES..).context("room for an IP header")?;
    match (address(flow.source), address(flow.destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = ipv4::Repr {
                payload_bytes,
                tos: flow.dscp << 2,
                identification: number as u16,
                ..ipv4::Repr::new(source, destination, IpProtocol::UDP)
            };
            ip.emit(packet).map_err(wrong)?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = ipv6::Repr {
                payload_bytes,
                traffic_class: flow.dscp << 2,
                ..ipv6::Repr::new(source, destination, IpProtocol::UDP)
            };
            ip.emit(packet).map_err(wrong)?;
        }
        _ => bail!("addresses of two families"),
    }
    let udp = packet.get_mut(ip_bytes..).context("room for a UDP header")?;
    let words = [flow.source_port, 5_000, payload_bytes, 0];
    for (word, bytes) in words.iter().zip(udp.chunks_exact_mut(2)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Ok(())
}
