"""What one tick sees: all clusters in one query, their agents in a second, and Redis in one pipeline."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, names
from brain_clusters.broker.backlog import Reading
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.db.models import Agent, Cluster
from brain_clusters.domain.scaling import ClusterView, GroupSignals, total
from brain_clusters.domain.specs import AgentGroup, Blueprint
from brain_clusters.domain.states import (
    LIVE_AGENT_STATUSES,
    READY_AGENT_STATUSES,
    AgentStatus,
    ClusterStatus,
    ClusterType,
    Intent,
)
from brain_clusters.errors import InvalidInput
from brain_clusters.services import blueprints
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

# The arrival rate's memory between two ticks, and the weight of the newest tick in it.
_ARRIVALS_KEY = "brain:arrivals"
_ARRIVALS_WEIGHT = 0.3

_QUIET = GroupSignals(ready=0, running=0)


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """A live agent's row, as far as the tick needs it."""

    agent_id: str
    group: str
    status: AgentStatus
    tasks_completed: int
    tasks_failed: int


@dataclass(slots=True)
class SeenCluster:
    """A cluster's row and what was found about it.

    signals is empty while Redis does not answer; whole is their total.
    """

    id: str
    type: ClusterType
    status: ClusterStatus
    intent: Intent
    blueprint: Blueprint
    group_targets: Mapping[str, int]
    min_workers: int
    max_workers: int
    generation: int
    asleep_backlog: int
    load_percentage: float
    since_change: float
    idle_seconds: float
    hibernated_seconds: float | None
    unfinished: bool
    agents: list[SeenAgent] = field(default_factory=list)
    signals: dict[str, GroupSignals] = field(default_factory=dict)
    whole: GroupSignals = field(default_factory=GroupSignals)

    def queue(self, group: AgentGroup) -> str:
        """Return the queue of one of its groups."""
        return names.group_queue(self.id, group.slug)

    def view(self) -> ClusterView:
        """Return what ``domain.scaling`` needs."""
        return ClusterView(
            blueprint=self.blueprint,
            targets=self.group_targets,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            since_change=self.since_change,
            idle_seconds=self.idle_seconds,
            persistent=self.type is ClusterType.PERSISTENT,
        )


def load(session: Session) -> dict[str, SeenCluster]:
    """Return every cluster that is not destroyed, with its live agents."""

    def age(column: Any) -> Any:
        return func.extract("epoch", func.now() - column)

    rows = session.execute(
        select(
            Cluster.id, Cluster.type, Cluster.status, Cluster.intent, Cluster.blueprint_id, Cluster.blueprint_version,
            Cluster.group_targets, Cluster.min_workers, Cluster.max_workers, Cluster.generation,
            Cluster.asleep_backlog, Cluster.load_percentage, age(Cluster.scaled_at),
            age(func.greatest(Cluster.last_active, Cluster.created_at)),
            age(Cluster.hibernated_at),
        ).where(Cluster.status != ClusterStatus.DESTROYED)
    ).all()  # fmt: skip
    found = {}
    for row in rows:
        try:
            found[row[0]] = _cluster(session, row)
        except InvalidInput as exc:  # stored by a version of ours that accepted more: one must not stop the others
            log.error("cluster=%s is left out: %s", row[0], exc)
    agents = session.execute(
        select(
            Agent.cluster_id, Agent.agent_id, Agent.group_name, Agent.status, Agent.tasks_completed, Agent.tasks_failed
        ).where(Agent.status.in_(LIVE_AGENT_STATUSES))
    )
    for cluster_id, *rest in agents:
        fields: Any = rest
        if cluster_id in found:
            found[cluster_id].agents.append(SeenAgent(*fields))
    return found


def _cluster(session: Session, row: Any) -> SeenCluster:
    (identity, kind, status, intent, blueprint_id, version, targets, low, high, generation, asleep, load_percentage,
     since_change, idle, hibernated) = row  # fmt: skip
    settled = status in (ClusterStatus.ACTIVE, ClusterStatus.HIBERNATED)
    return SeenCluster(
        id=identity,
        type=kind,
        status=status,
        intent=intent,
        blueprint=blueprints.parsed(session, blueprint_id, version),
        group_targets=targets,
        min_workers=low,
        max_workers=high,
        generation=generation,
        asleep_backlog=asleep,
        load_percentage=load_percentage,
        since_change=float(since_change or 0.0),
        idle_seconds=float(idle or 0.0),
        hibernated_seconds=None if hibernated is None else float(hibernated),
        unfinished=not settled,
    )


