# SPDX-License-Identifier: Apache-2.0
"""ESP tunnel mode alone: no GRE; SPD entries on the hosts' addresses say PROTECT. RFC 4301, RFC 4303, RFC 4106."""

import pytest

from harness import esp, scene
from harness.crossing import Crossing, Esp, Header, udp

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]


@pytest.fixture(scope="module")
def gateway(module_lab):
    return scene.Scene(module_lab, seed=4303)


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize("esn", (False, True), ids=("no-esn", "esn"))
@pytest.mark.parametrize("key_octets", (16, 24, 32), ids=("aes-128", "aes-192", "aes-256"))
def test_packets_cross_both_ways(gateway, key_octets, esn, family):
    Crossing(gateway, None, Esp("tunnel", key_octets, esn=esn)).both_ways(family)


@pytest.mark.parametrize("icv", (12, 8), ids=("icv-12", "icv-8"))
def test_shorter_icvs_are_right_too(gateway, icv):
    Crossing(gateway, None, Esp("tunnel", icv=icv, esn=icv == 8)).both_ways(4)


@pytest.mark.parametrize("header", (Header(tos=46, df="set", ttl=200), Header(tos=8, df="clear", ttl=1)), ids=str)
@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
def test_the_header_of_tunnel_mode_is_as_configured(gateway, header, family):
    Crossing(gateway, None, Esp("tunnel", header=header)).both_ways(family)


def test_padding_and_octets_behind_the_packet_are_taken_off(gateway):
    """RFC 4303 §2.4: up to 255 octets of padding; §2.7: TFC padding between packet and padding."""
    crossing = Crossing(gateway, None, Esp("tunnel"))
    packets = [udp(gateway.plan.remote4, gateway.plan.site4, b"x" * length) for length in range(4)]
    for packet in packets:
        gateway.wide.send(crossing.seal(packet, extra_padding=252))
        crossing.expect_at_site(packet, 0)
    for number, packet in enumerate(packets):
        crossing.sequence += 1
        sealed = crossing.sealer.seal(crossing.sequence, packet + bytes(100 + number), esp.NEXT_HEADER_IPV4)
        gateway.wide.send(crossing.frame_from_peer(sealed))
        crossing.expect_at_site(packet, 0)
    crossing.check_counters(0, 2 * len(packets))


def test_a_packet_outside_the_selectors_is_dropped_although_its_icv_is_right(gateway):
    """RFC 4301 §5.2."""
    plan = gateway.plan
    crossing = Crossing(gateway, None, Esp("tunnel"))
    for ends in ((plan.peer4, plan.site4), (plan.remote4, plan.remote4), (plan.site4, plan.remote4)):
        gateway.wide.send(crossing.seal(udp(*ends, b"x")))
    gateway.drops_since(crossing.drops_before, {"selector_mismatch": 3})
    good = udp(plan.remote4, plan.site4, b"x")
    gateway.wide.send(crossing.seal(good))
    crossing.expect_at_site(good, 0)


def test_a_packet_in_clear_that_must_be_protected_is_dropped(gateway):
    """RFC 4301 §5.2."""
    plan = gateway.plan
    crossing = Crossing(gateway, None, Esp("tunnel"))
    for family in (4, 6):
        gateway.wide.send(crossing.bare_frame_from_peer(udp(plan.remote(family), plan.site(family), b"x")))
    gateway.drops_since(crossing.drops_before, {"clear_but_protected": 2})
    assert gateway.site.drain() == []


def test_without_an_sa_nothing_leaves(gateway):
    crossing = Crossing(gateway, None, Esp("tunnel"))
    gateway.apply({**crossing.config, "sa": []})
    for family in (4, 6):
        gateway.site.send(crossing.frame_from_site(
            udp(gateway.plan.site(family), gateway.plan.remote(family), b"x")))
    gateway.drops_since(crossing.drops_before, {"no_sa": 2})
    assert gateway.wide.drain() == []
