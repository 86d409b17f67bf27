# SPDX-License-Identifier: Apache-2.0
"""A stock Linux kernel, in QEMU without KVM, as an independent GRE and ESP peer.

`image` makes what is booted from Debian packages, `machine` runs it and runs
scripts in it, `tunnel` writes the script for a GRE + XFRM tunnel, `namespace`
makes the network around it, `packets` reads and writes the wire's formats from
the RFCs alone. Only tens to hundreds of packets: the guest is emulated.
"""

from .image import Image, Unavailable, prepare
from .machine import GuestError, LinuxPeer, Nic, Result
from .tunnel import Gre, SecurityAssociation, Tunnel

__all__ = (
    "Gre", "GuestError", "Image", "LinuxPeer", "Nic", "Result",
    "SecurityAssociation", "Tunnel", "Unavailable", "prepare",
)  # fmt: skip
