"""Counters of a prefork pool: its children tell what they begin and end, and the agent keeps the one account."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from brain_clusters.agent.beats import Counters

# A child that cannot tell, as its parent is busy ending, works on.
_PATIENCE_SECONDS = 1.0


class Tally(Counters):
    """The agent's side. What a child had begun when it died is taken off again."""

    def __init__(self) -> None:
        super().__init__()
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, kind)
        self._theirs.settimeout(_PATIENCE_SECONDS)
        self._open: dict[int, float] = {}
        threading.Thread(target=self._listen, name="tally", daemon=True).start()

    def teller(self) -> Teller:
        """Return the counters for a child."""
        return Teller(self._theirs)

    def _listen(self) -> None:
        while told := self._ours.recv(65536):
            pid, ended = json.loads(told)
            if ended is None:
                self._open[pid] = time.monotonic()
                self.begin()
            elif self._open.pop(pid, None) is not None:
                self.end(**ended)

    def snapshot(self) -> dict[str, Any]:
        """Return the counters as they stand in a beat."""
        for pid, begun in list(self._open.items()):
            if not _lives(pid) and self._open.pop(pid, None) is not None:
                self.drop(time.monotonic() - begun)
        return super().snapshot()


class Teller(Counters):
    """A child's side: a child does one job at a time."""

    def __init__(self, parent: socket.socket) -> None:
        super().__init__()
        self._parent = parent

    def begin(self) -> None:
        """A job begins."""
        self._tell(None)

    def end(self, seconds: float, **more: Any) -> None:
        """A job ended after ``seconds``."""
        self._tell({"seconds": seconds, **more})

    def _tell(self, ended: dict[str, Any] | None) -> None:
        with suppress(OSError):
            self._parent.send(json.dumps([os.getpid(), ended]).encode())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
