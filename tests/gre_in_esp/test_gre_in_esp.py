# SPDX-License-Identifier: Apache-2.0
"""GRE in ESP with one pair of addresses: tunnel protection of a single-tier headend. Transport mode, and tunnel mode."""

import warnings

import pytest

from harness import esp, judge, scene
from harness.crossing import ALGORITHMS, Crossing, Esp, Gre, Header, udp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import ICMP, IP, defragment
    from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]


@pytest.fixture(scope="module")
def gateway(module_lab):
    return scene.Scene(module_lab, seed=4106)


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize("key", (None, 0xC0FFEE42), ids=("no-key", "key"))
@pytest.mark.parametrize("esn", (False, True), ids=("no-esn", "esn"))
@pytest.mark.parametrize("key_octets", (16, 32), ids=("aes-128", "aes-256"))
@pytest.mark.parametrize("mode", ("transport", "tunnel"))
def test_packets_cross_both_ways(gateway, mode, key_octets, esn, key, family):
    Crossing(gateway, Gre(key=key), Esp(mode, key_octets, esn=esn)).both_ways(family)


@pytest.mark.parametrize("icv", ALGORITHMS)
@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
def test_every_gre_option_with_every_icv(gateway, icv, family):
    options = Gre(key=1 << 31, checksum=True, sequence=True)
    Crossing(gateway, options, Esp(key_octets=24, icv=icv, esn=True)).both_ways(family)


@pytest.mark.parametrize("header", (Header(tos=46, df="set", ttl=255), Header(tos=0, df="clear", ttl=1)), ids=str)
@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
def test_the_delivery_header_is_as_configured(gateway, header, family):
    Crossing(gateway, Gre(header=header), Esp()).both_ways(family)


def test_esn_goes_on_across_two_to_the_32(gateway):
    """RFC 4303 App. A: the high word is inferred; a low word of 0 is legal, and a replay is none the less seen."""
    crossing = Crossing(gateway, Gre(), Esp(esn=True))
    numbers = [5, 1 << 31, (1 << 32) - 2, (1 << 32) + 3, 1 << 32, (1 << 32) - 1, 3 << 31, (2 << 32) + 900]
    for number in numbers:
        packet = udp(gateway.plan.remote4, gateway.plan.site4, number.to_bytes(8, "big"))
        gateway.wide.send(crossing.seal(packet, sequence=number))
        crossing.expect_at_site(packet, 0)
    for number in numbers[-1:]:
        gateway.wide.send(crossing.seal(udp(gateway.plan.remote4, gateway.plan.site4, b"again"), sequence=number))
    crossing.check_counters(0, len(numbers), {"replayed": 1})


def test_replayed_old_and_forged_packets_end_in_their_counters(gateway):
    crossing = Crossing(gateway, Gre(), Esp())
    packet = udp(gateway.plan.remote4, gateway.plan.site4, b"x")
    frame = crossing.seal(packet, sequence=2_000)
    forged = crossing.seal(packet, sequence=1_000_000)
    gateway.wide.send_all([frame, frame, forged[:-1] + bytes([forged[-1] ^ 1]),
                           crossing.seal(packet, sequence=2_000 - 1_024), crossing.seal(packet, sequence=0),
                           crossing.seal(packet, sequence=2_000 - 1_023)])
    crossing.expect_at_site(packet, 0)
    crossing.expect_at_site(packet, 0)
    crossing.sequence = 2_000
    crossing.check_counters(0, 2, {"replayed": 1, "bad_icv": 1, "replay_too_old": 1, "sequence_zero": 1})


def test_what_lies_is_dropped_under_a_valid_icv(gateway):
    """RFC 4303 §2.4 to §2.6; RFC 4301 §5.2."""
    crossing = Crossing(gateway, Gre(key=7), Esp())
    packet = udp(gateway.plan.remote4, gateway.plan.site4, b"")
    inside = crossing.seal(packet, sequence=1)
    inside = crossing.sealer.open(judge.network_packet(inside)[20:]).payload
    aligned = inside + bytes(-(len(inside) + 2) % 4)
    assert len(aligned) > len(inside) + 1, "padding that can be wrong"
    wrong = {
        "pad_length": aligned + bytes([255, esp.NEXT_HEADER_GRE]),
        "pad_bytes": aligned + bytes([len(aligned) - len(inside), esp.NEXT_HEADER_GRE]),
        "dummy_packet": inside + bytes(range(1, len(aligned) - len(inside) + 1))
        + bytes([len(aligned) - len(inside), esp.NEXT_HEADER_DUMMY]),
    }
    for number, plaintext in enumerate(wrong.values()):
        gateway.wide.send(crossing.frame_from_peer(crossing.sealer.seal_plaintext(10 + number, plaintext)))
    crossing.sequence = 12
    crossing.scene.drops_since(crossing.drops_before, dict.fromkeys(wrong, 1))
    assert gateway.site.drain() == []


