"""Fences: the word that an agent was given up, and what such agents may still hold.

A fence is a key of one agent. The agent looks for it with each beat, and ends; every script with which it would take a
job, or record the outcome of one, looks for it too. What it held goes back to its queue only after that: see ``due``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import replies, temporary_when_away

log = logging.getLogger(__name__)

# Longer than a machine should be cut off and come back with what it ran. Agents' names are never used again.
_KEPT_SECONDS = 7 * 86_400
# What was on its way to a fenced agent when it was fenced has arrived by then.
_LATE_SECONDS = 60.0


def fence(client: redis.Redis, agent_ids: Sequence[str]) -> None:
    """Give agents up. Raises TemporaryError while Redis is away; then some may be given up."""
    with temporary_when_away():
        now = _now(client)
        pipe: Any = client.pipeline(transaction=False)
        for agent_id in agent_ids:
            pipe.set(names.fenced_key(agent_id), "", ex=_KEPT_SECONDS)
            pipe.zadd(names.LOST, {agent_id: now})
        replies(pipe)


def lift(client: redis.Redis, agent_ids: Sequence[str]) -> None:
    """Take fences back, of agents whose host is there after all. Those that have seen theirs are gone."""
    with temporary_when_away():
        pipe: Any = client.pipeline(transaction=False)
        for agent_id in agent_ids:
            pipe.delete(names.fenced_key(agent_id)).zrem(names.LOST, agent_id)
        replies(pipe)


def due(client: redis.Redis, after_seconds: float) -> list[str]:
    """Return the agents that were given up so many seconds ago: those that can be reached have ended by now.

    They are told again for a minute, and then forgotten by ``settle``.
    """
    with temporary_when_away():
        pipe: Any = client.pipeline(transaction=False)
        pipe.zrangebyscore(names.LOST, "-inf", _now(client) - after_seconds)
        found = replies(pipe)[0]
    return [agent_id.decode() for agent_id in found or ()]


def settle(client: redis.Redis, agent_ids: Sequence[str]) -> None:
    """Forget those of ``agent_ids``, whose messages are back, to which nothing can come any more."""
    with temporary_when_away():
        before = _now(client) - _LATE_SECONDS
        pipe: Any = client.pipeline(transaction=False)
        for agent_id in agent_ids:
            pipe.zscore(names.LOST, agent_id)
        old = [one for one, at in zip(agent_ids, replies(pipe), strict=True) if at is not None and at < before]
        if old:
            client.zrem(names.LOST, *old)


def _now(client: redis.Redis) -> float:
    found: Any = client.time()
    return float(found[0] + found[1] / 1e6)
