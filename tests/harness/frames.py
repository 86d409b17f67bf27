# SPDX-License-Identifier: Apache-2.0
"""Raw frames in and out of an interface: one AF_PACKET socket, opened inside the interface's namespace.

The kernel takes an 802.1Q tag out of a frame before a packet socket sees it; it is put back here.
"""

import select
import socket
import struct

from harness import wait

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
_AUXDATA = struct.Struct("=IIIHHHH")
_MAX_FRAME = 65_536


class Wire:
    """One interface, seen as a wire: `send` puts a frame on it, `receive` takes what the other end sent."""

    def __init__(self, namespace, interface):
        self.namespace = namespace
        self.interface = interface
        with namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        self.mac = namespace.mac(interface)
        self._kernel_dropped = 0

    def close(self):
        self._socket.close()

    def fileno(self):
        return self._socket.fileno()

    def send(self, frame):
        """Sends one frame: bytes, or anything `bytes()` takes (a Scapy packet)."""
        data = bytes(frame)
        while True:
            try:
                self._socket.send(data)
                return
            except BlockingIOError:
                select.select([], [self._socket], [], 1.0)

    def send_all(self, frames):
        """Sends frames, one after the other."""
        for frame in frames:
            self.send(frame)

    def receive(self, match=None, timeout=20.0, what="a frame"):
        """The next frame that `match(bytes)` accepts; others are thrown away. `TimeoutError` after `timeout` s."""
        frame = self.poll(match, timeout)
        if frame is None:
            raise TimeoutError(f"waited {timeout} s for {what} on {self.namespace.label} {self.interface}")
        return frame

    def poll(self, match=None, timeout=0.0):
        """As `receive`, but None when nothing came."""
        deadline = wait.Deadline(timeout)
        while True:
            frame = self._take()
            if frame is None:
                if not select.select([self._socket], [], [], deadline.remaining)[0] and deadline.expired:
                    return None
            elif match is None or match(frame):
                return frame

    def collect(self, count, match=None, timeout=20.0, what="frames"):
        """The next `count` frames that match."""
        deadline = wait.Deadline(timeout)
        found = []
        while len(found) < count:
            frame = self.poll(match, deadline.remaining)
            if frame is None:
                raise TimeoutError(
                    f"waited {timeout} s for {count} {what} on {self.namespace.label} {self.interface}, "
                    f"{len(found)} came")
            found.append(frame)
        return found

    def drain(self):
        """Takes what has arrived, without waiting."""
        found = []
        while (frame := self._take()) is not None:
            found.append(frame)
        return found

    def dropped(self):
        """Frames that the kernel threw away because this socket's buffer was full."""
        _, lost = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._kernel_dropped += lost
        return self._kernel_dropped

    def _take(self):
        try:
            data, control, _, _ = self._socket.recvmsg(_MAX_FRAME, socket.CMSG_SPACE(_AUXDATA.size))
        except BlockingIOError:
            return None
        for level, kind, value in control:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                return _restore_tag(data, value)
        return data


def _restore_tag(data, auxdata):
    status, _, _, _, _, tag, protocol = _AUXDATA.unpack(auxdata[:_AUXDATA.size])
    if not status & TP_STATUS_VLAN_VALID:
        return data
    if not status & TP_STATUS_VLAN_TPID_VALID:
        protocol = 0x8100
    return data[:12] + struct.pack("!HH", protocol, tag) + data[12:]


def ether_type(frame):
    """The EtherType of a frame, behind an 802.1Q tag if there is one."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    return struct.unpack_from("!H", frame, 16)[0] if kind == 0x8100 else kind


def network_offset(frame):
    """Where the network header begins."""
    return 18 if frame[12:14] == b"\x81\x00" else 14


def ip_protocol(frame):
    """The protocol of an IPv4 frame or the first next header of an IPv6 frame, else None."""
    offset = network_offset(frame)
    kind = ether_type(frame)
    if kind == 0x0800:
        return frame[offset + 9]
    return frame[offset + 6] if kind == 0x86DD else None


def is_esp(frame):
    """Whether a frame carries ESP, directly or behind IPv6 extension headers without a fragment."""
    return esp_of(frame) is not None


def esp_of(frame):
    """The ESP packet of a frame: from the SPI to the end of the IP packet; None where there is none."""
    offset = network_offset(frame)
    kind = ether_type(frame)
    if kind == 0x0800:
        length = (frame[offset] & 15) * 4
        (total,) = struct.unpack_from("!H", frame, offset + 2)
        return frame[offset + length:offset + total] if frame[offset + 9] == 50 else None
    if kind != 0x86DD:
        return None
    (payload,) = struct.unpack_from("!H", frame, offset + 4)
    end, following, at = offset + 40 + payload, frame[offset + 6], offset + 40
    while following in (0, 43, 60):
        following, at = frame[at], at + (frame[at + 1] + 1) * 8
    return frame[at:end] if following == 50 else None


def is_clear(frame):
    """Whether a frame is neither ARP, nor neighbour discovery, nor ESP: what must never be on a protected wire."""
    kind = ether_type(frame)
    if kind == 0x0806 or is_esp(frame):
        return False
    offset = network_offset(frame)
    neighbour_discovery = kind == 0x86DD and frame[offset + 6] == 58 and 133 <= frame[offset + 40] <= 137
    return not neighbour_discovery
