"""The table of clusters that people look at: searched, filtered, sorted by any column, and in numbered pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, func, or_, select, true
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Job, Metrics
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, ClusterStatus, ClusterType
from brain_clusters.services import costs

PER_PAGE = 50
_SORTS: Mapping[str, Any] = {
    "name": func.lower(Cluster.name),
    "status": Cluster.status,
    "agents": Cluster.current_workers,
    "load": Cluster.load_percentage,
    "health": Cluster.health_score,
    "active": Cluster.last_active,
    "created": Cluster.created_at,
}
SORTS = (*_SORTS, *(f"-{name}" for name in _SORTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the table shows. text: a part of an id or name. Without a status, what is destroyed is left out."""

    text: str | None = None
    status: ClusterStatus | None = None
    type: ClusterType | None = None
    tag: str | None = None
    blueprint: str | None = None
    sort: str = "-created"


@dataclass(frozen=True, slots=True)
class Row:
    """A cluster with what its last sample and its jobs tell. waiting, oldest (seconds): None is unknown."""

    cluster: Cluster
    waiting: int | None = None
    oldest: float | None = None
    rate: float | None = None
    dead: int = 0
    spent: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Table:
    """One page of rows; ``total`` counts all that match."""

    rows: Sequence[Row]
    total: int
    number: int
    tags: Sequence[str] = field(default=())

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.total // PER_PAGE))


def table(session: Session, wanted: Wanted, number: int) -> Table:
    """Return page ``number``, from 1; past the end, the last one."""
    total = session.scalar(_narrowed(select(func.count(Cluster.id)), wanted)) or 0
    number = min(number, max(1, -(-total // PER_PAGE)))
    column = _SORTS[wanted.sort.lstrip("-")]
    order = column.desc().nulls_last() if wanted.sort.startswith("-") else column.asc().nulls_last()
    query = _narrowed(select(Cluster), wanted).order_by(order, Cluster.id)
    found = session.scalars(query.limit(PER_PAGE).offset((number - 1) * PER_PAGE)).all()
    return Table(_rows(session, found), total, number)


def _narrowed(query: Select[Any], wanted: Wanted) -> Select[Any]:
    query = query.where(Cluster.status == wanted.status if wanted.status else Cluster.status != ClusterStatus.DESTROYED)
    if wanted.type is not None:
        query = query.where(Cluster.type == wanted.type)
    if wanted.tag is not None:
        query = query.where(Cluster.tags.contains([wanted.tag]))
    if wanted.blueprint is not None:
        query = query.where(Cluster.blueprint_id == wanted.blueprint)
    if wanted.text:
        text = wanted.text.lower()
        parts = (func.lower(column).contains(text, autoescape=True) for column in (Cluster.id, Cluster.name))
        query = query.where(or_(*parts))
    return query


def _rows(session: Session, found: Sequence[Cluster]) -> list[Row]:
    """Add to each cluster what three statements tell of all of them."""
    ids = [cluster.id for cluster in found]
    if not ids:
        return []
    newest = _newest(session, ids)
    dead: dict[str, int] = dict(
        session.execute(
            select(Job.cluster_id, func.count(Job.id))
            .where(Job.cluster_id.in_(ids), Job.error_key.is_not(None), Job.status.in_(DEAD_LETTER_STATUSES))
            .group_by(Job.cluster_id)
        ).all()
    )
    spent = costs.spent(session, ids, datetime.now(UTC).date())
    return [
        Row(cluster, *newest.get(cluster.id, (None, None, None)), dead.get(cluster.id, 0), spent[cluster.id].total)
        for cluster in found
    ]


def _newest(session: Session, ids: Sequence[str]) -> dict[str, tuple[int | None, float | None, float | None]]:
    """Return by cluster what the last sample tells: jobs that wait, the age of the oldest, jobs a minute."""
    last = (
        select(Metrics.queue_length, Metrics.queue_wait_time, Metrics.tasks_per_minute)
        .where(Metrics.cluster_id == Cluster.id)
        .order_by(Metrics.timestamp.desc())
        .limit(1)
        .lateral()
    )
    rows = session.execute(select(Cluster.id, *last.c).join(last, true()).where(Cluster.id.in_(ids)))
    return {cluster_id: (waiting, oldest, rate) for cluster_id, waiting, oldest, rate in rows}
