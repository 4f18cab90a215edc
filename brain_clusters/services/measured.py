"""What the rows of agents teach about a blueprint's groups: how long a start takes, and how long a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from brain_clusters.broker.client import temporary_when_away
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.services.control import Control

_KEY = "brain:measured"
_REFRESH_SECONDS = 60
# The newest starts of the installation that are looked at; enough for a p90 of every group that starts often.
_ROWS = 20_000
_START_QUANTILE = 0.9
_Row = tuple[str, str, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one group of one blueprint. start_time: p90 of spawn to ready; service_time: mean per job. Seconds."""

    start_time: float | None = None
    service_time: float | None = None


def measured(control: Control) -> Mapping[tuple[str, str], Measured]:
    """Return what is known by (blueprint id, group name); read from PostgreSQL once a minute, kept in Redis.

    Raises TemporaryError when either is away.
    """
    with temporary_when_away():
        stored: Any = control.broker.redis.get(_KEY)
    found = _parsed(stored) if stored else None
    if found is None:
        rows = _read(control)
        found = _by_group(rows)
        with temporary_when_away():
            control.broker.redis.set(_KEY, json.dumps(rows), ex=_REFRESH_SECONDS)
    return found


def _parsed(stored: Any) -> dict[tuple[str, str], Measured] | None:
    try:
        return _by_group(json.loads(stored))
    except (RecursionError, TypeError, ValueError):  # agents run users' code, which can write here
        return None


def _by_group(rows: list[_Row]) -> dict[tuple[str, str], Measured]:
    return {
        (str(blueprint), str(group)): Measured(_number(start), _number(service))
        for blueprint, group, start, service in rows
    }


def _number(found: Any) -> float | None:
    return None if found is None else float(found)


def _read(control: Control) -> list[_Row]:
    newest = (
        select(
            Cluster.blueprint_id, Agent.group_name,
            # A replacement that had to wait its turn was not slow to start.
            (Agent.ready_at - func.greatest(Agent.spawned_at, Agent.not_before)).label("took"),
            Agent.avg_task_duration, (Agent.tasks_completed + Agent.tasks_failed).label("jobs"),
        )
        .join(Cluster, Cluster.id == Agent.cluster_id)
        .where(Agent.ready_at.is_not(None))
        .order_by(Agent.spawned_at.desc())
        .limit(_ROWS)
        .subquery()
    )  # fmt: skip
    seconds = func.extract("epoch", newest.c.took)
    query = select(
        newest.c.blueprint_id,
        newest.c.group_name,
        func.percentile_cont(_START_QUANTILE).within_group(seconds),
        func.avg(newest.c.avg_task_duration).filter(newest.c.jobs > 0),
    ).group_by(newest.c.blueprint_id, newest.c.group_name)
    with control.database.transaction() as session:
        return [
            (blueprint, group, _number(start), _number(service))
            for blueprint, group, start, service in session.execute(query)
        ]
