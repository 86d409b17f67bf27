# SPDX-License-Identifier: Apache-2.0
"""GRE and XFRM in the guest: the parameters of one tunnel, and the shell script that sets it up.

Left out: IKE (keys are static) and ESP in UDP.
"""

import ipaddress
from dataclasses import dataclass

GRE_DEVICE = "gre1"
XFRM_DEVICE = "xfrm1"
IPPROTO_GRE = 47


@dataclass(frozen=True)
class SecurityAssociation:
    """One direction of ESP with AES-GCM (RFC 4106)."""

    spi: int
    key_salt: bytes
    """The AES key, 16, 24 or 32 octets, and the 4 octets of salt."""
    icv_octets: int = 16
    esn: bool = False
    first_sequence_number: int = 1
    """The 64-bit number of the first packet; above 2^32 only with ESN."""
    replay_window: int = 64

    def __post_init__(self) -> None:
        if len(self.key_salt) not in (20, 28, 36):
            raise ValueError(f"key and salt are {len(self.key_salt)} octets; 20, 28 or 36 would be right")
        if self.first_sequence_number < 1 or self.first_sequence_number >> (64 if self.esn else 32):
            raise ValueError(f"first sequence number {self.first_sequence_number} is out of range")

    @property
    def algorithm(self) -> str:
        """For example AES-128-GCM."""
        return f"AES-{(len(self.key_salt) - 4) * 8}-GCM"


@dataclass(frozen=True)
class Gre:
    """The GRE header's options (RFC 2784, RFC 2890) and how the delivery header is made."""

    key: int | None = None
    checksum: bool = False
    sequence: bool = False
    ttl: int | None = 64
    """None copies the payload's."""
    tos: int | None = None
    """None copies the payload's."""
    copy_df: bool = False
    """Copy the payload's DF instead of setting it always (IPv4 delivery). The kernel wants `ttl=None` for it."""
    encap_limit: bool = True
    """IPv6 delivery: put a Destination Options header with the tunnel encapsulation limit first (RFC 2473)."""


