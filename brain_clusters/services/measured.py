"""What the rows of agents teach about a blueprint's groups: how long a start takes, and how long a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from brain_clusters.broker.client import temporary_when_away
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.db.scope import widened
from brain_clusters.services.control import Control

_KEY = "brain:measured"
_REFRESH_SECONDS = 60
# The newest starts of the installation that are looked at; enough for a p90 of every group that starts often.
_ROWS = 20_000
_START_QUANTILE = 0.9
_LONGEST_SECONDS = 1e9


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
        [stored] = control.broker.redis.mget([_KEY])
    found = _parsed(stored) if stored else None
    if found is None:
        with widened():  # what is kept is for all
            found = _read(control)
        rows = [[*key, one.start_time, one.service_time] for key, one in found.items()]
        with temporary_when_away():
            control.broker.redis.set(_KEY, json.dumps(rows), ex=_REFRESH_SECONDS)
    return found


def _parsed(stored: Any) -> dict[tuple[str, str], Measured] | None:
    """Return what was kept, or None for what makes no sense: agents run users' code, which can write here."""
    try:
        return {
            (str(blueprint), str(group)): Measured(_seconds(start), _seconds(service))
            for blueprint, group, start, service in json.loads(stored)
        }
    except (ValueError, TypeError, RecursionError):
        return None


def _seconds(found: Any) -> float | None:
    if found is None:
        return None
    if type(found) not in (int, float) or not 0 <= found < _LONGEST_SECONDS:  # NaN is not
        raise ValueError(f"{found!r} is no number of seconds")
    return float(found)


def _read(control: Control) -> dict[tuple[str, str], Measured]:
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
        return {
            (blueprint, group): Measured(
                None if start is None else float(start), None if service is None else float(service)
            )
            for blueprint, group, start, service in session.execute(query)
        }
