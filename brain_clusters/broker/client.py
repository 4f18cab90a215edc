"""One process's way to Redis: the plain client, and publishing through Celery."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError as KombuOperationalError
from redis.exceptions import RedisError

from brain_clusters.broker import names
from brain_clusters.broker.app import make_app
from brain_clusters.broker.messages import QueuedJob, push
from brain_clusters.errors import TemporaryError


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
