"""Which schema this code needs, and whether the database has one that it works with.

Migrations add first and remove a version later, so that code may run for a while on a newer schema. How far back that
goes, only the newer code knows: it leaves the oldest revision whose code still works as a comment on Alembic's table.
"""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from brain_clusters.errors import SchemaMismatch

_MARK = "the oldest code that works with this schema: "


def config(scripts: Path, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for the migrations in ``scripts``, which run on ``connection``."""
    found = Config()
    found.set_main_option("script_location", str(scripts).replace("%", "%%"))
    found.set_main_option("path_separator", "os")
    found.attributes["connection"] = connection
    return found


class Schema:
    """The revisions in ``scripts``, which end in the one that this code needs."""

    def __init__(self, scripts: Path) -> None:
        self._steps = list(ScriptDirectory.from_config(config(scripts)).walk_revisions())[::-1]
        self._order = [step.revision for step in self._steps]
        self.head = self._order[-1]

    def is_newer(self, connection: Connection) -> bool:
        """Return whether the database has a schema that only newer code knows."""
        found = revision(connection)
        return found is not None and found not in self._order

    def check(self, connection: Connection) -> None:
        """Raise SchemaMismatch unless the database has this schema, or a newer one with which this code still works.

        Its sentence names both and says what to do.
        """
        found = revision(connection)
        if found == self.head:
            return
        if found is None or found in self._order:
            raise SchemaMismatch(
                f"the database's schema is {found or 'not there yet'}, and this version needs {self.head}: "
                "run 'brain-clusters migrate' of this version"
            )
        oldest = _oldest(connection)
        if oldest not in self._order:
            raise SchemaMismatch(
                f"the database's schema is {found}, with which this version does not work, as it knows {self.head}: "
                f"start a version that knows {oldest or found}"
            )

    def mark(self, connection: Connection) -> None:
        """Write down how old code may be that works with the schema which the database has now."""
        done = self._steps[: self._order.index(found) + 1] if (found := revision(connection)) else []
        # A migration that does not say how old code may be works with no older code.
        reach = [getattr(step.module, "works_with", step.revision) for step in done]
        comment = _MARK + max(reach, key=self._order.index) if reach else None
        if connection.scalar(text("SELECT to_regclass('alembic_version')")):
            connection.execute(text("COMMENT ON TABLE alembic_version IS :comment"), {"comment": comment})


def revision(connection: Connection) -> str | None:
    """Return the revision of the database, or None for an empty one."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _oldest(connection: Connection) -> str | None:
    found = connection.scalar(text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"))
    return found.removeprefix(_MARK) if found else None
