"""Samples of every cluster's figures, written in bulk and kept for a time; and the pruning of all that grows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import cast, delete, func, insert, select
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, counts, shared
from brain_clusters.broker.backlog import Reading
from brain_clusters.broker.counts import Done
from brain_clusters.db.bulk import rows_of
from brain_clusters.db.models import (
    Agent,
    Cluster,
    Event,
    IdempotencyKey,
    Job,
    Metrics,
    Operation,
    ScalingDecision,
    Usage,
)
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, AgentStatus, JobStatus
from brain_clusters.services import audit, blueprints, expiry, observed, served, ticks
from brain_clusters.services.control import Control
from brain_clusters.services.observation import SeenCluster

_PRUNE_SECONDS = 60.0
_RATE_WINDOW_SECONDS = counts.RATE_WINDOW_SECONDS
# The draft of the Idempotency-Key header leaves the time to the server; a day is what payment APIs keep.
_IDEMPOTENCY_SECONDS = 86_400

_FIGURES = (
    "cpu_usage", "memory_usage", "tasks_per_minute", "avg_response_time", "error_rate", "active_agents", "idle_agents",
    "busy_agents", "failed_agents", "queue_length", "queue_wait_time",
)  # fmt: skip
# Jobs that ended in the window, how many of them failed, and their mean seconds.
JobRate = tuple[int, int, float | None]


def sample(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading) -> None:
    """Write one row per cluster, when it is time, in one statement."""
    if not clusters or not ticks.due(control, "metrics", control.settings.metrics_interval_seconds):
        return
    foreign = counts.of_the_last_minute(control.broker.redis)
    with control.database.transaction() as session:
        rates = job_rates(session, foreign)
        failed = observed.failed_agents(session)
        memory = memory_bytes()
        rows = [
            (
                cluster.id,
                *figures(cluster, reading.beats, rates.get(cluster.id), failed.get(cluster.id, 0), memory).values(),
            )
            for cluster in clusters.values()
        ]
        given = rows_of("given", {name: Metrics.__table__.c[name].type for name in ("cluster_id", *_FIGURES)}, rows)
        session.execute(insert(Metrics).from_select(["cluster_id", *_FIGURES], select(*given.c)))


def figures(
    cluster: SeenCluster, beats_by_agent: Mapping[str, Mapping[str, Any]], rate: JobRate | None, failed_agents: int,
    memory: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Return a sample of one cluster. memory: this machine's bytes, None where they are unknown."""
    whole = cluster.whole
    beats = [beats_by_agent[agent.agent_id] for agent in cluster.agents if agent.agent_id in beats_by_agent]
    cpus = [beat["cpu"] for beat in beats if beat.get("cpu") is not None]
    resident = [beat["memory"] for beat in beats if beat.get("memory") is not None]
    busy = sum(agent.status is AgentStatus.BUSY for agent in cluster.agents)
    idle = sum(agent.status is AgentStatus.IDLE for agent in cluster.agents)
    done, errors, seconds = rate or (0, 0, None)
    return {
        "cpu_usage": round(sum(cpus), 1) if cpus else None,
        "memory_usage": round(100.0 * sum(resident) / memory, 3) if resident and memory else None,
        "tasks_per_minute": done * 60.0 / _RATE_WINDOW_SECONDS,
        "avg_response_time": None if seconds is None else round(1000.0 * float(seconds), 1),
        "error_rate": round(100.0 * errors / done, 2) if done else 0.0,
        "active_agents": busy + idle,
        "idle_agents": idle,
        "busy_agents": busy,
        "failed_agents": failed_agents,
        "queue_length": whole.ready,
        "queue_wait_time": 0.0 if whole.ready == 0 else whole.oldest_age,
    }


def job_rates(session: Session, foreign: Mapping[str, Done]) -> dict[str, JobRate]:
    """Return by cluster: jobs that ended in the last minute, how many of them failed, and their mean seconds.

    foreign: what ended of other applications, which has no rows.
    """
    rows = session.execute(
        select(
            Job.cluster_id,
            func.count(),
            func.count().filter(Job.status.in_(DEAD_LETTER_STATUSES)),
            func.avg(func.extract("epoch", Job.finished_at - Job.started_at)),
        )
        .where(
            Job.finished_at > func.now() - timedelta(seconds=_RATE_WINDOW_SECONDS),
            Job.status != JobStatus.CANCELLED,  # neither done nor failed
        )
        .group_by(Job.cluster_id)
    )
    rates: dict[str, JobRate] = {row[0]: (row[1], row[2], row[3]) for row in rows}
    for cluster_id, more in foreign.items():
        done, failed, seconds = rates.get(cluster_id, (0, 0, None))
        ended = more.completed + more.failed
        if ended:
            timed = 0 if seconds is None else done
            mean = (timed * float(seconds or 0.0) + more.seconds) / (timed + ended)
            rates[cluster_id] = (done + ended, failed + more.failed, mean)
    return rates


def memory_bytes() -> int | None:
    """Return this machine's memory, which memory_usage is a share of; None where the system does not tell."""
    import os

    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def prune(control: Control) -> None:
    """Delete what is older than its retention, once a minute."""
    if not ticks.due(control, "prune", _PRUNE_SECONDS):
        return
    _purge_destroyed(control)
    settings = control.settings

    def older(column: Any, seconds: float) -> Any:
        return column < func.now() - timedelta(seconds=seconds)

    history = settings.history_retention_seconds
    with control.database.transaction() as session:
        session.execute(delete(Metrics).where(older(Metrics.timestamp, settings.metrics_retention_seconds)))
        decided = older(ScalingDecision.at, settings.decisions_retention_seconds)
        session.execute(delete(ScalingDecision).where(decided))
        session.execute(delete(Event).where(older(Event.at, history)))
        session.execute(delete(Cluster).where(older(Cluster.destroyed_at, history)))
        session.execute(delete(Operation).where(older(Operation.finished_at, history)))
        session.execute(delete(Agent).where(older(Agent.stopped_at, history)))
        kept = timedelta(seconds=settings.usage_retention_seconds)
        session.execute(delete(Usage).where(Usage.day < cast(func.now() - kept, Usage.day.type)))
        session.execute(delete(IdempotencyKey).where(older(IdempotencyKey.created_at, _IDEMPOTENCY_SECONDS)))
    expiry.prune(control)
    audit.prune(control)


def _purge_destroyed(control: Control) -> None:
    """Delete what clients still send to clusters that were destroyed in the last day, and what Redis's absence left."""
    with control.database.transaction() as session:
        rows = session.execute(
            select(Cluster.id, Cluster.blueprint_id, Cluster.blueprint_version).where(
                Cluster.destroyed_at > func.now() - timedelta(days=1)
            )
        ).all()
        queues = [
            queue
            for cluster_id, blueprint_id, version in rows
            for queue in served.own_queues(cluster_id, blueprints.parsed(session, blueprint_id, version))
        ]
    backlog.purge(control.broker.redis, queues)
    shared.forget(control.broker.redis, [cluster_id for cluster_id, _, _ in rows])
