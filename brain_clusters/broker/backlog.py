"""Everything that can be counted, for all clusters, in one pipeline. Scripts keep it at a few commands a chunk.

The look also sorts: nobody consumes the queues of a sleeping cluster, so it moves what is not due yet out of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from brain_clusters.broker import names, scripts
from brain_clusters.broker.client import temporary_when_away

# Each script call blocks Redis; a thousand queues are about 2 ms.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Jobs of a queue. Times in seconds since the epoch.

    length: jobs that could be begun now. oldest_published_at: since when the oldest of them waits, as far as that is
    known: since it was published or, if that was later, due. held: jobs that are not due yet; next_due_at: the first.
    """

    length: int
    oldest_published_at: float | None
    held: int = 0
    next_due_at: float | None = None


_EMPTY = QueueDepth(0, None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at Redis found. A beat that is not there is absent, not zero. now: Redis's clock, in seconds.

    held: messages that an agent was given and has not acknowledged, running or only reserved.
    """

    now: float
    queues: dict[str, QueueDepth]
    held: dict[str, int]
    beats: dict[str, dict[str, Any]]


def read(client: redis.Redis, queues: Sequence[str], agent_ids: Sequence[str]) -> Reading:
    """Read the depth of ``queues`` and, for ``agent_ids``, what they hold and their beats.

    Exact, unless more than a thousand messages of one list came since the last look: what is not due yet among them
    then counts as waiting until later looks have come to it.
    Raises TemporaryError when Redis is away: an error is never an empty queue.
    """
    with temporary_when_away():
        pipe = client.pipeline(transaction=False)
        pipe.time()
        suffixes = [name[1:] for name in names.priority_lists("q")]
        for chunk in _chunks(queues):
            pipe.eval(scripts.DEPTHS, len(chunk), *chunk, *suffixes)
        for chunk in _chunks(agent_ids):
            pipe.eval(scripts.HELD, len(chunk), *chunk)
            pipe.mget([names.beat_key(agent_id) for agent_id in chunk])
        replies = iter(pipe.execute())
    seconds, micros = next(replies)
    depths = {
        queue: _depth(found)
        for chunk in _chunks(queues)
        for queue, found in zip(chunk, json.loads(next(replies)), strict=True)
    }
    held: dict[str, int] = {}
    beats: dict[str, dict[str, Any]] = {}
    for chunk in _chunks(agent_ids):
        held.update(zip(chunk, json.loads(next(replies)), strict=True))
        read_beats = zip(chunk, map(_beat, next(replies)), strict=True)
        beats.update({owner: beat for owner, beat in read_beats if beat is not None})
    return Reading(seconds + micros / 1e6, depths, held, beats)


def waiting_since(client: redis.Redis, queues: Sequence[str], before: float) -> dict[str, int]:
    """Return how many jobs of each queue were published before a time (seconds since the epoch), or bear no stamp.

    Jobs that are not due yet are not counted. Exact for the thousand oldest of a list; what lies behind counts as old.
    """
    with temporary_when_away():
        suffixes = [name[1:] for name in names.priority_lists("q")]
        found: Any = client.eval(scripts.WAITING_SINCE, len(queues), *queues, str(before), *suffixes)
    return dict(zip(queues, found, strict=True))


# What a beat must say, and what it may say, as numbers.
_BEAT_NUMBERS = ("completed", "failed", "in_flight", "idle_since")
_BEAT_MAYBE = ("service_time", "cpu", "memory", "at")


def _beat(raw: bytes | None) -> dict[str, Any] | None:
    """Return a beat, or None for none and for one that makes no sense: agents run users' code, which can write here."""
    if raw is None:
        return None
    try:
        found = json.loads(raw)
        numbers = {key: float(found[key]) for key in _BEAT_NUMBERS}
        maybe = {key: None if found.get(key) is None else float(found[key]) for key in _BEAT_MAYBE}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    given = [*numbers.values(), *(value for value in maybe.values() if value is not None)]
    if not all(0 <= value < 2**53 for value in given):  # NaN is neither
        return None
    counters = {key: int(numbers[key]) for key in ("completed", "failed", "in_flight")}
    state = "busy" if counters["in_flight"] else "idle"
    return {**numbers, **maybe, **counters, "state": state}


def _chunks(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
    iterator = iter(items)
    while chunk := tuple(islice(iterator, _CHUNK)):
        yield chunk


def _depth(found: Any) -> QueueDepth:
    if not found:
        return _EMPTY
    length, oldest, held, next_due = found
    return QueueDepth(int(length), float(oldest) if oldest else None, int(held), float(next_due) if next_due else None)


def purge(client: redis.Redis, queues: Sequence[str]) -> None:
    """Delete ``queues`` with all that waits in them."""
    lists = [name for queue in queues for name in names.priority_lists(queue)]
    with temporary_when_away():
        if lists:
            client.delete(*lists, *map(names.sift_key, lists), *map(names.eta_key, queues))
