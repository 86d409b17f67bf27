# SPDX-License-Identifier: Apache-2.0
"""Namespaces, links, wires, captures and processes, without Greyhound."""

import os
import pathlib
import signal
import subprocess
import sys
import warnings

import pytest

from harness import esp, frames, netns, skips, tshark, wait
from harness.responder import Responder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Dot1Q, Ether

pytestmark = pytest.mark.requires_root

MARK = b"a frame of our own, told by its text"


def two_ends(lab):
    left, right = lab.namespace("left"), lab.namespace("right")
    lab.veth(left, "eth0", right, "eth0")
    return left, right


def test_a_bare_link_is_silent(lab):
    left, right = two_ends(lab)
    wires = lab.wire(left, "eth0"), lab.wire(right, "eth0")
    wires[0].send(Ether(dst=wires[1].mac, src=wires[0].mac, type=0x88B5) / MARK)
    assert MARK in wires[1].receive(timeout=5)
    wires[1].send(Ether(dst=wires[0].mac, src=wires[1].mac, type=0x88B5) / MARK)
    assert MARK in wires[0].receive(timeout=5)
    assert wires[0].drain() == wires[1].drain() == []
    assert wires[0].dropped() == 0


def test_offloads_are_off_and_ipv6_too(lab):
    left, _ = two_ends(lab)
    features = left.run(["ethtool", "-k", "eth0"]).stdout
    for name in ("tx-checksumming", "rx-checksumming", "generic-receive-offload", "tcp-segmentation-offload"):
        assert f"{name}: off" in features
    assert left.run(["ip", "-6", "address", "show", "dev", "eth0"]).stdout == ""


def test_a_vlan_tag_arrives_where_it_was_sent(lab):
    left, right = two_ends(lab)
    sender, receiver = lab.wire(left, "eth0"), lab.wire(right, "eth0")
    frame = bytes(Ether(dst=receiver.mac, src=sender.mac) / Dot1Q(vlan=5, prio=3) / IP(dst="192.0.2.1") / MARK)
    sender.send(frame)
    assert receiver.receive(lambda seen: MARK in seen) == frame


@pytest.mark.requires_tools("ping")
def test_a_kernel_host_pings_a_scapy_host(lab):
    scapy_side = lab.namespace("scapy")
    host = lab.host("host", "eth0", ["192.0.2.1/24"], scapy_side, "eth0", gateways=["192.0.2.2"])
    with Responder(lab.wire(scapy_side, "eth0"), ["192.0.2.2", "203.0.113.9"]) as responder:
        host.run(["ping", "-c", "3", "-i", "0.01", "-W", "5", "-s", "1000", "192.0.2.2"])
        host.run(["ping", "-c", "1", "-W", "5", "203.0.113.9"])
        assert responder.answered >= 5
    refused = host.run(["ping", "-c", "1", "-W", "1", "192.0.2.3"], check=False)
    assert refused.returncode != 0


@pytest.mark.requires_tools("ping")
def test_a_kernel_host_pings_a_scapy_host_over_ipv6(lab):
    scapy_side = lab.namespace("scapy")
    host = lab.host("host", "eth0", ["2001:db8::1/64"], scapy_side, "eth0", gateways=["2001:db8::2"])
    with Responder(lab.wire(scapy_side, "eth0"), ["2001:db8::2", "2001:db8:ffff::9"]):
        host.run(["ping", "-6", "-c", "2", "-i", "0.01", "-W", "5", "2001:db8::2"])
        host.run(["ping", "-6", "-c", "1", "-W", "5", "2001:db8:ffff::9"])


@pytest.mark.requires_tools("tcpdump", "tshark")
@pytest.mark.parametrize("icv", esp.ICV_SIZES)
def test_a_capture_is_decrypted_by_tshark(lab, icv):
    left, right = two_ends(lab)
    sender, receiver = lab.wire(left, "eth0"), lab.wire(right, "eth0")
    capture = lab.capture(right, "eth0")
    sa = esp.Sa(0x1001, os.urandom(16), os.urandom(4), icv)
    inner = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / MARK)
    for sequence in range(1, 4):
        sender.send(Ether(dst=receiver.mac, src=sender.mac) / IP(src="192.0.2.1", dst="192.0.2.2", proto=50)
                    / sa.seal(sequence, inner, esp.NEXT_HEADER_IPV4))
    arrived = receiver.collect(3, frames.is_esp)
    assert [sa.open(frames.esp_of(frame)).sequence for frame in arrived] == [1, 2, 3]

    records = capture.stop()
    assert [record.frame for record in records] == arrived and capture.dropped == 0
    key = tshark.Key("192.0.2.1", "192.0.2.2", sa.spi, sa.key_material, icv)
    seen = tshark.dissect(capture.path, [key], "esp")
    assert len(seen) == 3 and all(frame.decrypted and "udp" in frame.protocols for frame in seen)
    wrong = tshark.Key("192.0.2.1", "192.0.2.2", sa.spi, os.urandom(20), icv)
    assert not any(frame.decrypted for frame in tshark.dissect(capture.path, [wrong], "esp"))


def test_a_process_runs_inside_and_ends_on_sigterm(lab):
    left, _ = two_ends(lab)
    script = "import socket, time; print(sorted(name for _, name in socket.if_nameindex()), flush=True); time.sleep(600)"
    process = lab.start(left, [sys.executable, "-c", script], name="inside")
    process.wait_output(r"\['eth0', 'lo'\]")
    assert process.stop() == -signal.SIGTERM
    assert not pathlib.Path("/proc", str(process.pid)).exists()


def test_a_process_that_ignores_sigterm_is_killed(lab):
    left, _ = two_ends(lab)
    script = ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
              "print('ready', flush=True); time.sleep(600)")
    process = lab.start(left, [sys.executable, "-c", script], name="stubborn")
    process.wait_output("ready")
    assert process.stop(timeout=0.2) == -signal.SIGKILL


def test_waiting_for_the_output_of_a_process_that_ended_fails_at_once(lab):
    process = lab.start(None, [sys.executable, "-c", "print('only this')"])
    with pytest.raises(RuntimeError, match="only this"):
        process.wait_output("something else", timeout=60)


def test_a_killed_run_leaves_no_process_and_the_next_run_sweeps_its_namespace():
    script = ("import sys; from harness.netns import Namespace; from harness.process import Process;"
              "n = Namespace('doomed'); p = Process(['sleep', '600'], sys.argv[1], namespace=n);"
              "print(n.name, p.pid, flush=True); sys.stdin.read()")
    environment = {**os.environ, "PYTHONPATH": str(skips.REPOSITORY / "tests")}
    run = subprocess.Popen([sys.executable, "-c", script, os.devnull], env=environment,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    name, child = run.stdout.readline().split()
    assert pathlib.Path("/run/netns", name).exists()
    run.kill()
    run.wait()
    wait.until(lambda: not pathlib.Path("/proc", child).exists(), "the child to die with its parent")
    netns.sweep_stale()
    assert not pathlib.Path("/run/netns", name).exists()


def test_namespaces_are_gone_after_close(lab):
    left, right = two_ends(lab)
    lab.start(left, ["sleep", "600"])
    lab.close()
    assert not any(pathlib.Path("/run/netns", end.name).exists() for end in (left, right))
