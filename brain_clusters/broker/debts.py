"""Where agents that work for other applications hold messages, as they tell it themselves, in our own Redis.

Whoever returns what a dead agent held looks here; where its broker does not answer, that stays owed until it does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away


class Debt(NamedTuple):
    """broker and queues: as the group states them. most_deaths: with so many agents a message of theirs may die."""

    broker: str | None
    queues: tuple[str, ...]
    most_deaths: int


def note(client: redis.Redis, agent_id: str, broker: str | None, queues: Sequence[str], most_deaths: int) -> None:
    """Tell where an agent takes its messages from. Raises TemporaryError."""
    with temporary_when_away():
        client.hset(names.FOREIGN, agent_id, json.dumps([broker, list(queues), most_deaths]))


def fall_due(client: redis.Redis, agent_id: str) -> Debt | None:
    """Return what a dead agent told, which is owed from now on; None for one that worked for nobody else."""
    with temporary_when_away():
        found = client.hget(names.FOREIGN, agent_id)
        if found is None:
            return None
        client.hset(names.OWED, agent_id, found)
    return _debt(found)


def settle(client: redis.Redis, agent_id: str) -> None:
    """Forget a debt that was paid. Raises TemporaryError."""
    with temporary_when_away():
        client.hdel(names.OWED, agent_id)
        client.hdel(names.FOREIGN, agent_id)


def owed(client: redis.Redis) -> dict[str, Debt]:
    """Return what is owed, by agent. Raises TemporaryError."""
    with temporary_when_away():
        found: dict[Any, Any] = client.hgetall(names.OWED)
    debts = {agent_id.decode(errors="replace"): _debt(text) for agent_id, text in found.items()}
    return {agent_id: debt for agent_id, debt in debts.items() if debt is not None}


def _debt(text: bytes | str) -> Debt | None:
    """Return a debt, or None for one that makes no sense: agents run users' code, which can write here."""
    try:
        broker, queues, most_deaths = json.loads(text)
        return Debt(None if broker is None else str(broker), tuple(map(str, queues)), int(most_deaths))
    except (ValueError, TypeError, RecursionError):
        return None
