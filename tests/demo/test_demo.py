# SPDX-License-Identifier: Apache-2.0
"""The demo as an operator runs it, and that its verdict can be bad."""

import collections
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import pytest

from harness import skips, wait

DEMO = skips.REPOSITORY / "scripts" / "demo.sh"
HOLDS, FAILED, INCONCLUSIVE = 0, 1, 3
#: How often a run may find the machine too busy.
ATTEMPTS = 3

needs_all = [
    pytest.mark.requires_root,
    pytest.mark.requires_binaries,
    pytest.mark.requires_tools("ip", "ethtool", "ping", "ss", "tcpdump", "tshark", "iperf3"),
]


def start(*arguments):
    environment = {**os.environ, "GREYHOUND_BIN": str(skips.binary_folder())}
    return subprocess.Popen([DEMO, "--no-build", *arguments], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def left_behind(said):
    """What is still there of a run: its namespaces, and its folder of keys and captures."""
    names = re.findall(r"\bgh\d+-[0-9a-f]+-[a-z-]+", said)
    spaces = [name for name in names if pathlib.Path("/run/netns", name).exists()]
    owners = {name.removeprefix("gh").split("-")[0] for name in names}
    folders = [path for path in pathlib.Path(tempfile.gettempdir()).glob("greyhound-demo-*")
               if path.name.split("-")[2] in owners]
    return spaces + folders


def row(said, name):
    """The two cells of a row of the table."""
    line = next(line for line in said.splitlines() if line.strip().startswith(name))
    return re.split(r"\s{2,}", line.strip())[1:]


@pytest.mark.parametrize("seconds", [6])
class TestRun:
    pytestmark = needs_all

    def test_all_holds_and_nothing_stays(self, seconds):
        for _ in range(ATTEMPTS):
            process = start("--seconds", str(seconds))
            said, _ = process.communicate(timeout=600)
            assert left_behind(said) == []
            if process.returncode != INCONCLUSIVE:
                break
        assert process.returncode == HOLDS, said
        sent, received = row(said, "stamped packets sent"), row(said, "stamped packets received")
        assert sent == received and all(int(number.replace(",", "")) > 5_000 * seconds * 0.9 for number in sent)
        for name in ("lost", "frames on the wire: ND", "frames on the wire: clear"):
            assert row(said, name) == ["0", "0"]
        assert row(said, "tshark decrypts to esp:gre:ip") == ["100 %", "100 %"]
        # The first SA and the ten after it, each way.
        assert row(said, "SAs that carried packets") == ["11", "11"]
        assert len(re.findall(r"SAs replaced, \d+ of 10", said)) == 10
        assert re.search(r"new control, pid \d+, took over generation \d+", said)
        assert "drops          west: none" in said and "drops          east: none" in said

    def test_an_interrupt_takes_it_all_down(self, seconds):
        process = start("--seconds", str(seconds))
        said = ""
        while "traffic for" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=180)[0]
        assert process.returncode == 128 + signal.SIGINT, said
        assert left_behind(said) == [], said
        pid = re.search(r"dataplane up, pid (\d+)", said)[1]
        wait.until(lambda: not pathlib.Path("/proc", pid).exists(), f"the dataplane to be gone after\n{said}")


@pytest.fixture
def demo(monkeypatch):
    """The demo's modules."""
    monkeypatch.syspath_prepend(skips.REPOSITORY / "scripts" / "demo")
    import plan
    import report
    import rekey
    import traffic
    import wire
    import world
    yield collections.namedtuple("Demo", "plan report rekey traffic wire world")(
        plan, report, rekey, traffic, wire, world)
    for name in ("plan", "progress", "report", "rekey", "traffic", "wire", "world"):
        sys.modules.pop(name, None)


def outcome(demo):
    """A run in which all holds."""
    plan = demo.plan.Plan(seconds=1, replacements=2)
    plan.next_generation(), plan.next_generation()
    streams, transfers, wires, links = [], [], [], []
    for place, direction in enumerate(plan.directions):
        name = demo.plan.arrow(*direction)
        streams.append(demo.traffic.Streamed(
            name, sent=5_000, refused=0, started_ns=0, received=5_000, duplicated=0, reordered=0, foreign=0, corrupt=0,
            gaps=(), latency_us={"p50": 1.0, "p99": 2.0, "max": 3.0}))
        transfers.append(demo.traffic.Transferred(name, 50.0, 1.0, 0))
        spis = collections.Counter(generation[place].spi for generation in plan.generations)
        wires.append(demo.wire.WireCount(name, collections.Counter(ESP=3, ARP=1), spis, 0, b"", 4, 3, 3))
        links.append(demo.world.LinkCount(name, 4, 4))
    return demo.report.Outcome(
        plan, tuple(streams), tuple(transfers), [demo.rekey.Replacement(100_000_000, 200_000_000)] * 2,
        demo.rekey.Takeover("west", 1.0, 5_000, 7, 7, True), wires, links, udp_socket_drops=0, capture_drops=0,
        drops={"west": {}, "east": {}}, provoked=("east", {"replayed": 1}, {"replayed": 1}))


