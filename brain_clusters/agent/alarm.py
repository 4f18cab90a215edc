"""The last resort against code that lets no other thread run: C code that keeps the interpreter's lock, or a greenlet.

The watch cannot act then. The timer of ``faulthandler`` can: it is a thread of C's own, which needs no lock. It writes
where every thread is into the log, and ends the process with exit code 1.
"""

from __future__ import annotations

import faulthandler
import math
import time

_STANDARD_ERROR = 2


class Alarm:
    """Ends the process at a time (monotonic), unless that is put off before. Not thread-safe: the watch locks."""

    def __init__(self) -> None:
        self._rings_at = math.inf

    def at_latest(self, when: float) -> None:
        """Ring at ``when``, if not before."""
        if when < self._rings_at:
            self.at(when)

    def at(self, when: float) -> None:
        """Ring at ``when`` and not before; infinity is never."""
        if when == self._rings_at:
            return
        self._rings_at = when
        if when == math.inf:
            faulthandler.cancel_dump_traceback_later()
        else:
            faulthandler.dump_traceback_later(max(0.001, when - time.monotonic()), exit=True, file=_STANDARD_ERROR)
