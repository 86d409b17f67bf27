# SPDX-License-Identifier: Apache-2.0
"""An SA for each class group (RFC 4301 §4.1): every DSCP leaves under its group's SA, one group is replaced under traffic.

What leaves is opened by the judge written from RFC 4303 and RFC 4106, and once more by Scapy.
"""

import subprocess
import warnings

import pytest

from harness import esp, gre, judge, scene, skips
from harness.crossing import udp
from harness.scene import LAN, WAN, network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

#: The DSCPs of each group as configured, and as numbers. `video` gets no SA; None is the default group.
GROUPS = {"voice": (["EF", 40], {46, 40}), "bulk": (["AF11", "AF12", "AF13"], {10, 12, 14}), "video": (["AF41"], {34})}
WITH_SA = (None, "voice", "bulk")


def group_of(dscp):
    """The group of packets that leave with a DSCP."""
    return next((name for name, (_, dscps) in GROUPS.items() if dscp in dscps), None)


class Grouped:
    """A tunnel whose protection has groups, and the peer's view of each SA."""

    def __init__(self, a_scene, mode):
        self.scene, self.mode = a_scene, mode
        plan = self.plan = a_scene.plan
        self.openers, self.scapy, self.sequences, self.last_spi = {}, {}, {}, {}
        config = a_scene.base()
        config["manual_keying"] = "lab"
        config["protection"].append({
            "name": "branch", "mode": mode, "local": plan.our_wan4, "remote": plan.peer4,
            "groups": [{"name": name, "dscp": dscps} for name, (dscps, _) in GROUPS.items()]})
        config["tunnel"].append({"name": "branch", "source": plan.our_wan4, "destination": plan.peer4,
                                 "protection": "branch"})
        for family, length in ((4, 24), (6, 64)):
            config["route"].append({"prefix": network(plan.remote(family), length), "tunnel": "branch"})
        for group in WITH_SA:
            entry, material = a_scene.new_sa("branch", "outbound", group=group)
            self.expect_sa(group, entry["spi"], material)
            config["sa"].append(entry)
        self.inbound = {}
        for group in (None, "voice"):
            entry, material = a_scene.new_sa("branch", "inbound", group=group)
            self.inbound[group] = esp.Sa.from_key_material(entry["spi"], material)
            config["sa"].append(entry)
        a_scene.apply(a_scene.base())
        warnings_said = a_scene.apply(config)["warnings"]
        assert any("group video has no outbound SA" in text for text in warnings_said), warnings_said
        self.drops_before = a_scene.drops()

    def expect_sa(self, group, spi, material):
        """From here on this SA may carry packets of a group."""
        tunnel = (self.plan.our_wan4, self.plan.peer4) if self.mode == "tunnel" else None
        self.openers[spi] = (group, esp.Sa.from_key_material(spi, material))
        self.scapy[spi] = judge.ScapySa(spi, material, False, tunnel)

    def send(self, packet):
        """A packet from the site to the gateway."""
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        source, destination = self.scene.site.mac, self.scene.macs[LAN]
        self.scene.site.send(bytes(Ether(dst=destination, src=source, type=kind)) + packet)

    def check_next(self, packet):
        """The next frame on the wide wire is this packet under an SA of its group, and that SA's next number; its SPI."""
        outer = judge.network_packet(self.scene.wide.receive(what="the packet under its SA"))
        spi = esp.spi_of(outer[20:])
        group, opener = self.openers[spi]
        assert outer[1] >> 2 == judge.tos_of(packet) >> 2, "the DSCP is copied outward"
        assert group == group_of(outer[1] >> 2), f"DSCP {outer[1] >> 2} under the SA of {group}"
        opened = opener.open(outer[20:])
        assert opened.sequence == self.sequences.get(spi, 0) + 1, "RFC 4303 §3.3.3, for each SA apart"
        self.sequences[spi] = opened.sequence
        inner = opened.payload[20:] if self.mode == "tunnel" else opened.payload
        assert gre.parse(inner).payload == judge.forwarded(packet)
        again = self.scapy[spi].open(outer, 0)
        assert (again if self.mode == "tunnel" else again[20:]) == opened.payload, "Scapy sees another payload"
        return spi

    def seal(self, group, sequence, packet):
        """A frame from the peer under one of its SAs."""
        payload, next_header = gre.build(packet), esp.NEXT_HEADER_GRE
        if self.mode == "tunnel":
            payload = bytes(IP(src=self.plan.peer4, dst=self.plan.our_wan4, proto=47, ttl=63) / Raw(payload))
            next_header = esp.NEXT_HEADER_IPV4
        sealed = self.inbound[group].seal(sequence, payload, next_header)
        outer = IP(src=self.plan.peer4, dst=self.plan.our_wan4, proto=50, ttl=63) / Raw(sealed)
        return bytes(Ether(dst=self.scene.macs[WAN], src=self.scene.wide.mac, type=0x0800) / outer)

    def packets_of(self, direction):
        """{group: packets} as the headend says it."""
        rows = self.scene.headend.cli("sa", "list")
        return {row.get("group"): row["packets"] for row in rows if row["direction"] == direction}


