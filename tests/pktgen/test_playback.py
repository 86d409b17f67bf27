# SPDX-License-Identifier: Apache-2.0
"""Frames that are there already: `replay` at one end of a net_memif link, `capture` at the other; and ARP, answered, and
sequence files, which carry ESP's numbers from run to run. Files are read by Scapy and by the harness."""

import json
import os
import random
import subprocess
import tempfile
import warnings

import pytest

from harness import pcap, skips, wait

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
    from scapy.layers.l2 import ARP, Ether
    from scapy.utils import PcapNgWriter

pytestmark = [pytest.mark.requires_root, pytest.mark.requires_binaries]

SEALED = """
[[stream]]
name = "one"
rate = { pps = 10_000 }
packets = 500
size = 128
ip = { source = "10.2.0.1", destination = "10.1.0.1" }
udp = {}
gre = { source = "198.51.100.7", destination = "192.0.2.1" }
esp = { spi = 4096, lab_key = "000102030405060708090a0b0c0d0e0f10111213" }
"""

OUR_MAC = "02:00:00:00:00:05"
ANSWERING = f"""
answer = {{ addresses = ["10.0.0.9", "2001:db8::9"], mac = "{OUR_MAC}" }}
[[stream]]
name = "one"
rate = {{ pps = 10 }}
size = 64
ip = {{ source = "10.2.0.1", destination = "10.1.0.1" }}
udp = {{}}
"""


class Link:
    """Two generators, one at each end of a shared-memory link."""

    def __init__(self, lab, sockets):
        self.lab = lab
        self.socket = f"{sockets}/link.sock"
        self.namespace = lab.namespace("link")

    def port(self, role):
        return f"net_memif0,role={role},socket={self.socket},socket-abstract=no,rsize=12"

    def start(self, *args, role):
        command = [skips.binary_folder() / "greyhound-pktgen", "--json", *args, self.port(role)]
        running = self.lab.start(self.namespace, [str(word) for word in command], name=f"pktgen-{args[0]}-{role}")
        if role == "server":
            # A client's start fails where nobody listens.
            wait.until(lambda: os.path.exists(self.socket), "the link's socket", 20.0)
        return running

    def captured_while(self, packets, *args):
        """What a capture of so many packets has of what this command sends; and what the command says."""
        file = self.lab.folder / "seen.pcap"
        capture = self.start("capture", file, "--packets", packets, "--receive", role="server")
        sender = self.start(*args, "--transmit", role="client")
        sender.wait(60.0)
        capture.wait(60.0)
        return pcap.read(file), last_json(sender)


def last_json(process):
    """The JSON object that a command ended with."""
    return json.loads(next(line for line in reversed(process.output().splitlines()) if line.startswith("{")))


@pytest.fixture
def link(lab):
    reason = skips.missing_binaries(("greyhound-pktgen",))
    if reason:
        pytest.skip(reason)
    # A Unix socket's path is limited.
    with tempfile.TemporaryDirectory(prefix="gh-") as sockets:
        yield Link(lab, sockets)


def frames(count, seed):
    """Frames of all lengths, 200 µs apart."""
    rng = random.Random(seed)
    return [pcap.Record(number * 200_000, rng.randbytes(rng.randrange(60, 1_515))) for number in range(count)]


def test_what_is_replayed_as_timed_arrives_frame_by_frame_and_in_its_time(link):
    sent = frames(500, seed=1)
    pcap.write(link.lab.folder / "sent.pcap", sent)
    seen, said = link.captured_while(len(sent), "replay", link.lab.folder / "sent.pcap")
    assert [record.frame for record in seen] == [record.frame for record in sent]
    assert said["frames"] == len(sent) and said["bytes"] == sum(len(record.frame) for record in sent)
    assert said["asked_seconds"] == pytest.approx(0.1, rel=0.01) and said["seconds"] >= 0.0998
    assert [record.time_ns for record in seen] == sorted(record.time_ns for record in seen)


