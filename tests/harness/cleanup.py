# SPDX-License-Identifier: Apache-2.0
"""Undo actions, last in first out, that also run when the interpreter exits or is told to end by a signal."""

import atexit
import os
import signal
import sys
import threading

_lock = threading.RLock()
_actions = []
_installed = False


class Undo:
    """One registered undo action; `run` does it at most once."""

    def __init__(self, action, what):
        self._action = action
        self._what = what

    def run(self):
        """Does it, unless it was done. An undo that fails says so and does not stop the others."""
        with _lock:
            action, self._action = self._action, None
            if self in _actions:
                _actions.remove(self)
        if action is None:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001: the rest must still be undone
            print(f"cleanup: {self._what}: {error}", file=sys.stderr)


def register(action, what):
    """Registers `action`; returns its `Undo`."""
    _install()
    undo = Undo(action, what)
    with _lock:
        _actions.append(undo)
    return undo


def run_all():
    """Runs what is still registered, the youngest first."""
    while True:
        with _lock:
            if not _actions:
                return
            undo = _actions[-1]
        undo.run()


def _install():
    global _installed
    if _installed:
        return
    _installed = True
    atexit.register(run_all)
    # SIGINT stays Python's own (KeyboardInterrupt): pytest then tears its fixtures down in order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, None):
            signal.signal(number, _on_signal)


def _on_signal(number, _frame):
    run_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
