# SPDX-License-Identifier: Apache-2.0
"""Frames that a headend must drop, each under its own reason. They are put on the wire when all else was counted."""

import collections
import socket
import struct

from harness import frames, wait
from progress import say
from world import WAN

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
PROTOCOL_GRE = 47
GRE_KEY_PRESENT = 0x2000
PROTOCOL_TYPE_IPV4 = 0x0800
#: The replayed sequence number is within any window, the forged one ahead of it.
FORGED_AHEAD = 1_000


def provoke(world, sender, receiver, captured):
    """Sends the frames from the sender's end; returns what the receiver must have counted since, and what it has."""
    before, expected = collections.Counter(world.drops(receiver)), {}
    with world.gateways[sender].entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        # Past the taps: the dataplane at this end must not see them.
        wire.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        wire.bind((WAN, 0))
        for copies, (reason, frame) in enumerate(_frames(world.plan, sender, receiver, captured), 1):
            expected[reason] = copies
            for _ in range(copies):
                wire.send(frame)

    def found():
        return dict(collections.Counter(world.drops(receiver)) - before)

    try:
        wait.until(lambda: sum(found().values()) >= sum(expected.values()), "the provoked frames to be dropped")
    except TimeoutError as late:
        say(str(late))
    return expected, found()


def _frames(plan, sender, receiver, captured):
    """Reasons and frames, all made from one that was captured."""
    esp = frames.esp_of(captured)
    at = captured.index(esp, frames.network_offset(captured))
    head, tail = captured[:at], captured[at + 8:]
    (sequence,) = struct.unpack_from("!I", esp, 4)
    yield "replayed", captured
    yield "spi_unknown", head + struct.pack("!II", plan.unused_spi(), sequence) + tail
    yield "bad_icv", head + esp[:4] + struct.pack("!I", sequence + FORGED_AHEAD) + tail
    yield "clear_but_protected", captured[:14] + _in_clear(plan, sender, receiver)


def _in_clear(plan, sender, receiver):
    """What the tunnel carries, without ESP around it."""
    payload = _ipv4(sender.host.ip, receiver.host.ip, socket.IPPROTO_UDP, struct.pack("!HHHH", 9, 9, 8, 0))
    packet = struct.pack("!HHI", GRE_KEY_PRESENT, PROTOCOL_TYPE_IPV4, plan.gre_key) + payload
    return _ipv4(sender.wan.ip, receiver.wan.ip, PROTOCOL_GRE, packet)


def _ipv4(source, destination, protocol, payload):
    """RFC 791, without options."""
    fields = [0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, source.packed, destination.packed]
    # RFC 1071.
    total = sum(struct.unpack("!10H", struct.pack("!BBHHHBBH4s4s", *fields)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    fields[7] = ~total & 0xFFFF
    return struct.pack("!BBHHHBBH4s4s", *fields) + payload
