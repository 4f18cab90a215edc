"""Counters that only grow, for monitors: rows are deleted by rules of retention, and what was counted stays.

Facts are added to ``tally_entries`` in the transactions that store them: rows that are only appended, so nobody waits
for anybody's lock. The sweep folds them into ``tallies``. Who reads adds both in one statement, so each fact
counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Float, Text, delete, func, insert, select, text, union_all
from sqlalchemy.orm import Session

from brain_clusters.db.bulk import Columns, rows_of
from brain_clusters.db.models import Cluster, TallyEntry, TallyRow
from brain_clusters.domain.exposition import SUM, bucket
from brain_clusters.services import ticks
from brain_clusters.services.control import Control

_FOLD_SECONDS = 5.0
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
    """Add what was appended to the sums, every few seconds; forget clusters that are no rows any more."""
    if not ticks.due(control, "tallies", _FOLD_SECONDS):
        return
    with control.database.transaction() as session:
        session.execute(text(_FOLD))
        gone = TallyRow.cluster_id.not_in(select(Cluster.id)), TallyRow.cluster_id != ""
        session.execute(delete(TallyRow).where(*gone))


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
