"""Work that a job hands down: its messages and its join, written in one step. See ``joining`` for what follows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import redis

from brain_clusters.broker import names
from brain_clusters.broker.client import entries_of, replies, temporary_when_away
from brain_clusters.broker.delegating_scripts import CANCEL_WAITING, HAND_DOWN, JOIN_CANCELLED
from brain_clusters.broker.jobs import STREAM_LIMIT, Delivery
from brain_clusters.broker.messages import Messages
from brain_clusters.domain.jobs import MESSAGE_PRIORITY, JobOptions, Priority

# For how long a job may wait for those that it handed down: longer than any job can be put off.
JOIN_SECONDS = 400 * 86_400


@dataclass(frozen=True, slots=True)
class Child:
    """A job to hand down. queue: of ``group``, which is to do it. options: ``JobOptions`` as a header."""

    id: str
    group: str
    queue: str
    payload: Any
    options: Mapping[str, Any]
    priority: Priority = Priority.NORMAL
    eta: datetime | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """The job that hands down, as its agent has it. round: of how many times, from 1. usage: up to now."""

    id: str
    cluster_id: str
    group: str
    owner: str
    options: JobOptions
    delivery: Delivery
    round: int
    started_at: float
    usage: dict[str, Any] | None = None

    @property
    def root_id(self) -> str:
        """The first job of the tree."""
        return self.options.root_id or self.id


class Handed(NamedTuple):
    """What came of handing down: waits, cancelled, full, over or gone, see the script; and the number beside it."""

    what: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """What a job that goes on is told. results: {"id", "status", "result", "error"}, in the order of the payloads."""

    round: int
    state: Any
    results: list[dict[str, Any]]
    started_at: float
    usage: dict[str, Any] | None = None


class Joins:
    """Hands work down, and reads what came of it. Raises TemporaryError when Redis is away."""

    def __init__(self, client: redis.Redis, *, ttl_seconds: int = 86_400) -> None:
        self._client, self._ttl = client, ttl_seconds
        scripts = (HAND_DOWN, CANCEL_WAITING, JOIN_CANCELLED)
        self._hand_down, self._cancel, self._join_cancelled = map(client.register_script, scripts)

    def hand_down(self, parent: Parent, children: Sequence[Child], state: Any, *, most: int) -> Handed:
        """Hand ``children`` down and let their parent wait, at once. most: jobs that the tree may hold."""
        keys = [
            names.job_key(parent.id), names.join_key(parent.id), names.tree_key(parent.root_id),
            names.ACCEPTED_STREAM, names.unacked_key(parent.owner), names.fenced_key(parent.owner),
        ]  # fmt: skip
        args: list[Any] = [
            parent.id, parent.root_id, parent.options.parent_id or "", parent.delivery.tag, parent.round,
            most, self._ttl, JOIN_SECONDS, STREAM_LIMIT, json.dumps(state), repr(parent.started_at),
            json.dumps(parent.usage), parent.cluster_id, parent.group, json.dumps([child.id for child in children]),
        ]  # fmt: skip
        now = round(time.time(), 6)  # whole microseconds, which is what PostgreSQL keeps: brothers differ by one
        messages = {queue: Messages(queue) for queue in {child.queue for child in children}}
        for place, child in enumerate(children):
            message = messages[child.queue].build(child, now)
            args += [child.id, child.group, _list(child), message, _entry(child, parent.cluster_id, now + place / 1e6)]
        with temporary_when_away():
            what, *number = self._hand_down(keys=keys, args=args)
        return Handed(what.decode(), *number)

    def read(self, job_id: str) -> Join | None:
        """Return what ``job_id`` waited for, or None where it did not."""
        with temporary_when_away():
            found: Any = self._client.hgetall(names.join_key(job_id))
        if not found:
            return None
        return Join(
            int(found[b"round"]),
            json.loads(found[b"state"]),
            [_result(child, found.get(f"c:{child}".encode(), b"")) for child in json.loads(found[b"ids"])],
            float(found[b"started_at"]),
            json.loads(found[b"usage"]),
        )

    def cancel_waiting(self, job_ids: Sequence[str], error: dict[str, Any]) -> list[str]:
        """End those of ``job_ids`` that wait for others as cancelled; return them."""
        with temporary_when_away():
            args: list[str | float] = [repr(time.time()), self._ttl, STREAM_LIMIT, json.dumps(error), *job_ids]
            return [job_id.decode() for job_id in self._cancel(keys=[names.FINISHED_STREAM], args=args)]

    def join_cancelled(self, job_ids: Sequence[str], error: dict[str, Any]) -> None:
        """Let those who wait for ``job_ids`` that are to be cancelled and in a queue wait for them no more."""
        with temporary_when_away():
            self._join_cancelled(args=[json.dumps(error), *job_ids])

    def forget(self, job_ids: Sequence[str]) -> None:
        """Let nobody wait any more for what ``job_ids`` handed down: their cluster is gone."""
        with temporary_when_away():
            pipe = self._client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.unlink(names.join_key(job_id))
                pipe.expire(names.job_key(job_id), self._ttl)
                pipe.expire(names.tree_key(job_id), self._ttl)
            pipe.execute()

    def tree(self, root_id: str) -> dict[str, str]:
        """Return all that was handed down in a tree, as far as Redis knows: parent by child."""
        with temporary_when_away():
            found: Any = self._client.hgetall(names.tree_key(root_id))
        return {child.decode(): parent.decode() for child, parent in found.items()}

    def root_of(self, job_id: str) -> str | None:
        """Return the first job of the tree of one that was handed down, as far as its record tells."""
        with temporary_when_away():
            found: Any = self._client.hget(names.job_key(job_id), "root_id")
        return None if found is None else found.decode()

    def children(self, job_ids: Sequence[str]) -> list[str]:
        """Return what those of ``job_ids`` that wait for others handed down last."""
        found = self._of_each(job_ids, "ids")
        return [child for ids in found.values() for child in json.loads(ids)]

    def pending(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return for how many others each of ``job_ids`` waits that does, or is about to go on."""
        return {job_id: int(number) for job_id, number in self._of_each(job_ids, "pending").items()}

    def _of_each(self, job_ids: Sequence[str], part: str) -> dict[str, bytes]:
        with temporary_when_away():
            pipe = self._client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(names.join_key(job_id), part)
            found = replies(pipe)
        return {job_id: value for job_id, value in zip(job_ids, found, strict=True) if value is not None}

    def accepted(self, limit: int) -> list[tuple[str, dict[str, Any]]]:
        """Return up to ``limit`` jobs that were handed down and nobody has stored yet, each with its place."""
        entries = entries_of(self._client, names.ACCEPTED_STREAM, limit)
        return [(place.decode(), _sound(entry)) for place, entry in entries]

    def forget_accepted(self, places: Sequence[str]) -> None:
        """Remove stored jobs from the stream."""
        with temporary_when_away():
            if places:
                self._client.xdel(names.ACCEPTED_STREAM, *places)


