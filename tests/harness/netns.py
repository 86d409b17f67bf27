# SPDX-License-Identifier: Apache-2.0
"""Network namespaces with random names, and veth pairs between them.

A name is `gh<pid>-<random>-<label>`: unique between runs, and a later run can tell whose owner is gone.
"""

import contextlib
import ctypes
import os
import pathlib
import re
import secrets
import subprocess

from harness import cleanup

CLONE_NEWNET = 0x40000000
#: Offloads that must be off, so that what a program reads from an interface is what a wire would carry.
OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro", "txvlan", "rxvlan")
_NAME = re.compile(r"^gh(\d+)-[0-9a-f]+-")
_libc = ctypes.CDLL(None, use_errno=True)


def run(args, check=True, **options):
    """Runs a program to its end; its output is captured and is part of the error when it fails."""
    done = subprocess.run(args, capture_output=True, text=True, check=False, **options)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}: {said}")
    return done


class Namespace:
    """One network namespace, its loopback up, IPv6 off on whatever is made in it unless `ipv6` is set."""

    def __init__(self, label, ipv6=False):
        if not re.fullmatch(r"[a-z0-9-]{1,20}", label):
            raise ValueError(f"namespace label {label!r}: 1 to 20 of a-z, 0-9, '-'")
        self.label = label
        self.name = f"gh{os.getpid()}-{secrets.token_hex(3)}-{label}"
        run(["ip", "netns", "add", self.name])
        self._undo = cleanup.register(lambda: run(["ip", "netns", "delete", self.name]), f"namespace {self.name}")
        self.run(["ip", "link", "set", "lo", "up"])
        if not ipv6:
            self.sysctl("net/ipv6/conf/default/disable_ipv6", "1")

    def __repr__(self):
        return f"Namespace({self.name})"

    def command(self, args):
        """The argument list that runs `args` inside this namespace (the process id is the program's own)."""
        return ["ip", "netns", "exec", self.name, *map(str, args)]

    def run(self, args, check=True, **options):
        """Runs a program inside, to its end."""
        return run(self.command(args), check=check, **options)

    @contextlib.contextmanager
    def entered(self):
        """Puts the calling thread inside for the length of a `with`: sockets opened there stay inside."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(inside)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(inside)
            os.close(home)

    def sysctl(self, path, value):
        """Writes one setting, named as under /proc/sys."""
        with self.entered():
            pathlib.Path("/proc/sys", path).write_text(str(value))

    def mac(self, interface):
        """The link-layer address of an interface, as text."""
        return self._link(interface, "address")

    def mtu(self, interface):
        """The MTU of an interface."""
        return int(self._link(interface, "mtu"))

    def _link(self, interface, what):
        words = self.run(["ip", "-o", "link", "show", "dev", interface]).stdout.split()
        return words[words.index("link/ether") + 1] if what == "address" else words[words.index(what) + 1]

    def address(self, interface, address):
        """Gives an interface an address (`10.0.0.1/24`, `2001:db8::1/64`)."""
        family = "-6" if ":" in address else "-4"
        extra = ["nodad"] if family == "-6" else []
        self.run(["ip", family, "address", "add", address, "dev", interface, *extra])

    def route(self, prefix, via=None, dev=None, mtu=None):
        """Adds a route."""
        family = "-6" if ":" in prefix or ":" in (via or "") else "-4"
        args = ["ip", family, "route", "add", prefix]
        args += ["via", via] if via else []
        args += ["dev", dev] if dev else []
        args += ["mtu", str(mtu)] if mtu else []
        self.run(args)

    def delete(self):
        """Deletes it. Interfaces in it go with it; programs in it must have ended."""
        self._undo.run()


def veth(left, left_name, right, right_name, mtu=1500):
    """Joins two namespaces by a veth pair, up, offloads off on both ends, no addresses."""
    run(["ip", "link", "add", left_name, "mtu", str(mtu), "netns", left.name, "type", "veth",
         "peer", "name", right_name, "mtu", str(mtu), "netns", right.name])
    for end, name in ((left, left_name), (right, right_name)):
        offloads_off(end, name)
    for end, name in ((left, left_name), (right, right_name)):
        end.run(["ip", "link", "set", name, "up"])


def offloads_off(namespace, interface):
    """Turns checksum, segmentation and VLAN offloads off, those that the device lets be changed."""
    for offload in OFFLOADS:
        namespace.run(["ethtool", "-K", interface, offload, "off"], check=False)
    features = namespace.run(["ethtool", "-k", interface]).stdout
    for name in ("rx-checksumming", "tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload",
                 "generic-receive-offload"):
        state = re.search(rf"^{name}: (\w+)", features, re.MULTILINE)
        if state is None or state.group(1) != "off":
            raise RuntimeError(f"{namespace.name} {interface}: {name} cannot be turned off")


def sweep_stale():
    """Deletes namespaces of earlier runs whose owner is gone (killed before it could clean up)."""
    listed = run(["ip", "netns", "list"], check=False).stdout.split("\n")
    for name in (line.split(" ")[0] for line in listed if line):
        owner = _NAME.match(name)
        if owner and not pathlib.Path("/proc", owner.group(1)).exists():
            run(["ip", "netns", "delete", name], check=False)


def _setns(descriptor):
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")
