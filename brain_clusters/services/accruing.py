"""What clusters have cost so far, as a counter that outlives the ledger: days are deleted, and some seconds come late.

Once a minute the days that may still have grown are summed up again, and what they grew by is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Float, Text, delete, func, literal, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from brain_clusters.db.bulk import Columns, rows_of
from brain_clusters.db.models import TallyRow, Tick, Usage
from brain_clusters.services import costs, ticks
from brain_clusters.services.control import Control
from brain_clusters.services.counting import Counts, Key

_SECONDS = 60.0
_NAME = "accruing"
# Of PostgreSQL's advisory locks: any number that nothing else of ours takes.
_LOCK = 0x616363727565
# What was counted of a day already. No metric, so it is not told.
_COUNTED = "counted_cost"
_LONGEST = timedelta(days=31)
_COLUMNS: Columns = {"cluster_id": Text, "label": Text, "bucket": Text, "value": Float(53)}


def accrue(control: Control) -> None:
    """Count what costs have grown by since the last time."""
    with control.database.transaction() as session:
        last = session.scalar(select(Tick.ran_at).where(Tick.name == _NAME))
    if not ticks.due(control, _NAME, _SECONDS):
        return
    now = datetime.now(UTC)
    # The day before is looked at once more: agents tell of it after midnight.
    since = max(last or now, now - _LONGEST).astimezone(UTC).date() - timedelta(days=1)
    days = [since + timedelta(days=number) for number in range((now.date() - since).days + 1)]
    with control.database.transaction() as session:
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        _count(session, control.settings.currency, list(_spent(session, days)))
        session.execute(delete(TallyRow).where(TallyRow.metric == _COUNTED, TallyRow.bucket < since.isoformat()))


def _spent(session: Session, days: Sequence[date]) -> Iterator[tuple[str, str, float]]:
    """Yield what each cluster has spent by day, as far as that is known."""
    for day in days:
        ids = session.scalars(select(Usage.cluster_id).where(Usage.day == day).distinct()).all()
        for cluster_id, found in costs.spent(session, ids, day).items():
            if found.total:
                yield cluster_id, day.isoformat(), float(found.total)


def _count(session: Session, currency: str, spent: Sequence[tuple[str, str, float]]) -> None:
    counts, grown, before = Counts(), [], _counted(session, currency)
    for cluster_id, day, total in spent:
        more = total - before.get((cluster_id, day), 0.0)
        if more > 0:
            counts.add(Key(cluster_id, "", "brain_cost_total", currency), more)
            grown.append((cluster_id, currency, day, total))
    counts.write(session)
    if not grown:
        return
    of = rows_of("given", _COLUMNS, grown).c
    named = [TallyRow.cluster_id, TallyRow.group_name, TallyRow.metric, TallyRow.label, TallyRow.bucket]
    chosen = select(of.cluster_id, literal("", Text), literal(_COUNTED, Text), of.label, of.bucket, of.value)
    statement = postgresql.insert(TallyRow).from_select([*named, TallyRow.value], chosen)
    session.execute(statement.on_conflict_do_update(index_elements=named, set_={"value": statement.excluded.value}))


def _counted(session: Session, currency: str) -> Mapping[tuple[str, str], float]:
    rows: Any = session.execute(
        select(TallyRow.cluster_id, TallyRow.bucket, TallyRow.value).where(
            TallyRow.metric == _COUNTED, TallyRow.label == currency
        )
    )
    return {(cluster_id, day): value for cluster_id, day, value in rows}
