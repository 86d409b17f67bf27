#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Selects from NIST's GCM response files the groups that ESP can have: IV of 96 bits, tag of 64, 96 or 128.

Usage: select.py FOLDER   (the folder with gcmEncryptExtIV128.rsp and its five siblings)
Writes files of the same names beside this script, records unchanged but for the line ends.
"""
import pathlib
import re
import sys

NAMES = [f"gcm{kind}{bits}.rsp" for kind in ("EncryptExtIV", "Decrypt") for bits in (128, 192, 256)]


def select(text: str) -> str:
    head, *groups = re.split(r"(?m)^(?=\[Keylen)", text.replace("\r\n", "\n"))
    wanted = [
        group
        for group in groups
        if "[IVlen = 96]" in group and re.search(r"\[Taglen = (64|96|128)\]", group)
    ]
    return head.rstrip() + "\n\n" + "".join(wanted).rstrip() + "\n"


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    for name in NAMES:
        text = select((source / name).read_text("ascii"))
        (here / name).write_text(text, "ascii")
        print(name, text.count("\nCount = "), "vectors,", len(text), "octets")


if __name__ == "__main__":
    main()
