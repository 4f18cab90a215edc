"""The brokers of other applications: the Redis servers where groups with ``celery:`` find their messages.

One client for each, made when it is needed and kept. They are not ours: one that does not answer must hold up nothing,
so its commands time out early, and for a while after that nobody asks it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from brain_clusters.config import mask_url, resolve
from brain_clusters.errors import TemporaryError

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 0.5
# Looking a name up has no timeout of its own.
_PATIENCE_SECONDS = 1.0
_REST_SECONDS = 15.0
_LOCAL = {"localhost": "127.0.0.1", "::1": "127.0.0.1", "": "127.0.0.1"}

Found = TypeVar("Found")


def place_of(url: str) -> str:
    """Return the one name of the database behind a redis:// address: "host:port/db". Raises ValueError.

    Two addresses of one database have one name, whatever their user, password and options.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(f"{mask_url(url)} is no redis:// or rediss:// address")
    database = parse_qs(parts.query).get("db", [""])[-1] or parts.path.strip("/") or "0"
    if not database.isdigit():
        raise ValueError(f"{mask_url(url)} names no database by number, as in redis://host:6379/1")
    host = (parts.hostname or "").lower()
    return f"{_LOCAL.get(host, host)}:{parts.port or 6379}/{int(database)}"


class Brokers:
    """The clients by place. own_url, own: the Redis of this installation and its client. Thread-safe."""

    def __init__(self, own_url: str, own: redis.Redis) -> None:
        self._own_url, self._own = own_url, own
        self._clients: dict[str, redis.Redis] = {}
        self._resting: dict[str, float] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def place(self, broker: str | None) -> str:
        """Return the place of a group's ``broker``, None for our own. Raises ValueError with a sentence."""
        return place_of(self._own_url if broker is None else resolve(broker))

    def client(self, broker: str | None) -> redis.Redis:
        """Return the client of a group's ``broker``. Raises ValueError with a sentence."""
        place = self.place(broker)
        if broker is None or place == place_of(self._own_url):
            return self._own
        with self._lock:
            if place not in self._clients:
                self._clients[place] = redis.Redis.from_url(
                    resolve(broker), socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS,
                    socket_keepalive=True, health_check_interval=10, retry=Retry(NoBackoff(), 0), driver_info=None,
                )  # fmt: skip
            return self._clients[place]

    def ask(self, questions: Mapping[str, tuple[str | None, Callable[[redis.Redis], Found]]]) -> dict[str, Found]:
        """Ask each broker its question, all at once; return the answers by the questions' keys.

        One that does not answer is left out. Our own that does not raises TemporaryError.
        """
        answers: dict[str, Found] = {}
        asked: dict[str, Future[Found]] = {}
        for key, (broker, question) in questions.items():
            try:
                client = self.client(broker)
            except ValueError as exc:
                log.warning("a broker cannot be asked: %s", exc)
                continue
            if client is self._own:
                answers[key] = question(client)
            elif self._resting.get(self.place(broker), 0.0) <= time.monotonic():
                asked[key] = self._pool().submit(question, client)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for key, future in asked.items():
            try:
                answers[key] = future.result(max(0.0, deadline - time.monotonic()))
            except (TemporaryError, FutureTimeoutError) as exc:
                place = self.place(questions[key][0])
                log.warning("broker %s does not answer (%s); it is asked again in %g s", place, exc, _REST_SECONDS)
                self._resting[place] = time.monotonic() + _REST_SECONDS
        return answers

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            self._threads = self._threads or ThreadPoolExecutor(8, thread_name_prefix="brokers")
            return self._threads

    def close(self) -> None:
        """Close every connection but that of our own Redis."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()
