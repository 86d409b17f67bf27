# SPDX-License-Identifier: Apache-2.0
"""Check the driver itself: a Linux guest against the stand-in headend, in the network that a live scenario uses."""

import dataclasses
import os
import random

import pytest

from linuxpeer import (
    Gre, GuestError, Nic, SecurityAssociation, Tunnel, add_bridge, add_tap, ip, ping, tcp_transfer,
)
from linuxpeer.gateway import Gateway

pytestmark = [
    pytest.mark.slow,
    pytest.mark.requires_root,
    pytest.mark.requires_tools("qemu-system-x86_64", "apt-get", "dpkg-deb", "depmod"),
]

GUEST_WAN, HEADEND_WAN = "198.51.100.7", "198.51.100.1"
GUEST_INNER = "172.31.0.2/30"
SITE, SITE_GATEWAY, SITE_PREFIX = "10.2.0.2", "10.2.0.1", "10.2.0.0/24"
GUEST_MAC = "52:54:00:12:34:01"


def tunnel_pair(mode: str, gre: Gre, esn: bool, key_octets: int, icv_octets: int) -> tuple[Tunnel, Tunnel]:
    """The guest's end and the headend's."""
    dice = random.Random(f"{mode} {gre}")
    up, down = (
        SecurityAssociation(dice.randrange(256, 1 << 32), dice.randbytes(key_octets + 4), icv_octets, esn)
        for _ in range(2)
    )
    guest = Tunnel(GUEST_WAN, HEADEND_WAN, (GUEST_INNER,), (SITE_PREFIX,), gre, mode, outbound=up, inbound=down)
    return guest, Tunnel(HEADEND_WAN, GUEST_WAN, (), (), gre, mode, outbound=down, inbound=up)


def with_wrong_key(end: Tunnel) -> Tunnel:
    """The same end, which expects another key."""
    other = bytes(octet ^ 0xFF for octet in end.inbound.key_salt)
    return dataclasses.replace(end, inbound=dataclasses.replace(end.inbound, key_salt=other))


def test_ping_and_tcp_pass_between_the_guest_and_a_stand_in_headend(lab, linux_peer):
    wide, site = lab.namespace("wide"), lab.namespace("site")
    headend = lab.namespace("headend")
    add_tap(wide, "guest0")
    lab.veth(wide, "port0", headend, "wan0")
    add_bridge(wide, "br0", ["guest0", "port0"])
    lab.veth(headend, "lan0", site, "eth0")
    site.address("eth0", f"{SITE}/24")
    site.route("default", via=SITE_GATEWAY)
    guest = linux_peer(nics=(Nic.tap("guest0", GUEST_MAC),), namespace=wide)
    guest.add_addresses("eth0", (f"{GUEST_WAN}/24",))

    for configuration in (
        ("transport", Gre(), False, 16, 16),
        ("tunnel", Gre(key=0x1234, checksum=True, sequence=True), True, 32, 12),
    ):
        ours, theirs = tunnel_pair(*configuration)
        guest.set_tunnel(ours)
        with Gateway(headend, "wan0", "lan0", theirs, SITE_GATEWAY, SITE) as gateway:
            for size, df in ((0, True), (57, False), (1372, True)):
                answered = ping(guest, SITE, count=3, payload_octets=size, df=df, tos=0xB8)
                if answered.received < answered.sent:
                    # ping waits two round trips for its last answer, which a busy host may well hold up longer.
                    answered = ping(guest, SITE, count=3, payload_octets=size, df=df, tos=0xB8)
                assert answered.received == answered.sent == 3, answered.output
            tcp_transfer(guest, site, SITE, 65_537)
            counts = dict(gateway.counts)
        assert set(counts) == {"sealed", "opened"}, counts
        assert counts["opened"] > 50 and counts["sealed"] > 50
        assert guest.xfrm_errors() == {}

        with Gateway(headend, "wan0", "lan0", with_wrong_key(theirs), SITE_GATEWAY, SITE) as gateway:
            assert ping(guest, SITE, count=2, wait_s=1).received == 0
            assert dict(gateway.counts) == {"EspError: the ICV does not verify": 2}


def test_a_guest_without_namespace_speaks_over_a_socket_pair(linux_peer):
    nic, ours = Nic.socket_pair(GUEST_MAC)
    with ours:
        guest = linux_peer("alone", nics=(nic,))
        guest.add_addresses("eth0", ("192.0.2.2/24",))
        ours.settimeout(60)
        mac = bytes.fromhex("025256000003")
        request = bytes.fromhex("0001080006040001") + mac + bytes((192, 0, 2, 1)) + bytes(6) + bytes((192, 0, 2, 2))
        ours.send(b"\xff" * 6 + mac + b"\x08\x06" + request)
        while (frame := ours.recv(2048))[:6] != mac:
            pass
        assert ip.parse_ethernet(frame)[0] == ip.ETHERTYPE_ARP and frame[6:12].hex(":") == GUEST_MAC

        with pytest.raises(GuestError, match="ended with 3"):
            guest.run("echo before; exit 3")
        with pytest.raises(GuestError, match="ended with 137"):
            guest.run("sleep 100", timeout_s=1)
        assert guest.run("echo after").output == "after\n"
        pid = guest.pid
        guest.stop()
        guest.stop()
        assert not os.path.exists(f"/proc/{pid}")
