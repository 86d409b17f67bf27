# SPDX-License-Identifier: Apache-2.0
"""A small headend in Python: it stands in for the one under test, to test this driver.

One GRE tunnel protected by ESP, made of the judges in `harness`, IPv4 in IPv4, one host on the local port. When
a live scenario fails and this passes in the same lab, the fault is not the lab's.
Left out: fragments, ICMP errors, IPv6, replay protection beyond "newer than the last".
"""

import dataclasses
import ipaddress
import select
import socket
import struct
import threading
from collections import Counter

from harness import esp, gre
from harness.netns import Namespace

from . import ip
from .tunnel import SecurityAssociation, Tunnel

PACKET_OUTGOING = 4
BROADCAST = b"\xff" * 6
ARP_REQUEST, ARP_REPLY = 1, 2


class Port:
    """An Ethernet port with one IPv4 address and one neighbour, which it resolves by ARP."""

    def __init__(self, raw: socket.socket, mac: bytes, address: str, neighbor: str):
        self.raw, self.mac, self.address = raw, mac, address
        self.neighbor, self.neighbor_mac = neighbor, b""
        self.waiting: list[bytes] = []

    def receive(self) -> bytes | None:
        """Return an IPv4 packet for us, if the next frame is one; answers and learns from ARP."""
        frame, origin = self.raw.recvfrom(1 << 16)
        if origin[2] == PACKET_OUTGOING or len(frame) < 14:
            return None
        ethertype, rest = ip.parse_ethernet(frame)
        if ethertype == ip.ETHERTYPE_ARP:
            self._arp(rest)
        elif ethertype == ip.ETHERTYPE_IPV4 and frame[:6] == self.mac:
            return rest
        return None

    def send(self, packet: bytes) -> None:
        """Send an IPv4 packet to the neighbour; the first ones wait for its address."""
        if not self.neighbor_mac:
            self.waiting.append(packet)
            self._send_arp(ARP_REQUEST, BROADCAST, bytes(6), self.neighbor)
            return
        self.raw.send(self.neighbor_mac + self.mac + struct.pack("!H", ip.ETHERTYPE_IPV4) + packet)

    def _arp(self, body: bytes) -> None:
        operation, sender_mac, sender, _, target = struct.unpack("!6xH6s4s6s4s", body[:28])
        if sender == ipaddress.IPv4Address(self.neighbor).packed:
            self.neighbor_mac = sender_mac
            waiting, self.waiting = self.waiting, []
            for packet in waiting:
                self.send(packet)
        if operation == ARP_REQUEST and target == ipaddress.IPv4Address(self.address).packed:
            self._send_arp(ARP_REPLY, sender_mac, sender_mac, str(ipaddress.IPv4Address(sender)))

    def _send_arp(self, operation: int, to_mac: bytes, target_mac: bytes, target: str) -> None:
        head = struct.pack("!HHBBH", 1, ip.ETHERTYPE_IPV4, 6, 4, operation)
        ends = self.mac + ipaddress.IPv4Address(self.address).packed
        ends += target_mac + ipaddress.IPv4Address(target).packed
        self.raw.send(to_mac + self.mac + struct.pack("!H", ip.ETHERTYPE_ARP) + head + ends)


