"""Return messages to their queues: what a dead agent or worker held, at once, and what a living one never began."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.broker.record_scripts import UNBEGIN


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


def give_back(client: redis.Redis, owner: str, tag: str, *, begun: bool = False) -> None:
    """Put one message that a living ``owner`` holds back.

    Not begun, it was no attempt at its job, and is the next of its queue. Begun, it is the last.
    """

    def move(pipe: Any) -> int:
        entry = pipe.hget(names.unacked_key(owner), tag)
        pipe.multi()
        pipe.hdel(names.unacked_key(owner), tag)
        message = _push_entry(pipe, entry, last=begun) if entry is not None else None
        if message is not None and not begun and message["headers"].get("task") == names.JOB_TASK:
            pipe.eval(UNBEGIN, 1, names.job_key(str(message["headers"].get("id"))), owner)
        return 1

    _transaction(client, move, names.unacked_key(owner))


def _restore_one(client: redis.Redis, owner: str, tag: bytes | str) -> int:
    def move(pipe: Any) -> int:
        entry = pipe.hget(names.unacked_key(owner), tag)
        pipe.multi()
        pipe.hdel(names.unacked_key(owner), tag)
        return 0 if entry is None else bool(_push_entry(pipe, entry))

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


def _push_entry(pipe: Any, entry: bytes, *, last: bool = False) -> Any | None:
    """Put the message of an unacked entry back and return it; set aside, and return None for, one that is no text."""
    try:
        message, _exchange, queue = json.loads(entry)
    except (ValueError, RecursionError):
        pipe.lpush(names.UNREADABLE_LIST, entry)
        return None
    _push_back(pipe, queue, message, last=last)
    return message


def _parsed(entry: bytes) -> Any | None:
    try:
        message = json.loads(entry)
        sound = isinstance(message["properties"]["delivery_info"]["routing_key"], str)
        return message if sound and isinstance(message["headers"], dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _push_back(pipe: Any, queue: str, message: Any, *, last: bool = False) -> None:
    """Put ``message`` at the end of its priority's list that is popped next, or at the other."""
    message["headers"]["redelivered"] = True
    priority = message["properties"].get("priority")
    # Kombu sends numbers, a client of another kind may not; and the list of high priority, given as queue, has none.
    stated = isinstance(priority, int) and not queue.endswith(names.high_list(""))
    step = max(index for index, low in enumerate(names.PRIORITY_STEPS) if low <= max(priority if stated else 0, 0))
    place = names.kombu_lists(queue)[step]
    (pipe.lpush if last else pipe.rpush)(place, json.dumps(message))
    if message["headers"].get("eta") is not None:
        pipe.delete(names.sift_key(place))  # it lies behind the marker, where nobody would look at it again
