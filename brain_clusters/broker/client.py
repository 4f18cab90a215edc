"""One process's way to Redis: the plain client, and publishing through Celery."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError as KombuOperationalError
from redis.exceptions import RedisError, ResponseError

from brain_clusters.broker import names
from brain_clusters.broker.app import make_app
from brain_clusters.broker.messages import QueuedJob, push
from brain_clusters.errors import TemporaryError

log = logging.getLogger(__name__)


def connect(redis_url: str, *, timeout_seconds: float = 3.0) -> redis.Redis:
    """Return a client of ``redis_url``; it connects at the first command and notices a dead peer in ``timeout``."""
    return redis.Redis.from_url(
        redis_url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        socket_keepalive=True,
        health_check_interval=10,
        driver_info=None,  # or redis-py reads its own package's metadata for every connection
    )


@contextmanager
def temporary_when_away() -> Iterator[None]:
    """Turn every error of Redis and of publishing into TemporaryError."""
    try:
        yield
    except (RedisError, KombuOperationalError, OSError) as exc:
        raise TemporaryError(f"Redis does not answer ({type(exc).__name__})") from exc


def was_refused(exc: TemporaryError) -> bool:
    """Return whether Redis answered, and that with an error: a key of another type is no reason to wait for it."""
    return isinstance(exc.__cause__, ResponseError)


def replies(pipe: Any) -> list[Any]:
    """Run a pipeline that reads; return its replies, None for each key of another type, which users' code can make."""
    found = pipe.execute(raise_on_error=False)
    for reply in found:
        if isinstance(reply, Exception) and not is_wrong_type(reply):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in found]


def is_wrong_type(exc: Exception) -> bool:
    """Return whether a command was refused for its key's type."""
    return isinstance(exc, ResponseError) and str(exc).startswith("WRONGTYPE")


def entries_of(client: redis.Redis, stream: str, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the oldest entries of a stream of ours. What users' code put in its place is removed."""
    with temporary_when_away():
        try:
            found: Any = client.xrange(stream, count=limit)
        except ResponseError as exc:
            if not is_wrong_type(exc):
                raise
            log.error("%s is no stream any more, and is removed: %s", stream, exc)
            client.delete(stream)
            return []
    return list(found)


def _publishing_app(redis_url: str, owner: str) -> Celery:
    """Return an app that only publishes, without a result backend, which Celery would make anew in each thread.

    Kombu's own retries would hold a caller for 6 s while Redis is away; our sweeps do that work.
    """
    app = make_app(redis_url, owner=owner)
    app.conf.result_backend = None
    # Kombu shares one pool among all equal settings of a process. With a name in them each Broker has its own, and
    # closing it closes no other's.
    own = {"max_retries": 0, "pool": uuid.uuid4().hex}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **own}
    return app


class Broker:
    """Publishes commands and jobs, and lends the plain Redis client. Thread-safe. ``close`` when done."""

    def __init__(self, redis_url: str, *, app: Celery | None = None, owner: str = "publisher") -> None:
        self.redis = connect(redis_url)
        self._app = app or _publishing_app(redis_url, owner)

    def warm_up(self) -> None:
        """Import what publishing needs and open its connection, so that the first message is as quick as the others.

        Does nothing more when Redis is away.
        """
        with suppress(TemporaryError), temporary_when_away():
            _ = self._app.amqp.router, self._app.amqp.send_task_message, self._app.backend
            with self._app.producer_pool.acquire(block=True) as producer:
                self._app.amqp.queues[names.LIFECYCLE_QUEUE].bind(producer.channel).declare()
            self.redis.ping()

    def publish_operation(self, operation_id: str) -> None:
        """Ask a lifecycle worker to run an operation. Raises TemporaryError when Redis is away."""
        self._send(names.RUN_OPERATION_TASK, [operation_id], names.LIFECYCLE_QUEUE)

    def publish_notification(self, event_id: int) -> None:
        """Ask a lifecycle worker to tell the admin of an event. Raises TemporaryError when Redis is away."""
        self._send(names.NOTIFY_TASK, [event_id], names.LIFECYCLE_QUEUE)

    def publish_jobs(self, queue: str, jobs: Sequence[QueuedJob]) -> None:
        """Put ``jobs`` into a group's queue, in order. Raises TemporaryError; then none, some or all are there."""
        with temporary_when_away():
            push(self.redis, queue, jobs)

    def _send(self, task: str, args: list[Any], queue: str) -> None:
        with temporary_when_away():
            self._app.send_task(
                task,
                args=args,
                queue=queue,
                ignore_result=True,
                headers={names.PUBLISHED_HEADER: time.time()},
            )

    def close(self) -> None:
        """Close every connection."""
        self._app.close()
        self._app.pool.force_close_all()
        self.redis.close()
