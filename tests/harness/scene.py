# SPDX-License-Identifier: Apache-2.0
"""One headend between a site and an untrusted network, both of which are raw wires in the test's hands.

        site ── lan0 ── gateway: greyhound ── wan0 ── wide
      (Wire)                                        (Wire)

A `Plan` makes up addresses by seed, a `Scene` runs the headend and changes its configuration by `greyhound apply`.
Both wires are static neighbours, so that what arrives on them is what was forwarded and nothing else.
"""

import dataclasses
import ipaddress
import random

from harness import toml, wait
from harness.headend import af_packet

LAN = "lan"
WAN = "wan"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Addresses of a scene. `our_*` are the headend's, `site_*` hosts behind it, `remote_*` hosts behind the peer."""

    our_lan4: str
    our_lan6: str
    site4: str
    site6: str
    remote4: str
    remote6: str
    our_wan4: str
    peer4: str
    our_wan6: str
    peer6: str
    our_gre4: str
    peer_gre4: str

    @classmethod
    def random(cls, rng):
        """Addresses in networks of their own."""
        lan, remote, wan, ours, theirs = rng.sample(range(1, 250), 5)
        site, host, us, peer = (rng.randrange(2, 250) for _ in range(4))
        us, peer = (us, peer) if us != peer else (us, us + 1)
        site = site if site != 1 else 2
        prefix = f"2001:db8:{rng.randrange(1, 0xffff):x}"
        return cls(
            our_lan4=f"10.{lan}.0.1", our_lan6=f"{prefix}:{lan:x}::1",
            site4=f"10.{lan}.0.{site}", site6=f"{prefix}:{lan:x}::{site:x}",
            remote4=f"10.{remote}.7.{host}", remote6=f"{prefix}:{remote:x}::{host:x}",
            our_wan4=f"198.18.{wan}.{us}", peer4=f"198.18.{wan}.{peer}",
            our_wan6=f"{prefix}:ff{wan:02x}::{us:x}", peer6=f"{prefix}:ff{wan:02x}::{peer:x}",
            our_gre4=f"172.16.{ours}.1", peer_gre4=f"172.16.{theirs}.1")

    def site(self, family):
        """The host at the site."""
        return self.site4 if family == 4 else self.site6

    def remote(self, family):
        """The host behind the peer."""
        return self.remote4 if family == 4 else self.remote6


def network(address, length):
    """The prefix of this length that an address is in."""
    return str(ipaddress.ip_interface(f"{address}/{length}").network)


def host_prefix(address):
    """The prefix that is one address."""
    return network(address, 128 if ":" in address else 32)


def dataplane_toml(ports, cpu=0, packets=8_192, idle="adaptive", mtu_max=None, vlans=None):
    """A small dataplane: `ports` is a list of (name, device), `vlans` the VLAN of each that has one; one worker."""
    return toml.dumps({
        "idle": idle,
        "memory": {"huge_pages": False, "packets": packets},
        "worker": [{"cpu": cpu}],
        "port": [{"name": name, "device": device, "rx_descriptors": 256, "tx_descriptors": 256, "mtu_max": mtu_max,
                  "vlan": (vlans or {}).get(name)}
                 for name, device in ports],
    })


class Scene:
    """The namespaces, the wires, and the headend, which runs from the beginning with nothing configured."""

    def __init__(self, lab, seed, cpu=0, vlans=None):
        self.rng = random.Random(seed)
        self.plan = Plan.random(self.rng)
        self.lab = lab
        self.gateway = lab.namespace("gateway")
        site, wide = lab.namespace("site"), lab.namespace("wide")
        lab.veth(self.gateway, "lan0", site, "eth0")
        lab.veth(self.gateway, "wan0", wide, "eth0")
        self.site = lab.wire(site, "eth0")
        self.wide = lab.wire(wide, "eth0")
        self.macs = {LAN: self.gateway.mac("lan0"), WAN: self.gateway.mac("wan0")}
        ports = [(LAN, af_packet("lan0", 0)), (WAN, af_packet("wan0", 1))]
        self.headend = lab.headend(self.gateway, dataplane_toml(ports, cpu, vlans=vlans), toml.dumps({}))
        self.headend.start()
        self.headend.wait_cli("status", condition=lambda answer: answer["dataplane"], what="a connected dataplane")

    # Configuration

    def base(self):
        """Ports, addresses and neighbours: what every configuration begins with."""
        plan = self.plan
        wide = [plan.peer4, plan.peer6]
        return {
            "manual_keying": None,
            "loopbacks": [],
            "port": [
                {"name": LAN, "side": "protected", "addresses": [f"{plan.our_lan4}/24", f"{plan.our_lan6}/64"]},
                {"name": WAN, "side": "unprotected", "addresses": [f"{plan.our_wan4}/24", f"{plan.our_wan6}/64"]},
            ],
            "neighbor": [{"port": LAN, "address": address, "mac": self.site.mac} for address in (plan.site4, plan.site6)]
            + [{"port": WAN, "address": address, "mac": self.wide.mac} for address in wide],
            "route": [], "protection": [], "tunnel": [], "policy": [], "sa": [],
        }

    def new_sa(self, protection, direction, key_octets=16, **fields):
        """An entry for `[[sa]]` with a new key in a file, and its key material."""
        spi = self.rng.randrange(0x100, 1 << 32)
        key_material = self.rng.randbytes(key_octets + 4)
        path = self.headend.write_key(f"{spi:08x}.key", key_material)
        entry = {"protection": protection, "direction": direction, "spi": spi, "key_file": str(path), **fields}
        return entry, key_material

    def apply(self, config):
        """Makes this the running configuration; wires are emptied."""
        path = self.headend.write_config("wanted.toml", toml.dumps(config))
        answer = self.headend.cli("apply", path)
        assert answer["outcome"] in ("committed", "unchanged"), answer
        self.site.drain()
        self.wide.drain()
        return answer

    # Counters

    def drops(self):
        """Packets dropped so far, by reason."""
        return {row["reason"]: row["packets"] for row in self.headend.cli("drops")}

    def drops_since(self, before, expected):
        """Waits until exactly `expected` was dropped since `before`: counters are written at the end of a turn."""
        want = {**before}
        for reason, count in expected.items():
            want[reason] = want.get(reason, 0) + count

        def same():
            now = self.drops()
            if now != want:
                raise wait.NotYet(f"{now} is not {want}")
            return True

        wait.until(same, f"drops {expected}", timeout=20.0, interval=0.05)
