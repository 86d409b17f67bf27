# SPDX-License-Identifier: Apache-2.0
"""A stock Linux kernel, in QEMU without KVM, as an independent GRE and ESP peer.

`image` makes what is booted from Debian packages, `machine` runs it and runs
scripts in it, `tunnel` writes the script for a GRE + XFRM tunnel, `link` joins
the guest to a namespace, `traffic` sends through it, `ip` reads what comes out,
`gateway` is a stand-in for the headend under test. Only for hundreds of
packets: the guest is emulated. Uses `harness` in the folder above.
"""

from .image import Image, Unavailable, prepare
from .link import add_bridge, add_tap
from .machine import GuestError, LinuxPeer, Nic, Result
from .traffic import Pings, TcpTransfer, ping, tcp_transfer
from .tunnel import Gre, SecurityAssociation, Tunnel

__all__ = (
    "Gre", "GuestError", "Image", "LinuxPeer", "Nic", "Pings", "Result", "SecurityAssociation", "TcpTransfer",
    "Tunnel", "Unavailable", "add_bridge", "add_tap", "ping", "prepare", "tcp_transfer",
)
