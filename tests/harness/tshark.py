# SPDX-License-Identifier: Apache-2.0
"""Decryption of a capture by tshark, with the keys in a private file, never among the arguments.

tshark cannot check ESN (its AAD has 8 octets), so those SAs are for `esp.py` alone.
"""

import dataclasses
import os
import pathlib
import tempfile

from harness import netns

_FIELDS = ("frame.number", "frame.protocols", "ip.src", "ip.dst", "esp.spi", "esp.sequence", "esp.icv_good",
           "gre.proto", "gre.key")


@dataclasses.dataclass(frozen=True, repr=False)
class Key:
    """One SA as tshark wants it; the addresses are those on the wire."""

    source: str
    destination: str
    spi: int
    key_material: bytes
    icv: int = 16

    def line(self):
        family = "IPv6" if ":" in self.source else "IPv4"
        return (f'"{family}","{self.source}","{self.destination}","0x{self.spi:08x}",'
                f'"AES-GCM with {self.icv} octet ICV [RFC4106]","0x{self.key_material.hex()}","NULL",""\n')


@dataclasses.dataclass(frozen=True)
class Dissected:
    """One frame as tshark saw it: the protocol stack, and where there are several values (inner, outer) all of them."""

    number: int
    protocols: tuple
    fields: dict

    @property
    def decrypted(self):
        """Whether tshark found something inside ESP and the ICV was right."""
        inside = self.protocols[self.protocols.index("esp") + 1:] if "esp" in self.protocols else ()
        return bool(inside) and inside != ("data",) and self.fields["esp.icv_good"] in ("1", "True")


def dissect(pcap, keys, display_filter=None):
    """Dissects a capture with ESP decryption on; returns a list of `Dissected`."""
    with tempfile.TemporaryDirectory(prefix="greyhound-tshark-") as folder:
        done = netns.run(arguments(pcap, _FIELDS, display_filter), env={**os.environ, **settings(folder, keys)})
    return [_row(line) for line in done.stdout.splitlines()]


def arguments(pcap, fields, display_filter=None, closed=()):
    """The command that prints `fields` of each frame of a capture, ESP decryption on; values separated by `|`.

    tshark does not look into the protocols `closed`: it keeps a memory of every TCP connection, for instance.
    """
    args = ["tshark", "-r", str(pcap), "-n", "-o", "esp.enable_encryption_decode:TRUE",
            "-o", "esp.enable_authentication_check:TRUE", "-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]
    for protocol in closed:
        args += ["--disable-protocol", protocol]
    args += ["-Y", display_filter] if display_filter else []
    for field in fields:
        args += ["-e", field]
    return args


def settings(folder, keys):
    """Writes the keys into `folder`, which is made private; returns the environment by which tshark finds them."""
    os.chmod(folder, 0o700)
    descriptor = os.open(pathlib.Path(folder, "esp_sa"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.writelines(key.line() for key in keys)
    return {"WIRESHARK_CONFIG_DIR": str(folder)}


def _row(line):
    fields = dict(zip(_FIELDS, line.split("|")))
    return Dissected(int(fields["frame.number"]), tuple(fields["frame.protocols"].split(":")), fields)
