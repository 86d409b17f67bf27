# SPDX-License-Identifier: Apache-2.0
"""Tagged ports over veths: what VLAN and 802.1p priority frames leave with, as Scapy and tshark read them, and which come in.

IEEE 802.1Q §9.6: TPID 0x8100, then priority (3 bits), drop eligible, VLAN (12 bits).
"""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from harness import esp, frames, gre, netns, scene, tshark

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

LAN_VLAN, WAN_VLAN = 100, 4094
EF = 46 << 2


@pytest.fixture(scope="module")
def gateway(module_lab):
    return scene.Scene(module_lab, seed=8021, vlans={scene.LAN: LAN_VLAN, scene.WAN: WAN_VLAN})


@pytest.fixture(scope="module")
def keys(gateway):
    """A protected tunnel whose policy turns priorities 5 and 6 into EF and 3; the keys of both directions."""
    plan, config = gateway.plan, gateway.base()
    config["manual_keying"] = "lab"
    config["protection"] = [{"name": "branch", "local": plan.our_wan4, "remote": plan.peer4}]
    config["tunnel"] = [{"name": "branch", "source": plan.our_wan4, "destination": plan.peer4,
                         "protection": "branch", "service_policy": "from-the-lan"}]
    config["route"] = [{"prefix": scene.host_prefix(plan.remote4), "tunnel": "branch"}]
    config["class_map"] = [{"name": "voice", "criteria": [{"vlan_priority": [5, 6]}]}]
    config["policy_map"] = [{"name": "from-the-lan", "classes": [
        {"class": "voice", "set_dscp": "EF", "set_vlan_priority": 3},
        {"class": "class-default"}]}]
    sas = {}
    for direction in ("outbound", "inbound"):
        entry, material = gateway.new_sa("branch", direction)
        config["sa"].append(entry)
        sas[direction] = esp.Sa.from_key_material(entry["spi"], material)
    gateway.apply(config)
    return sas


def test_ports_are_listed_with_their_vlans(gateway, keys):
    listed = {row["name"]: row["vlan"] for row in gateway.headend.cli("port", "list")}
    assert listed == {scene.LAN: LAN_VLAN, scene.WAN: WAN_VLAN}


def from_site(gateway, tags, payload):
    """A frame from the host at the site, with these tags."""
    plan = gateway.plan
    frame = Ether(src=gateway.site.mac, dst=gateway.macs[scene.LAN])
    for priority, vlan in tags:
        frame /= Dot1Q(prio=priority, vlan=vlan)
    return frame / IP(src=plan.site4, dst=plan.remote4) / UDP(sport=4000, dport=5000) / Raw(payload)


def test_priorities_come_in_and_leave_and_tags_are_taken_off_and_put_on(gateway, keys):
    capture = gateway.lab.capture(gateway.wide.namespace, "eth0")
    expected = []
    for priority in range(8):
        payload = bytes([priority]) * 40
        gateway.site.send(from_site(gateway, [(priority, LAN_VLAN)], payload))
        frame = gateway.wide.receive(frames.is_esp, what=f"ESP of priority {priority}")
        seen = Ether(frame)
        leaves_with, tos = (3, EF) if priority in (5, 6) else (0, 0)
        assert (seen[Dot1Q].prio, seen[Dot1Q].id, seen[Dot1Q].vlan) == (leaves_with, 0, WAN_VLAN)
        assert seen[IP].tos == tos
        opened = keys["outbound"].open(frames.esp_of(frame))
        inside = IP(gre.parse(opened.payload).payload)
        assert (inside.tos, bytes(inside[UDP].payload)) == (tos, payload)
        expected.append(f"{leaves_with}|{WAN_VLAN}")
    capture.stop()
    read = netns.run(tshark.arguments(capture.path, ["vlan.priority", "vlan.id"], "esp")).stdout
    assert read.split() == expected


def test_what_comes_back_leaves_in_the_sites_vlan(gateway, keys):
    plan = gateway.plan
    inside = bytes(IP(src=plan.remote4, dst=plan.site4) / UDP(sport=1, dport=2) / Raw(b"back"))
    sealed = keys["inbound"].seal(1, gre.build(inside), esp.NEXT_HEADER_GRE)
    gateway.wide.send(Ether(src=gateway.wide.mac, dst=gateway.macs[scene.WAN]) / Dot1Q(prio=7, vlan=WAN_VLAN)
                      / IP(src=plan.peer4, dst=plan.our_wan4, proto=50) / Raw(sealed))
    seen = Ether(gateway.site.receive(lambda frame: frames.ip_protocol(frame) == 17, what="the answer"))
    assert (seen[Dot1Q].prio, seen[Dot1Q].vlan) == (0, LAN_VLAN)
    assert bytes(seen[UDP].payload).rstrip(b"\0") == b"back"


def test_arp_is_answered_in_the_vlan(gateway, keys):
    plan = gateway.plan
    gateway.site.send(Ether(src=gateway.site.mac, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=LAN_VLAN)
                      / ARP(hwsrc=gateway.site.mac, psrc=plan.site4, pdst=plan.our_lan4))
    seen = Ether(gateway.site.receive(lambda frame: frames.ether_type(frame) == 0x0806, what="an ARP answer"))
    assert (seen[Dot1Q].vlan, seen[ARP].op, seen[ARP].psrc) == (LAN_VLAN, 2, plan.our_lan4)


def test_other_vlans_untagged_frames_and_stacked_tags_are_counted(gateway, keys):
    before = gateway.drops()
    for tags in ([(5, LAN_VLAN + 1)], [(5, 0)], [], [(0, WAN_VLAN)]):
        gateway.site.send(from_site(gateway, tags, b"no" * 20))
    gateway.site.send(from_site(gateway, [(5, LAN_VLAN), (5, LAN_VLAN)], b"no" * 20))
    gateway.drops_since(before, {"vlan_unknown": 4, "ethertype_unknown": 1})
    assert gateway.wide.poll(frames.is_esp) is None


def test_packets_as_long_as_the_mtu_pass_with_their_tags(gateway, keys):
    """The tag is no part of the 1,500 bytes: IPv4 20, ESP 16, GRE 4, the packet 1440, padding and trailer 4, ICV 16."""
    frame = from_site(gateway, [(5, LAN_VLAN)], bytes(1440 - 28))
    frame[IP].flags = "DF"
    gateway.site.send(frame)
    sealed = gateway.wide.receive(frames.is_esp, what="a long packet")
    assert (len(sealed), Ether(sealed)[IP].len) == (1500 + 18, 1500)
