# SPDX-License-Identifier: Apache-2.0
"""A Linux kernel's GRE and XFRM as a branch, and Greyhound as its headend: ping and TCP, both ways.

    guest (QEMU) ── tap ─ bridge ─ veth ── wan0: greyhound: lan0 ── veth ── site
                             └ captured: nothing in clear

One guest and one headend; each configuration is set up in the one and applied to the other.
"""

import collections
import dataclasses
import random

import pytest

from harness import frames, toml
from harness.headend import af_packet
from harness.scene import LAN, WAN, dataplane_toml
from linuxpeer import Gre, Nic, SecurityAssociation, Tunnel, add_bridge, add_tap, ping, tcp_transfer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.requires_root,
    pytest.mark.requires_binaries,
    pytest.mark.requires_tools("qemu-system-x86_64", "apt-get", "dpkg-deb", "depmod", "tcpdump", "ping"),
]

GUEST, OURS = "198.51.100.7", "198.51.100.1"
GUEST_GRE, OUR_GRE = "10.99.1.7", "10.99.2.1"
SITE4, SITE6 = "10.2.0.2", "2001:db8:2::2"
INNER4, INNER6 = "172.31.0.2", "2001:db8:31::2"
ROUTES = ("10.2.0.0/24", "2001:db8:2::/64")
GUEST_MAC = "52:54:00:12:34:01"

