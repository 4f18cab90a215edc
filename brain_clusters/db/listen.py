"""LISTEN on one channel: a descriptor that becomes readable when another process notifies."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from brain_clusters.db.session import temporary_when_down

# Notified when agents' rows ask something of hosts.
HOSTS_CHANNEL = "brain_hosts"
# Notified by a trigger when events are written.
EVENTS_CHANNEL = "brain_events"
_RETRY_SECONDS = 1.0


class Listener:
    """A connection of its own that listens, made anew when it breaks. Not thread-safe."""

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine = engine
        self._channel = channel
        self._connection: Any = None
        self._next_try = 0.0

    def fileno(self) -> int:
        """Return the descriptor to wait on, or -1 while PostgreSQL is away (asked anew once a second)."""
        if self._connection is None and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + _RETRY_SECONDS
            # raw_connection passes the driver's own errors on.
            with suppress(SQLAlchemyError, psycopg2.Error):
                self._connect()
        return -1 if self._connection is None else int(self._connection.fileno())

    def clear(self) -> bool:
        """Read what came; return whether it was a notification. Raises TemporaryError when the connection broke."""
        if self._connection is None:
            return False
        try:
            with temporary_when_down():
                return self._read()
        except Exception:
            self.close()
            raise

    def _read(self) -> bool:
        try:
            self._connection.poll()
        except psycopg2.Error as exc:
            raise OperationalError("LISTEN", None, exc) from exc
        found = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return found

    def _connect(self) -> None:
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()  # it listens for life, so the pool must not lend it
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {self._channel}")
        self._connection = connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None
