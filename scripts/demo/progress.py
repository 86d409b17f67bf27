# SPDX-License-Identifier: Apache-2.0
"""Tells what is going on, with the seconds since the start in front."""

import time

_START = time.monotonic()


def say(text):
    """One line, at once."""
    print(f"[{time.monotonic() - _START:6.1f} s] {text}", flush=True)


class Ticker:
    """Says something every few seconds while something long goes on."""

    def __init__(self, interval=5.0):
        self._interval = interval
        self._next = time.monotonic() + interval

    def tick(self, text):
        """Says what `text()` returns, if it is time."""
        if time.monotonic() >= self._next:
            say(text())
            self._next = time.monotonic() + self._interval