def read(control: Control, clusters: Mapping[str, SeenCluster]) -> Reading:
    """Read Redis for ``clusters`` and fill in their signals. Raises TemporaryError when it does not answer."""
    queues = [cluster.queue(group) for cluster in clusters.values() for group in cluster.blueprint.groups]
    agent_ids = [agent.agent_id for cluster in clusters.values() for agent in cluster.agents]
    reading = backlog.read(control.broker.redis, queues, agent_ids)
    rates = _arrival_rates(control, clusters, reading)
    for cluster in clusters.values():
        by_group: dict[str, list[SeenAgent]] = defaultdict(list)
        for agent in cluster.agents:
            by_group[agent.group].append(agent)
        for group in cluster.blueprint.groups:
            queue = cluster.queue(group)
            cluster.signals[group.name] = _signals(group, by_group[group.name], queue, reading, rates.get(queue, 0.0))
        cluster.whole = total(cluster.signals)
    return reading


def _signals(
    group: AgentGroup, agents: list[SeenAgent], queue: str, reading: Reading, arrival_rate: float
) -> GroupSignals:
    depth = reading.queues[queue]
    if not agents and depth.length == 0:  # most groups of most clusters: they sleep
        return _QUIET
    ready = [agent for agent in agents if agent.status in READY_AGENT_STATUSES]
    beats = [reading.beats[agent.agent_id] for agent in ready if agent.agent_id in reading.beats]
    times = [beat["service_time"] for beat in beats if beat.get("service_time") is not None]
    cpus = [beat["cpu"] for beat in beats if beat.get("cpu") is not None]
    age = None if depth.oldest_published_at is None else max(0.0, reading.now - depth.oldest_published_at)
    return GroupSignals(
        ready=depth.length,
        running=sum(reading.held[agent.agent_id] for agent in agents),
        agents_ready=len(ready),
        agents_starting=sum(agent.status is AgentStatus.STARTING for agent in agents),
        beats_fresh=len(beats) == len(ready),
        slots=group.concurrency,
        oldest_age=age,
        arrival_rate=arrival_rate,
        service_time=sum(times) / len(times) if times else None,
        cpu_percent=sum(cpus) / len(cpus) if cpus else None,
    )


def _arrival_rates(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading) -> dict[str, float]:
    """Return arrivals per second by queue: what was done plus how the backlog grew since the last tick, smoothed.

    The memory lies in Redis, so that any worker may run the next tick; losing it costs one tick's knowledge.
    """
    now_seen = {
        cluster.queue(group): _done_and_waiting(cluster, group, reading)
        for cluster in clusters.values()
        if cluster.agents
        for group in cluster.blueprint.groups
        if group.count.scalable
    }
    with temporary_when_away():
        stored: Any = control.broker.redis.get(_ARRIVALS_KEY)
    memory = json.loads(stored) if stored else {}
    elapsed = reading.now - memory.get("at", reading.now)
    before = memory.get("queues", {})
    rates = {}
    for queue, count in now_seen.items():
        last_count, last_rate = before.get(queue, (count, 0.0))
        fresh = max(0.0, count - last_count) / elapsed if elapsed > 0 else 0.0
        rates[queue] = last_rate + _ARRIVALS_WEIGHT * (fresh - last_rate)
    queues = {queue: (now_seen[queue], round(rates[queue], 4)) for queue in now_seen}
    with temporary_when_away():
        control.broker.redis.set(_ARRIVALS_KEY, json.dumps({"at": reading.now, "queues": queues}), ex=60)
    return rates


def _done_and_waiting(cluster: SeenCluster, group: AgentGroup, reading: Reading) -> int:
    members = [agent.agent_id for agent in cluster.agents if agent.group == group.name]
    beats = [reading.beats[agent_id] for agent_id in members if agent_id in reading.beats]
    done = sum(beat["completed"] + beat["failed"] for beat in beats)
    return int(reading.queues[cluster.queue(group)].length + sum(reading.held[one] for one in members) + done)
