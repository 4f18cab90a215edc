"""One run of a periodic task at a time, whatever the number of beats: a compare-and-set by the database's clock."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from brain_clusters.db.models import Tick
from brain_clusters.services.control import Control


def due(control: Control, name: str, interval_seconds: float) -> bool:
    """Return whether ``name`` has not run for ``interval_seconds``, and take note that it runs now."""
    statement = insert(Tick).values(name=name, ran_at=func.clock_timestamp())
    with control.database.transaction() as session:
        ran = session.execute(
            statement.on_conflict_do_update(
                index_elements=[Tick.name],
                set_={"ran_at": statement.excluded.ran_at},
                where=Tick.ran_at <= func.clock_timestamp() - timedelta(seconds=interval_seconds),
            ).returning(Tick.name)
        ).first()
    return ran is not None
