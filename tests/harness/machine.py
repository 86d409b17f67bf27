# SPDX-License-Identifier: Apache-2.0
"""How much of its CPUs a machine had. A virtual machine's CPUs can be away for seconds (steal, proc(5)): what is said in
real time then tells of the host, not of the program under test."""

import os
import pathlib
import time

#: The share of its CPUs that a machine may miss before nothing is concluded from times.
TOLERATED = 0.01


def _stolen_seconds():
    """CPU seconds, of all CPUs together, that a hypervisor kept from this machine since it booted."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


class Attendance:
    """How much of the CPUs was there `with` it."""

    def __enter__(self):
        self._began, self._stolen_before = time.monotonic(), _stolen_seconds()
        return self

    def __exit__(self, *_):
        elapsed = time.monotonic() - self._began
        self.missed = (_stolen_seconds() - self._stolen_before) / (elapsed * os.cpu_count())

    @property
    def undisturbed(self):
        """Whether times that were taken meanwhile tell of the programs."""
        return self.missed <= TOLERATED

    def __str__(self):
        return f"{self.missed:.1%} of the CPUs' time was stolen"
