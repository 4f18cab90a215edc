"""Return messages to their queues: what a dead agent or worker held, at once, and what a living one never began."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.broker.record_scripts import UNBEGIN

log = logging.getLogger(__name__)


def restore(client: redis.Redis, owner: str, *, queues: Sequence[str] = (), most_deaths: int | None = None) -> int:
    """Put every message that ``owner`` holds back as the next of its queue; return how many.

    queues: those of the application that it worked for. most_deaths: with so many agents a message of theirs may die
    before it is set aside; jobs of ours count their own.

    Only for owners known to be dead: a living one would do its job a second time. Atomic per message and idempotent.
    Raises TemporaryError when Redis is away; calling again then finishes it.
    """
    with temporary_when_away():
        restored = _restore_claim(client, owner, queues)
        for tag in client.hkeys(names.unacked_key(owner)):
            restored += _restore_one(client, owner, tag, most_deaths)
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


def _restore_one(client: redis.Redis, owner: str, tag: bytes | str, most_deaths: int | None) -> int:
    def move(pipe: Any) -> int:
        entry = pipe.hget(names.unacked_key(owner), tag)
        pipe.multi()
        pipe.hdel(names.unacked_key(owner), tag)
        return 0 if entry is None else bool(_push_entry(pipe, entry, most_deaths=most_deaths))

    return _transaction(client, move, names.unacked_key(owner))


def _restore_claim(client: redis.Redis, owner: str, queues: Sequence[str]) -> int:
    """Return a message that was claimed and not yet entered. Its claim names no queue, the message itself does.

    Where it came by an exchange, its routing key may be no queue: any of the application's will do.
    """

    def move(pipe: Any) -> int:
        entries = pipe.lrange(names.claim_key(owner), 0, -1)
        pipe.multi()
        pipe.delete(names.claim_key(owner))
        for entry in entries:
            message = _parsed(entry)
            if message is None:
                pipe.lpush(names.UNREADABLE_LIST, entry)
            else:
                key = message["properties"]["delivery_info"]["routing_key"]
                _push_back(pipe, key if not queues or key in queues else queues[0], message)
        return len(entries)

    return _transaction(client, move, names.claim_key(owner))


def _transaction(client: redis.Redis, move: Callable[[Any], int], key: str) -> int:
    """Run ``move`` as one optimistic transaction on ``key``, again when somebody else changed it; return its value."""
    run: Any = client.transaction  # typed as if its callable returned nothing
    return int(run(move, key, value_from_callable=True))


def _push_entry(pipe: Any, entry: bytes, *, last: bool = False, most_deaths: int | None = None) -> Any | None:
    """Put the message of an unacked entry back and return it; set aside, and return None for, one that is no text."""
    try:
        message, _exchange, queue = json.loads(entry)
        if not _is_sound(message) or not isinstance(queue, str):
            raise TypeError("no message")
    except (ValueError, TypeError, RecursionError):
        pipe.lpush(names.UNREADABLE_LIST, entry)
        return None
    if most_deaths is not None:
        before = message["headers"].get(names.DEATHS_HEADER)
        deaths = message["headers"][names.DEATHS_HEADER] = 1 + (before if isinstance(before, int) else 0)
        if deaths >= most_deaths:
            place = names.dead_list(queue)
            log.error("%d agents died with a task of the queue %s; it is moved to %s", deaths, queue, place)
            pipe.lpush(place, json.dumps(message))
            return None
    _push_back(pipe, queue, message, last=last)
    return message


def _parsed(entry: bytes) -> Any | None:
    try:
        message = json.loads(entry)
    except (ValueError, RecursionError):
        return None
    return message if _is_sound(message) else None


def _is_sound(message: Any) -> bool:
    """Return whether it is a message of kombu's: users' code can write anything in its place."""
    try:
        key, headers = message["properties"]["delivery_info"]["routing_key"], message["headers"]
    except (KeyError, TypeError):
        return False
    return isinstance(key, str) and isinstance(headers, dict)


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
