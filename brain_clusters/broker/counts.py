"""How many tasks of other applications were done: counted by agents in our Redis, by agent and day.

The tick collects the sums once. Beside them are the same by cluster for the last minute, in a hash for each few seconds
that expires by itself.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import is_wrong_type, temporary_when_away
from brain_clusters.errors import TemporaryError

_DIGITS = 15
_MOST_CHARACTERS = 200
RATE_WINDOW_SECONDS = 60
# A task counts for the last minute from the bucket in which it ended, so rates are as late as a bucket is wide.
_BUCKET_SECONDS = 5


@dataclass(frozen=True, slots=True, order=True)
class Work:
    """Whose tasks: of an agent on a day (UTC)."""

    day: date
    cluster_id: str
    group: str
    agent_id: str


@dataclass(slots=True)
class Done:
    """How many tasks ended; seconds: of all of them."""

    completed: int = 0
    failed: int = 0
    seconds: float = 0.0


def add(client: redis.Redis, cluster_id: str, group: str, agent_id: str, done: Done) -> None:
    """Add to the counts of an agent. Raises TemporaryError."""
    if not (done.completed or done.failed):
        return
    now = time.time()
    work = [datetime.fromtimestamp(now, UTC).date().isoformat(), cluster_id, group, agent_id]
    bucket = _bucket(int(now // _BUCKET_SECONDS))
    with temporary_when_away():
        pipe: Any = client.pipeline()
        for kind, count in (("completed", done.completed), ("failed", done.failed)):
            if count:
                pipe.hincrby(names.COUNTS, json.dumps([kind, *work]), count)
                pipe.hincrby(bucket, f"{kind} {cluster_id}", count)
        pipe.hincrbyfloat(bucket, f"seconds {cluster_id}", done.seconds)
        pipe.expire(bucket, RATE_WINDOW_SECONDS + 2 * _BUCKET_SECONDS)
        pipe.execute()


def take(client: redis.Redis) -> dict[Work, Done]:
    """Return what was done since the last time, and forget it. Raises TemporaryError."""
    with temporary_when_away():
        pipe: Any = client.pipeline()
        found, _ = pipe.hgetall(names.COUNTS).delete(names.COUNTS).execute(raise_on_error=False)
    if isinstance(found, Exception):
        if not is_wrong_type(found):
            raise TemporaryError(f"Redis does not answer ({type(found).__name__})") from found
        return {}  # deleted, as any other
    taken: dict[Work, Done] = {}
    for field, count in found.items():
        kind, work = _work(field)
        if work is not None and count.isdigit() and len(count) <= _DIGITS:
            _count(taken.setdefault(work, Done()), kind, count)
    return taken


def of_the_last_minute(client: redis.Redis) -> Mapping[str, Done]:
    """Return by cluster what ended in the last RATE_WINDOW_SECONDS. Raises TemporaryError."""
    last = int(time.time() // _BUCKET_SECONDS)
    with temporary_when_away():
        pipe: Any = client.pipeline(transaction=False)
        for number in range(last, last - RATE_WINDOW_SECONDS // _BUCKET_SECONDS, -1):
            pipe.hgetall(_bucket(number))
        buckets = pipe.execute(raise_on_error=False)
    found: dict[str, Done] = {}
    for bucket in buckets:
        for field, count in bucket.items() if isinstance(bucket, dict) else ():
            kind, _, cluster_id = field.decode(errors="replace").partition(" ")
            _count(found.setdefault(cluster_id, Done()), kind, count)
    return found


def _bucket(number: int) -> str:
    return f"{names.RATES}{number}"


def _work(field: bytes) -> tuple[str, Work | None]:
    """Read the name of a count. None for what makes no sense: agents run users' code, which can write here."""
    try:
        kind, day, *texts = json.loads(field)
        if any(not isinstance(one, str) or "\0" in one or len(one) > _MOST_CHARACTERS for one in texts):
            return "", None
        "".join(texts).encode()  # no lone surrogates, which PostgreSQL cannot store
        return str(kind), Work(date.fromisoformat(day), *texts)
    except (ValueError, TypeError, RecursionError):
        return "", None


def _count(done: Done, kind: str, count: bytes) -> None:
    try:
        number = float(count)
    except ValueError:
        return
    if not math.isfinite(number) or not 0 <= number < 10**_DIGITS:
        return
    if kind == "completed":
        done.completed += int(number)
    elif kind == "failed":
        done.failed += int(number)
    elif kind == "seconds":
        done.seconds += number