@dataclass(frozen=True)
class Tunnel:
    """One end of a tunnel, as its owner sees it.

    Without `gre`, an XFRM interface takes GRE's place: ESP tunnel mode alone.
    Without the SAs, GRE travels in clear.
    """

    local: str
    """GRE's delivery source; the ESP addresses are the same unless given."""
    remote: str
    inner_addresses: tuple[str, ...]
    """What this end has inside the tunnel, with prefix lengths."""
    inner_routes: tuple[str, ...]
    """Prefixes that lie beyond the tunnel."""
    gre: Gre | None = Gre()
    mode: str = "transport"
    outbound: SecurityAssociation | None = None
    inbound: SecurityAssociation | None = None
    esp_local: str | None = None
    esp_remote: str | None = None
    mtu: int = 1400

    def __post_init__(self) -> None:
        if self.mode not in ("transport", "tunnel"):
            raise ValueError(f"mode {self.mode}; transport or tunnel would be right")
        if (self.outbound is None) != (self.inbound is None):
            raise ValueError("an SA for one direction only")
        if self.gre is None and (self.outbound is None or self.mode != "tunnel"):
            raise ValueError("without GRE there must be ESP in tunnel mode")

    @property
    def device(self) -> str:
        """The interface whose packets the tunnel carries."""
        return GRE_DEVICE if self.gre else XFRM_DEVICE

    def up_script(self) -> str:
        """Shell commands that set this end up; the delivery addresses must be there already."""
        device = self.device
        commands = [self._gre_link() if self.gre else f"link add {XFRM_DEVICE} type xfrm if_id 1"]
        # Nothing but what a test sends is to go through: no link-local address, no multicast reports.
        commands.append(f"link set {device} addrgenmode none mtu {self.mtu}")
        setup = [*commands, "END_OF_BATCH", quiet_ipv6(device, self.inner_addresses)]
        commands = [f"link set {device} up"]
        for address in self.inner_addresses:
            commands.append(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
        commands += [f"route replace {prefix} dev {device}" for prefix in self.inner_routes]
        if self.outbound and self.inbound:
            commands += self._xfrm(self.outbound, self.inbound)
        offloads = f"ethtool -K {device} tx off tso off gso off >/dev/null 2>&1 || true"
        batch = "ip -batch - <<'END_OF_BATCH'"
        return "\n".join(("set -e", batch, *setup, batch, *commands, "END_OF_BATCH", offloads))

    def down_script(self) -> str:
        """Shell commands that take away what `up_script` made; safe when it is not there."""
        return f"ip xfrm policy flush; ip xfrm state flush; ip link del {self.device} 2>/dev/null || true"

    def _gre_link(self) -> str:
        assert self.gre is not None
        ipv6 = ":" in self.local
        words = [f"link add {GRE_DEVICE} type", "ip6gre" if ipv6 else "gre"]
        words += ["local", self.local, "remote", self.remote]
        words += ["ttl", "inherit" if self.gre.ttl is None else str(self.gre.ttl)]
        words += ["tclass" if ipv6 else "tos", "inherit" if self.gre.tos is None else f"{self.gre.tos:#x}"]
        if self.gre.key is not None:
            words += ["key", str(self.gre.key)]
        words += ["csum"] if self.gre.checksum else []
        words += ["seq"] if self.gre.sequence else []
        if ipv6:
            words += [] if self.gre.encap_limit else ["encaplimit", "none"]
        else:
            words.append("nopmtudisc" if self.gre.copy_df else "pmtudisc")
        return " ".join(words)

    def _xfrm(self, outbound: SecurityAssociation, inbound: SecurityAssociation) -> list[str]:
        here, there = self.esp_local or self.local, self.esp_remote or self.remote
        states = [self._state(here, there, outbound, "out"), self._state(there, here, inbound, "in")]
        if self.gre:
            near, far = host_prefix(self.local), host_prefix(self.remote)
            selectors = [(near, far, f"proto {IPPROTO_GRE}", "")]
        else:
            selectors = [("0.0.0.0/0", "0.0.0.0/0", "", "if_id 1"), ("::/0", "::/0", "", "if_id 1")]
        policies = []
        for near, far, protocol, interface in selectors:
            for source, destination, direction, ends in (
                (near, far, "out", f"src {here} dst {there}"),
                (far, near, "in", f"src {there} dst {here}"),
                (far, near, "fwd", f"src {there} dst {here}"),
            ):
                addresses = ends if self.mode == "tunnel" else ""
                policies.append(
                    f"xfrm policy add src {source} dst {destination} {protocol} dir {direction} {interface} "
                    f"tmpl {addresses} proto esp reqid 1 mode {self.mode}"
                )
        return states + policies

    def _state(self, source: str, destination: str, sa: SecurityAssociation, direction: str) -> str:
        words = [f"xfrm state add src {source} dst {destination} proto esp spi {sa.spi:#010x}"]
        words.append(f"reqid 1 mode {self.mode} replay-window {sa.replay_window}")
        words += ["flag esn"] if sa.esn else []
        # A selector that names no family would keep an SA from carrying the other one.
        words += ["flag af-unspec"] if self.gre is None else []
        before_first = sa.first_sequence_number - 1
        if before_first:
            name = "replay-oseq" if direction == "out" else "replay-seq"
            words.append(f"{name} {before_first & 0xFFFFFFFF:#x}")
            words += [f"{name}-hi {before_first >> 32:#x}"] if sa.esn else []
        words += ["if_id 1"] if self.gre is None else []
        words.append(f"aead 'rfc4106(gcm(aes))' 0x{sa.key_salt.hex()} {sa.icv_octets * 8}")
        return " ".join(words)


def quiet_ipv6(device: str, addresses: tuple[str, ...]) -> str:
    """A shell command that keeps IPv6, with its multicast reports, off a device that has no IPv6 address."""
    off = 0 if any(":" in address for address in addresses) else 1
    return f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6={off}"


def host_prefix(address: str) -> str:
    """The address as a prefix of full length."""
    return ipaddress.ip_network(address).with_prefixlen
