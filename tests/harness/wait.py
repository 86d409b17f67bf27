# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition with a deadline. Tests wait for what they need; they never sleep and hope."""

import time

#: Pause between two looks at a condition, in seconds.
POLL_INTERVAL = 0.01


class Deadline:
    """A point in time, on the monotonic clock."""

    def __init__(self, timeout):
        self._end = time.monotonic() + timeout

    @property
    def remaining(self):
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self):
        return self.remaining == 0.0


def until(condition, what, timeout=30.0, interval=POLL_INTERVAL):
    """Calls `condition` until it returns something true, and returns that.

    `what` says in words what is waited for. A `condition` that raises `NotYet` is asked again. After `timeout`
    seconds: `TimeoutError` with `what` and, where there is one, the last `NotYet`.
    """
    deadline = Deadline(timeout)
    reason = ""
    while True:
        try:
            value = condition()
        except NotYet as not_yet:
            value, reason = None, f" (last: {not_yet})"
        if value:
            return value
        if deadline.expired:
            raise TimeoutError(f"waited {timeout} s for {what}{reason}")
        time.sleep(min(interval, deadline.remaining))


class NotYet(Exception):
    """Raised by a condition that wants to say why it does not hold yet."""
