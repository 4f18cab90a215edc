"""Upgrade, downgrade and compare the schema. Several may start at once: the upgrade runs under an advisory lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from brain_clusters.db.models import Base
from brain_clusters.db.session import temporary_when_down

# Any constant serves, as long as nothing else in this database locks the same one: "brain" in ASCII.
_LOCK = 0x627261696E


def _config(scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _locked(engine: Engine, scripts: Path, run: Callable[[Config, Connection], None]) -> None:
    """Call ``run`` in one transaction that holds the migration lock; others wait for it."""
    with temporary_when_down(), engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '120s'; SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config = _config(scripts)
        config.attributes["connection"] = connection
        run(config, connection)


def upgrade(engine: Engine, scripts: Path, revision: str = "head") -> None:
    """Bring the schema to ``revision``. Does nothing when it is there."""
    _locked(engine, scripts, lambda config, _: command.upgrade(config, revision))


def downgrade(engine: Engine, scripts: Path, revision: str = "base") -> None:
    """Take the schema back to ``revision``."""
    _locked(engine, scripts, lambda config, _: command.downgrade(config, revision))


def current(engine: Engine) -> str | None:
    """Return the revision of the database, or None for an empty one."""
    with temporary_when_down(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head(scripts: Path) -> str | None:
    """Return the newest revision that this code knows."""
    return ScriptDirectory.from_config(_config(scripts)).get_current_head()


def differences(engine: Engine) -> list[object]:
    """Return what autogenerate would change to make the database look like the models."""
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))
