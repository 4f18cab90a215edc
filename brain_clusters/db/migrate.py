"""Upgrade, downgrade and compare the schema. Several may start at once: the upgrade runs under an advisory lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text

from brain_clusters.db.models import Base
from brain_clusters.db.schema import Schema, config
from brain_clusters.db.session import temporary_when_down

# Any constant serves, as long as nothing else in this database locks the same one: "brain" in ASCII.
_LOCK = 0x627261696E


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that holds the migration lock; others wait for it."""
    with temporary_when_down(), engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '120s'; SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection


def upgrade(engine: Engine, scripts: Path, revision: str = "head") -> None:
    """Bring the schema to ``revision``. Does nothing when it is there, or is a newer one that this code works with.

    Raises SchemaMismatch for a newer one that it does not work with.
    """
    known = Schema(scripts)
    with _locked(engine) as connection:
        if known.is_newer(connection):
            known.check(connection)
            return
        command.upgrade(config(scripts, connection), revision)
        known.mark(connection)


def downgrade(engine: Engine, scripts: Path, revision: str = "base") -> None:
    """Take the schema back to ``revision``."""
    with _locked(engine) as connection:
        command.downgrade(config(scripts, connection), revision)
        Schema(scripts).mark(connection)


def differences(engine: Engine) -> list[object]:
    """Return what autogenerate would change to make the database look like the models."""
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))
