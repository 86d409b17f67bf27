# SPDX-License-Identifier: Apache-2.0
"""GRE: built through Scapy, parsed by hand from RFC 2784 and RFC 2890 (so that neither judges itself).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |C| |K|S|       Reserved0       | Ver |         Protocol Type   |
    |      Checksum (optional)      |       Reserved1 (optional)    |
    |                         Key (optional)                        |
    |                 Sequence Number (optional)                    |
"""

import dataclasses
import struct
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.l2 import GRE
    from scapy.packet import Raw

PROTOCOL_IPV4 = 0x0800
PROTOCOL_IPV6 = 0x86DD


class GreError(Exception):
    """A packet that an RFC 2784/2890 receiver must discard; the text says why."""


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A GRE header and what it carries."""

    protocol_type: int
    key: int | None
    sequence: int | None
    checksum: int | None
    payload: bytes


def build(payload, protocol_type=None, key=None, sequence=None, checksum=False):
    """GRE header and payload packet as bytes. The protocol type follows the payload's IP version unless given."""
    payload = bytes(payload)
    if protocol_type is None:
        protocol_type = {4: PROTOCOL_IPV4, 6: PROTOCOL_IPV6}[payload[0] >> 4]
    header = GRE(proto=protocol_type)
    if key is not None:
        header.key_present, header.key = 1, key
    if sequence is not None:
        header.seqnum_present, header.sequence_number = 1, sequence
    if checksum:
        header.chksum_present = 1
    return bytes(header / Raw(payload))


def parse(packet):
    """Parses GRE strictly as RFC 2784 §2 and RFC 2890 §2 have it."""
    packet = bytes(packet)
    if len(packet) < 4:
        raise GreError("shorter than 4 octets")
    flags, protocol_type = struct.unpack_from("!HH", packet)
    if flags & 0x0007:
        raise GreError(f"version {flags & 7}")
    if flags & 0x4C00:
        raise GreError("RFC 2784 §2.3: a bit of 1, 4 or 5 is set")
    has_checksum, has_key, has_sequence = flags & 0x8000, flags & 0x2000, flags & 0x1000
    length = 4 + 4 * sum(map(bool, (has_checksum, has_key, has_sequence)))
    if len(packet) < length:
        raise GreError(f"flags 0x{flags:04x} ask for {length} octets, {len(packet)} are there")
    words = iter(struct.unpack_from(f"!{length // 4 - 1}I", packet, 4))
    checksum = next(words) >> 16 if has_checksum else None
    if checksum is not None and internet_checksum(packet) != 0:
        raise GreError(f"checksum 0x{checksum:04x} is wrong")
    key = next(words) if has_key else None
    sequence = next(words) if has_sequence else None
    return Parsed(protocol_type, key, sequence, checksum, packet[length:])


def internet_checksum(data):
    """RFC 1071; 0 over data that holds its own right checksum."""
    data = bytes(data) + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
