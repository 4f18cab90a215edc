"""Whether this agent still hears: a beating agent whose main loop is stuck, or whose connection is half dead, is deaf.

Its beats come from a thread of their own and by a connection of their own, so they tell nothing of that. But the same
thread can see that no look at the queue was answered for long, though nothing is being done and something waits: then
the agent ends, its host says why, and another takes its place.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.holding import QoS
from brain_clusters.broker.transport import Channel

log = logging.getLogger(__name__)

# EX_PROTOCOL of sysexits.h: the agent heard nothing of its queue any more.
EXIT_DEAF = 76


class Hearing:
    """Judges this agent by the answers that its worker got. running: how many jobs are being done.

    deaf_after: seconds without an answer. Longer than the wait at the server, and than what a worker takes to see by
    itself that its connection is gone and to make a new one.
    """

    def __init__(
        self, client: redis.Redis, owner: str, queues: Sequence[str], running: Callable[[], int], *, deaf_after: float
    ) -> None:
        self._client = client
        self._queues = tuple(queues)
        # What a blocking pop brought into the claim list was for deaf ears, too.
        lists = [name for queue in queues for name in names.priority_lists(queue)]
        self._keys = (names.claim_key(owner), names.unacked_key(owner), *lists)
        self._running = running
        self._deaf_after = deaf_after
        self.forgive()

    @property
    def works(self) -> bool:
        """Whether a job is being done."""
        return bool(self._running())

    def forgive(self) -> None:
        """Begin anew: what was not heard until now counts no more, as Redis was away."""
        self._answers = Channel.answers
        self._quiet_since = time.monotonic()

    def check(self) -> None:
        """End this process if it is deaf. Called with each beat that was written, as then Redis answers."""
        if self.works or not QoS.taking or Channel.answers != self._answers:
            self.forgive()
            return
        quiet = time.monotonic() - self._quiet_since
        if quiet < self._deaf_after or not self._waits():
            return
        log.error("deaf: it heard nothing of its queue for %.0f s, though jobs wait there; leaving", quiet)
        os._exit(EXIT_DEAF)

    def _waits(self) -> bool:
        """Return whether something could be begun. Raises RedisError."""
        pipe: Any = self._client.pipeline(transaction=False)
        pipe.exists(*self._keys)
        for queue in self._queues:
            pipe.zcount(names.eta_key(queue), "-inf", time.time())
        return any(pipe.execute())
