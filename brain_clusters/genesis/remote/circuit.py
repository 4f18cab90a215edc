"""When to ask a service again that failed: pauses that grow, with chance in them, and a circuit that opens."""

from __future__ import annotations

import random
import time

from brain_clusters.errors import TemporaryError

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
# A host has to beat every few seconds, and is given up when it does not: asking must not take most of its time.
_FIRST_OPEN_SECONDS = 1.0
_LONGEST_OPEN_SECONDS = 15.0


def pause_seconds(attempt: int) -> float:
    """Return how long to wait after the ``attempt``-th failure in a row, from 1: half of it is chance."""
    return _spread(_FIRST_PAUSE_SECONDS * 2 ** min(attempt - 1, 10), _LONGEST_PAUSE_SECONDS)


class Circuit:
    """Keeps a caller from waiting for a service that does not answer: while it is open, calls fail at once."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0
        self._reason = ""

    def check(self) -> None:
        """Raise TemporaryError, with the last reason, while the circuit is open."""
        left = self._open_until - time.monotonic()
        if left > 0:
            raise TemporaryError(self._reason, delay_seconds=left)

    def close(self) -> None:
        """Note that the service answered."""
        self._failures, self._open_until = 0, 0.0

    def open(self, reason: str, least_seconds: float = 0.0) -> None:
        """Note that the service failed. least_seconds: what it asked for by Retry-After."""
        seconds = _spread(_FIRST_OPEN_SECONDS * 2 ** min(self._failures, 10), _LONGEST_OPEN_SECONDS)
        self._failures += 1
        self._reason = reason
        self._open_until = time.monotonic() + max(least_seconds, seconds)


def _spread(seconds: float, most: float) -> float:
    bounded = min(seconds, most)
    return bounded / 2 + random.uniform(0, bounded / 2)  # noqa: S311 - no secret
