# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel and initial ram disk, made from Debian packages.

Packages are downloaded and unpacked, never installed: the host's package
database is not touched. All files go below the folder that the caller names.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    "busybox-static",
    "dash",
    "kmod",
    "netbase",
    "iproute2",
    "iputils-ping",
    "ethtool",
    "tcpdump",
    "netcat-openbsd",
)
# Loaded by the guest's init, in this order, before it listens for commands. The
# crypto modules are here because the kernel does not find rfc4106(gcm(aes)) by
# itself, and because loading them takes seconds that the first SA would wait.
EARLY_MODULES = "virtio_pci virtio_console virtio_net aesni_intel gcm drbg seqiv esp4 esp6 xfrm_user".split()
# There to be loaded on demand. seqiv takes the kernel's default random
# generator, hence drbg above with what it is made of.
MODULES = (
    "ctr ghash_generic ghash_clmulni_intel sha256_ssse3 sha512_ssse3 jitterentropy_rng "
    "xfrm_interface tunnel4 tunnel6 xfrm4_tunnel xfrm6_tunnel "
    "ip_gre ip6_gre ip6_tunnel veth dummy af_packet_diag"
).split()
UNREAD = (
    "usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/share/bug "
    "usr/share/perl usr/share/perl5 usr/lib/x86_64-linux-gnu/perl usr/lib/x86_64-linux-gnu/perl-base "
    "usr/lib/x86_64-linux-gnu/gconv usr/lib/systemd usr/lib/udev usr/share/zoneinfo var/cache"
).split()
GUEST_INIT = Path(__file__).with_name("guest-init.sh")


class Unavailable(Exception):
    """This machine lacks a tool or cannot reach the packages; says which."""


@dataclass(frozen=True)
class Image:
    """What QEMU boots."""

    kernel: Path
    initrd: Path
    kernel_release: str
    packages: tuple[str, ...]


def prepare(cache: Path) -> Image:
    """Return the image kept in `cache`, making it first if it is not there.

    Raises `Unavailable` when a tool is missing or the download fails.
    """
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "depmod"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not installed")
    cache.mkdir(parents=True, exist_ok=True)
    kernel_package = _kernel_package()
    recipe = "\n".join((kernel_package, *PACKAGES, *EARLY_MODULES, *MODULES)).encode()
    recipe += GUEST_INIT.read_bytes() + Path(__file__).read_bytes()
    folder = cache / f"image-{hashlib.sha256(recipe).hexdigest()[:16]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as scratch:
            made = Path(scratch) / "image"
            _make(made, Path(scratch), kernel_package)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else: someone else made the same image meanwhile
                    raise
    packages = tuple((folder / "packages").read_text().split())
    return Image(
        kernel=folder / "kernel",
        initrd=folder / "initrd",
        kernel_release=kernel_package.removeprefix("linux-image-"),
        packages=packages,
    )


def _kernel_package() -> str:
    """The versioned package behind the metapackage; it moves with every security update."""
    listing = _output("apt-cache", "depends", KERNEL_METAPACKAGE)
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "Depends:" and words[1].startswith("linux-image-"):
            return words[1]
    raise Unavailable(f"{KERNEL_METAPACKAGE} is not in the package lists; run apt-get update")


def _make(folder: Path, scratch: Path, kernel_package: str) -> None:
    folder.mkdir()
    debs = scratch / "debs"
    (debs / "partial").mkdir(parents=True)
    release = kernel_package.removeprefix("linux-image-")

    kernel_deb = _download_kernel(kernel_package, debs)
    kernel_root = scratch / "kernel-root"
    _output("dpkg-deb", "-x", str(kernel_deb), str(kernel_root))
    kernel_deb_name = kernel_deb.name
    kernel_deb.unlink()
    shutil.move(kernel_root / "boot" / f"vmlinuz-{release}", folder / "kernel")
    _output("depmod", "-b", str(kernel_root), release)

    root = scratch / "root"
    deb_names = _unpack_userland(debs, root)
    _copy_modules(kernel_root, root, release)
    shutil.copy(GUEST_INIT, root / "init")
    (root / "init").chmod(0o755)
    _write_cpio(root, folder / "initrd")
    (folder / "packages").write_text("\n".join(sorted([kernel_deb_name, *deb_names])) + "\n")


def _download_kernel(package: str, debs: Path) -> Path:
    _output("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, cwd=debs)
    found = list(debs.glob(f"{package}_*.deb"))
    if len(found) != 1:
        raise Unavailable(f"expected one download of {package}, found {len(found)}")
    return found[0]


def _unpack_userland(debs: Path, root: Path) -> list[str]:
    """Download the closure of `PACKAGES` and unpack it; an empty package status makes apt resolve down to libc."""
    status = debs / "status"
    status.touch()
    _output(
        "apt-get", "-qq", "-y",
        "-o", "APT::Sandbox::User=root",
        "-o", f"Dir::State::status={status}",
        "-o", f"Dir::Cache::archives={debs}",
        "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
        "-o", "Debug::NoLocking=1",
        "-o", "APT::Install-Recommends=0",
        "--download-only", "install", *PACKAGES,
    )
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    names = []
    for deb in sorted(debs.glob("*.deb")):
        _output("dpkg-deb", "-x", str(deb), str(root))
        names.append(deb.name)
    for unread in UNREAD:
        shutil.rmtree(root / unread, ignore_errors=True)
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "etc", "applets", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(root / "bin/sh"):
        (root / "bin/sh").symlink_to("dash")  # busybox's shell would prefer its own `ip`
    return names


def _copy_modules(kernel_root: Path, root: Path, release: str) -> None:
    source = kernel_root / "lib/modules" / release
    target = root / "lib/modules" / release
    target.mkdir(parents=True)
    needs = {}
    for line in (source / "modules.dep").read_text().splitlines():
        module, _, rest = line.partition(":")
        needs[_module_name(module)] = (module, rest.split())
    builtin = {_module_name(line) for line in (source / "modules.builtin").read_text().splitlines()}
    early: list[str] = []
    for name in (*EARLY_MODULES, *MODULES):
        if name in builtin:
            continue
        if name not in needs:
            raise RuntimeError(f"kernel {release} has no {name}, neither built in nor as a module")
        module, dependencies = needs[name]
        for path in (*reversed(dependencies), module):
            destination = target / path
            if not destination.exists():
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / path, destination)
            if name in EARLY_MODULES and path not in early:
                early.append(path)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(source / name, target / name)
    _output("depmod", "-b", str(root), release)
    (root / "etc/modules.early").write_text("".join(f"/lib/modules/{release}/{path}\n" for path in early))


def _module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def _write_cpio(root: Path, target: Path) -> None:
    """Write `root` in the kernel's `newc` format, owned by root. Not compressed: unpacking costs under emulation."""
    with target.open("wb") as out:
        entries = sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
        for inode, name in enumerate(entries, 1):
            path = root / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                data = os.readlink(path).encode()
            elif stat.S_ISREG(mode):
                data = path.read_bytes()
            else:
                data = b""
            _write_cpio_entry(out, inode, name, mode, data)
        # The kernel opens /dev/console for init before anything is mounted.
        _write_cpio_entry(out, len(entries) + 1, "dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))
        _write_cpio_entry(out, 0, "TRAILER!!!", 0, b"")


def _write_cpio_entry(out, inode: int, name: str, mode: int, data: bytes, device=(0, 0)) -> None:
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    out.write(header + bytes(-len(header) % 4))
    out.write(data + bytes(-len(data) % 4))


def _output(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-600:]}")
    return done.stdout
