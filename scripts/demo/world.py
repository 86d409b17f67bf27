# SPDX-License-Identifier: Apache-2.0
"""The four namespaces, the links between them, the two headends, and what their counters say."""

import dataclasses
import pathlib

from harness import wait
from harness.headend import af_packet
from harness.lab import Lab
from plan import arrow
from progress import say

WAN = "wan"
SITE = "site"
HOST_INTERFACE = "eth0"
#: Enough for the descriptors of two ports and one worker, and a few packets that wait.
POOL_PACKETS = 8_192
#: What a link may take to come to rest once nobody sends any more.
REST_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class LinkCount:
    """Frames on one way of one link: what one end sent, what the other received."""

    name: str
    sent: int
    received: int

    @property
    def lost(self):
        return self.sent - self.received


class World:
    """Namespaces and links stand once this is made; nothing runs yet."""

    def __init__(self, plan, folder):
        self.plan = plan
        self.lab = Lab(folder)
        self.gateways = {side: self.lab.namespace(side.label) for side in plan.sides}
        self.hosts = {side: self._host(side) for side in plan.sides}
        self.lab.veth(self.gateways[plan.west], WAN, self.gateways[plan.east], WAN)
        self.headends = {side: self._headend(side) for side in plan.sides}

    def start(self):
        """Starts both dataplanes, then both controls; returns when both run their configuration."""
        for side, headend in self.headends.items():
            headend.init_state()
            headend.start_dataplane()
            say(f"{side.label}: dataplane up, pid {headend.dataplane.pid}")
        for side, headend in self.headends.items():
            headend.start_control()
            generation = self.wait_committed(side)
            say(f"{side.label}: control up, pid {headend.control.pid}; the dataplane runs generation {generation}")

    def wait_committed(self, side):
        """Waits until the dataplane runs the configuration of its control; returns the generation."""
        status = self.headends[side].wait_cli(
            "status", condition=lambda answer: answer["configuration"]["phase"] == "committed" and answer["dataplane"],
            what=f"the dataplane {side.label} to run its configuration", timeout=30.0)
        return status["dataplane"]["generation"]

    def ping(self):
        """The first packets, each way: neighbours are found on the way."""
        for side in self.plan.sides:
            host, there = self.hosts[side], str(self.plan.other(side).host.ip)
            ping = ["ping", "-c", "3", "-i", "0.05", "-W", "5", there]
            wait.until(lambda: host.run(ping, check=False).returncode == 0, f"{there} to answer {host.label}")

    def check_running(self):
        """Raises if one of the four processes ended."""
        for headend in self.headends.values():
            for process in (headend.dataplane, headend.control):
                if process is not None and not process.running:
                    raise RuntimeError(f"{process.name} ended ({process.returncode}):\n{process.tail()}")

    # Counters

    def drops(self, side):
        """Packets that a headend dropped, by reason; reasons without packets are left out."""
        return {row["reason"]: row["packets"] for row in self.headends[side].cli("drops") or [] if row["packets"]}

    def sas(self, side):
        """The SAs of a headend by direction and SPI."""
        return {(row["direction"], row["spi"]): row for row in self.headends[side].cli("sa", "list")}

    def port(self, side, name):
        """The counters of a headend's port."""
        return next(row for row in self.headends[side].cli("port", "list") if row["name"] == name)

    def link_counts(self):
        """Every way of every link. A difference is what the machine dropped between two rings."""
        wan = {side: self.port(side, WAN) for side in self.plan.sides}
        counts = [
            LinkCount(f"the wire {arrow(a, b)}", wan[a]["tx_packets"], wan[b]["rx_packets"])
            for a, b in self.plan.directions
        ]
        for side in self.plan.sides:
            port, host = self.port(side, SITE), self.host_counts(side)
            to_headend = host["tx_packets"] + host["tx_dropped"]
            counts.append(LinkCount(f"{side.label} host → headend", to_headend, port["rx_packets"]))
            counts.append(LinkCount(f"{side.label} headend → host", port["tx_packets"], host["rx_packets"]))
        return counts

    def links_at_rest(self):
        """The counts once all that was sent has arrived, or, if it never does, after a while."""

        def at_rest():
            counts = self.link_counts()
            if any(count.lost for count in counts):
                raise wait.NotYet(", ".join(f"{count.name}: {count.lost}" for count in counts if count.lost))
            return counts

        try:
            return wait.until(at_rest, "the links to come to rest", REST_SECONDS, interval=0.1)
        except TimeoutError:
            return self.link_counts()

    def host_counts(self, side):
        """What a site host's kernel says of its interface."""
        counts = pathlib.Path("/sys/class/net", HOST_INTERFACE, "statistics")
        names = ("tx_packets", "tx_dropped", "rx_packets")
        words = self.hosts[side].run(["cat", *(counts / name for name in names)]).stdout.split()
        return dict(zip(names, map(int, words)))

    def udp_socket_drops(self, side):
        """Datagrams that a site host's kernel threw away because a socket's buffer was full."""
        with self.hosts[side].entered():
            lines = pathlib.Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
        return int(dict(zip(names, values))["RcvbufErrors"])

    # Making

    def _host(self, side):
        return self.lab.host(f"{side.label}-host", HOST_INTERFACE, [str(side.host)], self.gateways[side], SITE,
                             gateways=[str(side.gateway.ip)])

    def _headend(self, side):
        instance = f"{self.plan.instance}-{side.label}"
        made = self.lab.headend(self.gateways[side], dataplane_toml(side), "", instance)
        key_files = {sa: made.write_key(f"{sa.name}.key", sa.key_material) for sa in self.plan.generations[0]}
        made.write_config("config.toml", config_toml(self.plan, side, key_files))
        return made


def dataplane_toml(side):
    """One worker that sleeps when idle, two veth ends, ordinary pages: it shall run anywhere."""
    return f"""\
idle = "adaptive"

[memory]
packets = {POOL_PACKETS}
huge_pages = false

[[worker]]
cpu = {side.cpu}

[[port]]
name = "{SITE}"
device = "{af_packet(SITE, 0)}"

[[port]]
name = "{WAN}"
device = "{af_packet(WAN, 1)}"
"""


def protection(plan, side):
    """The name of a headend's tunnel and its protection."""
    return f"to-{plan.other(side).label}"


def config_toml(plan, side, key_files):
    """The first configuration: a GRE tunnel with a key, in ESP transport mode, and the first two SAs."""
    peer, name = plan.other(side), protection(plan, side)
    sas = "".join(_sa(side, name, sa, path) for sa, path in key_files.items())
    return f"""\
manual_keying = "lab"

[[port]]
name = "{SITE}"
side = "protected"
addresses = ["{side.gateway}"]

[[port]]
name = "{WAN}"
side = "unprotected"
addresses = ["{side.wan}"]

[[protection]]
name = "{name}"
local = "{side.wan.ip}"
remote = "{peer.wan.ip}"

[[tunnel]]
name = "{name}"
source = "{side.wan.ip}"
destination = "{peer.wan.ip}"
key = {plan.gre_key}
protection = "{name}"

[[route]]
prefix = "{peer.site}"
tunnel = "{name}"
{sas}"""


def _sa(side, name, sa, path):
    direction = "outbound" if sa.sender is side else "inbound"
    return f"""
[[sa]]
protection = "{name}"
direction = "{direction}"
spi = {sa.name}
key_file = "{path}"
esn = false
"""
