# SPDX-License-Identifier: Apache-2.0
"""Quality of service on a headend between veths, in real time: voice and bulk through one tunnel of 10 Mbit/s, first in one
queue, then with voice before everything else. Delays are those of the frames that leave, opened and told by the stamps of
greyhound-pktgen; what the headend says of itself stands beside them. With two workers the kernel spreads flows over their
queues by hash (PACKET_FANOUT): the tunnel's queues have one owner, the port's rate is shared.

A machine whose CPUs are taken away for a while holds workers up and lets packets come in heaps. The rings, the queue of voice
and its policer's burst hold the heap of seconds, so that order, loss and what is counted are asserted all the same; times and
rates only where the CPUs were there (`Attendance`)."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from harness import skips
from harness.machine import Attendance

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import plot  # noqa: E402

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

OUT_KEY = bytes(range(100, 120))
SHAPE_BPS = 10_000_000
SECONDS = 8
#: Of one packet, in ESP and with all that Ethernet adds.
WIRE_BYTES = {"voice": 180, "business": 1_180, "bulk": 1_480}

DATAPLANE = """
idle = "adaptive"
[memory]
huge_pages = false
[[worker]]
cpu = 0
[[port]]
name = "lan"
device = "net_af_packet0,iface=lan0,framecnt=8192"
[[port]]
name = "wan"
device = "net_af_packet1,iface=wan0,framecnt=8192"
"""

TWO_WORKERS = DATAPLANE.replace("cpu = 0\n", "cpu = 0\n[[worker]]\ncpu = 1\n").replace("8192\"\n", "8192,qpairs=2\"\n")

CONFIG = """
manual_keying = "lab"
[[port]]
name = "lan"
side = "protected"
addresses = ["10.0.0.1/24"]
[[port]]
name = "wan"
side = "unprotected"
addresses = ["192.0.2.1/24"]
[[neighbor]]
port = "wan"
address = "192.0.2.9"
mac = "{far_mac}"
[[route]]
prefix = "198.51.100.0/24"
port = "wan"
via = "192.0.2.9"
[[route]]
prefix = "10.2.0.0/16"
tunnel = "branch"
[[protection]]
name = "branch"
local = "192.0.2.1"
remote = "198.51.100.7"
[[tunnel]]
name = "branch"
source = "192.0.2.1"
destination = "198.51.100.7"
protection = "branch"
service_policy = "{policy}"
[[sa]]
protection = "branch"
direction = "outbound"
spi = 4097
key_file = "out.key"
[[class_map]]
name = "voice"
criteria = [{{ dscp = ["EF"] }}]
[[class_map]]
name = "business"
criteria = [{{ dscp = ["AF31"] }}]
[[policy_map]]
name = "one-queue"
shape = {{ rate = {rate} }}
classes = [{{ class = "class-default", bandwidth = "100 %" }}]
[[policy_map]]
name = "voice-first"
shape = {{ rate = {rate} }}
classes = [
    {{ class = "voice", priority = 0, police = {{ rate = "2 Mbit/s", burst = 512000 }}, queue_limit = "4096 packets" }},
    {{ class = "business", bandwidth = "60 %" }},
    {{ class = "class-default", bandwidth = "40 %" }},
]
"""

STREAM = """
[[stream]]
name = "{name}"
rate = {{ pps = {pps} }}
size = {size}
ethernet = {{ destination = "{mac}" }}
ip = {{ source = "10.0.0.2", destination = "10.2.0.{host}", dscp = "{dscp}" }}
udp = {{}}
"""


class Bench:
    """The headend, and the generator at the far ends of both of its ports."""

    def __init__(self, lab, dataplane=DATAPLANE, policy="one-queue", at_port=False):
        self.folder, self.at_port = lab.folder, at_port
        gateway, self.world = lab.namespace("gateway"), lab.namespace("world")
        lab.veth(gateway, "lan0", self.world, "near0")
        lab.veth(gateway, "wan0", self.world, "far0")
        self.far_mac, self.lan_mac = self.world.mac("far0"), gateway.mac("lan0")
        self.lab = lab
        self.headend = lab.headend(gateway, dataplane, self.config(policy))
        self.headend.write_key("out.key", OUT_KEY)
        self.headend.start()
        self.headend.wait_cli("status", condition=lambda status: status["configuration"]["phase"] == "committed",
                              what="the configuration to run")

    def config(self, policy):
        config = CONFIG
        if self.at_port:
            at_work = 'service_policy = "{policy}"\n'
            config = config.replace(at_work, "").replace('["192.0.2.1/24"]\n', f'["192.0.2.1/24"]\n{at_work}')
        return config.format(far_mac=self.far_mac, policy=policy, rate=SHAPE_BPS)

    def apply(self, policy):
        path = self.headend.write_config("wanted.toml", self.config(policy))
        self.headend.cli("apply", path)

    def overload(self, flows=1):
        """Voice at 0.3 Mbit/s, business at 8 and bulk at 12, for some seconds, each as so many flows: what arrived of each, and
        whether the machine was there."""
        kinds = [("voice", 250, 100, "EF", 1), ("business", 900, 1_100, "AF31", 2), ("bulk", 1_000, 1_400, "DF", 3)]
        streams = [(name if flows == 1 else f"{name}-{flow}", pps // flows, size, dscp, host + 10 * flow)
                   for name, pps, size, dscp, host in kinds for flow in range(flows)]
        profile = f'[[open]]\nspi = 4097\nlab_key = "{OUT_KEY.hex()}"\n' + "".join(
            STREAM.format(name=name, pps=pps, size=size, dscp=dscp, host=host, mac=self.lan_mac)
            for name, pps, size, dscp, host in streams)
        path = self.folder / "overload.toml"
        path.write_text(profile)
        command = ["ip", "netns", "exec", self.world.name, skips.binary_folder() / "greyhound-pktgen", "--json", "run",
                   path, "--seconds", SECONDS, "--transmit", "net_af_packet8,iface=near0", "--receive",
                   "net_af_packet9,iface=far0,framecnt=8192"]
        with Attendance() as attendance:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
        assert done.stdout, f"exit {done.returncode}: {done.stderr}"
        outcome = json.loads(done.stdout)["outcome"]
        return {stream["name"]: stream for stream in outcome["streams"]}, attendance

    def classes(self):
        place = ("--port", "wan") if self.at_port else ("--tunnel", "branch")
        return {row["class"]: row for row in self.headend.cli("qos", "show", *place)}


@pytest.fixture(scope="module")
def bench(module_lab):
    reason = skips.missing_binaries(("greyhound-pktgen",))
    if reason:
        pytest.skip(reason)
    return Bench(module_lab)


def report(title, streams, attendance, capsys):
    with capsys.disabled():
        print(f"\n  {title}: {attendance}", end="")
        for name, stream in streams.items():
            arrived, delay = stream["arrived"], stream["arrived"]["latency_us"]
            print(f"\n  {title}: {name}: {arrived['received']} of {stream['sent']['packets']}, delay p50 "
                  f"{delay['p50'] / 1e3:.2f} ms, p99 {delay['p99'] / 1e3:.2f} ms", end="")


def delays(streams):
    """{stream: (p50, p99)} in milliseconds."""
    of = {name: stream["arrived"]["latency_us"] for name, stream in streams.items()}
    return {name: (latency["p50"] / 1e3, latency["p99"] / 1e3) for name, latency in of.items()}


def test_voice_waits_behind_bulk_in_one_queue_and_not_with_a_class_of_its_own(bench, capsys):
    before, quiet_before = bench.overload()
    report("one queue", before, quiet_before, capsys)
    assert before["voice"]["arrived"]["lost"] > 0
    assert before["voice"]["arrived"]["latency_us"]["p50"] > 30_000, "64 packets of bulk are ahead of it"
    bench.apply("voice-first")
    after, quiet_after = bench.overload()
    report("voice first", after, quiet_after, capsys)
    if "GREYHOUND_QOS_PLOT" in os.environ:
        pathlib.Path(os.environ["GREYHOUND_QOS_PLOT"]).write_text(plot.draw(delays(before), delays(after)))
    voice, business, bulk = (after[name]["arrived"] for name in ("voice", "business", "bulk"))
    assert voice["lost"] == 0 and voice["corrupt"] == 0
    assert all(after[name]["arrived"]["reordered"] == 0 for name in after), "one SA, and nobody overtakes"
    if quiet_before.undisturbed and quiet_after.undisturbed:
        assert voice["latency_us"]["p50"] < before["voice"]["arrived"]["latency_us"]["p50"] / 5
        # Business has 60 % of what voice leaves, bulk 40 %.
        shares = business["received"] * WIRE_BYTES["business"] / (bulk["received"] * WIRE_BYTES["bulk"])
        assert 1.3 < shares < 1.7, shares
    classes = bench.classes()
    assert set(classes) == {"voice", "business", "class-default"}
    assert classes["voice"]["dropped_packets"] == 0 and classes["voice"]["sent_packets"] == voice["received"]
    assert classes["class-default"]["dropped"]["queue_limit"] > 0
    drops = {row["reason"]: row["packets"] for row in bench.headend.cli("drops")}
    assert set(drops) <= {"qos_queue_limit", "ethertype_unknown", "source_invalid", "destination_invalid"}, drops


@pytest.mark.parametrize("at_port", (False, True), ids=("tunnel", "port"))
def test_two_workers_keep_one_rate_one_order_and_voice_first(lab, at_port, capsys):
    reason = skips.missing_binaries(("greyhound-pktgen",))
    if reason or os.cpu_count() < 2:
        pytest.skip(reason or "a second CPU for a second worker")
    bench = Bench(lab, TWO_WORKERS, "voice-first", at_port)
    streams, attendance = bench.overload(flows=5)
    report(f"two workers, policy at the {'port' if at_port else 'tunnel'}", streams, attendance, capsys)
    arrived = {name: stream["arrived"] for name, stream in streams.items()}
    assert all(stream["reordered"] == stream["corrupt"] == 0 for stream in arrived.values()), "no flow is reordered"
    carried_bytes = sum(stream["received"] * WIRE_BYTES[name.split("-")[0]] for name, stream in arrived.items())
    carried = carried_bytes * 8 / SECONDS / SHAPE_BPS
    assert carried < 1.1 and (carried > 0.8 or not attendance.undisturbed), carried
    classes, workers = bench.classes(), bench.headend.cli("worker", "list")
    assert set(classes) == {"voice", "business", "class-default"}
    assert classes["voice"]["dropped_packets"] == 0
    generated = sum(stream["sent"]["packets"] for stream in streams.values())
    offered, sent = (sum(row[name] for row in classes.values()) for name in ("offered_packets", "sent_packets"))
    lost_by_the_machine = generated - offered + sent - sum(stream["received"] for stream in arrived.values())
    assert sum(stream["lost"] for name, stream in arrived.items() if "voice" in name) <= lost_by_the_machine
    for name, row in classes.items():
        own = [stream for kind, stream in arrived.items() if kind.split("-")[0] == name.replace("class-default", "bulk")]
        received = sum(stream["received"] for stream in own)
        assert 0 <= row["sent_packets"] - received <= lost_by_the_machine, "both workers are in what is shown"
    if attendance.undisturbed:
        assert "handover_full" not in {row["reason"] for row in bench.headend.cli("drops")}
    sealed, handed = ([row["counters"][name] for row in workers] for name in ("sealed", "handed_out"))
    if at_port:
        assert all(sealed) and not any(handed), (sealed, handed)
    else:
        assert sorted(map(bool, sealed)) == [False, True] and sum(handed) > 0, (sealed, handed)
