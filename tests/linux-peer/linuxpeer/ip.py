# SPDX-License-Identifier: Apache-2.0
"""Ethernet, IPv4 (RFC 791) and IPv6 with extension headers (RFC 8200), read strictly and by hand.

What stands behind them is for `harness.esp` and `harness.gre`.
"""

import ipaddress
import struct
from dataclasses import dataclass

from harness.gre import internet_checksum

ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86DD
PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_GRE, PROTOCOL_ESP = 4, 41, 47, 50
PROTOCOL_ICMPV6, DESTINATION_OPTIONS = 58, 60
EXTENSION_HEADERS = (0, 43, DESTINATION_OPTIONS)


class Malformed(Exception):
    """Not what the RFC says; the text names the field."""


@dataclass(frozen=True)
class Packet:
    """An IPv4 or IPv6 header, and what it carries. `protocol` is that behind the extension headers."""

    version: int
    source: str
    destination: str
    tos: int
    ttl: int
    df: bool
    identification: int
    protocol: int
    extensions: tuple[int, ...]
    payload: bytes


def parse_ethernet(frame: bytes) -> tuple[int, bytes]:
    """Return the EtherType and the rest."""
    if len(frame) < 14:
        raise Malformed("Ethernet header cut short")
    return struct.unpack("!H", frame[12:14])[0], frame[14:]


def parse(octets: bytes) -> Packet:
    """Parse a whole IP packet; octets behind its end (Ethernet padding) are left off."""
    version = octets[0] >> 4 if octets else 0
    if version == 4:
        return _parse_ipv4(octets)
    if version == 6:
        return _parse_ipv6(octets)
    raise Malformed(f"IP version {version}")


def build_ipv4(source: str, destination: str, protocol: int, payload: bytes, *, tos: int = 0, ttl: int = 64,
               identification: int = 0, df: bool = True) -> bytes:
    """Build an IPv4 packet without options."""
    fragment = 0x4000 if df else 0
    header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), identification, fragment, ttl, protocol, 0)
    header += ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    return header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:] + payload


def _parse_ipv4(octets: bytes) -> Packet:
    if len(octets) < 20:
        raise Malformed("IPv4 header cut short")
    first, tos, total, identification, fragment, ttl, protocol, _ = struct.unpack("!BBHHHBBH", octets[:12])
    header = (first & 15) * 4
    if header < 20 or total < header or total > len(octets):
        raise Malformed("IPv4 lengths")
    if internet_checksum(octets[:header]):
        raise Malformed("IPv4 header checksum")
    if fragment & 0x3FFF:
        raise Malformed("a fragment")
    source, destination = (str(ipaddress.IPv4Address(octets[at : at + 4])) for at in (12, 16))
    return Packet(
        4, source, destination, tos, ttl, bool(fragment & 0x4000), identification, protocol, (), octets[header:total]
    )


def _parse_ipv6(octets: bytes) -> Packet:
    if len(octets) < 40:
        raise Malformed("IPv6 header cut short")
    first, length, protocol, ttl = struct.unpack("!IHBB", octets[:8])
    if 40 + length > len(octets):
        raise Malformed("IPv6 payload length")
    source, destination = (str(ipaddress.IPv6Address(octets[at : at + 16])) for at in (8, 24))
    payload, extensions = octets[40 : 40 + length], []
    while protocol in EXTENSION_HEADERS:
        if len(payload) < 8 or len(payload) < (size := (payload[1] + 1) * 8):
            raise Malformed("IPv6 extension header cut short")
        extensions.append(protocol)
        protocol, payload = payload[0], payload[size:]
    return Packet(6, source, destination, first >> 20 & 0xFF, ttl, True, 0, protocol, tuple(extensions), payload)
