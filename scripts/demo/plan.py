# SPDX-License-Identifier: Apache-2.0
"""What a run is made of: two sides, their addresses, the keys. All else asks here; names, SPIs and keys are random.

    west host ── west headend ══ the wire ══ east headend ── east host
    10.1.0.2     10.1.0.1  198.51.100.1/.2   10.2.0.1         10.2.0.2
"""

import dataclasses
import ipaddress
import os
import secrets
from ipaddress import ip_interface, ip_network

#: AES-128 and AES-256; the salt of RFC 4106 §4 comes behind the key.
KEY_BYTES = (16, 32)
SALT_BYTES = 4
#: SPIs up to 255 are reserved (RFC 4303 §2.1).
SPI_LEAST = 256
#: Ports that the streams and the transfer listen on.
PORTS = range(20_000, 30_000)


@dataclasses.dataclass(frozen=True)
class Side:
    """One headend and the site behind it."""

    label: str
    site: ipaddress.IPv4Network
    wan: ipaddress.IPv4Interface
    cpu: int

    @property
    def gateway(self):
        """The headend's address in the site."""
        return ipaddress.IPv4Interface((self.site[1], self.site.prefixlen))

    @property
    def host(self):
        """The site host's address."""
        return ipaddress.IPv4Interface((self.site[2], self.site.prefixlen))


@dataclasses.dataclass(frozen=True, repr=False)
class Sa:
    """One SA: `sender` seals with it, `receiver` opens with it. Its key shows in no message."""

    sender: Side
    receiver: Side
    spi: int
    key_material: bytes

    @property
    def name(self):
        """As the CLI spells an SPI."""
        return f"0x{self.spi:08x}"


class Plan:
    """One run."""

    def __init__(self, seconds, replacements=10, rate_pps=5_000, tcp_mbit_s=50):
        cpus = sorted(os.sched_getaffinity(0))
        self.seconds = seconds
        self.replacements = replacements
        self.rate_pps = rate_pps
        self.tcp_mbit_s = tcp_mbit_s
        self.instance = f"demo-{secrets.token_hex(3)}"
        # 198.51.100.0/24 is for documentation (RFC 5737).
        self.west = Side("west", ip_network("10.1.0.0/24"), ip_interface("198.51.100.1/24"), cpus[0])
        self.east = Side("east", ip_network("10.2.0.0/24"), ip_interface("198.51.100.2/24"), cpus[-1])
        self.sides = (self.west, self.east)
        self.directions = ((self.west, self.east), (self.east, self.west))
        self.gre_key = secrets.randbits(32)
        self.stream_port, self.tcp_port = secrets.SystemRandom().sample(PORTS, 2)
        self._spis = set()
        #: Every generation of SAs, oldest first: one SA for each direction.
        self.generations = [self._generation()]

    def other(self, side):
        """The side at the other end of the wire."""
        return self.east if side is self.west else self.west

    def next_generation(self):
        """Makes the SAs that replace the present ones."""
        self.generations.append(self._generation())
        return self.generations[-1]

    def unused_spi(self):
        """An SPI that no SA of this run has."""
        while True:
            spi = secrets.randbits(32)
            if spi >= SPI_LEAST and spi not in self._spis:
                self._spis.add(spi)
                return spi

    def _generation(self):
        return tuple(
            Sa(sender, receiver, self.unused_spi(), secrets.token_bytes(secrets.choice(KEY_BYTES) + SALT_BYTES))
            for sender, receiver in self.directions
        )


def arrow(sender, receiver):
    """How a direction is spelled."""
    return f"{sender.label} → {receiver.label}"
