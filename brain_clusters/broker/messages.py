"""The message of a job as Celery's own client would build it, and its way into the lists of a queue.

Building it by Celery and pushing it by kombu costs half a millisecond a job, most of it for what is the same in all of
them. tests/integration/test_messages.py compares with what Celery makes. Imports neither Celery nor kombu.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from brain_clusters.broker import names
from brain_clusters.domain.jobs import MESSAGE_PRIORITY, Priority

if TYPE_CHECKING:
    import redis

# What one command pushes at most: Redis does nothing else meanwhile.
_MOST_MESSAGES = 500
_MOST_BYTES = 4_000_000

# KEYS: the queue's list of normal priority, that of high and that of low. ARGV: "high" or "low", then the messages.
# An idle agent waits on the list of normal priority alone: the first message goes there where it does not come too
# early by it, and wakes one.
_PUSH = """
local normal, high, low = redis.call('LLEN', KEYS[1]), redis.call('LLEN', KEYS[2]), redis.call('LLEN', KEYS[3])
local list, first = ARGV[1] == 'high' and KEYS[2] or KEYS[3], 2
if normal == 0 and (ARGV[1] == 'high' or high + low == 0) then
  redis.call('LPUSH', KEYS[1], ARGV[2])
  first = 3
end
if ARGV[first] then redis.call('LPUSH', list, unpack(ARGV, first)) end
"""


class QueuedJob(Protocol):
    """What is needed to publish a job. eta: not to be begun before; options: of ``domain.jobs.JobOptions``."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def payload(self) -> Any: ...  # noqa: D102
    @property
    def eta(self) -> datetime | None: ...  # noqa: D102
    @property
    def priority(self) -> str | None: ...  # noqa: D102
    @property
    def options(self) -> Mapping[str, Any] | None: ...  # noqa: D102


class Messages:
    """Builds the messages of jobs for one queue."""

    def __init__(self, queue: str) -> None:
        self._origin = json.dumps(f"gen{os.getpid()}@{platform.node()}")
        # A tag has to be unique, and a random one for each message costs as much as all the rest.
        self._unique, self._numbers = str(uuid.uuid4()), count()
        self._ends = {priority: _end(queue, priority) for priority in Priority}

    def build(self, job: QueuedJob, now: float) -> str:
        """Return the message of ``job``. now: seconds since the epoch; an ETA that is past by then is left out."""
        due_at = 0.0 if job.eta is None else job.eta.timestamp()
        eta = "null" if job.eta is None or due_at <= now else f'"{job.eta.astimezone(UTC).isoformat()}"'
        job_id, options = json.dumps(job.id), _with_options(job.options)
        body = b64encode(f"[[{json.dumps(job.payload)}], {{}}, {_EMBED}]".encode()).decode()
        return (
            f'{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": '
            f'{{"lang": "py", "task": "{names.JOB_TASK}", "id": {job_id}, "shadow": null, "eta": {eta}, '
            f'"expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], '
            f'"root_id": {job_id}, "parent_id": null, "argsrepr": "{_REPR}", "kwargsrepr": "{{}}", '
            f'"origin": {self._origin}, "ignore_result": true, "replaced_task_nesting": 0, "stamped_headers": null, '
            f'"stamps": {{}}, "{names.PUBLISHED_HEADER}": {max(now, due_at)!r}, "{names.OPTIONS_HEADER}": {options}}}, '
            f'"properties": {{"correlation_id": {job_id}, "reply_to": "{self._unique}", "argsrepr": "{_REPR}", '
            f'"kwargsrepr": "{{}}", "delivery_mode": 2, {self._ends[Priority(job.priority or Priority.NORMAL)]}'
            f'"body_encoding": "base64", "delivery_tag": "{self._unique}.{next(self._numbers)}"}}}}'
        )


_TRACE = ("traceparent", "tracestate")


def _with_options(options: Mapping[str, Any] | None) -> str:
    """Return options as JSON and, as headers after them, the span, where workers with other libraries look for it."""
    if not options:
        return "{}"
    traced = "".join(f', "{name}": {json.dumps(options[name])}' for name in _TRACE if name in options)
    return json.dumps(options) + traced


_EMBED = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'
# A payload may hold secrets, and its repr would be a second copy of it in each message.
_REPR = "(...)"


def _end(queue: str, priority: Priority) -> str:
    # What comes back to its queue goes where the message says, whichever list it was in.
    key = names.high_list(queue) if priority is Priority.HIGH else queue
    info = json.dumps({"exchange": "", "routing_key": key})
    return f'"delivery_info": {info}, "priority": {MESSAGE_PRIORITY[priority]}, '


def push(client: redis.Redis, queue: str, jobs: Sequence[QueuedJob]) -> None:
    """Put ``jobs`` into ``queue``, each priority in order. When it fails, none, some or all are there.

    Those that are not due yet go to the list of normal priority, whence they are parked.
    """
    now, messages = time.time(), Messages(queue)
    later = [job for job in jobs if job.eta is not None and job.eta.timestamp() > now]
    held = {id(job) for job in later}
    for priority in Priority:
        due = [job for job in jobs if (job.priority or Priority.NORMAL) == priority and id(job) not in held]
        for chunk in _chunks(messages, due, now):
            _push_chunk(client, queue, priority, chunk)
    for chunk in _chunks(messages, later, now):
        client.lpush(queue, *chunk)


def _push_chunk(client: redis.Redis, queue: str, priority: Priority, chunk: Sequence[str]) -> None:
    if priority is Priority.NORMAL:
        client.lpush(queue, *chunk)
        return
    low = names.kombu_lists(queue)[names.PRIORITY_STEPS.index(MESSAGE_PRIORITY[Priority.LOW])]
    client.eval(_PUSH, 3, queue, names.high_list(queue), low, priority, *chunk)


def _chunks(messages: Messages, jobs: Sequence[QueuedJob], now: float) -> Iterator[list[str]]:
    """Yield messages, few and small enough for one command; what is not built yet takes no memory."""
    chunk: list[str] = []
    size = 0
    for job in jobs:
        message = messages.build(job, now)
        if chunk and (len(chunk) == _MOST_MESSAGES or size + len(message) > _MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message)
    if chunk:
        yield chunk
