# SPDX-License-Identifier: Apache-2.0
"""Open the golden captures with the judges in `harness` and with tshark: neither QEMU nor root is needed.

This also judges the judges: what they open here, a Linux kernel sealed.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from harness import esp, gre, pcap, tshark
from linuxpeer import ip

GOLDEN = Path(__file__).with_name("golden")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
SIDECARS = {name: json.loads((GOLDEN / f"{name}.json").read_text()) for name in NAMES}
WITH_ESP = [name for name in NAMES if SIDECARS[name]["mode"]]
WITH_GRE = [name for name in NAMES if SIDECARS[name]["gre"]]
REQUIRED = {
    "transport", "tunnel", "tunnel-dual-tier", "gre-key", "gre-checksum", "gre-sequence", "gre-alone", "esp-tunnel",
    "transport-esn", "transport-esn-wrap", "transport-icv-12", "transport-icv-8", "transport-aes-256",
    "transport-ipv6-payload", "ipv6-delivery",
}
ETHERTYPES = {4: ip.ETHERTYPE_IPV4, 6: ip.ETHERTYPE_IPV6}
IN_TUNNEL_MODE = {4: ip.PROTOCOL_IPV4, 6: ip.PROTOCOL_IPV6}
ECN = 0x03


@dataclasses.dataclass(frozen=True)
class Opened:
    """One frame of a capture taken apart, outermost first; what is not there is None."""

    direction: int
    outer: ip.Packet
    esp: esp.Opened | None
    delivery: ip.Packet | None
    gre: gre.Parsed | None
    inner: bytes


def load(name: str) -> tuple[dict, list[bytes]]:
    """The sidecar and the frames."""
    sidecar = SIDECARS[name]
    frames = pcap.frames(GOLDEN / f"{name}.pcap")
    assert [packet["frame"] for packet in sidecar["packets"]] == list(range(len(frames)))
    return sidecar, frames


def open_all(name: str) -> tuple[dict, list[Opened]]:
    """Open every frame of a capture, following the 64-bit sequence number of each direction."""
    sidecar, frames = load(name)
    expected = [direction["esp"] and direction["esp"]["first_sequence_number"] for direction in sidecar["directions"]]
    opened = []
    for packet, frame in zip(sidecar["packets"], frames, strict=True):
        index = packet["direction"]
        opened.append(open_frame(sidecar, index, frame, expected[index]))
        if expected[index] is not None:
            expected[index] += 1
    return sidecar, opened


def open_frame(sidecar: dict, index: int, frame: bytes, sequence_number: int | None) -> Opened:
    """Take one frame apart with the parameters of its direction."""
    ethertype, rest = ip.parse_ethernet(frame)
    assert ethertype == ETHERTYPES[sidecar["delivery_family"]]
    outer = ip.parse(rest)
    opened = delivery = header = None
    protocol, octets = outer.protocol, outer.payload
    if sidecar["mode"]:
        assert protocol == ip.PROTOCOL_ESP
        opened = association(sidecar, index).open(octets, sequence_number >> 32)
        assert opened.sequence == sequence_number
        protocol, octets = opened.next_header, opened.payload
    if sidecar["gre"]:
        delivery = outer
        if sidecar["mode"] == "tunnel":
            assert protocol == IN_TUNNEL_MODE[sidecar["delivery_family"]]
            delivery = ip.parse(octets)
            protocol, octets = delivery.protocol, delivery.payload
        assert protocol == ip.PROTOCOL_GRE
        header = gre.parse(octets)
        assert header.protocol_type == ETHERTYPES[sidecar["payload_family"]]
        octets = header.payload
    else:
        assert protocol == IN_TUNNEL_MODE[sidecar["payload_family"]]
    return Opened(index, outer, opened, delivery, header, octets)


def association(sidecar: dict, index: int, **changes) -> esp.Sa:
    """The SA of one direction."""
    listed = sidecar["directions"][index]["esp"] | changes
    return esp.Sa.from_key_material(listed["spi"], listed["key_salt"], listed["icv_octets"], listed["esn"])


def test_the_set_is_complete():
    assert REQUIRED <= set(NAMES)
    assert {path.stem for path in GOLDEN.glob("*.pcap")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_opens_to_the_packet_that_was_sent(name):
    sidecar, opened = open_all(name)
    assert len(opened) >= 10
    assert {packet.direction for packet in opened} == {0, 1}
    for packet, listed in zip(opened, sidecar["packets"], strict=True):
        assert packet.inner.hex() == listed["inner"]
        ip.parse(packet.inner)


@pytest.mark.parametrize("name", NAMES)
def test_addresses_and_headers_are_those_of_the_sidecar(name):
    sidecar, opened = open_all(name)
    limited = bool(sidecar["gre"] and sidecar["gre"]["encap_limit"])
    for packet in opened:
        direction = sidecar["directions"][packet.direction]
        assert (packet.outer.source, packet.outer.destination) == (direction["source"], direction["destination"])
        if packet.delivery:
            ends = (packet.delivery.source, packet.delivery.destination)
            assert ends == (direction["gre_source"], direction["gre_destination"])
            assert packet.delivery.extensions == ((ip.DESTINATION_OPTIONS,) if limited else ())
        if packet.outer is not packet.delivery:
            assert packet.outer.extensions == ()


@pytest.mark.parametrize("name", NAMES)
def test_gre_carries_what_it_was_told_to(name):
    sidecar, opened = open_all(name)
    if not sidecar["gre"]:
        assert all(packet.gre is None for packet in opened)
        return
    for index in (0, 1):
        headers = [packet.gre for packet in opened if packet.direction == index]
        assert {header.key for header in headers} == {sidecar["gre"]["key"]}
        assert {header.checksum is not None for header in headers} == {sidecar["gre"]["checksum"]}
        numbers = [header.sequence for header in headers]
        if sidecar["gre"]["sequence"]:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        else:
            assert set(numbers) == {None}


@pytest.mark.parametrize("name", WITH_GRE)
def test_tos_ttl_and_df_of_the_delivery_header_follow_the_configuration(name):
    sidecar, opened = open_all(name)
    configured = sidecar["gre"]
    for packet in opened:
        inner = ip.parse(packet.inner)
        assert packet.delivery.ttl == (inner.ttl if configured["ttl"] is None else configured["ttl"])
        dscp_source = inner.tos if configured["tos"] is None else configured["tos"]
        assert packet.delivery.tos & ~ECN == dscp_source & ~ECN
        if sidecar["delivery_family"] == 4:
            assert packet.delivery.df == (inner.df if configured["copy_df"] else True)


@pytest.mark.parametrize("name", WITH_ESP)
def test_padding_is_the_least_and_no_iv_repeats(name):
    _, opened = open_all(name)
    for index in (0, 1):
        sealed = [packet.esp for packet in opened if packet.direction == index]
        assert len({each.iv for each in sealed}) == len(sealed)
        assert all(len(each.padding) == -(len(each.payload) + 2) % 4 for each in sealed)
    assert {len(packet.esp.padding) for packet in opened} == {0, 1, 2, 3}


def test_sequence_numbers_cross_two_to_the_32_in_both_directions():
    _, opened = open_all("transport-esn-wrap")
    for index in (0, 1):
        lows = [packet.esp.sequence & 0xFFFFFFFF for packet in opened if packet.direction == index]
        assert 0xFFFFFFFF in lows and 0 in lows and 1 in lows


def test_the_payloads_are_of_many_kinds():
    inner = [ip.parse(packet.inner) for name in NAMES for packet in open_all(name)[1]]
    ipv4 = [packet for packet in inner if packet.version == 4]
    assert {packet.df for packet in ipv4} == {True, False}
    assert {packet.tos & ECN for packet in inner} == {0, 1, 2, 3}
    assert len({packet.tos for packet in inner}) > 4 and len({packet.ttl for packet in inner}) > 3
    sizes = {len(packet.payload) for packet in inner}
    assert min(sizes) == 8 and max(sizes) >= 1380 and {size % 4 for size in sizes} == {0, 1, 2, 3}


@pytest.mark.parametrize("name", WITH_ESP)
def test_the_opener_refuses_what_was_changed(name):
    sidecar, frames = load(name)
    first = sidecar["directions"][0]["esp"]["first_sequence_number"]
    number = next(packet["frame"] for packet in sidecar["packets"] if packet["direction"] == 0)
    sealed = ip.parse(ip.parse_ethernet(frames[number])[1]).payload
    right = association(sidecar, 0)
    right.open(sealed, first >> 32)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x10
        with pytest.raises(esp.EspError):
            right.open(changed, first >> 32)
    key_salt = bytearray(right.key_material)
    key_salt[-1] ^= 1
    wrong = [(association(sidecar, 0, key_salt=bytes(key_salt).hex()), first >> 32)]
    wrong.append((association(sidecar, 0, esn=not right.esn), first >> 32))
    wrong += [(right, (first >> 32) + 1)] if right.esn else []
    for sa, high in wrong:
        with pytest.raises(esp.EspError):
            sa.open(sealed, high)


@pytest.mark.requires_tools("tshark")
def test_tshark_opens_all_but_esn(tmp_path):
    frames, expected, keys = [], [], []
    for name in NAMES:
        sidecar, captured = load(name)
        if not sidecar["mode"] or sidecar["directions"][0]["esp"]["esn"]:
            continue
        for index, direction in enumerate(sidecar["directions"]):
            sa = association(sidecar, index)
            keys.append(tshark.Key(direction["source"], direction["destination"], sa.spi, sa.key_material, sa.icv))
        frames += captured
        inside = ["gre"] if sidecar["gre"] else []
        expected += [(*inside, "ip" if sidecar["payload_family"] == 4 else "ipv6")] * len(captured)
    assert len(frames) > 150
    pcap.write(tmp_path / "all.pcap", frames)
    dissected = tshark.dissect(tmp_path / "all.pcap", keys)
    assert len(dissected) == len(frames)
    for frame, inside in zip(dissected, expected, strict=True):
        assert frame.decrypted, frame
        behind_esp = frame.protocols[frame.protocols.index("esp") + 1 :]
        innermost = [protocol for protocol in behind_esp if protocol in ("gre", "ip", "ipv6")]
        assert tuple(innermost[-len(inside) :]) == inside, frame
