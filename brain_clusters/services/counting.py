"""Counters that only grow, for monitors: rows are deleted by rules of retention, and what was counted stays.

Facts are added to ``tally_entries`` in the transactions that store them: rows that are only appended, so nobody waits
for anybody's lock. The sweep folds them into ``tallies``. Who reads adds both in one statement, so each fact
counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Float, Text, bindparam, func, insert, or_, select, text, union_all
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from brain_clusters.db.bulk import Columns, rows_of
from brain_clusters.db.models import Cluster, TallyEntry, TallyRow, Tick
from brain_clusters.domain.exposition import OTHER, SUM, bucket
from brain_clusters.domain.states import ClusterStatus
from brain_clusters.services import ticks
from brain_clusters.services.control import Control

_FOLD_SECONDS = 5.0
_FORGET_SECONDS = 60.0
# A cluster that was destroyed is told of for so long, so that what it did last is seen.
TOLD_FOR = timedelta(minutes=15)
# The name of the note of which clusters are forgotten: those that were destroyed before it.
_FORGOTTEN = "tallies.forgotten"
# The oldest are told apart, so that the same ones are at each scrape.
BY_AGE = (Cluster.created_at, Cluster.id)
_KEY = ("cluster_id", "group_name", "metric", "label", "bucket")
_COLUMNS: Columns = {**dict.fromkeys(_KEY, Text), "value": Float(53)}


class Key(NamedTuple):
    """What is counted. label: the values of further labels, with blanks in between; bucket: of a histogram."""

    cluster_id: str
    group_name: str
    metric: str
    label: str = ""
    bucket: str = ""


class Counts:
    """Facts of one transaction, summed up before they are written."""

    def __init__(self) -> None:
        self._sums: Counter[Key] = Counter()

    def add(self, key: Key, value: float = 1) -> None:
        """Count ``value``."""
        self._sums[key] += value  # type: ignore[assignment]  # Counter's values may be any numbers

    def observe(self, key: Key, seconds: float) -> None:
        """Count one observation of a histogram."""
        seconds = max(0.0, seconds)
        self.add(key._replace(bucket=bucket(seconds)))
        self.add(key._replace(bucket=SUM), seconds)

    def write(self, session: Session) -> None:
        """Append what was counted."""
        rows = [(*key, float(value)) for key, value in self._sums.items()]
        if rows:
            given = rows_of("given", _COLUMNS, rows)
            session.execute(insert(TallyEntry).from_select(list(_COLUMNS), select(*given.c)))


_FOLD = """
WITH gone AS (DELETE FROM tally_entries RETURNING cluster_id, group_name, metric, label, bucket, value)
INSERT INTO tallies (cluster_id, group_name, metric, label, bucket, value)
SELECT cluster_id, group_name, metric, label, bucket, sum(value) FROM gone
GROUP BY cluster_id, group_name, metric, label, bucket
ORDER BY cluster_id, group_name, metric, label, bucket
ON CONFLICT (cluster_id, group_name, metric, label, bucket) DO UPDATE SET value = tallies.value + excluded.value
"""


def fold(control: Control) -> None:
    """Add what was appended to the sums, every few seconds, and give up the series of clusters that are gone."""
    if ticks.due(control, "tallies", _FOLD_SECONDS):
        with control.database.transaction() as session:
            session.execute(text(_FOLD))
    if ticks.due(control, "tallies.forget", _FORGET_SECONDS):
        with control.database.transaction() as session:
            forget(session, control.settings.metrics_clusters)


# --- who is told of ---------------------------------------------------------------------------------------------


def is_told() -> ColumnElement[bool]:
    """Return whether monitors are told of a cluster by its id: until it was forgotten, a while after its end."""
    watermark = select(Tick.ran_at).where(Tick.name == _FORGOTTEN).scalar_subquery()
    lately = Cluster.destroyed_at > func.coalesce(watermark, func.to_timestamp(0))
    return or_(Cluster.status != ClusterStatus.DESTROYED, lately)


def forget(session: Session, most: int, told_for: timedelta = TOLD_FOR) -> None:
    """Forget clusters that were destroyed so long ago; others take their places among the ``most`` told apart.

    What was counted of both goes to OTHER, where it stays: no sum ever shrinks.
    """
    session.execute(text("LOCK TABLE tallies IN SHARE ROW EXCLUSIVE MODE"))  # another worker may fold
    before = _told(session)[:most]
    mark = postgresql.insert(Tick).values(name=_FORGOTTEN, ran_at=func.now() - told_for)
    session.execute(mark.on_conflict_do_update(index_elements=[Tick.name], set_={"ran_at": mark.excluded.ran_at}))
    told = _told(session)
    session.execute(text(_FOLD))
    session.execute(
        text(_MOVE).bindparams(
            bindparam("told", told, ARRAY(Text)), bindparam("new", sorted({*told[:most]} - {*before}), ARRAY(Text))
        ),
        {"other": OTHER},
    )


def _told(session: Session) -> list[str]:
    return list(session.scalars(select(Cluster.id).where(is_told()).order_by(*BY_AGE)))


# Only counters that somebody is told of: what ``accruing`` keeps for itself stays where it is.
_MOVE = """
WITH gone AS (
  DELETE FROM tallies WHERE metric LIKE 'brain~_%' ESCAPE '~' AND cluster_id NOT IN ('', :other)
    AND (cluster_id = ANY(:new) OR NOT cluster_id = ANY(:told))
  RETURNING metric, label, bucket, value
)
INSERT INTO tallies (cluster_id, group_name, metric, label, bucket, value)
SELECT :other, '', metric, label, bucket, sum(value) FROM gone GROUP BY metric, label, bucket
ON CONFLICT (cluster_id, group_name, metric, label, bucket) DO UPDATE SET value = tallies.value + excluded.value
"""

# --- reading ----------------------------------------------------------------------------------------------------


def read(session: Session) -> Mapping[Key, float]:
    """Return all that was counted so far, in one snapshot."""
    names = list(_COLUMNS)
    both = union_all(
        select(*(getattr(TallyRow, name) for name in names)), select(*(getattr(TallyEntry, name) for name in names))
    ).subquery()
    *keys, value = (both.c[name] for name in names)
    # On the connection itself, as there are many rows; only who sees all clusters is told of them.
    rows = session.connection().execute(select(*keys, func.sum(value)).group_by(*keys)).all()
    return {Key(*row[:-1]): float(row[-1]) for row in rows}
