# SPDX-License-Identifier: Apache-2.0
"""Classic pcap files with Ethernet or raw IP frames, read and written whole."""

import struct
from dataclasses import dataclass
from pathlib import Path

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
MICROSECONDS = 0xA1B2C3D4
NANOSECONDS = 0xA1B23C4D
GLOBAL_HEADER = "IHHiIII"
RECORD_HEADER = "IIII"


@dataclass(frozen=True)
class Frame:
    """One captured frame; `microseconds` since the epoch, or since any start."""

    microseconds: int
    octets: bytes


def read(source: Path | bytes) -> tuple[int, list[Frame]]:
    """Return the link type and the frames. Raises ValueError for anything cut short."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    if len(data) < 24:
        raise ValueError("shorter than a pcap header")
    order = "<" if struct.unpack("<I", data[:4])[0] in (MICROSECONDS, NANOSECONDS) else ">"
    magic, *_, link_type = struct.unpack(order + GLOBAL_HEADER, data[:24])
    if magic not in (MICROSECONDS, NANOSECONDS):
        raise ValueError("not a pcap file")
    divisor = 1000 if magic == NANOSECONDS else 1
    frames, offset = [], 24
    while offset < len(data):
        if offset + 16 > len(data):
            raise ValueError("a record header is cut short")
        seconds, fraction, captured, original = struct.unpack_from(order + RECORD_HEADER, data, offset)
        octets = data[offset + 16 : offset + 16 + captured]
        if len(octets) != captured or captured != original:
            raise ValueError("a frame is cut short")
        frames.append(Frame(seconds * 1_000_000 + fraction // divisor, octets))
        offset += 16 + captured
    return link_type, frames


def write(path: Path, link_type: int, frames: list[Frame]) -> None:
    """Write `frames` as a little-endian file with microseconds."""
    with path.open("wb") as out:
        out.write(struct.pack("<" + GLOBAL_HEADER, MICROSECONDS, 2, 4, 0, 0, 65535, link_type))
        for frame in frames:
            seconds, fraction = divmod(frame.microseconds, 1_000_000)
            size = len(frame.octets)
            out.write(struct.pack("<" + RECORD_HEADER, seconds, fraction, size, size) + frame.octets)
