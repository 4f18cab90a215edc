"""Return what a dead agent or worker held to its queue, at once instead of after a visibility timeout."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away


def restore(client: redis.Redis, owner: str) -> int:
    """Put every message that ``owner`` holds back as the next of its queue; return how many.

    Only for owners known to be dead: a living one would do its job a second time. Atomic per message and idempotent.
    Raises TemporaryError when Redis is away; calling again then finishes it.
    """
    with temporary_when_away():
        restored = _restore_claim(client, owner)
        for tag in client.hkeys(names.unacked_key(owner)):
            restored += _restore_one(client, owner, tag)
        client.delete(names.beat_key(owner))
    return restored


def _restore_one(client: redis.Redis, owner: str, tag: bytes | str) -> int:
    def move(pipe: Any) -> int:
        entry = pipe.hget(names.unacked_key(owner), tag)
        pipe.multi()
        pipe.zrem(names.unacked_index_key(owner), tag)
        pipe.hdel(names.unacked_key(owner), tag)
        if entry is None:
            return 0
        message, _exchange, queue = json.loads(entry)
        _push_back(pipe, queue, message)
        return 1

    return _transaction(client, move, names.unacked_key(owner))


def _restore_claim(client: redis.Redis, owner: str) -> int:
    """Return a message that was claimed and not yet entered. Its claim names no queue, the message itself does."""

    def move(pipe: Any) -> int:
        entries = pipe.lrange(names.claim_key(owner), 0, -1)
        pipe.multi()
        pipe.delete(names.claim_key(owner))
        for entry in entries:
            message = _parsed(entry)
            if message is None:
                pipe.lpush(names.UNREADABLE_LIST, entry)
            else:
                _push_back(pipe, message["properties"]["delivery_info"]["routing_key"], message)
        return len(entries)

    return _transaction(client, move, names.claim_key(owner))


def _transaction(client: redis.Redis, move: Callable[[Any], int], key: str) -> int:
    """Run ``move`` as one optimistic transaction on ``key``, again when somebody else changed it; return its value."""
    run: Any = client.transaction  # typed as if its callable returned nothing
    return int(run(move, key, value_from_callable=True))


def _parsed(entry: bytes) -> Any | None:
    try:
        message = json.loads(entry)
        sound = isinstance(message["properties"]["delivery_info"]["routing_key"], str)
        return message if sound and isinstance(message["headers"], dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _push_back(pipe: Any, queue: str, message: Any) -> None:
    """Put ``message`` at the end of its priority's list that is popped next."""
    message["headers"]["redelivered"] = True
    priority = message["properties"].get("priority")
    priority = priority if isinstance(priority, int) else 0  # kombu sends numbers, a client of another kind may not
    step = max(index for index, low in enumerate(names.PRIORITY_STEPS) if low <= max(priority, 0))
    place = names.priority_lists(queue)[step]
    pipe.rpush(place, json.dumps(message))
    if message["headers"].get("eta") is not None:
        pipe.delete(names.sift_key(place))  # it lies behind the marker, where nobody would look at it again
