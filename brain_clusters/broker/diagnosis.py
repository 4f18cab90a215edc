"""What a look at Redis shows, for somebody who seeks a fault. Judges nothing, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Redis or Valkey. policy, appendonly and save: of its configuration, None where it may not be read.

    memory, memory_limit: bytes, the limit 0 without one; workers: lifecycle workers that beat now.
    """

    version: str
    policy: str | None
    appendonly: str | None
    save: str | None
    memory: int
    memory_limit: int
    workers: int
    commands_waiting: int


def facts(client: redis.Redis) -> RedisFacts:
    """Return what Redis tells; raise TemporaryError when it does not answer."""
    with temporary_when_away():
        told: Any = client.info()
        owners: Any = client.smembers(names.WORKERS_SET)
        beats = [bool(client.exists(names.beat_key(owner.decode()))) for owner in owners]
        waiting = sum(int(client.llen(name)) for name in names.priority_lists(names.LIFECYCLE_QUEUE))
    return RedisFacts(
        version=str(told.get("valkey_version") or told.get("redis_version")),
        policy=told.get("maxmemory_policy"),
        appendonly=_setting(client, "appendonly"),
        save=_setting(client, "save"),
        memory=int(told.get("used_memory", 0)),
        memory_limit=int(told.get("maxmemory", 0)),
        workers=sum(beats),
        commands_waiting=waiting,
    )


def _setting(client: Any, name: str) -> str | None:
    """Return a setting of Redis; None where that may not be asked, as with many providers."""
    try:
        return str(client.config_get(name).get(name, ""))
    except redis.ResponseError:
        return None