def test_a_pcapng_file_is_replayed_in_rounds_at_a_rate(link):
    sent = frames(100, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = PcapNgWriter(str(link.lab.folder / "sent.pcapng"))
        for record in sent:
            writer.write(Ether(record.frame))
        writer.close()
    seen, said = link.captured_while(
        300, "replay", link.lab.folder / "sent.pcapng", "--rate", "2000pps", "--rounds", "3")
    assert [record.frame for record in seen] == [record.frame for record in sent] * 3
    assert said["asked_seconds"] == pytest.approx(0.15)


def test_a_capture_ends_on_sigterm_and_is_a_whole_file(link):
    file = link.lab.folder / "seen.pcap"
    capture = link.start("capture", file, "--receive", role="server")
    sent = frames(50, seed=3)
    pcap.write(link.lab.folder / "sent.pcap", sent)
    sender = link.start("replay", link.lab.folder / "sent.pcap", "--rounds", "20", "--transmit", role="client")
    sender.wait(60.0)
    capture.stop()
    kept = pcap.read(file)
    assert last_json(capture)["packets"] == len(kept) > 0
    assert [record.frame for record in kept] == [record.frame for record in sent * 20][:len(kept)]


def test_a_run_goes_on_with_the_sequence_numbers_of_the_one_before(link):
    profile, file = link.lab.folder / "sealed.toml", link.lab.folder / "sequences.json"
    profile.write_text(SEALED)
    for first in (1, 501, 1_001):
        seen, said = link.captured_while(500, "run", profile, "--seconds", "1", "--sequence-file", file)
        numbers = [int.from_bytes(record.frame[38:42], "big") for record in seen]
        assert numbers == list(range(first, first + 500))
        assert said["outcome"]["streams"][0]["next_sequence"] == first + 500


def test_who_asks_for_our_addresses_is_answered_by_the_generator(lab):
    left, right = lab.namespace("generator"), lab.namespace("asker")
    lab.veth(left, "gen", right, "ask")
    wire, profile = lab.wire(right, "ask"), lab.folder / "answering.toml"
    profile.write_text(ANSWERING)
    generator = lab.start(left, [str(word) for word in (
        skips.binary_folder() / "greyhound-pktgen", "--json", "run", profile, "--seconds", "60",
        "--receive", "net_af_packet0,iface=gen")], name="pktgen")
    station = {"src": wire.mac, "dst": "ff:ff:ff:ff:ff:ff"}

    def answer(question, kind):
        """What comes back, of this kind; asked again as a host would while the generator starts."""
        wire.send(bytes(question).ljust(60, b"\0"))
        frame = wire.poll(lambda frame: kind in Ether(frame), timeout=0.5)
        return Ether(frame) if frame else None

    def who_has(address):
        return Ether(**station) / ARP(op="who-has", hwsrc=wire.mac, psrc="10.0.0.1", pdst=address)

    reply = wait.until(lambda: answer(who_has("10.0.0.9"), ARP), "an ARP reply", 30.0)
    assert (reply.dst, reply.src, reply[ARP].op) == (wire.mac, OUR_MAC, 2)
    assert (reply[ARP].hwsrc, reply[ARP].psrc, reply[ARP].pdst) == (OUR_MAC, "10.0.0.9", "10.0.0.1")
    solicitation = (Ether(**station) / IPv6(src="2001:db8::1", dst="ff02::1:ff00:9", hlim=255)
                    / ICMPv6ND_NS(tgt="2001:db8::9") / ICMPv6NDOptSrcLLAddr(lladdr=wire.mac))
    reply = wait.until(lambda: answer(solicitation, ICMPv6ND_NA), "a neighbour advertisement", 30.0)
    assert (reply.dst, reply[IPv6].dst, reply[ICMPv6ND_NA].tgt) == (wire.mac, "2001:db8::1", "2001:db8::9")
    assert reply[ICMPv6NDOptDstLLAddr].lladdr == OUR_MAC
    assert answer(who_has("10.0.0.8"), ARP) is None
    generator.stop()
    outcome = last_json(generator)["outcome"]
    assert outcome["answered"] >= 2 and outcome["foreign"] >= 1


def test_what_cannot_be_is_refused_before_anything_is_sent(link):
    program, profile = str(skips.binary_folder() / "greyhound-pktgen"), link.lab.folder / "answering.toml"
    profile.write_text(ANSWERING)
    for words, sentence in (
        (["replay", profile, "--transmit", "net_null0"], "pcap"),
        (["replay", profile, "--receive", "net_null0"], "a port to send through"),
        (["capture", "/nowhere/seen.pcap", "--transmit", "net_null0"], "a port to receive from"),
        (["run", profile, "--port", "memory", "--rate", "40%"], "line_bps"),
        (["run", profile, "--port", "memory", "--html", "/nowhere/page.html"], "/nowhere/page.html"),
    ):
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and sentence in done.stderr, f"{words}: {done.returncode}: {done.stderr}"
