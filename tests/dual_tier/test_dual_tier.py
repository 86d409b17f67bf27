# SPDX-License-Identifier: Apache-2.0
"""GRE in ESP with two pairs of addresses, as in a dual-tier headend: GRE between loopbacks, ESP between ports."""

import pytest

from harness import judge, scene
from harness.crossing import Crossing, Esp, Gre, Header, udp

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]


@pytest.fixture(scope="module")
def gateway(module_lab):
    return scene.Scene(module_lab, seed=4301)


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize("key", (None, 0xC0FFEE42), ids=("no-key", "key"))
@pytest.mark.parametrize("esn", (False, True), ids=("no-esn", "esn"))
@pytest.mark.parametrize("key_octets", (16, 32), ids=("aes-128", "aes-256"))
def test_packets_cross_both_ways(gateway, key_octets, esn, key, family):
    options = Gre(key=key, own_addresses=True)
    Crossing(gateway, options, Esp("tunnel", key_octets, esn=esn)).both_ways(family)


HEADERS = {
    "outer-copies": (Header(tos=46, df="set", ttl=17), Header(ttl=200)),
    "outer-fixed": (Header(ttl=9), Header(tos=8, df="set", ttl=99)),
    "both-clear": (Header(tos=0, df="clear"), Header(df="clear")),
    "inner-clear-outer-copies": (Header(df="clear"), Header(df="copy")),
}


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize(("delivery", "outer"), HEADERS.values(), ids=HEADERS)
def test_each_header_is_as_configured(gateway, delivery, outer, family):
    """RFC 4301 §5.1.2: what the header of tunnel mode copies, it copies from the header behind it."""
    options = Gre(header=delivery, own_addresses=True)
    Crossing(gateway, options, Esp("tunnel", header=outer)).both_ways(family)


def test_congestion_marks_pass_through_both_headers(gateway):
    """RFC 6040 §4.2: a mark of the outermost header goes to the delivery header and on to the packet."""
    plan = gateway.plan
    crossing = Crossing(gateway, Gre(own_addresses=True), Esp("tunnel"))
    packet = udp(plan.remote4, plan.site4, b"marked", tos=0xB8 | judge.ECT_0)
    frame = crossing.seal(packet, 0xB8 | judge.ECT_0)
    gateway.wide.send(crossing.marked(frame, judge.CE))
    crossing.expect_at_site(packet, 0xB8 | judge.CE)
    lost = crossing.seal(udp(plan.remote4, plan.site4, b"lost"))
    gateway.wide.send(crossing.marked(lost, judge.CE))
    gateway.drops_since(crossing.drops_before, {"ecn_invalid": 1})
    assert gateway.site.drain() == []


def test_the_other_pair_of_addresses_is_not_enough(gateway):
    """RFC 4301 §5.2: GRE under the right SA with the wrong delivery addresses, or in clear with the right ones."""
    plan = gateway.plan
    crossing = Crossing(gateway, Gre(own_addresses=True), Esp("tunnel"))
    packet = udp(plan.remote4, plan.site4, b"x")
    right = crossing.gre_ends
    crossing.gre_ends = crossing.esp_ends
    gateway.wide.send(crossing.seal(packet))
    crossing.gre_ends = right
    gateway.drops_since(crossing.drops_before, {"gre_no_tunnel": 1})
    gateway.wide.send(crossing.bare_frame_from_peer(crossing.gre_packet(packet)))
    gateway.drops_since(crossing.drops_before, {"gre_no_tunnel": 1, "clear_but_protected": 1})
    gateway.wide.send(crossing.seal(packet))
    crossing.expect_at_site(packet, 0)
