"""What the alerts of a cluster are judged by: every metric of ``domain.conditions`` that one of its alerts uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brain_clusters.broker import counts
from brain_clusters.broker.backlog import Reading
from brain_clusters.domain import planning
from brain_clusters.domain.planning import Census
from brain_clusters.domain.specs import Blueprint
from brain_clusters.domain.states import AgentStatus, Intent
from brain_clusters.services import metrics, observed
from brain_clusters.services.control import Control
from brain_clusters.services.metrics import JobRate
from brain_clusters.services.observation import SeenCluster

# What is asked of PostgreSQL, for all clusters at once, and only when an alert needs it.
_FROM_JOBS = {"error_rate", "tasks_per_minute", "avg_response_time"}
_FROM_AGENTS = {"worker_failure", "health_score"}


@dataclass(frozen=True, slots=True)
class Figures:
    """One cluster at one look. values: by the metric's proper name; None is unknown.

    backlogs: jobs that wait, by group. is_ending: it is being destroyed, so whatever fires is over.
    """

    cluster_id: str
    blueprint: Blueprint
    generation: int
    values: Mapping[str, float | None]
    backlogs: Mapping[str, int] = field(default_factory=dict)
    is_ending: bool = False


def figures(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading | None) -> dict[str, Figures]:
    """Return the figures of every cluster whose blueprint has alerts.

    reading: what Redis said; None while it does not answer, and then all that it would have told is unknown.
    """
    watched = [cluster for cluster in clusters.values() if cluster.blueprint.alerts]
    used = {name for cluster in watched for rule in cluster.blueprint.alerts for name in rule.metrics}
    if not watched:
        return {}
    by_jobs = bool(used & _FROM_JOBS) and reading is not None
    foreign = counts.of_the_last_minute(control.broker.redis) if by_jobs else {}
    with control.database.transaction() as session:
        rates = metrics.job_rates(session, foreign) if by_jobs else {}
        failed = observed.failed_agents(session) if used & _FROM_AGENTS else {}
    return {
        cluster.id: Figures(
            cluster_id=cluster.id,
            blueprint=cluster.blueprint,
            generation=cluster.generation,
            values={
                **_observed(cluster, reading, rates.get(cluster.id, (0, 0, 0.0)), failed.get(cluster.id, 0)),
                **_counted(cluster, failed.get(cluster.id, 0)),
            },
            backlogs={name: found.ready or 0 for name, found in cluster.signals.items()},
            is_ending=cluster.intent is Intent.GONE,
        )
        for cluster in watched
    }


def _observed(
    cluster: SeenCluster, reading: Reading | None, rate: JobRate, failed_agents: int
) -> dict[str, float | None]:
    """Return what Redis tells, and the rates of jobs, which come to PostgreSQL through Redis."""
    if reading is None:
        names = (*_FROM_JOBS, "cpu_usage", "memory_usage", "queue_length", "queue_latency", "running", "held", "load")
        return dict.fromkeys(names)
    found: dict[str, Any] = metrics.figures(cluster, reading.beats, rate, failed_agents, metrics.memory_bytes())
    # No agent uses nothing; an agent whose beat is missing uses nobody knows how much.
    usage = {name: found[name] if cluster.agents else 0.0 for name in ("cpu_usage", "memory_usage")}
    rates, whole = {name: found[name] for name in _FROM_JOBS}, cluster.whole
    return usage | rates | {
        "queue_length": found["queue_length"],
        "queue_latency": found["queue_wait_time"],
        "running": (whole.running or 0) + whole.reserved + whole.leaving,
        "held": whole.held,
        "load": whole.load_percent,
    }  # fmt: skip


def _counted(cluster: SeenCluster, failed_agents: int) -> dict[str, float | None]:
    """Return what the rows of agents tell."""
    statuses = [agent.status for agent in cluster.agents]
    counts, census = Counter(statuses), Census.of(statuses)
    wanted = sum(cluster.group_targets.values()) if cluster.intent is Intent.RUNNING else 0
    return {
        "active_agents": census.ready,
        "idle_agents": counts[AgentStatus.IDLE],
        "busy_agents": counts[AgentStatus.BUSY],
        "starting_agents": census.starting,
        "draining_agents": census.draining,
        "missing_agents": max(0, wanted - census.ready),
        "worker_failure": failed_agents,
        "health_score": planning.health_score(cluster.intent, wanted, census, failed_agents),
    }
