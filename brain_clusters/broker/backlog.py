"""Everything that can be counted, for all clusters, in one pipeline. Scripts keep it at a few commands a chunk.

The look also sorts: nobody consumes the queues of a sleeping cluster, so it moves what is not due yet out of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import redis

from brain_clusters.broker import names, scripts
from brain_clusters.broker.client import temporary_when_away

# Each script call blocks Redis; a thousand queues are about 2 ms.
_CHUNK = 1000
# What an agent that is forked from a zygote and two ticks take, and a little more.
SOON_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Jobs of a queue. Times in seconds since the epoch.

    length: jobs that could be begun now. oldest_published_at: since when the oldest of them waits, as far as that is
    known: since it was published or, if that was later, due. held: jobs that are not due yet; next_due_at: the first;
    due_soon: how many of them are due within the time that was asked for.
    """

    length: int
    oldest_published_at: float | None
    held: int = 0
    next_due_at: float | None = None
    due_soon: int = 0


EMPTY = QueueDepth(0, None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at Redis found. A beat that is not there is absent, not zero. now: Redis's clock, in seconds.

    held: messages that an agent was given and has not acknowledged, running or only reserved.
    """

    now: float
    queues: dict[str, QueueDepth]
    held: dict[str, int]
    beats: dict[str, dict[str, Any]]


def read(
    client: redis.Redis,
    queues: Sequence[str],
    agent_ids: Sequence[str],
    *,
    soon: float = SOON_SECONDS,
    soon_of: Mapping[str, float] = MappingProxyType({}),
) -> Reading:
    """Read the depth of ``queues`` and, for ``agent_ids``, what they hold and their beats.

    soon: the seconds within which a job is due soon; soon_of: the same of single queues.
    Exact, unless more than a thousand messages of one list came since the last look: what is not due yet among them
    then counts as waiting until later looks have come to it.
    Raises TemporaryError when Redis is away: an error is never an empty queue.
    """
    with temporary_when_away():
        pipe = client.pipeline(transaction=False)
        pipe.time()
        for chunk in _chunks(queues):
            of = {queue: soon_of[queue] for queue in chunk if queue in soon_of} if soon_of else {}
            pipe.eval(scripts.DEPTHS, 0, json.dumps({"queues": chunk, "soon": soon, "of": of}))
        for chunk in _chunks(agent_ids):
            pipe.eval(scripts.HELD, 0, json.dumps(chunk))
        replies = iter(pipe.execute())
    seconds, micros = next(replies)
    depths: dict[str, QueueDepth] = dict.fromkeys(queues, EMPTY)
    for chunk in _chunks(queues):
        for place, *found in json.loads(next(replies)):
            depths[chunk[place]] = _depth(found)
    held: dict[str, int] = dict.fromkeys(agent_ids, 0)
    beats: dict[str, dict[str, Any]] = {}
    for chunk in _chunks(agent_ids):
        counts, raw = next(replies)
        for place, count in json.loads(counts):
            held[chunk[place]] = count
        for owner, text in zip(chunk, _texts(client, chunk, raw), strict=True):
            beat = _beat(text) if text else None
            if beat is not None:
                beats[owner] = beat
    return Reading(seconds + micros / 1e6, depths, held, beats)


def _texts(client: redis.Redis, owners: Sequence[str], raw: bytes) -> Sequence[Any]:
    """Return the beats of ``owners``; one by one where one of them is no single line of text, and spoils the others."""
    try:
        found: Sequence[Any] = raw.decode().split("\n")
    except UnicodeDecodeError:
        found = ()
    if len(found) != len(owners):
        with temporary_when_away():
            found = client.mget([names.beat_key(owner) for owner in owners])
    return found


def waiting_since(client: redis.Redis, queues: Sequence[str], before: float) -> dict[str, int]:
    """Return how many jobs of each queue were published before a time (seconds since the epoch), or bear no stamp.

    Jobs that are not due yet are not counted. Exact for the thousand oldest of a list; what lies behind counts as old.
    """
    with temporary_when_away():
        suffixes = [name[1:] for name in names.priority_lists("q")]
        found: Any = client.eval(scripts.WAITING_SINCE, len(queues), *queues, str(before), *suffixes)
    return dict(zip(queues, found, strict=True))


# What a beat may say, as numbers, besides its counters and idle_since.
_BEAT_MAYBE = ("service_time", "running_for", "cpu", "memory", "at", "busy_seconds", "mean_time")
_LIMIT = float(2**53)
_NUMBERS = (float, int)
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
# Times beyond are no times: PostgreSQL ends in the year 294276, which is later.
_LAST_TIME = 1e12


def _beat(raw: bytes | str) -> dict[str, Any] | None:
    """Return a beat, or None for one that makes no sense: agents run users' code, which can write here."""
    try:
        # What json.loads does, without looking for the encoding and for white space at both ends.
        beat, end = _scan(raw if isinstance(raw, str) else raw.decode(), 0)
        if end != len(raw):
            return None
        for key in ("completed", "failed", "in_flight"):
            if type(beat[key]) is not int or not 0 <= beat[key] < _LIMIT:
                return None
        if type(beat["idle_since"]) not in _NUMBERS or not 0 <= beat["idle_since"] <= _LAST_TIME:
            return None
        for key in _BEAT_MAYBE:
            value = beat.setdefault(key)
            if value is not None and not (type(value) in _NUMBERS and 0 <= value < _LIMIT):  # NaN is not
                return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, StopIteration):
        return None
    if not isinstance(beat.setdefault("last_error", None), (str, type(None))):
        beat["last_error"] = None
    beat["state"] = "busy" if beat["in_flight"] else "idle"
    if beat["mean_time"] is None:
        beat["mean_time"] = beat["service_time"]
    found: dict[str, Any] = beat
    return found


def _chunks(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
    iterator = iter(items)
    while chunk := tuple(islice(iterator, _CHUNK)):
        yield chunk


def _depth(found: Any) -> QueueDepth:
    length, oldest, held, next_due, soon = found
    return QueueDepth(length, _time(oldest), held, _time(next_due), soon)


def _time(found: Any) -> float | None:
    """Return a time that Redis told, within what is one: users' code can add what it likes to a sorted set."""
    return min(max(0.0, float(found)), _LAST_TIME) if found else None


def unpark(client: redis.Redis, queue: str) -> int:
    """Put all that waits for its time back into the lists of ``queue``, as it came; return how many."""
    moved = 0
    keys = [names.eta_key(queue), *names.kombu_lists(queue), *map(names.sift_key, names.kombu_lists(queue))]
    with temporary_when_away():
        while batch := int(client.eval(scripts.UNPARK, len(keys), *keys)):
            moved += batch
    return moved


def purge(client: redis.Redis, queues: Sequence[str]) -> None:
    """Delete ``queues`` with all that waits in them."""
    lists = [name for queue in queues for name in names.priority_lists(queue)]
    with temporary_when_away():
        if lists:
            client.delete(*lists, *map(names.sift_key, lists), *map(names.eta_key, queues))
