# SPDX-License-Identifier: Apache-2.0
"""One Linux guest in QEMU, emulated (no KVM), driven over a virtio serial port.

The control port and, where asked for, the frames are socket pairs that QEMU
inherits: nothing has a path or a port number, and nothing outlives QEMU.
"""

import base64
import contextlib
import ctypes
import functools
import itertools
import math
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import cleanup
from harness.netns import Namespace

from .image import Image, Unavailable
from .tunnel import Tunnel, quiet_ipv6

QEMU = "qemu-system-x86_64"
BOOT_TIMEOUT_S = 240.0
RUN_TIMEOUT_S = 240.0
ANSWER_SLACK_S = 30.0
STOP_TIMEOUT_S = 10.0
PR_SET_PDEATHSIG = 1


class GuestError(Exception):
    """The guest died, did not answer in time, or a script in it failed."""


@dataclass(frozen=True)
class Result:
    """How a script in the guest ended."""

    status: int
    output: str


@dataclass
class Nic:
    """A network card of the guest: the host's end of it, and its MAC address.

    The guest sees the first card as eth0, the next as eth1.
    """

    netdev: str
    mac: str
    inherited: socket.socket | None = field(default=None, repr=False)

    @classmethod
    def tap(cls, interface: str, mac: str) -> "Nic":
        """Frames over an existing tap device of the namespace that QEMU runs in."""
        return cls(f"tap,ifname={interface},script=no,downscript=no,vnet_hdr=off", mac)

    @classmethod
    def socket_pair(cls, mac: str) -> tuple["Nic", socket.socket]:
        """Frames over a pair of datagram sockets, one datagram a frame; the second value is the host's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return cls(f"dgram,local.type=fd,local.str={theirs.fileno()}", mac, theirs), ours


class LinuxPeer:
    """A running guest; use it as a context manager, or call `start` and `stop`.

    `namespace` is the one that QEMU runs in, for tap devices.
    Stopping is safe at any time and more than once. QEMU also dies with the
    thread that started it, so start it from one that lives long enough.
    """

    def __init__(self, image: Image, name: str = "peer", *, nics: tuple[Nic, ...] = (),
                 namespace: Namespace | None = None, memory_mib: int = 256):
        self.image = image
        self.name = name
        self.nics = nics
        self.namespace = namespace
        self.memory_mib = memory_mib
        self.boot_seconds = 0.0
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._folder: Path | None = None
        self._received = bytearray()
        self._ids = itertools.count(1)
        self._undo: cleanup.Undo | None = None

    def __enter__(self) -> "LinuxPeer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Boot the guest and wait until it takes commands."""
        if shutil.which(QEMU) is None:
            raise Unavailable(f"{QEMU} is not installed")
        started = time.monotonic()
        self._control, theirs = socket.socketpair()
        self._undo = cleanup.register(self._end, f"guest {self.name}")
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="linux-peer-"))
            with theirs, (self._folder / "qemu.log").open("wb") as log:
                inherited = [theirs, *(nic.inherited for nic in self.nics if nic.inherited)]
                self._process = subprocess.Popen(
                    self._command(theirs.fileno()),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=[end.fileno() for end in inherited],
                    start_new_session=True,  # Ctrl-C reaches us, and we stop QEMU in order
                    preexec_fn=functools.partial(_die_with_parent, os.getpid()),
                )
            for nic in self.nics:
                if nic.inherited:
                    nic.inherited.close()
            if (line := self._read_line(started + timeout_s)) != "ready":
                raise GuestError(f"{self.name}: unexpected greeting {line!r}")
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = time.monotonic() - started

    def stop(self) -> None:
        """End QEMU and remove what it left; the guest's state is lost."""
        if self._undo is not None:
            self._undo.run()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        if self._process is None:
            raise GuestError(f"{self.name} is not running")
        return self._process.pid

    def run(self, script: str, *, check: bool = True, timeout_s: float = RUN_TIMEOUT_S) -> Result:
        """Run a shell script in the guest to its end; with `check`, a failure raises with the output."""
        if self._control is None:
            raise GuestError(f"{self.name} is not running")
        deadline = time.monotonic() + timeout_s + ANSWER_SLACK_S
        identifier = str(next(self._ids))
        request = f"{identifier} {math.ceil(timeout_s)} {base64.b64encode(script.encode()).decode()}\n"
        self._control.settimeout(timeout_s)
        self._control.sendall(request.encode())
        while True:
            words = self._read_line(deadline).split(" ")
            if words[0] == identifier:  # an older one answers a call that gave up waiting
                break
        result = Result(int(words[1]), base64.b64decode(words[2] if len(words) > 2 else "").decode(errors="replace"))
        if check and result.status != 0:
            raise GuestError(f"{self.name}: script ended with {result.status}:\n{script}\n---\n{result.output}")
        return result

    def read_file(self, path: str) -> bytes:
        """Fetch a file out of the guest."""
        return base64.b64decode(self.run(f"base64 -w 0 '{path}'").output)

    def add_addresses(self, interface: str, addresses: tuple[str, ...]) -> None:
        """Bring a card up with these addresses (with prefix lengths) and no others."""
        lines = ["set -e", quiet_ipv6(interface, addresses)]
        lines.append(f"ip link set {interface} addrgenmode none up")
        for address in addresses:
            lines.append(f"ip addr add {address} dev {interface}" + (" nodad" if ":" in address else ""))
        self.run("\n".join(lines))

    def set_tunnel(self, tunnel: Tunnel) -> None:
        """Replace the guest's tunnel, if any, by this one."""
        self.run(f"{tunnel.down_script()}\n{tunnel.up_script()}")

    def xfrm_errors(self) -> dict[str, int]:
        """The XFRM error counters (/proc/net/xfrm_stat) that are not 0."""
        pairs = (line.split() for line in self.run("cat /proc/net/xfrm_stat").output.splitlines())
        return {name: int(value) for name, value in pairs if int(value)}

    def console(self) -> str:
        """What the guest's kernel and init printed, and QEMU's own complaints."""
        if self._folder is None:
            return ""
        texts = []
        for name in ("qemu.log", "console"):
            with contextlib.suppress(FileNotFoundError):
                texts.append((self._folder / name).read_text(errors="replace"))
        return "\n".join(texts)

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _command(self, control_fd: int) -> list[str]:
        # no_timer_check: on a busy host the boot's test of the timer finds none and panics.
        command = [
            QEMU, "-name", self.name,
            "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max",
            "-m", str(self.memory_mib), "-smp", "1",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", "console=ttyS0 panic=-1 quiet loglevel=4 random.trust_cpu=on mitigations=off "
                       "cryptomgr.notests=1 net.ifnames=0 ipv6.disable_ipv6=0 no_timer_check",
            "-serial", f"file:{self._folder}/console",
            "-chardev", f"socket,id=control,fd={control_fd}",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=control",
        ]
        for index, nic in enumerate(self.nics):
            kind, _, options = nic.netdev.partition(",")
            command += ["-netdev", f"{kind},id=n{index},{options}"]
            command += ["-device", f"virtio-net-pci,netdev=n{index},mac={nic.mac},romfile="]
        return self.namespace.command(command) if self.namespace else command

    def _read_line(self, deadline: float) -> str:
        assert self._control is not None
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"{self.name}: no answer in time; console:\n{self.console()[-2000:]}")
            self._control.settimeout(left)
            try:
                chunk = self._control.recv(1 << 16)
            except TimeoutError:
                continue
            if not chunk:
                raise GuestError(f"{self.name}: QEMU ended; console:\n{self.console()[-2000:]}")
            self._received += chunk
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line.decode()


def _die_with_parent(parent: int) -> None:
    """Runs in QEMU's process before it is QEMU: a killed test run leaves no guest behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