def _list(child: Child) -> str:
    """Return the list that jobs of the child's priority lie in."""
    if child.priority is Priority.HIGH:
        return names.high_list(child.queue)
    return names.kombu_lists(child.queue)[names.PRIORITY_STEPS.index(MESSAGE_PRIORITY[child.priority])]


def _entry(child: Child, cluster_id: str, now: float) -> str:
    """Return what PostgreSQL is to know of ``child``. now: each its own, by which brothers are in their order."""
    return json.dumps(
        {
            "id": child.id,
            "cluster_id": cluster_id,
            "group": child.group,
            "payload": child.payload,
            "options": child.options,
            "priority": str(child.priority),
            "at": now,
        }
    )


def _result(child: str, outcome: bytes) -> dict[str, Any]:
    status, result, error = [*outcome.decode().split("\n"), "", "", ""][:3]
    return {
        "id": child,
        "status": status or None,
        "result": json.loads(result or "null"),
        "error": json.loads(error or "null"),
    }


def _sound(entry: dict[bytes, bytes]) -> dict[str, Any]:
    """Return an entry of the stream, or {} for what makes no sense: agents run users' code, which can write there."""
    try:
        found = json.loads(entry[b"job"])
        options = JobOptions.from_header(found["options"])
        texts = (found["id"], found["cluster_id"], found["group"], options.parent_id, options.root_id)
        is_sound = all(isinstance(text, str) for text in texts) and isinstance(found["at"], (int, float))
        return {**found, "priority": str(Priority(found["priority"]))} if is_sound else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
