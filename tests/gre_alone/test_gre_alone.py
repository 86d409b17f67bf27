# SPDX-License-Identifier: Apache-2.0
"""GRE alone: no ESP; an SPD entry lets GRE to the peer pass in clear. RFC 2784, RFC 2890, RFC 7676."""

import pytest

from harness import gre, judge, scene
from harness.crossing import Crossing, Gre, Header, assortment, udp

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

KEYS = {"no-key": None, "key-0": 0, "key": 0xC0FFEE42, "last-key": 0xFFFFFFFF}


@pytest.fixture(scope="module")
def gateway(module_lab):
    return scene.Scene(module_lab, seed=2784)


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_packets_cross_both_ways(gateway, key, family):
    Crossing(gateway, Gre(key=key)).both_ways(family)


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize("key", (None, 7), ids=("no-key", "key"))
def test_checksum_and_sequence_numbers_are_as_configured(gateway, key, family):
    Crossing(gateway, Gre(key=key, checksum=True, sequence=True)).both_ways(family)


def test_sequence_numbers_go_on_through_a_change_and_begin_again_with_another_key(gateway):
    """Delivery addresses and key are what names a tunnel; a peer's new tunnel begins at 0 again (RFC 2890 §2.2)."""
    plan, crossing = gateway.plan, Crossing(gateway, Gre(key=1, sequence=True))
    tunnel = crossing.config["tunnel"][0]
    packets = list(assortment(plan.site4, plan.remote4, gateway.rng))
    answers = [udp(plan.remote4, plan.site4, b"answer")] * 3
    crossing.outbound(packets[:3])
    crossing.inbound(answers)
    tunnel["ttl"], tunnel["mss"] = 64, "off"
    gateway.apply(crossing.config)
    crossing.outbound(packets[3:5])
    crossing.inbound(answers)
    assert (crossing.gre_sequence, crossing.gre_sequence_in) == (5, 6)

    tunnel["key"] = 2
    crossing.gre = Gre(key=2, sequence=True)
    gateway.apply(crossing.config)
    crossing.gre_sequence = crossing.gre_sequence_in = 0
    crossing.outbound(packets[5:])
    crossing.inbound(answers)
    crossing.gre_sequence_in = 2
    gateway.wide.send(crossing.seal(answers[0]))
    gateway.drops_since(crossing.drops_before, {"gre_sequence": 1})


@pytest.mark.parametrize("header", (Header(tos=46, df="set", ttl=255), Header(tos=0, df="clear", ttl=1)), ids=str)
def test_the_delivery_header_is_as_configured(gateway, header):
    Crossing(gateway, Gre(header=header)).both_ways(4)


def test_a_packet_with_another_key_or_none_belongs_to_no_tunnel(gateway):
    crossing = Crossing(gateway, Gre(key=7))
    packet = udp(gateway.plan.remote4, gateway.plan.site4, b"x")
    for key in (None, 8, 0, 7 << 8):
        other = gre.build(packet, key=key)
        gateway.wide.send(crossing.frame_from_peer(other))
    gateway.wide.send(crossing.seal(packet))
    crossing.expect_at_site(packet, 0)
    crossing.check_counters(0, 1, {"gre_key": 4})


def test_what_gre_may_not_be_is_dropped_by_its_reason(gateway):
    crossing = Crossing(gateway, Gre())
    packet = udp(gateway.plan.remote4, gateway.plan.site4, b"x")
    good = gre.build(packet)
    wrong = {
        "gre_version": bytes([good[0], good[1] | 1]) + good[2:],
        "gre_reserved_bits": bytes([good[0] | 0x40, good[1]]) + good[2:],
        "gre_protocol": good[:2] + b"\x88\x47" + good[4:],
        "gre_checksum": gre.build(packet, checksum=True)[:4] + b"\xde\xad" + gre.build(packet, checksum=True)[6:],
        "gre_malformed": good[:3],
    }
    for octets in wrong.values():
        gateway.wide.send(crossing.frame_from_peer(octets))
    ignored = bytes([good[0] | 0x03, good[1] | 0xF8]) + good[2:]
    gateway.wide.send(crossing.frame_from_peer(ignored))
    crossing.expect_at_site(packet, 0)
    crossing.check_counters(0, 1, dict.fromkeys(wrong, 1))


def test_congestion_in_the_tunnel_reaches_the_packet_or_drops_it(gateway):
    """RFC 6040 §4.2, the whole of figure 4."""
    crossing = Crossing(gateway, Gre())
    passed = dropped = 0
    for inner in range(4):
        for outer in range(4):
            packet = udp(gateway.plan.remote4, gateway.plan.site4, bytes([inner, outer]), tos=0xB8 | inner)
            gateway.wide.send(crossing.seal(packet, 0xB8 | outer))
            if judge.left(packet, 0xB8 | outer) is None:
                dropped += 1
                continue
            crossing.expect_at_site(packet, 0xB8 | outer)
            passed += 1
    assert (passed, dropped) == (15, 1)
    crossing.check_counters(0, passed, {"ecn_invalid": dropped})


def test_without_a_policy_nothing_leaves_and_nothing_comes_in(gateway):
    crossing = Crossing(gateway, Gre())
    gateway.apply({**crossing.config, "policy": []})
    outbound = udp(gateway.plan.site4, gateway.plan.remote4, b"x")
    gateway.site.send(crossing.frame_from_site(outbound))
    gateway.wide.send(crossing.seal(udp(gateway.plan.remote4, gateway.plan.site4, b"x")))
    gateway.drops_since(crossing.drops_before, {"policy_none": 2})
    assert gateway.wide.drain() == [] and gateway.site.drain() == []
