"""Engines, sessions and the translation of the driver's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from brain_clusters.errors import TemporaryError

# SQLSTATE classes of a server that is there but cannot serve now: connection trouble, resources, operator, read-only.
_TEMPORARY_SQLSTATES = ("08", "53", "57", "25006", "40001", "40P01", "55P03")


class Database:
    """A pool of connections and the sessions on it. One per process; ``close`` when done."""

    def __init__(self, url: str, *, pool_size: int = 5, application: str = "brain") -> None:
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

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session; commit at the end, roll back on any error. Raises TemporaryError when PostgreSQL is away."""
        with temporary_when_down():
            session = self._sessions()
            try:
                with session.begin():
                    yield session
            finally:
                session.close()

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
