# SPDX-License-Identifier: Apache-2.0
"""The GRE parser against Scapy's builder, and against headers that RFC 2784 and RFC 2890 say to discard."""

import itertools
import struct

import pytest

from harness import gre

IPV4 = bytes.fromhex("4500001c0001000040010000c0000201c6336407") + b"\x08\0\xf7\xff\0\0\0\0"
IPV6 = bytes.fromhex("600000000000 3b40") + bytes(32)


@pytest.mark.parametrize("payload, protocol_type", ((IPV4, 0x0800), (IPV6, 0x86DD)))
@pytest.mark.parametrize("key, sequence, checksum",
                         itertools.product((None, 0, 0xDEADBEEF), (None, 1), (False, True)))
def test_what_scapy_builds_is_parsed(payload, protocol_type, key, sequence, checksum):
    parsed = gre.parse(gre.build(payload, key=key, sequence=sequence, checksum=checksum))
    assert (parsed.protocol_type, parsed.payload) == (protocol_type, payload)
    assert (parsed.key, parsed.sequence, parsed.checksum is not None) == (key, sequence, checksum)


@pytest.mark.parametrize("flags", (0x0001, 0x0007, 0x4000, 0x0800, 0x0400))
def test_versions_and_reserved_bits_are_refused(flags):
    with pytest.raises(gre.GreError):
        gre.parse(struct.pack("!HH", flags, 0x0800) + IPV4)


def test_bits_6_to_12_are_ignored():
    assert gre.parse(struct.pack("!HH", 0x03F8, 0x0800) + IPV4).payload == IPV4


def test_a_wrong_checksum_is_refused():
    packet = bytearray(gre.build(IPV4, checksum=True))
    packet[-1] ^= 1
    with pytest.raises(gre.GreError, match="checksum"):
        gre.parse(packet)


def test_optional_fields_that_are_cut_off_are_refused():
    packet = gre.build(IPV4, key=1, sequence=2, checksum=True)
    for length in range(16):
        with pytest.raises(gre.GreError):
            gre.parse(packet[:length])
