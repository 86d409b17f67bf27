# SPDX-License-Identifier: Apache-2.0
"""A program that runs beside a test: its log, waiting on it, its end."""

import ctypes
import os
import pathlib
import re
import signal
import subprocess

from harness import cleanup, wait

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One running program. Standard output and error go to one log file; it dies with the test that began it."""

    def __init__(self, args, log, namespace=None, env=None, stdin=None, name=None):
        """Starts `args` (a list; nothing passes through a shell), inside `namespace` if one is given."""
        self.args = [str(arg) for arg in args]
        self.name = name or pathlib.Path(self.args[0]).name
        self.log = pathlib.Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = namespace.command(self.args) if namespace else self.args
        with open(self.log, "ab") as sink:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                preexec_fn=_die_with_parent,
                close_fds=True,
            )
        self._undo = cleanup.register(self._end, f"process {self.name} ({self.pid})")
        if stdin is not None:
            self._child.stdin.write(stdin if isinstance(stdin, bytes) else stdin.encode())
            self._child.stdin.close()

    def __repr__(self):
        return f"Process({self.name}, pid {self.pid})"

    @property
    def pid(self):
        return self._child.pid

    @property
    def running(self):
        return self._child.poll() is None

    @property
    def returncode(self):
        """Its exit status (negative: the signal that ended it), or None while it runs."""
        return self._child.poll()

    def output(self):
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_output(self, pattern, timeout=30.0):
        """Waits until its output has a match for `pattern`; fails at once when it ends without one."""
        compiled = re.compile(pattern, re.MULTILINE)

        def seen():
            over = not self.running
            found = compiled.search(self.output())
            if found is None and over:
                raise RuntimeError(f"{self.name} ended ({self.returncode}) before /{pattern}/:\n{self.tail()}")
            return found

        return wait.until(seen, f"/{pattern}/ in the output of {self.name}", timeout)

    def wait(self, timeout=30.0, check=True):
        """Waits for its end; returns the exit status, which must be 0 unless `check` is off."""
        status = self._child.wait(timeout)
        self._undo.run()
        if check and status != 0:
            raise RuntimeError(f"{self.name}: exit {status}:\n{self.tail()}")
        return status

    def signal(self, number):
        """Sends a signal, if it still runs."""
        if self.running:
            self._child.send_signal(number)

    def stop(self, timeout=10.0):
        """SIGTERM, then SIGKILL after `timeout` seconds; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._undo.run()
        return self.returncode

    def kill(self):
        """SIGKILL, and waits until it is gone."""
        self._child.kill()
        self._child.wait()
        self._undo.run()

    def tail(self, lines=60):
        """The last lines of its log."""
        return "\n".join(self.output().splitlines()[-lines:])

    def _end(self):
        if self.running:
            self.stop(timeout=5.0)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
