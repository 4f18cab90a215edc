"""Lifecycle workers and their messages: a worker says that it lives, and what a dead one held goes back."""

from __future__ import annotations

import logging
import threading
from typing import Any

from brain_clusters.broker import names
from brain_clusters.broker.client import Broker, temporary_when_away
from brain_clusters.broker.restore import restore
from brain_clusters.errors import TemporaryError
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

_BEAT_SECONDS = 3.0
_STALE_SECONDS = 15.0


def beat_forever(broker: Broker, owner: str, stopped: threading.Event) -> None:
    """Keep ``owner``'s key fresh until ``stopped`` is set. Run it in a daemon thread of the worker."""
    while True:
        try:
            with temporary_when_away():
                pipe = broker.redis.pipeline()
                pipe.sadd(names.WORKERS_SET, owner)
                pipe.set(names.beat_key(owner), "worker", px=int(_STALE_SECONDS * 1000))
                pipe.execute()
        except TemporaryError as exc:
            log.warning("beat was not written: %s", exc)
        if stopped.wait(_BEAT_SECONDS):
            return


def release_dead(control: Control) -> int:
    """Return to the queue what workers held whose beats ceased; return how many messages.

    Agents are none of these: their hosts know for certain when one is dead. A worker that only seems dead, frozen
    for 15 s, runs its command twice at worst, and a command's effect happens once.
    """
    released = 0
    client = control.broker.redis
    with temporary_when_away():
        owners: Any = client.smembers(names.WORKERS_SET)
    for owner in sorted(name.decode() for name in owners):
        with temporary_when_away():
            alive = client.exists(names.beat_key(owner))
        if not alive:
            released += restore(client, owner)
            with temporary_when_away():
                client.srem(names.WORKERS_SET, owner)
    if released:
        log.warning("%d messages of dead workers are back in their queues", released)
    return released
