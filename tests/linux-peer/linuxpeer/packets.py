# SPDX-License-Identifier: Apache-2.0
"""An independent reader and writer of what goes over the wire, straight from the RFCs.

IPv4 (RFC 791), IPv6 with extension headers (RFC 8200), GRE (RFC 2784, RFC 2890)
and ESP with AES-GCM (RFC 4303, RFC 4106). Strict: whatever the RFC calls a MUST
for the sender is checked. Slow, and shares nothing with the program under test.
"""

import ipaddress
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86DD
IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_GRE, IPPROTO_ESP, IPPROTO_ICMPV6, IPPROTO_DSTOPTS = 4, 41, 47, 50, 58, 60
IPV6_EXTENSIONS = (0, 43, IPPROTO_DSTOPTS)
GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE = 0x8000, 0x2000, 0x1000
IV_OCTETS = 8


class Malformed(Exception):
    """Not what the RFC says; the text names the field."""


@dataclass(frozen=True)
class IpPacket:
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


@dataclass(frozen=True)
class GrePacket:
    """A GRE header; its checksum, if present, has been verified."""

    protocol_type: int
    key: int | None
    sequence_number: int | None
    checksum_present: bool
    payload: bytes


@dataclass(frozen=True)
class OpenedEsp:
    """An ESP packet whose ICV and padding have been verified."""

    sequence_number: int
    iv: bytes
    next_header: int
    pad_length: int
    payload: bytes


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 over data that carries a right one."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse_ethernet(frame: bytes) -> tuple[int, bytes]:
    """Return the EtherType and the rest."""
    if len(frame) < 14:
        raise Malformed("Ethernet header cut short")
    return struct.unpack("!H", frame[12:14])[0], frame[14:]


def parse_ip(octets: bytes) -> IpPacket:
    """Parse a whole IP packet; octets behind its end (Ethernet padding) are left off."""
    version = octets[0] >> 4 if octets else 0
    if version == 4:
        return _parse_ipv4(octets)
    if version == 6:
        return _parse_ipv6(octets)
    raise Malformed(f"IP version {version}")


def _parse_ipv4(octets: bytes) -> IpPacket:
    if len(octets) < 20:
        raise Malformed("IPv4 header cut short")
    first, tos, total, identification, fragment, ttl, protocol, _ = struct.unpack("!BBHHHBBH", octets[:12])
    header = (first & 15) * 4
    if header < 20 or total < header or total > len(octets):
        raise Malformed("IPv4 lengths")
    if checksum(octets[:header]):
        raise Malformed("IPv4 header checksum")
    if fragment & 0x3FFF:
        raise Malformed("a fragment")
    source, destination = (str(ipaddress.IPv4Address(octets[at : at + 4])) for at in (12, 16))
    return IpPacket(
        4, source, destination, tos, ttl, bool(fragment & 0x4000), identification, protocol, (), octets[header:total]
    )


def _parse_ipv6(octets: bytes) -> IpPacket:
    if len(octets) < 40:
        raise Malformed("IPv6 header cut short")
    first, length, protocol, ttl = struct.unpack("!IHBB", octets[:8])
    if 40 + length > len(octets):
        raise Malformed("IPv6 payload length")
    source, destination = (str(ipaddress.IPv6Address(octets[at : at + 16])) for at in (8, 24))
    payload, extensions = octets[40 : 40 + length], []
    while protocol in IPV6_EXTENSIONS:
        if len(payload) < 8 or len(payload) < (size := (payload[1] + 1) * 8):
            raise Malformed("IPv6 extension header cut short")
        extensions.append(protocol)
        protocol, payload = payload[0], payload[size:]
    return IpPacket(
        6, source, destination, first >> 20 & 0xFF, ttl, True, 0, protocol, tuple(extensions), payload
    )  # fmt: skip


def parse_gre(octets: bytes) -> GrePacket:
    """Parse a GRE packet and verify its checksum."""
    if len(octets) < 4:
        raise Malformed("GRE header cut short")
    flags, protocol_type = struct.unpack("!HH", octets[:4])
    if flags & ~(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE):
        raise Malformed(f"GRE flags and version {flags:#06x}")
    offset, fields = 4, {}
    for flag in (GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE):
        if flags & flag:
            if len(octets) < offset + 4:
                raise Malformed("GRE header cut short")
            fields[flag] = struct.unpack("!I", octets[offset : offset + 4])[0]
            offset += 4
    if GRE_CHECKSUM in fields and (checksum(octets) or fields[GRE_CHECKSUM] & 0xFFFF):
        raise Malformed("GRE checksum or Reserved1")
    return GrePacket(
        protocol_type, fields.get(GRE_KEY), fields.get(GRE_SEQUENCE), GRE_CHECKSUM in fields, octets[offset:]
    )


