# SPDX-License-Identifier: Apache-2.0
"""A host made of Scapy on one `Wire`: answers ARP, IPv6 neighbour solicitations, and ping. It has no kernel behind it."""

import threading
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.inet6 import (
        ICMPv6EchoReply,
        ICMPv6EchoRequest,
        ICMPv6ND_NA,
        ICMPv6ND_NS,
        ICMPv6NDOptDstLLAddr,
        IPv6,
    )
    from scapy.layers.l2 import ARP, Ether


def answer(frame, mac, addresses):
    """The frame that a host with this MAC and these addresses answers with, or None."""
    packet = Ether(frame)
    if ARP in packet and packet[ARP].op == 1 and packet[ARP].pdst in addresses:
        asked = packet[ARP]
        return Ether(src=mac, dst=packet.src) / ARP(
            op=2, hwsrc=mac, psrc=asked.pdst, hwdst=asked.hwsrc, pdst=asked.psrc)
    if ICMP in packet and packet[ICMP].type == 8 and packet[IP].dst in addresses:
        request = packet[ICMP]
        return Ether(src=mac, dst=packet.src) / IP(src=packet[IP].dst, dst=packet[IP].src) / ICMP(
            type=0, id=request.id, seq=request.seq) / bytes(request.payload)
    if ICMPv6ND_NS in packet and packet[ICMPv6ND_NS].tgt in addresses:
        target = packet[ICMPv6ND_NS].tgt
        return Ether(src=mac, dst=packet.src) / IPv6(src=target, dst=packet[IPv6].src, hlim=255) / ICMPv6ND_NA(
            tgt=target, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    if ICMPv6EchoRequest in packet and packet[IPv6].dst in addresses:
        request = packet[ICMPv6EchoRequest]
        return Ether(src=mac, dst=packet.src) / IPv6(src=packet[IPv6].dst, dst=packet[IPv6].src) / ICMPv6EchoReply(
            id=request.id, seq=request.seq, data=request.data)
    return None


class Responder:
    """Answers on a wire in a thread of its own, from `start` (or `with`) to `stop`."""

    def __init__(self, wire, addresses, mac=None):
        self.wire = wire
        self.mac = mac or wire.mac
        self.addresses = set(addresses)
        self.answered = 0
        self.seen = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()
        self._thread.join()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _run(self):
        while not self._stop.is_set():
            frame = self.wire.poll(timeout=0.05)
            if frame is None:
                continue
            self.seen.append(frame)
            reply = answer(frame, self.mac, self.addresses)
            if reply is not None:
                self.answered += 1
                self.wire.send(reply)
