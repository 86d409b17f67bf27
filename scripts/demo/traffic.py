# SPDX-License-Identifier: Apache-2.0
"""What flows between the sites: a stamped stream each way (greyhound-pktgen), and TCP both ways (iperf3)."""

import dataclasses
import json
import signal

from harness import skips, wait
from plan import arrow

#: UDP payload of a stamped packet, stamp included.
PAYLOAD_BYTES = 172
#: Longer than any run: the transfer is ended by a signal.
TCP_SECONDS_MAX = 86_400
#: One write of the transfer; small, so that the pace is even.
TCP_WRITE_BYTES = 16 * 1024


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What became of a stamped stream."""

    direction: str
    sent: int
    refused: int
    started_ns: int
    received: int
    duplicated: int
    reordered: int
    foreign: int
    corrupt: int
    gaps: tuple
    latency_us: dict

    @property
    def lost(self):
        return self.sent - self.received


@dataclasses.dataclass(frozen=True)
class Transferred:
    """What became of the TCP transfer in one direction, by its receiver."""

    direction: str
    mbit_s: float
    seconds: float
    retransmits: int


class Stream:
    """One stamped stream, running from `start` to `stop`."""

    def __init__(self, world, sender, receiver, number):
        self._world = world
        self._sender, self._receiver = sender, receiver
        self._number = number
        self._name = f"{sender.label}-{receiver.label}"

    def start(self):
        plan, program = self._world.plan, skips.binary_folder() / "greyhound-pktgen"
        place = f"{self._receiver.host.ip}:{plan.stream_port}"
        host = self._world.hosts[self._receiver]
        self._sink = self._world.lab.start(host, [program, "sink", "--listen", place, "--json"], f"sink-{self._name}")
        wait_listening(host, "-u", plan.stream_port)
        self._source = self._world.lab.start(
            self._world.hosts[self._sender],
            [program, "stream", "--to", place, "--stream", self._number, "--rate-pps", plan.rate_pps,
             "--payload-bytes", PAYLOAD_BYTES, "--json"], f"stream-{self._name}")

    def check_running(self):
        for process in (self._sink, self._source):
            if not process.running:
                raise RuntimeError(f"{process.name} ended ({process.returncode}):\n{process.tail()}")

    def stop_sending(self):
        self._source.signal(signal.SIGTERM)
        self._source.wait()

    def result(self):
        """Ends the sink, which waits until nothing comes any more."""
        self._sink.signal(signal.SIGTERM)
        self._sink.wait()
        sent, arrived = (json.loads(process.output()) for process in (self._source, self._sink))
        totals = arrived["streams"][str(self._number)]
        return Streamed(
            arrow(self._sender, self._receiver), sent["sent"], sent["refused"], sent["started_ns"],
            totals["received"], totals["duplicated"], totals["reordered"], arrived["foreign"], arrived["corrupt"],
            tuple((gap["first"], gap["packets"]) for gap in totals["gaps"]), totals["latency_us"])


class Transfer:
    """TCP both ways at once between the two hosts, each paced."""

    def __init__(self, world):
        self._world = world

    def start(self):
        plan, lab = self._world.plan, self._world.lab
        west, east = (self._world.hosts[side] for side in plan.sides)
        port = ["--port", plan.tcp_port, "--json"]
        self._server = lab.start(east, ["iperf3", "--server", "--one-off", *port], "iperf3-server")
        wait_listening(east, "-t", plan.tcp_port)
        self._client = lab.start(
            west, ["iperf3", "--client", plan.east.host.ip, *port, "--bidir", "--bitrate", f"{plan.tcp_mbit_s}M",
                   "--length", TCP_WRITE_BYTES, "--time", TCP_SECONDS_MAX], "iperf3-client")

    def check_running(self):
        for process in (self._client, self._server):
            if not process.running:
                raise RuntimeError(f"{process.name} ended ({process.returncode}):\n{process.tail()}")

    def stop(self):
        """Ends it; each end then says what it received. Returns one `Transferred` for each direction."""
        self._client.signal(signal.SIGINT)
        self._client.wait(check=False)
        self._server.wait(check=False)
        client, server = (json.loads(process.output())["end"] for process in (self._client, self._server))
        there, back = self._world.plan.directions
        return (
            _transferred(there, server["sum_received"], client["sum_sent"]),
            _transferred(back, client["sum_received_bidir_reverse"], server["sum_sent_bidir_reverse"]),
        )


def _transferred(direction, received, sent):
    return Transferred(arrow(*direction), received["bits_per_second"] / 1e6, received["seconds"], sent["retransmits"])


class Traffic:
    """All of it."""

    def __init__(self, world):
        self._streams = [Stream(world, *direction, number) for number, direction in enumerate(world.plan.directions, 1)]
        self._transfer = Transfer(world)

    def start(self):
        self._transfer.start()
        for stream in self._streams:
            stream.start()

    def check_running(self):
        for part in (self._transfer, *self._streams):
            part.check_running()

    def stop(self):
        """Ends it; returns the streams' and the transfer's results."""
        for stream in self._streams:
            stream.stop_sending()
        transferred = self._transfer.stop()
        return tuple(stream.result() for stream in self._streams), transferred


def wait_listening(host, family, port):
    """Waits until something listens on a port; `family` is `-t` (TCP) or `-u` (UDP)."""
    wait.until(lambda: host.run(["ss", "-H", "-l", "-n", family, f"sport = :{port}"]).stdout.strip(),
               f"something to listen on port {port} in {host.label}")
