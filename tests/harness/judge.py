# SPDX-License-Identifier: Apache-2.0
"""What a packet must look like after a headend had it, as Scapy and the RFCs see it.

    forwarded   RFC 1812 §5.3.1, RFC 8200 §3: one hop less, and nothing else
    outer       RFC 4301 §5.1.2, RFC 2983, RFC 6040 §4.1: the header that was put in front
    left        RFC 6040 §4.2: the packet that leaves a tunnel, or None where it must be dropped
    ScapySa     Scapy's own ESP, a second opinion beside `esp.Sa`
"""

import struct
import warnings

from harness import frames
from harness.gre import internet_checksum

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import ESP, SecurityAssociation

NOT_ECT, ECT_1, ECT_0, CE = range(4)


def network_packet(frame):
    """The IP packet of a frame, without Ethernet padding."""
    offset = frames.network_offset(frame)
    if frames.ether_type(frame) == 0x0800:
        return frame[offset:offset + struct.unpack_from("!H", frame, offset + 2)[0]]
    return frame[offset:offset + 40 + struct.unpack_from("!H", frame, offset + 4)[0]]


def parse(packet):
    """Scapy's view of an IP packet."""
    return IPv6(packet) if packet[0] >> 4 == 6 else IP(packet)


def tos_of(packet):
    """ToS byte or traffic class."""
    return packet[1] if packet[0] >> 4 == 4 else packet[0] << 4 & 0xF0 | packet[1] >> 4


def df_of(packet):
    """Whether a packet must not be cut: DF, and every IPv6 packet."""
    return packet[0] >> 4 == 6 or bool(packet[6] & 0x40)


def forwarded(packet):
    """The packet one hop further."""
    changed = bytearray(packet)
    changed[8 if packet[0] >> 4 == 4 else 7] -= 1
    return _with_checksum(changed)


def left(packet, outer_tos):
    """`packet` as it leaves a tunnel whose outer header had this ToS (RFC 6040 figure 4); None: it must be dropped."""
    inner, outer = tos_of(packet) & 3, outer_tos & 3
    if outer == CE and inner == NOT_ECT:
        return None
    ecn = CE if outer == CE else ECT_1 if (inner, outer) == (ECT_0, ECT_1) else inner
    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        changed[1] = changed[1] & 0xFC | ecn
    else:
        changed[1] = changed[1] & 0xCF | ecn << 4
    return _with_checksum(changed)


def _with_checksum(packet):
    if packet[0] >> 4 == 4:
        packet[10:12] = b"\0\0"
        packet[10:12] = struct.pack("!H", internet_checksum(packet[:20]))
    return bytes(packet)


def check_outer4(packet, source, destination, protocol, ttl, tos, df):
    """An IPv4 header without options that holds exactly this; returns its identification."""
    seen = IP(packet)
    assert (seen.version, seen.ihl, seen.frag, int(seen.flags) & 5) == (4, 5, 0, 0), seen.summary()
    assert (seen.src, seen.dst, seen.proto) == (source, destination, protocol)
    assert seen.len == len(packet)
    assert seen.ttl == ttl
    assert seen.tos == tos, f"ToS 0x{seen.tos:02x} is not 0x{tos:02x}"
    assert bool(int(seen.flags) & 2) == df, f"DF is {int(seen.flags) & 2}"
    again = seen.copy()
    del again.chksum
    assert bytes(again)[10:12] == packet[10:12], "header checksum"
    return seen.id


class ScapySa:
    """Scapy's ESP with AES-GCM and an ICV of 16 octets (others are wrong in it)."""

    def __init__(self, spi, key_material, esn=False, tunnel=None):
        """`tunnel` is a pair of addresses for tunnel mode."""
        header = tunnel and IP(src=tunnel[0], dst=tunnel[1])
        self.esn = esn
        self._sa = SecurityAssociation(ESP, spi=spi, crypt_algo="AES-GCM", crypt_key=bytes(key_material),
                                       tunnel_header=header, esn_en=esn)

    def seal(self, packet, sequence, iv):
        """The whole ESP packet around (or inside, in transport mode) an IP packet."""
        return bytes(self._sa.encrypt(parse(packet), seq_num=sequence & 0xFFFFFFFF, iv=iv,
                                      esn_en=self.esn, esn=sequence >> 32))

    def open(self, packet, sequence_high=0):
        """The IP packet that is inside: in transport mode with its own header again."""
        return bytes(self._sa.decrypt(parse(packet), verify=True, esn_en=self.esn, esn=sequence_high))