def test_gre_in_clear_is_not_taken_although_the_tunnel_is_its_own(gateway):
    crossing = Crossing(gateway, Gre(), Esp())
    packet = udp(gateway.plan.remote4, gateway.plan.site4, b"x")
    gateway.wide.send(crossing.bare_frame_from_peer(crossing.gre_packet(packet)))
    gateway.drops_since(crossing.drops_before, {"clear_but_protected": 1})
    assert gateway.site.drain() == []


def effective_mtu(gateway):
    return gateway.headend.cli("tunnel", "list")[0]["effective_mtu"]


def quoted(message, octets):
    """The beginning of the packet that a message is about; its hop may have been taken off (RFC 1812 §4.3.2.3)."""
    return bytes(message.payload)[:octets]


@pytest.mark.parametrize("mode", ("transport", "tunnel"))
def test_the_tunnels_mtu_is_what_fits_and_its_sender_is_told(gateway, mode):
    """RFC 1191 §4, RFC 4443 §3.2, RFC 4301 §8.2.1."""
    plan = gateway.plan
    crossing = Crossing(gateway, Gre(), Esp(mode))
    mtu = effective_mtu(gateway)
    whole = udp(plan.site4, plan.remote4, gateway.rng.randbytes(mtu - 28), df=True)
    frame = crossing.send_at_site(whole)
    assert 1_500 - 3 <= len(frame) - 14 <= 1_500, "not the largest that fits"
    assert crossing.take_apart(frame)[0] == judge.forwarded(whole)

    too_big = udp(plan.site4, plan.remote4, gateway.rng.randbytes(mtu - 27), df=True)
    gateway.site.send(crossing.frame_from_site(too_big))
    answer = IP(judge.network_packet(gateway.site.receive(what="fragmentation needed")))
    assert (answer.src, answer.dst, answer[ICMP].type, answer[ICMP].code) == (plan.our_lan4, plan.site4, 3, 4)
    assert answer[ICMP].nexthopmtu == mtu
    assert quoted(answer[ICMP], 28) in (too_big[:28], judge.forwarded(too_big)[:28])

    too_big6 = udp(plan.site6, plan.remote6, gateway.rng.randbytes(mtu - 47))
    gateway.site.send(crossing.frame_from_site(too_big6))
    answer = IPv6(judge.network_packet(gateway.site.receive(what="packet too big")))
    assert (answer.src, answer.dst, answer[ICMPv6PacketTooBig].mtu) == (plan.our_lan6, plan.site6, mtu)
    assert quoted(answer[ICMPv6PacketTooBig], 48) in (too_big6[:48], judge.forwarded(too_big6)[:48])
    gateway.drops_since(crossing.drops_before, {"too_big": 2})
    assert gateway.wide.drain() == []


def test_without_df_a_packet_is_cut_before_it_is_sealed(gateway):
    """RFC 4459 §3.4: the fragments are the site's; the peer opens each on its own."""
    plan = gateway.plan
    crossing = Crossing(gateway, Gre(), Esp())
    packet = udp(plan.site4, plan.remote4, gateway.rng.randbytes(1_472), identification=0x1234)
    first = crossing.send_at_site(packet)
    second = gateway.wide.receive(what="the second fragment")
    fragments = [IP(crossing.take_apart(frame)[0]) for frame in (first, second)]
    assert [fragment.id for fragment in fragments] == [0x1234, 0x1234]
    assert {fragment.ttl for fragment in fragments} == {63}
    (whole,) = defragment(fragments)
    assert bytes(whole)[20:] == packet[20:]
    gateway.drops_since(crossing.drops_before, {})
