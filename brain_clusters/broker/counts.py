"""How many tasks of other applications were done, by cluster: counted by agents in our Redis, collected by the tick."""

from __future__ import annotations

from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import is_wrong_type, temporary_when_away
from brain_clusters.errors import TemporaryError

_DIGITS = 15


def add(client: redis.Redis, cluster_id: str, completed: int, failed: int) -> None:
    """Add to the counts of a cluster. Raises TemporaryError."""
    with temporary_when_away():
        for kind, count in (("completed", completed), ("failed", failed)):
            if count:
                client.hincrby(names.COUNTS, f"{kind} {cluster_id}", count)


def take(client: redis.Redis) -> dict[str, tuple[int, int]]:
    """Return (completed, failed) by cluster since the last time, and forget them. Raises TemporaryError."""
    with temporary_when_away():
        pipe: Any = client.pipeline()
        found, _ = pipe.hgetall(names.COUNTS).delete(names.COUNTS).execute(raise_on_error=False)
    if isinstance(found, Exception):
        if not is_wrong_type(found):
            raise TemporaryError(f"Redis does not answer ({type(found).__name__})") from found
        return {}  # deleted, as any other
    taken: dict[str, tuple[int, int]] = {}
    for field, count in found.items():
        kind, _, cluster_id = field.decode(errors="replace").partition(" ")
        if "\0" in cluster_id or not count.isdigit() or len(count) > _DIGITS:
            continue  # agents run users' code, which can write here
        completed, failed = taken.get(cluster_id, (0, 0))
        taken[cluster_id] = (
            (completed + int(count), failed) if kind == "completed" else (completed, failed + int(count))
        )
    return taken
