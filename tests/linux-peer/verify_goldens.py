# SPDX-License-Identifier: Apache-2.0
"""Check the golden captures with openers that are not ours: RFC code on `cryptography`, and tshark.

Run with pytest; needs neither QEMU nor root:
    /usr/bin/python3 -m pytest tests/linux-peer/verify_goldens.py
"""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from linuxpeer import packets, pcap

GOLDEN = Path(__file__).with_name("golden")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
SIDECARS = {name: json.loads((GOLDEN / f"{name}.json").read_text()) for name in NAMES}
WITH_ESP = [name for name in NAMES if SIDECARS[name]["mode"]]
WITH_GRE = [name for name in NAMES if SIDECARS[name]["gre"]]
REQUIRED = {
    "transport", "tunnel", "tunnel-dual-tier", "gre-key", "gre-checksum", "gre-sequence", "gre-alone", "esp-tunnel",
    "transport-esn", "transport-esn-wrap", "transport-icv-12", "transport-icv-8", "transport-aes-256",
    "transport-ipv6-payload", "ipv6-delivery",
}  # fmt: skip
ETHERTYPES = {4: packets.ETHERTYPE_IPV4, 6: packets.ETHERTYPE_IPV6}
IN_TUNNEL_MODE = {4: packets.IPPROTO_IPIP, 6: packets.IPPROTO_IPV6}
TSHARK_ALGORITHMS = {16: "AES-GCM with 16 octet ICV [RFC4106]", 12: "AES-GCM with 12 octet ICV [RFC4106]",
                     8: "AES-GCM with 8 octet ICV [RFC4106]"}  # fmt: skip
ECN = 0x03


@dataclasses.dataclass(frozen=True)
class Opened:
    """One frame of a capture taken apart, outermost first; what is not there is None."""

    direction: int
    outer: packets.IpPacket
    esp: packets.OpenedEsp | None
    delivery: packets.IpPacket | None
    gre: packets.GrePacket | None
    inner: bytes


def load(name: str) -> tuple[dict, list[bytes]]:
    """The sidecar and the frames."""
    sidecar = SIDECARS[name]
    link_type, frames = pcap.read(GOLDEN / f"{name}.pcap")
    assert link_type == pcap.LINKTYPE_ETHERNET
    assert [packet["frame"] for packet in sidecar["packets"]] == list(range(len(frames)))
    return sidecar, [frame.octets for frame in frames]


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
    ethertype, rest = packets.parse_ethernet(frame)
    assert ethertype == ETHERTYPES[sidecar["delivery_family"]]
    outer = packets.parse_ip(rest)
    esp = delivery = gre = None
    protocol, octets = outer.protocol, outer.payload
    parameters = sidecar["directions"][index]["esp"]
    if parameters:
        assert protocol == packets.IPPROTO_ESP
        esp = packets.open_esp(
            octets,
            spi=parameters["spi"],
            key_salt=bytes.fromhex(parameters["key_salt"]),
            icv_octets=parameters["icv_octets"],
            esn=parameters["esn"],
            sequence_high=sequence_number >> 32,
        )
        assert esp.sequence_number == sequence_number
        protocol, octets = esp.next_header, esp.payload
    if sidecar["gre"]:
        delivery = outer
        if sidecar["mode"] == "tunnel":
            assert protocol == IN_TUNNEL_MODE[sidecar["delivery_family"]]
            delivery = packets.parse_ip(octets)
            protocol, octets = delivery.protocol, delivery.payload
        assert protocol == packets.IPPROTO_GRE
        gre = packets.parse_gre(octets)
        assert gre.protocol_type == ETHERTYPES[sidecar["payload_family"]]
        octets = gre.payload
    else:
        assert protocol == IN_TUNNEL_MODE[sidecar["payload_family"]]
    return Opened(index, outer, esp, delivery, gre, octets)


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
        packets.parse_ip(packet.inner)


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
            assert packet.delivery.extensions == ((packets.IPPROTO_DSTOPTS,) if limited else ())
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
        assert {header.checksum_present for header in headers} == {sidecar["gre"]["checksum"]}
        numbers = [header.sequence_number for header in headers]
        if sidecar["gre"]["sequence"]:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        else:
            assert set(numbers) == {None}


@pytest.mark.parametrize("name", WITH_GRE)
def test_tos_ttl_and_df_of_the_delivery_header_follow_the_configuration(name):
    sidecar, opened = open_all(name)
    gre = sidecar["gre"]
    for packet in opened:
        inner = packets.parse_ip(packet.inner)
        assert packet.delivery.ttl == (inner.ttl if gre["ttl"] is None else gre["ttl"])
        dscp_source = inner.tos if gre["tos"] is None else gre["tos"]
        assert packet.delivery.tos & ~ECN == dscp_source & ~ECN
        if sidecar["delivery_family"] == 4:
            assert packet.delivery.df == (inner.df if gre["copy_df"] else True)