@pytest.fixture(scope="module")
def gateway(module_lab):
    return scene.Scene(module_lab, seed=4301)


@pytest.mark.parametrize("family", (4, 6), ids=("ipv4", "ipv6"))
@pytest.mark.parametrize("mode", ("transport", "tunnel"))
def test_each_dscp_leaves_under_the_sa_of_its_group(gateway, mode, family):
    grouped, plan, rng = Grouped(gateway, mode), gateway.plan, gateway.rng
    packets = [udp(plan.site(family), plan.remote(family), rng.randbytes(rng.randrange(200)), tos=dscp << 2 | ecn)
               for dscp in range(64) for ecn in (0, 2)]
    rng.shuffle(packets)
    seen = {}
    for packet in packets:
        dscp = judge.tos_of(packet) >> 2
        grouped.send(packet)
        if group_of(dscp) in WITH_SA:
            seen.setdefault(group_of(dscp), set()).add(grouped.check_next(packet))
    assert set(seen) == set(WITH_SA) and all(len(spis) == 1 for spis in seen.values())
    # A group without an SA sends nothing, and nothing of it under another's.
    gateway.drops_since(grouped.drops_before, {"no_sa": 2})
    assert gateway.wide.drain() == []
    assert grouped.packets_of("outbound") == {None: 2 * (64 - 6), "voice": 4, "bulk": 6}


def test_any_inbound_sa_of_the_protection_is_accepted_each_with_a_window_of_its_own(gateway):
    grouped, plan = Grouped(gateway, "transport"), gateway.plan
    for group, sequence in ((None, 5_000), ("voice", 7), (None, 5_001), ("voice", 8)):
        packet = udp(plan.remote4, plan.site4, b"from behind the peer")
        gateway.wide.send(grouped.seal(group, sequence, packet))
        arrived = judge.network_packet(gateway.site.receive(what="the packet out of its tunnel"))
        assert arrived == judge.forwarded(packet)
    gateway.wide.send(grouped.seal("voice", 8, packet))
    gateway.drops_since(grouped.drops_before, {"replayed": 1})
    assert grouped.packets_of("inbound") == {None: 2, "voice": 2}


def test_one_group_is_replaced_under_traffic_and_the_others_do_not_notice(gateway):
    grouped, plan, headend = Grouped(gateway, "transport"), gateway.plan, gateway.headend
    old = next(spi for spi, (group, _) in grouped.openers.items() if group == "voice")
    (new_in, in_material), (new_out, out_material) = (gateway.new_sa("branch", way) for way in ("inbound", "outbound"))
    grouped.expect_sa("voice", new_out["spi"], out_material)
    command = [skips.binary_folder() / "greyhound", "--run-dir", headend.run_dir, "sa", "replace", "--json",
               "--protection", "branch", "--group", "voice",
               "--inbound-spi", hex(new_in["spi"]), "--inbound-key-file", new_in["key_file"],
               "--outbound-spi", hex(new_out["spi"]), "--outbound-key-file", new_out["key_file"]]
    spis, rounds, replacing = [], 0, None
    while rounds < 400 and (replacing is None or replacing.poll() is None or spis[-1] == old or rounds % 50):
        for dscp in (46, 0, 10):
            packet = udp(plan.site4, plan.remote4, rounds.to_bytes(4, "big"), tos=dscp << 2)
            grouped.send(packet)
            spi = grouped.check_next(packet)
            if dscp == 46:
                spis.append(spi)
        rounds += 1
        if rounds == 50:
            replacing = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True)
    said, _ = replacing.communicate(timeout=30)
    assert replacing.returncode == 0, said
    switch = spis.index(new_out["spi"])
    assert switch >= 50 and set(spis[:switch]) == {old} and set(spis[switch:]) == {new_out["spi"]}
    numbers = {grouped.openers[spi][0]: grouped.sequences[spi] for spi in grouped.sequences if spi not in (old, new_out["spi"])}
    assert numbers == {None: rounds, "bulk": rounds}, "their numbers went on without a gap"
    # The old inbound SA stays for a while beside the new one, that of the default group for good.
    rows = [(row.get("group"), row["spi"]) for row in headend.cli("sa", "list") if row["direction"] == "inbound"]
    assert sorted(group or "" for group, _ in rows) == ["", "voice", "voice"]
    for sa, sequence in ((grouped.inbound["voice"], 1), (esp.Sa.from_key_material(new_in["spi"], in_material), 1)):
        grouped.inbound["voice"] = sa
        packet = udp(plan.remote4, plan.site4, b"old and new")
        gateway.wide.send(grouped.seal("voice", sequence, packet))
        assert judge.network_packet(gateway.site.receive(what="under both")) == judge.forwarded(packet)
    gateway.drops_since(grouped.drops_before, {})