class Gateway:
    """The stand-in headend; use it as a context manager. `counts` says what it did, by name.

    `wan` and `lan` are interfaces of `namespace`; `site_host` is the one neighbour on `lan`.
    """

    def __init__(self, namespace: Namespace, wan: str, lan: str, tunnel: Tunnel, lan_address: str, site_host: str):
        if tunnel.gre is None or tunnel.outbound is None or tunnel.inbound is None:
            raise ValueError("a tunnel with GRE and both SAs would be right")
        self.tunnel = tunnel
        self.counts: Counter[str] = Counter()
        self._gre = tunnel.gre
        self._outbound, self._inbound = judge(tunnel.outbound), judge(tunnel.inbound)
        self._next_sequence = tunnel.outbound.first_sequence_number
        self._last_received = tunnel.inbound.first_sequence_number - 1
        self._replay_window = tunnel.inbound.replay_window
        self._gre_sequence = 0
        self._identification = 0
        outer = (tunnel.esp_local or tunnel.local, tunnel.esp_remote or tunnel.remote)
        self._wan = Port(_packet_socket(namespace, wan), bytes.fromhex("025256000001"), *outer)
        self._lan = Port(_packet_socket(namespace, lan), bytes.fromhex("025256000002"), lan_address, site_host)
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> "Gateway":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.close()
        self._thread.join()
        for each in (self._wan.raw, self._lan.raw, self._wake):
            each.close()

    def _loop(self) -> None:
        ports = {self._wan.raw: (self._wan, self._inward), self._lan.raw: (self._lan, self._outward)}
        while True:
            ready, _, _ = select.select([*ports, self._wake], [], [])
            if self._wake in ready:
                return
            for raw in ready:
                port, carry = ports[raw]
                packet = port.receive()
                if packet is None:
                    continue
                try:
                    carry(packet)
                except (ip.Malformed, esp.EspError, gre.GreError) as problem:
                    self.counts[f"{type(problem).__name__}: {problem}"] += 1

    def _outward(self, octets: bytes) -> None:
        inner = ip.parse(octets)
        octets = _forwarded(octets[: int.from_bytes(octets[2:4], "big")], inner)
        sequence = self._gre_sequence if self._gre.sequence else None
        octets = gre.build(octets, key=self._gre.key, sequence=sequence, checksum=self._gre.checksum)
        self._gre_sequence += 1
        next_header = ip.PROTOCOL_GRE
        if self.tunnel.mode == "tunnel":
            octets = self._delivery(self.tunnel.local, self.tunnel.remote, ip.PROTOCOL_GRE, octets, inner)
            next_header = ip.PROTOCOL_IPV4
        octets = self._outbound.seal(self._next_sequence, octets, next_header)
        self._next_sequence += 1
        self._wan.send(self._delivery(self._wan.address, self._wan.neighbor, ip.PROTOCOL_ESP, octets, inner))
        self.counts["sealed"] += 1

    def _delivery(self, source: str, destination: str, protocol: int, payload: bytes, inner: ip.Packet) -> bytes:
        self._identification = (self._identification + 1) & 0xFFFF
        identification = self._identification
        return ip.build_ipv4(source, destination, protocol, payload, tos=inner.tos, identification=identification)

    def _inward(self, octets: bytes) -> None:
        outer = ip.parse(octets)
        if (outer.source, outer.destination) != (self._wan.neighbor, self._wan.address):
            raise ip.Malformed(f"from {outer.source} to {outer.destination}")
        if outer.protocol != ip.PROTOCOL_ESP:
            raise ip.Malformed(f"protocol {outer.protocol} in clear")
        payload = self._open(outer)
        self._lan.send(_forwarded(payload, ip.parse(payload)))
        self.counts["opened"] += 1

    def _open(self, outer: ip.Packet) -> bytes:
        """ESP and GRE off; the payload packet."""
        high = esp.infer_sequence_high(self._last_received, self._replay_window, esp.sequence_of(outer.payload))
        opened = self._inbound.open(outer.payload, high)
        if opened.sequence <= self._last_received:
            raise esp.EspError("replayed")
        self._last_received = opened.sequence
        delivery = dataclasses.replace(outer, protocol=opened.next_header, payload=opened.payload)
        if self.tunnel.mode == "tunnel":
            delivery = ip.parse(opened.payload)
        ends = (delivery.source, delivery.destination, delivery.protocol)
        if ends != (self.tunnel.remote, self.tunnel.local, ip.PROTOCOL_GRE):
            raise esp.EspError("not what this SA is for")
        parsed = gre.parse(delivery.payload)
        if parsed.key != self._gre.key:
            raise gre.GreError("wrong key")
        return parsed.payload


def judge(association: SecurityAssociation) -> esp.Sa:
    """The SA in the form that `harness.esp` works with."""
    return esp.Sa.from_key_material(association.spi, association.key_salt, association.icv_octets, association.esn)


def _packet_socket(namespace: Namespace, interface: str) -> socket.socket:
    with namespace.entered():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((interface, 0))
    return raw


def _forwarded(octets: bytes, header: ip.Packet) -> bytes:
    """The packet as a router sends it on: TTL one less, and the checksum anew."""
    if header.version != 4:
        raise ip.Malformed(f"IPv{header.version} inside, from {header.source} to {header.destination}")
    if header.ttl <= 1:
        raise ip.Malformed("TTL exceeded")
    size = (octets[0] & 15) * 4
    head = bytearray(octets[:size])
    head[8] -= 1
    head[10:12] = bytes(2)
    head[10:12] = gre.internet_checksum(head).to_bytes(2, "big")
    return bytes(head) + octets[size:]
