"""Writing what a tick observed into the rows of clusters and agents: what changed, in a few statements for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Float, Integer, Text, case, cast, column, func, select, update, values
from sqlalchemy.orm import Session

from brain_clusters.broker.backlog import Reading
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.states import READY_AGENT_STATUSES, AgentStatus, Intent
from brain_clusters.services.control import Control
from brain_clusters.services.observation import SeenCluster


def write(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading) -> None:
    """Write what changed, in two statements for all clusters and agents."""
    cluster_rows, agent_rows = [], []
    for cluster in clusters.values():
        whole = cluster.whole
        load = round(min(100.0, whole.load_percent or 0.0), 1)
        asleep = min(cluster.asleep_backlog, whole.ready or 0)
        works = bool(whole.backlog or whole.leaving) and cluster.intent is Intent.RUNNING
        if load != cluster.load_percentage or asleep != cluster.asleep_backlog or works:
            cluster_rows.append((cluster.id, load, asleep, int(works)))
            cluster.asleep_backlog = asleep
            cluster.idle_seconds = 0.0 if works else cluster.idle_seconds
        agent_rows.extend(_agent_rows(cluster, reading))
    with control.database.transaction() as session:
        _update_clusters(session, cluster_rows)
        _update_agents(session, agent_rows)


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
        if status is not agent.status or counts != (agent.tasks_completed, agent.tasks_failed):
            rows.append((agent.agent_id, str(status), *counts, beat["service_time"] or 0.0, beat["idle_since"]))
    return rows


def _update_clusters(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    given = values(
        column("id", Text), column("load", Float), column("asleep", Integer), column("works", Integer), name="given"
    ).data(sorted(rows))
    session.execute(
        update(Cluster)
        .where(Cluster.id == given.c.id)
        .values(
            load_percentage=given.c.load,
            asleep_backlog=given.c.asleep,
            last_active=case((given.c.works == 1, func.now()), else_=Cluster.last_active),
        )
        .execution_options(synchronize_session=False)
    )


def note(session: Session, rows: Sequence[tuple[str, int, float | None]]) -> None:
    """Write (cluster id, unknown_ticks, wake_at in seconds since the epoch) of clusters where they changed."""
    if not rows:
        return
    given = values(column("id", Text), column("unknown", Integer), column("wake_at", Float), name="given").data(rows)
    session.execute(
        update(Cluster)
        .where(Cluster.id == given.c.id)
        .values(unknown_ticks=given.c.unknown, wake_at=func.to_timestamp(cast(given.c.wake_at, Float)))
        .execution_options(synchronize_session=False)
    )


def _update_agents(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write counters, and idle or busy; a starting agent with a beat is ready, a draining one stays draining.

    Rows that a host or an operation writes this moment are left to the next tick: waiting could be a deadlock.
    """
    seen = select(Agent.agent_id).where(Agent.agent_id.in_([row[0] for row in rows]))
    free = set(session.scalars(seen.with_for_update(skip_locked=True))) if rows else set()
    rows = [row for row in rows if row[0] in free]
    if not rows:
        return
    given = values(
        column("agent_id", Text), column("status", Text), column("completed", Integer), column("failed", Integer),
        column("seconds", Float), column("idle_since", Float), name="given",
    ).data(sorted(rows))  # fmt: skip
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
            last_active=func.to_timestamp(given.c.idle_since),
        )
        .execution_options(synchronize_session=False)
    )
