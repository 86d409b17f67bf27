# SPDX-License-Identifier: Apache-2.0
"""The wire between the headends: captured at both ends, each frame's kind told here, and all decrypted by tshark.

What a dataplane sends through a veth end with net_af_packet does not pass the taps of that end (PACKET_QDISC_BYPASS),
so each direction is captured where it arrives.
"""

import collections
import dataclasses

from harness import frames, pcap, tshark, wait
from plan import arrow
from progress import Ticker
from world import WAN

#: Kernel buffer of each capture, in KiB: seconds of traffic.
BUFFER_KIB = 128 * 1024
#: What tshark prints of a frame, and what it need not look into.
FIELDS = ("frame.protocols", "esp.spi", "esp.icv_good")
CLOSED = ("tcp", "udp")
#: What every ESP frame must turn out to be.
INSIDE = ("gre", "ip")
KINDS = ("ESP", "ARP", "ND", "clear")
#: tshark on a slow machine, with a long run.
TSHARK_SECONDS = 3_600.0


@dataclasses.dataclass
class WireCount:
    """One direction of the wire."""

    direction: str
    kinds: collections.Counter
    spis: collections.Counter
    #: ESP frames whose IV is not above the one before under the same SA: none, or an IV may have been used twice.
    iv_not_increasing: int
    #: The last ESP frame.
    last_esp: bytes
    #: By tshark: frames, ESP frames, ESP frames with a right ICV and GRE and IP inside.
    dissected: int = 0
    dissected_esp: int = 0
    decrypted: int = 0

    @property
    def frames(self):
        return sum(self.kinds.values())


class Taps:
    """Both captures, from before the first frame."""

    def __init__(self, world):
        self._world = world
        self._captures = {
            direction: world.lab.capture(world.gateways[direction[1]], WAN, direction="in", buffer_kib=BUFFER_KIB,
                                         live=False)
            for direction in world.plan.directions
        }

    @property
    def dropped(self):
        """Frames that the captures lost."""
        return sum(capture.dropped for capture in self._captures.values())

    def end(self):
        """Ends both captures."""
        for capture in self._captures.values():
            capture.end()

    def judge(self):
        """Counts both captures, while tshark decrypts them; returns a `WireCount` for each direction."""
        dissections = {
            direction: Dissection(self._world.lab, "-".join(side.label for side in direction), capture.path,
                                  self._keys(direction))
            for direction, capture in self._captures.items()
        }
        ticker = Ticker()
        counts = {direction: count(direction, capture.path, ticker) for direction, capture in self._captures.items()}
        for direction, dissection in dissections.items():
            dissection.finish(counts[direction], ticker)
        return list(counts.values())

    def _keys(self, direction):
        """Those of every generation; tshark tries one after the other, so it gets no others."""
        sas = (sa for generation in self._world.plan.generations for sa in generation)
        return [_key(sa) for sa in sas if (sa.sender, sa.receiver) == direction]


class Dissection:
    """tshark on one capture, beside everything else."""

    def __init__(self, lab, name, path, keys):
        folder = lab.folder / f"tshark-{name}"
        folder.mkdir(mode=0o700)
        arguments = tshark.arguments(path, FIELDS, closed=CLOSED)
        self._process = lab.start(None, arguments, f"tshark-{name}", env=tshark.settings(folder, keys))
        self._esp_sa = folder / "esp_sa"
        self._rest = ""

    def finish(self, wire, ticker):
        """Waits for its end and adds what it found to `wire`."""
        with open(self._process.log, encoding="utf-8", errors="replace") as lines:
            wait.until(lambda: self._read(lines, wire, ticker), f"{self._process.name} to end", TSHARK_SECONDS, 0.2)
        self._process.wait()
        self._esp_sa.unlink()

    def _read(self, lines, wire, ticker):
        """Takes the lines that are there; true when there will be no more."""
        over = not self._process.running
        for line in iter(lines.readline, ""):
            self._rest += line
            if self._rest.endswith("\n"):
                _note(wire, self._rest.rstrip("\n"))
                self._rest = ""
        ticker.tick(lambda: f"tshark: {wire.direction}: {wire.dissected:,} of {wire.frames:,} frames")
        return over


def _note(wire, line):
    """One line of tshark's; what it says besides (warnings) has another form."""
    words = line.split("|")
    if len(words) != len(FIELDS) or not words[0].startswith("eth"):
        return
    protocols, _, icv_good = words
    names = tuple(protocols.split(":"))
    wire.dissected += 1
    if "esp" not in names:
        return
    wire.dissected_esp += 1
    inside = names[names.index("esp") + 1:]
    if inside[:len(INSIDE)] == INSIDE and icv_good in ("1", "True"):
        wire.decrypted += 1


def count(direction, path, ticker):
    """Counts the frames of one capture by kind and SPI."""
    kinds, spis, highest, not_increasing, last = collections.Counter(), collections.Counter(), {}, 0, b""
    for record in pcap.each(path):
        esp = frames.esp_of(record.frame)
        if esp is None:
            kinds[kind(record.frame)] += 1
            continue
        kinds["ESP"] += 1
        spi, iv = int.from_bytes(esp[:4]), int.from_bytes(esp[8:16])
        spis[spi] += 1
        not_increasing += iv <= highest.get(spi, -1)
        highest[spi] = iv
        last = record.frame
        if kinds["ESP"] % 4096 == 0:
            ticker.tick(lambda: f"counting frames {arrow(*direction)}: {sum(kinds.values()):,}")
    return WireCount(arrow(*direction), kinds, spis, not_increasing, last)


def kind(frame):
    """What a frame that is not ESP is."""
    if frames.is_clear(frame):
        return "clear"
    return "ARP" if frames.ether_type(frame) == 0x0806 else "ND"


def _key(sa):
    return tshark.Key(str(sa.sender.wan.ip), str(sa.receiver.wan.ip), sa.spi, sa.key_material)