def with_stream(one, **changes):
    one.streams = (dataclasses.replace(one.streams[0], **changes), one.streams[1])


def with_wire(one, **changes):
    one.wires[1] = dataclasses.replace(one.wires[1], **changes)


def in_clear(one):
    one.wires[0].kinds.update(clear=1, ARP=-1)


def test_a_good_run_holds(demo):
    good = outcome(demo)
    assert demo.report.judge(good) == ([], [])
    text = demo.report.table(good)
    assert row(text, "stamped packets sent") == ["5,000", "5,000"]
    assert row(text, "tshark decrypts to esp:gre:ip") == ["100 %", "100 %"]


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda one: with_stream(one, received=4_999), "1 stamped packets lost"),
    (lambda one: with_stream(one, duplicated=1), "1 packets duplicated"),
    (lambda one: with_stream(one, reordered=1), "1 packets reordered"),
    (lambda one: with_stream(one, corrupt=1), "1 packets corrupt"),
    (lambda one: setattr(one, "transfers", (dataclasses.replace(one.transfers[0], mbit_s=0.0),)), "no TCP"),
    (in_clear, "1 frames in clear"),
    (lambda one: with_wire(one, decrypted=2), "2 of 3 ESP frames decrypted"),
    (lambda one: with_wire(one, dissected_esp=2), "of 3 ESP frames decrypted"),
    (lambda one: with_wire(one, dissected=3), "tshark saw 3 of 4"),
    (lambda one: with_wire(one, iv_not_increasing=1), "1 IVs"),
    (lambda one: one.wires[0].spis.popitem(), "1 SAs carried nothing"),
    (lambda one: one.wires[0].spis.update([1]), "1 SPIs that are no SA"),
    (lambda one: one.drops["west"].update(no_sa=2), "west: 2 packets dropped: no_sa"),
    (lambda one: setattr(one, "provoked", ("east", {"replayed": 1}, {"replayed": 2})), "but dropped replayed 2"),
    (lambda one: setattr(one, "takeover", dataclasses.replace(one.takeover, generation_after=8)), "generation 7 → 8"),
    (lambda one: setattr(one, "takeover", dataclasses.replace(one.takeover, same_sas=False)), "changed the running"),
    (lambda one: one.replacements.pop(), "1 replacements, not 2"),
])
def test_what_does_not_hold_is_said(demo, spoil, words):
    one = outcome(demo)
    spoil(one)
    failures, _ = demo.report.judge(one)
    assert len(failures) == 1 and words in failures[0], failures


def test_packets_that_the_machine_lost_are_no_verdict_but_clear_frames_are(demo):
    one = outcome(demo)
    with_stream(one, received=4_990)
    one.links[0] = demo.world.LinkCount("the wire", 14, 4)
    failures, doubts = demo.report.judge(one)
    assert failures == [] and any("lost 10 packets" in doubt for doubt in doubts)
    in_clear(one)
    assert len(demo.report.judge(one)[0]) == 1


def test_slow_tcp_is_no_verdict(demo):
    one = outcome(demo)
    one.transfers = (dataclasses.replace(one.transfers[0], mbit_s=9.0),)
    assert demo.report.judge(one) == ([], ["west → east: TCP ran at 9.0 Mbit/s only"])


def test_a_capture_with_holes_is_no_verdict(demo):
    one = outcome(demo)
    one.capture_drops = 1
    assert demo.report.judge(one) == ([], ["the capture lost 1 frames"])


def test_losses_are_put_down_to_the_replacement_they_fell_into(demo):
    one = outcome(demo)
    # At 5,000 packets a second number 500 is due after 100 ms and number 1,000 after 200 ms.
    with_stream(one, received=4_990, gaps=((498, 4), (1_000, 3), (4_000, 3)))
    assert one.lost_in_replacements(one.streams[0]) == 3
