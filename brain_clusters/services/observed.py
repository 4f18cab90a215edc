"""Writing what a tick observed into the rows of clusters and agents: what changed, in a few statements for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Boolean, Float, Integer, Text, case, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from brain_clusters.broker import counts
from brain_clusters.broker.backlog import Reading
from brain_clusters.db.bulk import Columns, rows_of
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.planning import FAILURE_WINDOW_SECONDS, Census, agent_health, health_score
from brain_clusters.domain.sleeping import sleeps_after
from brain_clusters.domain.states import READY_AGENT_STATUSES, AgentStatus, ClusterType, Intent
from brain_clusters.domain.storable import storable_text
from brain_clusters.services import metering
from brain_clusters.services.control import Control
from brain_clusters.services.metering import busy_days
from brain_clusters.services.observation import SeenCluster

# How late ``last_active`` of a cluster that works may be. It tells when it last worked, and rules that let it sleep
# count from there; those that count less than some minutes get it as it is.
_LATE_SECONDS = 5.0
_EXACT_BELOW_SECONDS = 120.0
# How far an agent's row may lag behind its count of busy seconds while a long job runs.
_BUSY_LAG_SECONDS = 5.0
# The end of what Python calls a time.
_LAST_TIME = 253_402_300_799.0


def write(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading) -> None:
    """Write what changed, in two statements for all clusters and agents. Health is of the agents as they are now."""
    cluster_rows, agent_rows = [], []
    with control.database.transaction() as session:
        died = failed_agents(session)
    for cluster in clusters.values():
        whole = cluster.whole
        load = round(min(100.0, whole.load_percent or 0.0), 1)
        asleep = cluster.asleep_backlog if whole.ready is None else min(cluster.asleep_backlog, whole.ready)
        works = bool(whole.backlog or whole.leaving) and cluster.intent is Intent.RUNNING
        due = works and cluster.idle_seconds >= _lateness(cluster)
        agent_rows.extend(_agent_rows(cluster, reading))
        health = _health(cluster, died.get(cluster.id, 0))
        before = (cluster.load_percentage, cluster.asleep_backlog, cluster.health_score)
        if before != (load, asleep, health) or due:
            cluster_rows.append((cluster.id, load, asleep, health, works))
            cluster.asleep_backlog, cluster.health_score = asleep, health
        if works:
            cluster.idle_seconds = 0.0
    with control.database.transaction() as session:
        _update_clusters(session, cluster_rows)
        _update_agents(session, agent_rows)


def failed_agents(session: Session) -> dict[str, int]:
    """Return by cluster how many agents died unasked in the last FAILURE_WINDOW_SECONDS."""
    window = func.now() - timedelta(seconds=FAILURE_WINDOW_SECONDS)
    rows = session.execute(
        select(Agent.cluster_id, func.count())
        .where(Agent.status == AgentStatus.FAILED, Agent.stopped_at > window)
        .group_by(Agent.cluster_id)
    )
    return dict(rows.all())


def _health(cluster: SeenCluster, died: int) -> float:
    if cluster.resting and not died:
        return 1.0  # all that are wanted are there, or it sleeps
    census = Census.of([agent.status for agent in cluster.agents])
    return health_score(cluster.intent, sum(cluster.group_targets.values()), census, died)


def _lateness(cluster: SeenCluster) -> float:
    after = sleeps_after(cluster.blueprint, persistent=cluster.type is ClusterType.PERSISTENT)
    return 0.0 if after is not None and after < _EXACT_BELOW_SECONDS else _LATE_SECONDS


def _agent_rows(cluster: SeenCluster, reading: Reading) -> list[tuple[Any, ...]]:
    """Return the rows of agents whose beat says something else than the table."""
    rows = []
    for agent in cluster.agents:
        beat = reading.beats.get(agent.agent_id)
        if beat is None:
            continue
        if agent.status is AgentStatus.STARTING:
            cluster.unfinished = True
        status = AgentStatus.BUSY if reading.held[agent.agent_id] else AgentStatus.IDLE
        counts = (beat["completed"], beat["failed"])
        worked = (beat["busy_seconds"] or 0.0) - agent.busy_seconds
        lags = worked > (0.0 if status is AgentStatus.IDLE else _BUSY_LAG_SECONDS)
        if status is not agent.status or counts != (agent.tasks_completed, agent.tasks_failed) or lags:
            told = Told.by(beat)
            rows.append(
                (agent.agent_id, str(status), *counts, told.duration, told.active_at, agent_health(*counts),
                 told.busy_seconds, json.dumps(told.busy_days), told.last_error)
            )  # fmt: skip
        if agent.status is not AgentStatus.DRAINING:
            agent.status = status  # what is counted later in this tick counts it as it is now
    return rows


@dataclass(frozen=True, slots=True)
class Told:
    """What a beat tells about the work of an agent. duration: the mean seconds of its jobs."""

    duration: float
    active_at: float
    busy_seconds: float
    busy_days: Mapping[str, Any]
    last_error: str | None

    @classmethod
    def by(cls, beat: Mapping[str, Any]) -> Told:
        """Read a beat. An agent that works is active; another was when its last job ended."""
        active_at = beat["at"] if beat["in_flight"] and beat["at"] is not None else beat["idle_since"]
        return cls(
            beat["mean_time"] or 0.0, active_at, beat["busy_seconds"] or 0.0, busy_days(beat.get("busy_days")),
            beat["last_error"] and storable_text(beat["last_error"][:1000]),
        )  # fmt: skip


def take_over(agent: Agent, beat: Mapping[str, Any]) -> None:
    """Write the last beat of an agent that has ended into its row."""
    told = Told.by(beat)
    agent.tasks_completed = max(agent.tasks_completed, beat["completed"])
    agent.tasks_failed = max(agent.tasks_failed, beat["failed"])
    agent.avg_task_duration = told.duration
    agent.last_error = told.last_error or agent.last_error
    agent.health_score = agent_health(agent.tasks_completed, agent.tasks_failed)
    agent.last_active = datetime.fromtimestamp(min(told.active_at, _LAST_TIME), UTC)
    if told.busy_seconds >= agent.busy_seconds:
        agent.busy_seconds, agent.busy_days = told.busy_seconds, dict(told.busy_days)


def add_counts(control: Control) -> None:
    """Add what the workers of other applications have done since the last tick to their clusters and the ledger."""
    taken = counts.take(control.broker.redis)
    if not taken:
        return
    sums: dict[str, list[int]] = {}
    for work, done in taken.items():
        one = sums.setdefault(work.cluster_id, [0, 0])
        one[0], one[1] = one[0] + done.completed, one[1] + done.failed
    rows = [(cluster_id, *one) for cluster_id, one in sorted(sums.items())]
    given = rows_of("given", {"id": Text, "completed": BigInteger, "failed": BigInteger}, rows)
    with control.database.transaction() as session:
        session.execute(
            update(Cluster)
            .where(Cluster.id == given.c.id)
            .values(
                tasks_completed=Cluster.tasks_completed + given.c.completed,
                tasks_failed=Cluster.tasks_failed + given.c.failed,
            )
            .execution_options(synchronize_session=False)
        )
        metering.account_counts(session, taken)


def _update_clusters(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    columns: Columns = {"id": Text, "load": Float(53), "asleep": Integer, "health": Float(53), "works": Boolean}
    given = rows_of("given", columns, sorted(rows))
    session.execute(
        update(Cluster)
        .where(Cluster.id == given.c.id)
        .values(
            load_percentage=given.c.load,
            asleep_backlog=given.c.asleep,
            health_score=given.c.health,
            last_active=case((given.c.works, func.now()), else_=Cluster.last_active),
        )
        .execution_options(synchronize_session=False)
    )


def note(session: Session, rows: Sequence[tuple[str, int, float | None]]) -> None:
    """Write (cluster id, unknown_ticks, wake_at in seconds since the epoch) of clusters where they changed."""
    if not rows:
        return
    given = rows_of("given", {"id": Text, "unknown": Integer, "wake_at": Float(53)}, rows)
    session.execute(
        update(Cluster)
        .where(Cluster.id == given.c.id)
        .values(unknown_ticks=given.c.unknown, wake_at=func.to_timestamp(given.c.wake_at))
        .execution_options(synchronize_session=False)
    )


def _update_agents(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write counters, and idle or busy; a starting agent with a beat is ready, a draining one stays draining.

    Rows that a host or an operation writes this moment are left to the next tick: waiting could be a deadlock.
    """
    ids = cast([row[0] for row in rows], ARRAY(Text))
    seen = select(Agent.agent_id).where(Agent.agent_id == func.any(ids))
    free = set(session.scalars(seen.with_for_update(skip_locked=True))) if rows else set()
    rows = [row for row in rows if row[0] in free]
    if not rows:
        return
    columns: Columns = {
        "agent_id": Text, "status": Text, "completed": BigInteger, "failed": BigInteger, "seconds": Float(53),
        "active_at": Float(53), "health": Float(53), "busy_seconds": Float(53), "busy_days": Text, "last_error": Text,
    }  # fmt: skip
    given = rows_of("given", columns, sorted(rows))
    movable = Agent.status.in_((AgentStatus.STARTING, *READY_AGENT_STATUSES))
    session.execute(
        update(Agent)
        .where(Agent.agent_id == given.c.agent_id)
        .values(
            status=case((movable, cast(given.c.status, Agent.status.type)), else_=Agent.status),
            ready_at=func.coalesce(Agent.ready_at, func.now()),
            tasks_completed=given.c.completed,
            tasks_failed=given.c.failed,
            avg_task_duration=given.c.seconds,
            last_active=func.to_timestamp(given.c.active_at),
            health_score=given.c.health,
            busy_seconds=given.c.busy_seconds,
            busy_days=cast(given.c.busy_days, JSONB),
            last_error=func.coalesce(given.c.last_error, Agent.last_error),
        )
        .execution_options(synchronize_session=False)
    )