def build_gre(protocol_type: int, payload: bytes, *, key: int | None = None, sequence_number: int | None = None,
              checksum_present: bool = False) -> bytes:  # fmt: skip
    """Build a GRE packet."""
    flags, fields = 0, b""
    if key is not None:
        flags, fields = flags | GRE_KEY, fields + struct.pack("!I", key)
    if sequence_number is not None:
        flags, fields = flags | GRE_SEQUENCE, fields + struct.pack("!I", sequence_number)
    if not checksum_present:
        return struct.pack("!HH", flags, protocol_type) + fields + payload
    head = struct.pack("!HH", flags | GRE_CHECKSUM, protocol_type)
    total = checksum(head + bytes(4) + fields + payload)
    return head + struct.pack("!HH", total, 0) + fields + payload


def build_ipv4(source: str, destination: str, protocol: int, payload: bytes, *, tos: int = 0, ttl: int = 64,
               identification: int = 0, df: bool = True) -> bytes:  # fmt: skip
    """Build an IPv4 packet without options."""
    fragment = 0x4000 if df else 0
    header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), identification, fragment, ttl, protocol, 0)
    header += ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def open_esp(octets: bytes, *, spi: int, key_salt: bytes, icv_octets: int = 16, esn: bool = False,
             sequence_high: int = 0) -> OpenedEsp:  # fmt: skip
    """Verify and open an ESP packet, or raise `Malformed`."""
    if len(octets) < 8 + IV_OCTETS + 4 + icv_octets:
        raise Malformed("ESP packet cut short")
    got_spi, sequence_low = struct.unpack("!II", octets[:8])
    if got_spi != spi:
        raise Malformed(f"SPI {got_spi:#010x}")
    iv, ciphertext, icv = octets[8:16], octets[16:-icv_octets], octets[-icv_octets:]
    mode = modes.GCM(key_salt[-4:] + iv, icv, min_tag_length=icv_octets)
    opener = Cipher(algorithms.AES(key_salt[:-4]), mode).decryptor()
    opener.authenticate_additional_data(_aad(spi, sequence_high, sequence_low, esn))
    try:
        plaintext = opener.update(ciphertext) + opener.finalize()
    except InvalidTag:
        raise Malformed("ICV") from None
    if (len(octets) - icv_octets) % 4:
        raise Malformed("next header does not end a 4-octet word (RFC 4303 section 2.4)")
    pad_length, next_header = plaintext[-2:]
    if pad_length + 2 > len(plaintext):
        raise Malformed("pad length beyond the payload")
    payload, pad = plaintext[: -2 - pad_length], plaintext[-2 - pad_length : -2]
    if pad != bytes(range(1, pad_length + 1)):
        raise Malformed("padding is not 1, 2, 3 (RFC 4303 section 2.4)")
    high = sequence_high << 32 if esn else 0
    return OpenedEsp(high | sequence_low, iv, next_header, pad_length, payload)


def seal_esp(payload: bytes, next_header: int, sequence_number: int, *, spi: int, key_salt: bytes,
             icv_octets: int = 16, esn: bool = False) -> bytes:  # fmt: skip
    """Build an ESP packet. The IV is the sequence number, unique for a key as long as that is."""
    pad_length = -(len(payload) + 2) % 4
    plaintext = payload + bytes(range(1, pad_length + 1)) + bytes((pad_length, next_header))
    high, low = sequence_number >> 32, sequence_number & 0xFFFFFFFF
    iv = struct.pack("!Q", sequence_number)
    sealed = AESGCM(key_salt[:-4]).encrypt(key_salt[-4:] + iv, plaintext, _aad(spi, high, low, esn))
    return struct.pack("!II", spi, low) + iv + sealed[: len(plaintext) + icv_octets]


def _aad(spi: int, high: int, low: int, esn: bool) -> bytes:
    """RFC 4106 section 5."""
    return struct.pack("!III", spi, high, low) if esn else struct.pack("!II", spi, low)
