# SPDX-License-Identifier: Apache-2.0
"""Capture files (classic pcap, Ethernet), and a capture that runs beside a test."""

import dataclasses
import re
import signal
import struct

from harness import wait

MAGIC_MICROSECONDS = 0xA1B2C3D4
MAGIC_NANOSECONDS = 0xA1B23C4D
LINKTYPE_ETHERNET = 1
SNAP_LENGTH = 262144
_COUNTS = re.compile(r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel")
_DROPPED = re.compile(r"(\d+) packets? dropped by kernel")


@dataclasses.dataclass(frozen=True)
class Record:
    """One captured frame."""

    time_ns: int
    frame: bytes


def write(path, frames):
    """Writes frames (bytes, or `Record`) as a nanosecond pcap file."""
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET))
        for index, item in enumerate(frames):
            record = item if isinstance(item, Record) else Record(index * 1_000, bytes(item))
            seconds, nanoseconds = divmod(record.time_ns, 1_000_000_000)
            out.write(struct.pack("<IIII", seconds, nanoseconds, len(record.frame), len(record.frame)))
            out.write(record.frame)


def read(path):
    """Reads a whole pcap file; returns a list of `Record`. A file cut in the middle of a record ends before it."""
    return list(each(path))


def each(path):
    """The records of a pcap file one by one, for files that are too large to hold."""
    with open(path, "rb") as source:
        head = source.read(24)
        order, scale = _format(head, path)
        (linktype,) = struct.unpack_from(order + "I", head, 20)
        if linktype & 0x0FFFFFFF != LINKTYPE_ETHERNET:
            raise ValueError(f"{path}: link type {linktype}, expected Ethernet ({LINKTYPE_ETHERNET})")
        header = struct.Struct(order + "IIII")
        while len(text := source.read(header.size)) == header.size:
            seconds, fraction, kept, full = header.unpack(text)
            frame = source.read(kept)
            if len(frame) < kept:
                return
            if kept != full:
                raise ValueError(f"{path}: a frame of {full} bytes was cut to {kept}")
            yield Record(seconds * 1_000_000_000 + fraction * scale, frame)


def frames(path):
    """The frames of a pcap file, without their times."""
    return [record.frame for record in read(path)]


def _format(data, path):
    for order in "<", ">":
        if len(data) >= 24:
            (magic,) = struct.unpack_from(order + "I", data)
            if magic == MAGIC_MICROSECONDS:
                return order, 1_000
            if magic == MAGIC_NANOSECONDS:
                return order, 1
    raise ValueError(f"{path}: not a pcap file")


class Capture:
    """tcpdump on one interface, from the moment it listens until `stop`."""

    def __init__(self, start, namespace, interface, path, kernel_filter=None, direction="inout", buffer_kib=32768,
                 live=True):
        """`start` begins a process as `Lab.start` does.

        `direction` is `in`, `out` or `inout`, as the interface sees it. Without `live` frames reach the file late,
        and many more of them fit into the buffer and through a busy machine.
        """
        self.path = path
        args = ["tcpdump", "-i", interface, "-n", "-s", "0", "-B", str(buffer_kib), "-Q", direction, "-Z", "root",
                "-w", str(path)]
        args += ["-U", "--immediate-mode"] if live else []
        args += [kernel_filter] if kernel_filter else []
        self._process = start(namespace, args, name=f"tcpdump-{namespace.label}-{interface}")
        self._process.wait_output(r"listening on")
        self.dropped = None

    def stop(self):
        """Ends the capture; returns its records. `dropped` then says how many frames the capture itself lost."""
        self.end()
        return read(self.path)

    def end(self):
        """As `stop`, but leaves the records in the file."""
        wait.until(self._caught_up, f"{self._process.name} to write what it has received")
        self._process.signal(signal.SIGINT)
        self._process.wait(timeout=30.0, check=False)
        self.dropped = int(_DROPPED.findall(self._process.output())[-1])

    def _caught_up(self):
        """Asks tcpdump for its counts (SIGUSR1): has it written all that the kernel put into its ring?"""
        before = len(_COUNTS.findall(self._process.output()))
        self._process.signal(signal.SIGUSR1)
        counts = wait.until(lambda: _COUNTS.findall(self._process.output())[before:], f"{self._process.name} to count")
        captured, received, dropped = map(int, counts[-1])
        return captured >= received - dropped