@pytest.mark.parametrize("name", WITH_ESP)
def test_padding_is_the_least_and_no_iv_repeats(name):
    _, opened = open_all(name)
    for index in (0, 1):
        sealed = [packet.esp for packet in opened if packet.direction == index]
        assert len({esp.iv for esp in sealed}) == len(sealed)
        assert all(esp.pad_length == -(len(esp.payload) + 2) % 4 for esp in sealed)
    assert {packet.esp.pad_length for packet in opened} == {0, 1, 2, 3}


def test_sequence_numbers_cross_two_to_the_32_in_both_directions():
    _, opened = open_all("transport-esn-wrap")
    for index in (0, 1):
        lows = [packet.esp.sequence_number & 0xFFFFFFFF for packet in opened if packet.direction == index]
        assert 0xFFFFFFFF in lows and 0 in lows and 1 in lows


def test_the_payloads_are_of_many_kinds():
    inner = [packets.parse_ip(packet.inner) for name in NAMES for packet in open_all(name)[1]]
    ipv4 = [packet for packet in inner if packet.version == 4]
    assert {packet.df for packet in ipv4} == {True, False}
    assert {packet.tos & ECN for packet in inner} == {0, 1, 2, 3}
    assert len({packet.tos for packet in inner}) > 4 and len({packet.ttl for packet in inner}) > 3
    sizes = {len(packet.payload) for packet in inner}
    assert min(sizes) == 8 and max(sizes) >= 1380 and {size % 4 for size in sizes} == {0, 1, 2, 3}


@pytest.mark.parametrize("name", WITH_ESP)
def test_the_opener_refuses_what_was_changed(name):
    sidecar, frames = load(name)
    parameters = sidecar["directions"][0]["esp"]
    number = next(packet["frame"] for packet in sidecar["packets"] if packet["direction"] == 0)
    first = parameters["first_sequence_number"]
    sealed = packets.parse_ip(packets.parse_ethernet(frames[number])[1]).payload
    right = {"spi": parameters["spi"], "key_salt": bytes.fromhex(parameters["key_salt"]), "esn": parameters["esn"],
             "icv_octets": parameters["icv_octets"], "sequence_high": first >> 32}  # fmt: skip
    packets.open_esp(sealed, **right)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x10
        with pytest.raises(packets.Malformed):
            packets.open_esp(bytes(changed), **right)
    other_salt = right["key_salt"][:-1] + bytes((right["key_salt"][-1] ^ 1,))
    wrong = [{"key_salt": other_salt}, {"esn": not parameters["esn"]}]
    wrong += [{"sequence_high": (first >> 32) + 1}] if parameters["esn"] else []
    for change in wrong:
        with pytest.raises(packets.Malformed):
            packets.open_esp(sealed, **(right | change))


def test_tshark_opens_all_but_esn(tmp_path):
    if shutil.which("tshark") is None:
        if os.environ.get("GREYHOUND_REQUIRE_ALL") == "1":
            pytest.fail("tshark is not installed")
        pytest.skip("tshark is not installed")
    frames, expected, associations = [], [], []
    for name in NAMES:
        sidecar, captured = load(name)
        if not sidecar["mode"] or sidecar["directions"][0]["esp"]["esn"]:
            continue  # tshark 4.0 leaves the high word out of the AAD
        associations += [tshark_association(sidecar["delivery_family"], each) for each in sidecar["directions"]]
        frames += captured
        expected += [(sidecar["payload_family"], len(packet["inner"]) // 2) for packet in sidecar["packets"]]
    assert len(frames) > 150
    pcap.write(tmp_path / "all.pcap", pcap.LINKTYPE_ETHERNET, [pcap.Frame(n, f) for n, f in enumerate(frames)])
    # Keys belong in a private file, not among the arguments.
    with os.fdopen(os.open(tmp_path / "esp_sa", os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
        out.write("\n".join(associations) + "\n")
    done = subprocess.run(
        ["tshark", "-r", tmp_path / "all.pcap", "-o", "esp.enable_encryption_decode:TRUE",
         "-o", "esp.enable_authentication_check:TRUE", "-T", "fields", "-e", "esp.icv_good", "-e", "ip.len",
         "-e", "ipv6.plen"],
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = done.stdout.splitlines()
    assert len(rows) == len(frames)
    for row, (family, size) in zip(rows, expected, strict=True):
        good, ipv4_lengths, ipv6_lengths = row.split("\t")
        assert good in ("1", "True")
        innermost = int((ipv4_lengths if family == 4 else ipv6_lengths).split(",")[-1])
        assert innermost + (0 if family == 4 else 40) == size


def tshark_association(family: int, direction: dict) -> str:
    """A line of tshark's esp_sa table: eight fields."""
    esp = direction["esp"]
    fields = (f"IPv{family}", direction["source"], direction["destination"], f"{esp['spi']:#010x}",
              TSHARK_ALGORITHMS[esp["icv_octets"]], f"0x{esp['key_salt']}", "NULL", "")  # fmt: skip
    return ",".join(f'"{field}"' for field in fields)
