# SPDX-License-Identifier: Apache-2.0
"""What a machine lacks is a printed, counted skip. With GREYHOUND_REQUIRE_ALL=1 only the named skips may happen."""

import os
import pathlib
import shutil

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

#: The named skips, shared with scripts/tally: one prefix a line, `#` begins a comment.
ALLOWED_FILE = REPOSITORY / "scripts" / "allowed-skips.txt"


def require_all():
    """Whether every skip but the named ones is a failure."""
    return os.environ.get("GREYHOUND_REQUIRE_ALL", "") == "1"


def allowed_prefixes():
    """The prefixes of reasons that may be skipped even when everything is required."""
    lines = ALLOWED_FILE.read_text().splitlines() if ALLOWED_FILE.exists() else []
    stripped = (line.split("#", 1)[0].strip() for line in lines)
    return [line for line in stripped if line]


def allowed(reason):
    """Whether `reason` is one of the named skips."""
    return any(reason.startswith(prefix) for prefix in allowed_prefixes())


def binary_folder():
    """Where the programs under test are: GREYHOUND_BIN, or target/release."""
    configured = os.environ.get("GREYHOUND_BIN")
    if configured:
        return pathlib.Path(configured).resolve()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return (REPOSITORY / target).resolve() / "release"


def missing_root():
    """A reason to skip, or None: namespaces and raw sockets need root."""
    return None if os.geteuid() == 0 else "root: namespaces and raw sockets need it"


def missing_tools(names):
    """A reason to skip, or None: the first of these programs that is not there."""
    for name in names:
        if shutil.which(name) is None:
            return f"{name}: not installed (scripts/setup.sh installs it)"
    return None


def missing_binaries(names=("greyhound-dataplane", "greyhound-control", "greyhound")):
    """A reason to skip, or None: the first of the programs under test that is not built."""
    for name in names:
        if not os.access(binary_folder() / name, os.X_OK):
            return f"{name}: not built in {binary_folder()} (cargo build --release)"
    return None