#: The site's own kernel reports multicast groups and asks for routers; neither is for the headend.
OF_THE_SITES_KERNEL = {"destination_invalid"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration of both ends."""

    name: str
    mode: str
    gre: Gre | None = Gre()
    key_octets: int = 16
    icv: int = 16
    esn: bool = False
    dual_tier: bool = False

    @property
    def ends(self):
        """GRE's delivery addresses, ours first."""
        return (OUR_GRE, GUEST_GRE) if self.dual_tier else (OURS, GUEST)


CASES = [
    Case("transport", "transport"),
    Case("transport-all", "transport", Gre(key=42, checksum=True, sequence=True), 32, 12, esn=True),
    Case("tunnel", "tunnel", Gre(key=0xFFFFFFFF), esn=True),
    Case("dual-tier", "tunnel", Gre(key=7), 24, dual_tier=True),
    Case("esp-alone", "tunnel", None, 32, 8),
]


def configuration(case, headend, associations):
    """Greyhound's end of a case."""
    ours, theirs = case.ends
    document = {
        "manual_keying": "lab",
        "loopbacks": [f"{OUR_GRE}/32"],
        "port": [{"name": LAN, "side": "protected", "addresses": ["10.2.0.1/24", "2001:db8:2::1/64"]},
                 {"name": WAN, "side": "unprotected", "addresses": [f"{OURS}/24", "2001:db8:ff::1/64"]}],
        "protection": [{"name": "branch", "mode": case.mode, "local": OURS, "remote": GUEST}],
        "sa": [],
    }
    for direction, sa in zip(("inbound", "outbound"), associations):
        path = headend.write_key(f"{sa.spi:08x}.key", sa.key_salt)
        document["sa"].append({
            "protection": "branch", "direction": direction, "spi": sa.spi, "key_file": str(path), "esn": sa.esn,
            "algorithm": f"ENCR_AES_GCM_{sa.icv_octets}"})
    if case.gre is None:
        document["route"] = [{"prefix": f"{INNER4}/32", "port": WAN, "via": GUEST},
                             {"prefix": f"{INNER6}/128", "port": WAN}]
        document["policy"] = [{"name": name, "port": WAN, "local": local, "remote": remote, "action": "protect",
                               "protection": "branch"}
                              for name, local, remote in zip(("v4", "v6"), ROUTES, (f"{INNER4}/32", f"{INNER6}/128"))]
        return toml.dumps(document)
    document["tunnel"] = [{"name": "branch", "source": ours, "destination": theirs, "protection": "branch",
                           "key": case.gre.key, "checksum": case.gre.checksum, "sequence": case.gre.sequence}]
    document["route"] = [{"prefix": f"{INNER4}/32", "tunnel": "branch"}, {"prefix": f"{INNER6}/128", "tunnel": "branch"}]
    return toml.dumps(document)


def set_up_guest(guest, case, up, down):
    """The guest's end of a case."""
    ours, theirs = case.ends
    guest.run(f"ip route replace {OUR_GRE} via {OURS}")
    guest.set_tunnel(Tunnel(
        theirs, ours, (f"{INNER4}/30", f"{INNER6}/64"), ROUTES, case.gre, case.mode, outbound=up, inbound=down,
        esp_local=GUEST if case.dual_tier else None, esp_remote=OURS if case.dual_tier else None, mtu=1_380))


def site_pings(site, address, octets):
    """One ping from the site to the guest. (Of several, ping waits two round trips for the last ones, and a busy
    machine may need more.)"""
    done = site.run(["ping", "-n", "-c", "1", "-W", "30", "-s", octets, address], check=False)
    assert " 1 received" in done.stdout, done.stdout


def drops(greyhound):
    """Packets dropped so far, by reason."""
    return collections.Counter({row["reason"]: row["packets"] for row in greyhound.cli("drops")})


def test_ping_and_tcp_pass_both_ways(lab, headend, linux_peer):
    wide, gateway = lab.namespace("wide"), lab.namespace("gateway")
    add_tap(wide, "guest0")
    lab.veth(wide, "port0", gateway, "wan0")
    add_bridge(wide, "br0", ["guest0", "port0"])
    site = lab.host("site", "eth0", [f"{SITE4}/24", f"{SITE6}/64"], gateway, "lan0", ["10.2.0.1", "2001:db8:2::1"])
    ports = [(LAN, af_packet("lan0", 0)), (WAN, af_packet("wan0", 1))]
    greyhound = headend(gateway, dataplane_toml(ports), "").start()
    greyhound.wait_cli("status", condition=lambda answer: answer["dataplane"], what="a connected dataplane")
    guest = linux_peer(nics=(Nic.tap("guest0", GUEST_MAC),), namespace=wide)
    guest.add_addresses("eth0", (f"{GUEST}/24", f"{GUEST_GRE}/32"))
    wire = lab.capture(wide, "br0")
    dice = random.Random(2784)

    for case in CASES:
        up, down = (SecurityAssociation(dice.randrange(256, 1 << 32), dice.randbytes(case.key_octets + 4),
                                        case.icv, case.esn) for _ in range(2))
        path = greyhound.write_config("wanted.toml", configuration(case, greyhound, (up, down)))
        assert greyhound.cli("apply", path)["outcome"] == "committed"
        before = drops(greyhound)
        set_up_guest(guest, case, up, down)
        for destination in (SITE4, SITE6):
            for size in (0, 57, 1_300):
                answered = ping(guest, destination, count=1, payload_octets=size, tos=0xB8, wait_s=30)
                assert answered.received == answered.sent == 1, f"{case}: {answered.output}"
        for address in (INNER4, INNER6):
            for octets in (1, 1_201):
                site_pings(site, address, octets)
        tcp_transfer(guest, site, SITE4, 65_537)
        tcp_transfer(guest, site, SITE6, 10_001)
        assert guest.xfrm_errors() == {}, case
        sas = {row["direction"]: row["packets"] for row in greyhound.cli("sa", "list")}
        assert sas["inbound"] > 40 and sas["outbound"] > 40, sas
        dropped = drops(greyhound) - before
        assert set(dropped) <= OF_THE_SITES_KERNEL, f"{case}: {dropped}"

    seen = [record.frame for record in wire.stop()]
    assert wire.dropped == 0
    assert [frame.hex() for frame in seen if frames.is_clear(frame)] == []
    assert sum(map(frames.is_esp, seen)) > len(CASES) * 100
