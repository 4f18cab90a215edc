"""Jobs pushed into a group's queue in Redis, past the API: as quick and as durable as Redis is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

from brain_clusters import tracing
from brain_clusters.broker import names
from brain_clusters.broker.messages import push
from brain_clusters.domain.jobs import JobOptions, Priority
from brain_clusters.domain.specs import slug

if TYPE_CHECKING:
    import redis

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class _Sent:
    id: str
    payload: Any
    eta: datetime | None
    priority: str
    options: dict[str, Any]


class Queue:
    """The queue of one group of agents. Needs the package ``redis``. Thread-safe.

    A job that is sent here is seen by the API once an agent has begun it, and is lost where Redis loses it, as one
    that is sent by ``apply_async``. It wakes a sleeping cluster with the next look of the autoscaler.
    Where the program uses OpenTelemetry, its jobs are part of its traces.
    Options, in seconds: delay, timeout, backoff, backoff_max, expires (from now); and priority ("high", "normal",
    "low") and max_attempts.
    """

    def __init__(self, redis_url: str, cluster: str, group: str) -> None:
        import redis

        tracing.join()
        self.name = names.group_queue(cluster, slug(group))
        self._redis: redis.Redis = redis.Redis.from_url(redis_url)

    def submit(self, payload: Any = None, **options: Any) -> str:
        """Send a job; return its id. Raises what ``redis`` raises: then it may or may not be there."""
        [job_id] = self._send([payload], options)
        return job_id

    def submit_many(self, payloads: Iterable[Any], **options: Any) -> list[str]:
        """Send a job for each payload, all with the same options; return their ids."""
        found, rest = list[str](), iter(payloads)
        while chunk := list(islice(rest, _CHUNK)):
            found += self._send(chunk, options)
        return found

    def _send(self, payloads: list[Any], options: dict[str, Any]) -> list[str]:
        message = tracing.messaging(self.name, "send", count=len(payloads))
        with tracing.span("job.submit", "producer", **message):
            sent = list(self._sent(payloads, options))
            push(self._redis, self.name, sent)
        return [one.id for one in sent]

    def _sent(self, payloads: list[Any], options: dict[str, Any]) -> Iterator[_Sent]:
        eta, priority, terms = _terms(**options)
        for payload in payloads:
            yield _Sent(str(uuid.uuid4()), payload, eta, priority, terms)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _terms(
    *,
    priority: str = "normal",
    delay: float | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
    backoff: float | None = None,
    backoff_max: float | None = None,
    expires: float | None = None,
) -> tuple[datetime | None, str, dict[str, Any]]:
    trace = tracing.carrier()
    options = JobOptions(
        max_attempts=max_attempts,
        backoff_seconds=backoff,
        backoff_max_seconds=backoff_max,
        timeout_seconds=timeout,
        expires_at=None if expires is None else time.time() + expires,
        traceparent=trace.get("traceparent"),
        tracestate=trace.get("tracestate"),
    )
    eta = None if not delay else datetime.fromtimestamp(time.time() + delay, UTC)
    return eta, Priority(priority), options.as_header()
