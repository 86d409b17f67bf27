# SPDX-License-Identifier: Apache-2.0
"""One test's world: whatever it makes here is undone when it ends, the youngest first."""

import pathlib

from harness import netns, pcap
from harness.frames import Wire
from harness.headend import Headend
from harness.netns import Namespace
from harness.process import Process


class Lab:
    """Makes namespaces, links, wires, processes, captures and headends, and takes them away again."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.namespaces = []
        self.processes = []
        self._wires = []
        self._headends = []

    def namespace(self, label, ipv6=False):
        """A new namespace. IPv6 is off on links made in it unless `ipv6` is set (hosts that speak IPv6)."""
        made = Namespace(label, ipv6=ipv6)
        self.namespaces.append(made)
        return made

    def host(self, label, interface, addresses, peer, peer_interface, gateways=(), mtu=1500):
        """A host with a kernel: a namespace joined by a veth pair to `peer`, with addresses and default routes."""
        made = self.namespace(label, ipv6=any(":" in address for address in addresses))
        self.veth(made, interface, peer, peer_interface, mtu)
        for address in addresses:
            made.address(interface, address)
        for gateway in gateways:
            made.route("default", via=gateway)
        return made

    def veth(self, left, left_name, right, right_name, mtu=1500):
        """Joins two namespaces by a veth pair: up, offloads off, no addresses."""
        netns.veth(left, left_name, right, right_name, mtu)

    def wire(self, namespace, interface):
        """Raw frames in and out of an interface."""
        made = Wire(namespace, interface)
        self._wires.append(made)
        return made

    def start(self, namespace, args, name=None, env=None, stdin=None):
        """Starts a program inside a namespace (None: outside); its log is `<folder>/logs/NAME-N.log`."""
        label = name or pathlib.Path(str(args[0])).name
        log = self.folder / "logs" / f"{len(self.processes):02}-{label}.log"
        made = Process(args, log, namespace=namespace, env=env, stdin=stdin, name=label)
        self.processes.append(made)
        return made

    def capture(self, namespace, interface, kernel_filter=None, **options):
        """A capture that runs already when this returns; options as `pcap.Capture` has them."""
        path = self.folder / f"{namespace.label}-{interface}.pcap"
        return pcap.Capture(self.start, namespace, interface, path, kernel_filter, **options)

    def headend(self, namespace, dataplane_toml, config_toml, instance="main", env=None):
        """A headend with its files written; nothing runs before its `start`."""
        made = Headend(self, namespace, dataplane_toml, config_toml, instance, env)
        self._headends.append(made)
        return made

    def close(self):
        """Ends processes, closes wires, deletes namespaces."""
        for process in reversed(self.processes):
            process.stop(timeout=5.0)
        for made in self._headends:
            made.close()
        for wire in self._wires:
            wire.close()
        for namespace in reversed(self.namespaces):
            namespace.delete()

    def logs(self):
        """The last lines of every process's log, for a failed test's report."""
        return [(f"{process.name} (exit {process.returncode})", process.tail()) for process in self.processes]
