# SPDX-License-Identifier: Apache-2.0
"""How a guest's network card meets the namespaces of `harness.lab`: a tap device, and a bridge to see all its frames.

    guest eth0 = tap ─ bridge ─ veth end ═ veth end of the headend under test
    └ guest ─┘ └──────── one namespace ────────┘
"""

from harness.netns import Namespace


def add_tap(namespace: Namespace, name: str) -> None:
    """Make a tap device for a guest's card, up and without an address."""
    namespace.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"])
    namespace.run(["ip", "link", "set", name, "up"])


def add_bridge(namespace: Namespace, name: str, members: list[str]) -> None:
    """Join devices of a namespace; every frame between them can be captured on the bridge."""
    namespace.run(["ip", "link", "add", name, "type", "bridge", "mcast_snooping", "0"])
    for member in members:
        namespace.run(["ip", "link", "set", member, "master", name])
    namespace.run(["ip", "link", "set", name, "up"])
