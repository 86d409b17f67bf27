# SPDX-License-Identifier: Apache-2.0
"""Traffic between the guest and a host of the lab, and what came of it."""

import hashlib
import re
import socket
import threading
import time
from dataclasses import dataclass
from random import Random

from harness.netns import Namespace

from .machine import RUN_TIMEOUT_S, GuestError, LinuxPeer


@dataclass(frozen=True)
class Pings:
    """Echo requests sent and answered, and ping's own words."""

    sent: int
    received: int
    output: str


@dataclass(frozen=True)
class TcpTransfer:
    """A connection that carried `octets_each_way` in both directions at once, undamaged."""

    octets_each_way: int
    seconds: float


def ping(guest: LinuxPeer, destination: str, *, count: int = 5, payload_octets: int = 56, tos: int = 0,
         ttl: int = 64, df: bool | None = None, interval_s: float = 0.2, wait_s: int = 20) -> Pings:
    """Ping from the guest. `df` None leaves DF to the guest's kernel."""
    options = f"-n -c {count} -i {interval_s} -W {wait_s} -s {payload_octets} -Q {tos} -t {ttl}"
    if df is not None:
        options += " -M " + ("do" if df else "dont")
    output = guest.run(f"ping {options} {destination}", check=False).output
    found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    if not found:
        raise GuestError(f"ping did not run: {output}")
    return Pings(int(found[1]), int(found[2]), output)


def tcp_transfer(guest: LinuxPeer, site: Namespace, site_address: str, octets: int, *, seed: int = 1,
                 timeout_s: float = RUN_TIMEOUT_S) -> TcpTransfer:
    """The guest connects to a server in `site`; both send `octets` of random data, then close.

    Raises `GuestError` unless every octet arrived, unchanged, on both sides.
    """
    family = socket.AF_INET6 if ":" in site_address else socket.AF_INET
    downward = Random(seed).randbytes(octets)
    with site.entered():
        listener = socket.socket(family, socket.SOCK_STREAM)
    with listener:
        listener.bind((site_address, 0))
        listener.listen(1)
        listener.settimeout(timeout_s)
        upward: list[bytes] = []
        server = threading.Thread(target=_serve, args=(listener, downward, upward, timeout_s), daemon=True)
        server.start()
        port = listener.getsockname()[1]
        started = time.monotonic()
        guest.run(f"head -c {octets} /dev/urandom >/run/up; rm -f /run/down")
        guest.run(f"nc.openbsd -N -w {int(timeout_s)} {site_address} {port} </run/up >/run/down", timeout_s=timeout_s)
        server.join(timeout_s)
        seconds = time.monotonic() - started
    listing = guest.run("sha256sum /run/up /run/down; rm /run/up /run/down").output
    sums = [line.split()[0] for line in listing.splitlines()]
    if not upward or hashlib.sha256(upward[0]).hexdigest() != sums[0]:
        raise GuestError(f"guest to site: {len(upward[0]) if upward else 0} of {octets} octets, or damaged")
    if hashlib.sha256(downward).hexdigest() != sums[1]:
        raise GuestError("site to guest: octets missing or damaged")
    return TcpTransfer(octets, seconds)


def _serve(listener: socket.socket, downward: bytes, upward: list[bytes], timeout_s: float) -> None:
    """Accept once; send `downward` and collect what comes, at the same time."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(timeout_s)
        sender = threading.Thread(target=_send_all, args=(connection, downward), daemon=True)
        sender.start()
        chunks = []
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
        sender.join(timeout_s)
        upward.append(b"".join(chunks))


def _send_all(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
