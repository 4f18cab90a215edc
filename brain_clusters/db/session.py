"""Engines, sessions and the translation of the driver's errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from brain_clusters.db import scope
from brain_clusters.db.schema import Schema
from brain_clusters.errors import BrainError, SchemaMismatch, TemporaryError

# Who is handed a session may name its type from here, and needs no SQLAlchemy for it.
__all__ = ["Database", "Session", "is_temporary", "temporary_when_down"]

# How long a schema that was the right one is believed to be it.
_SCHEMA_SECONDS = 5.0
# SQLSTATE classes of a server that is there but cannot serve now: connection trouble, resources, operator, read-only.
_TEMPORARY_SQLSTATES = ("08", "53", "57", "25006", "40001", "40P01", "55P03")


class Database:
    """A pool of connections and the sessions on it. One per process; ``close`` when done.

    schema: what this code needs. No transaction begins on a database that has one it does not work with.
    """

    def __init__(self, url: str, schema: Schema, *, pool_size: int = 5, application: str = "brain") -> None:
        self.schema = schema
        self._schema_seen = -_SCHEMA_SECONDS
        self.engine: Engine = create_engine(
            _with_driver(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={
                "application_name": application,
                "connect_timeout": 3,
                # A peer that vanished is noticed in seconds, not after the kernel's two hours.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                # The same while what was sent is not acknowledged, where keepalives do not help. Milliseconds.
                "tcp_user_timeout": 10_000,
                # The last: who is cut off in a transaction must not hold its locks for long.
                "options": "-c timezone=UTC -c lock_timeout=15000 -c statement_timeout=60000 "
                "-c idle_in_transaction_session_timeout=30000",
            },
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        event.listen(self._sessions, "do_orm_execute", scope.narrow)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session; commit at the end, roll back on any error.

        Raises TemporaryError when PostgreSQL is away, SchemaMismatch when its schema is not for this code.
        """
        if time.monotonic() - self._schema_seen >= _SCHEMA_SECONDS:
            self.check_schema()
        with temporary_when_down():
            session = self._sessions()
            try:
                with session.begin():
                    yield session
            except (BrainError, OperationalError):
                raise
            except Exception as exc:
                self._blame_schema(exc)
                raise
            finally:
                session.close()

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Yield a session like ``transaction`` whose statements all see the database as it is at the first of them."""
        with self.transaction() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def check_schema(self) -> None:
        """Raise SchemaMismatch unless this code works with the database's schema, TemporaryError without PostgreSQL."""
        self._schema_seen = -_SCHEMA_SECONDS
        with temporary_when_down(), self.engine.connect() as connection:
            self.schema.check(connection)
        self._schema_seen = time.monotonic()

    def _blame_schema(self, exc: Exception) -> None:
        """Raise SchemaMismatch instead of ``exc`` where the schema changed since it was looked at."""
        try:
            self.check_schema()
        except SchemaMismatch as mismatch:
            raise mismatch from exc
        except TemporaryError:
            pass

    def identity(self) -> str:
        """Return what tells this database from every other, wherever it is reached. Raises TemporaryError."""
        with self.transaction() as session:
            system = session.scalar(text("SELECT system_identifier FROM pg_control_system()"))
            name = session.scalar(text("SELECT current_database()"))
        return sha256(f"{system} {name}".encode()).hexdigest()[:12]

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _with_driver(url: str) -> URL:
    """Return ``url`` with the driver that we install; SQLAlchemy's default for postgresql:// is another one."""
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg2") if parsed.drivername == "postgresql" else parsed


@contextmanager
def temporary_when_down() -> Iterator[None]:
    """Turn the driver's "not now" into TemporaryError; every other error passes."""
    try:
        yield
    except PoolTimeout as exc:
        raise TemporaryError("all connections to PostgreSQL are in use; try again in a moment") from exc
    except (OperationalError, InterfaceError, DBAPIError) as exc:
        if not is_temporary(exc):
            raise
        raise TemporaryError("PostgreSQL does not answer; try again in a moment") from exc


def is_temporary(exc: DBAPIError) -> bool:
    """Return whether ``exc`` says that the server is away or overloaded, and not that the statement is wrong."""
    state = getattr(exc.orig, "pgcode", None)
    if state is None:
        return exc.connection_invalidated or isinstance(exc, OperationalError | InterfaceError)
    return str(state).startswith(_TEMPORARY_SQLSTATES)
