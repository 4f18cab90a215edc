"""Writing what a tick observed into the rows of clusters and agents: what changed, in a few statements for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Boolean, Float, Integer, Text, case, cast, func, select, update
from sqlalchemy.orm import Session

from brain_clusters.broker import counts
from brain_clusters.broker.backlog import Reading
from brain_clusters.db.bulk import Columns, rows_of
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.sleeping import sleeps_after
from brain_clusters.domain.states import READY_AGENT_STATUSES, AgentStatus, ClusterType, Intent
from brain_clusters.services.control import Control
from brain_clusters.services.observation import SeenCluster

# How late ``last_active`` of a cluster that works may be. It tells when it last worked, and rules that let it sleep
# count from there; those that count less than some minutes get it as it is.
_LATE_SECONDS = 5.0
_EXACT_BELOW_SECONDS = 120.0


def write(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading) -> None:
    """Write what changed, in two statements for all clusters and agents."""
    cluster_rows, agent_rows = [], []
    for cluster in clusters.values():
        whole = cluster.whole
        load = round(min(100.0, whole.load_percent or 0.0), 1)
        asleep = cluster.asleep_backlog if whole.ready is None else min(cluster.asleep_backlog, whole.ready)
        works = bool(whole.backlog or whole.leaving) and cluster.intent is Intent.RUNNING
        due = works and cluster.idle_seconds >= _lateness(cluster)
        if load != cluster.load_percentage or asleep != cluster.asleep_backlog or due:
            cluster_rows.append((cluster.id, load, asleep, works))
            cluster.asleep_backlog = asleep
        if works:
            cluster.idle_seconds = 0.0
        agent_rows.extend(_agent_rows(cluster, reading))
    with control.database.transaction() as session:
        _update_clusters(session, cluster_rows)
        _update_agents(session, agent_rows)


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
        if status is not agent.status or counts != (agent.tasks_completed, agent.tasks_failed):
            told = (beat["service_time"] or 0.0, beat["idle_since"], _text(beat["last_error"]))
            rows.append((agent.agent_id, str(status), *counts, *told))
    return rows


def _text(found: str | None) -> str | None:
    """Return what PostgreSQL can store of a text that users' code wrote."""
    return None if found is None else found[:1000].replace("\0", "\ufffd").encode(errors="replace").decode()


def add_counts(control: Control) -> None:
    """Add what the workers of other applications have done since the last tick to their clusters."""
    taken = counts.take(control.broker.redis)
    if not taken:
        return
    rows = sorted((cluster_id, completed, failed) for cluster_id, (completed, failed) in taken.items())
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


def _update_clusters(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    given = rows_of("given", {"id": Text, "load": Float(53), "asleep": Integer, "works": Boolean}, sorted(rows))
    session.execute(
        update(Cluster)
        .where(Cluster.id == given.c.id)
        .values(
            load_percentage=given.c.load,
            asleep_backlog=given.c.asleep,
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
        "idle_since": Float(53), "last_error": Text,
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
            last_active=func.to_timestamp(given.c.idle_since),
            last_error=func.coalesce(given.c.last_error, Agent.last_error),
        )
        .execution_options(synchronize_session=False)
    )
