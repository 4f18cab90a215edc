"""What one tick sees: all clusters in one query, their agents in a second, and Redis in one pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Float, Text, cast, func, select
from sqlalchemy.orm import Session

from brain_clusters.broker import backlog, names
from brain_clusters.broker.backlog import QueueDepth, Reading
from brain_clusters.db.models import Agent, Cluster, Job
from brain_clusters.domain import schedules
from brain_clusters.domain.choosing import Situation
from brain_clusters.domain.scaling import ClusterView
from brain_clusters.domain.signals import GroupSignals, Learned, learn, total
from brain_clusters.domain.specs import AgentGroup, Blueprint, ScalingSchedule
from brain_clusters.domain.states import LIVE_AGENT_STATUSES, AgentStatus, ClusterStatus, ClusterType, Intent, JobStatus
from brain_clusters.errors import InvalidInput
from brain_clusters.services import blueprints
from brain_clusters.services.control import Control
from brain_clusters.services.measured import Measured, measured
from brain_clusters.services.memory import Memory

log = logging.getLogger(__name__)

_FLOAT = Float(53)
_QUIET = GroupSignals(ready=0, running=0)
_UNMEASURED = Measured()
_STARTING = (ClusterStatus.PLANNING, ClusterStatus.SPAWNING)

# By (cluster id, group name): how many jobs wait in PostgreSQL for their ETA, and when the first is due (epoch).
Etas = Mapping[tuple[str, str], tuple[int, float]]


@dataclass(slots=True)
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

    signals is empty while Redis does not answer; whole is their total. idle_seconds and the others count from the
    database's clock. at: that clock, in seconds since the epoch.
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
    unknown_ticks: int
    wake_at: float | None
    at: float
    agents: list[SeenAgent] = field(default_factory=list)
    signals: Mapping[str, GroupSignals] = field(default_factory=dict)
    whole: GroupSignals = field(default_factory=GroupSignals)
    unfinished: bool = False

    def queue(self, group: AgentGroup) -> str:
        """Return the queue of one of its groups."""
        return names.group_queue(self.id, group.slug)

    def situation(self, settings_start_timeout: float, look_ahead: float, last_look: float | None) -> Situation:
        """Return what ``domain.choosing`` needs. last_look: when the tick before was (seconds since the epoch)."""
        now = datetime.fromtimestamp(self.at, UTC)
        crons = self.blueprint.lifecycle.reactivate.schedules
        after = max(last_look or self.at - look_ahead, self.at - (self.hibernated_seconds or 0.0))
        asleep = self.intent is Intent.ASLEEP
        fired = schedules.fired(crons, datetime.fromtimestamp(after, UTC), now) if crons and asleep else None
        return Situation(
            view=self._view(now),
            phase=self._phase(settings_start_timeout),
            asleep_backlog=self.asleep_backlog,
            hibernated_seconds=self.hibernated_seconds,
            look_ahead=look_ahead,
            fired=None if fired is None else fired.isoformat(),
        )

    def _phase(self, start_timeout: float) -> Any:
        if self.intent is Intent.ASLEEP:
            return "asleep"
        # One whose agents never come is sized all the same, after a while.
        if self.status in _STARTING and self.since_change < start_timeout:
            return "starting"
        return "settled" if self.status is ClusterStatus.ACTIVE else "changing"

    def _view(self, now: datetime) -> ClusterView:
        floor, next_floor = _floors(self.blueprint, now)
        return ClusterView(
            blueprint=self.blueprint,
            targets=self.group_targets,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            since_change=self.since_change,
            idle_seconds=self.idle_seconds,
            persistent=self.type is ClusterType.PERSISTENT,
            unknown_ticks=self.unknown_ticks,
            floor=floor,
            next_floor=next_floor,
        )


def _floors(blueprint: Blueprint, now: datetime) -> tuple[int, float | None]:
    """Return the agents that a schedule asks for now, and the seconds until one asks for more."""
    entries = blueprint.scaling.schedule
    return _floors_at(entries, now) if entries else (0, None)


@lru_cache(maxsize=1000)
def _floors_at(entries: tuple[ScalingSchedule, ...], now: datetime) -> tuple[int, float | None]:
    """Read the expressions once a tick, however many clusters come from one blueprint."""
    floor, rises = schedules.floor(entries, now), schedules.next_floor(entries, now)
    return floor.min_workers, None if rises is None else (rises[0] - now).total_seconds()


# --- PostgreSQL -------------------------------------------------------------------------------------------------

# Read as text and looked up here: a tenth of the cost of SQLAlchemy's own way, and there are tens of thousands.
_TYPES = {str(member): member for member in ClusterType}
_STATUSES = {str(member): member for member in ClusterStatus}
_INTENTS = {str(member): member for member in Intent}
_AGENT_STATUSES = {str(member): member for member in AgentStatus}


def load(session: Session, cluster_id: str | None = None) -> dict[str, SeenCluster]:
    """Return every cluster that is not destroyed, or one of them, with its live agents."""
    at = float(session.scalar(select(func.extract("epoch", func.now()))) or 0.0)

    def age(column: Any) -> Any:
        return cast(func.extract("epoch", func.now() - column), _FLOAT)

    query = select(
        Cluster.id, cast(Cluster.type, Text), cast(Cluster.status, Text), cast(Cluster.intent, Text),
        Cluster.blueprint_id, Cluster.blueprint_version, Cluster.group_targets, Cluster.min_workers,
        Cluster.max_workers, Cluster.generation, Cluster.asleep_backlog, Cluster.load_percentage,
        age(Cluster.scaled_at), age(func.greatest(Cluster.last_active, Cluster.created_at)),
        age(Cluster.hibernated_at), Cluster.unknown_ticks,
        cast(func.extract("epoch", Cluster.wake_at), _FLOAT),
    ).where(Cluster.status != ClusterStatus.DESTROYED)  # fmt: skip
    agents = select(
        Agent.cluster_id, Agent.agent_id, Agent.group_name, cast(Agent.status, Text), Agent.tasks_completed,
        Agent.tasks_failed,
    ).where(Agent.status.in_(LIVE_AGENT_STATUSES))  # fmt: skip
    if cluster_id is not None:
        query, agents = query.where(Cluster.id == cluster_id), agents.where(Agent.cluster_id == cluster_id)
    found = {}
    for row in session.execute(query):
        try:
            found[row[0]] = _cluster(session, row, at)
        except InvalidInput as exc:  # stored by a version of ours that accepted more: one must not stop the others
            log.error("cluster=%s is left out: %s", row[0], exc)
    for owner, agent_id, group, status, completed, failed in session.execute(agents):
        if owner in found:
            found[owner].agents.append(SeenAgent(agent_id, group, _AGENT_STATUSES[status], completed, failed))
    return found


def _cluster(session: Session, row: Any, at: float) -> SeenCluster:
    (identity, kind, status, intent, blueprint_id, version, targets, low, high, generation, asleep, load_percentage,
     since_change, idle, hibernated, unknown, wake_at) = row  # fmt: skip
    return SeenCluster(
        identity, _TYPES[kind], _STATUSES[status], _INTENTS[intent], blueprints.parsed(session, blueprint_id, version),
        targets, low, high, generation, asleep, load_percentage, since_change or 0.0, idle or 0.0, hibernated, unknown,
        wake_at, at, unfinished=status not in ("active", "hibernated"),
    )  # fmt: skip


# --- Redis ------------------------------------------------------------------------------------------------------


def read(control: Control, clusters: Mapping[str, SeenCluster], memory: Memory) -> Reading:
    """Read Redis for ``clusters``, learn from it, and fill in their signals.

    Raises TemporaryError when Redis does not answer: nothing is known then, which is not that nothing waits.
    """
    queues = [cluster.queue(group) for cluster in clusters.values() for group in cluster.blueprint.groups]
    agent_ids = [agent.agent_id for cluster in clusters.values() for agent in cluster.agents]
    reading = backlog.read(control.broker.redis, queues, agent_ids)
    known = measured(control)
    with control.database.transaction() as session:
        waiting = _etas(session)
    for cluster in clusters.values():
        _fill(cluster, reading, memory, known, waiting)
    memory.at = reading.now
    memory.clusters = {name: one for name, one in memory.clusters.items() if name in clusters}
    return reading


def _etas(session: Session) -> Etas:
    query = (
        select(Job.cluster_id, Job.group_name, func.count(), cast(func.extract("epoch", func.min(Job.eta)), _FLOAT))
        .where(Job.status == JobStatus.QUEUED, Job.published_at.is_(None), Job.eta.is_not(None))
        .group_by(Job.cluster_id, Job.group_name)
    )
    return {(cluster_id, group): (count, due) for cluster_id, group, count, due in session.execute(query)}


def _fill(
    cluster: SeenCluster, reading: Reading, memory: Memory,
    known: Mapping[tuple[str, str], Measured], waiting: Etas,
) -> None:  # fmt: skip
    members: dict[str, list[SeenAgent]] = {}
    for agent in cluster.agents:
        members.setdefault(agent.group, []).append(agent)
    found = {}
    for group in cluster.blueprint.groups:
        depth = reading.queues[cluster.queue(group)]
        due = waiting.get((cluster.id, group.name))
        agents = members.get(group.name, _NOBODY)
        if not agents and depth.length == 0 and depth.held == 0 and due is None:
            found[group.name] = _QUIET  # most groups of most clusters: they sleep
            continue
        seen = _Group(group, depth, agents, reading)
        learned = _learn(cluster, group, seen, memory) if agents else memory_of(memory, cluster.id, group.name)
        measures = known.get((cluster.blueprint.id, group.name), _UNMEASURED)
        found[group.name] = seen.signals(due, learned, measures)
    cluster.signals = found
    cluster.whole = total(found) if any(one is not _QUIET for one in found.values()) else _QUIET


_NOBODY: list[SeenAgent] = []


def memory_of(memory: Memory, cluster_id: str, group: str) -> Learned | None:
    """Return what was learned about a group, if anything."""
    found = memory.clusters.get(cluster_id)
    return None if found is None else found.learned.get(group)


def _learn(cluster: SeenCluster, group: AgentGroup, seen: _Group, memory: Memory) -> Learned | None:
    """Learn from this look. A fixed group is not sized, so only its service time could matter: nothing is kept."""
    before = memory_of(memory, cluster.id, group.name)
    if not group.count.scalable or (before is None and seen.jobs == 0 and seen.ended == 0):
        return before
    scaling = cluster.blueprint.scaling
    windows = (scaling.stable_window_seconds, scaling.panic_window_seconds)
    learned = learn(before, seen.now, seen.jobs, seen.ended, windows, seen.service_time)
    memory.of(cluster.id).learned[group.name] = learned
    return learned


class _Group:
    """One group with agents, as the reading shows it."""

    def __init__(self, group: AgentGroup, depth: QueueDepth, agents: list[SeenAgent], reading: Reading) -> None:
        self.group, self.depth, self.now = group, depth, reading.now
        self.ready = self.starting = self.draining = 0
        self.running = self.reserved = self.leaving = self.ended = 0
        self.beats: list[Mapping[str, Any]] = []
        for agent in agents:
            beat, held = reading.beats.get(agent.agent_id), reading.held[agent.agent_id]
            if beat is not None:
                known = agent.tasks_completed + agent.tasks_failed
                self.ended += max(0, beat["completed"] + beat["failed"] - known)
            if agent.status is AgentStatus.DRAINING:
                self.draining += 1
                self.leaving += held
                continue
            running = held if beat is None else min(held, beat["in_flight"])
            self.running += running
            self.reserved += held - running
            if agent.status is AgentStatus.STARTING and beat is None:
                self.starting += 1
                continue
            self.ready += 1
            if beat is not None:
                self.beats.append(beat)
        self.jobs = depth.length + depth.held + self.running + self.reserved + self.leaving

    @property
    def service_time(self) -> float | None:
        times = [beat["service_time"] for beat in self.beats if beat["service_time"] is not None]
        return sum(times) / len(times) if times else None

    def signals(self, due: tuple[int, float] | None, learned: Learned | None, measures: Measured) -> GroupSignals:
        depth, now, beats = self.depth, self.now, self.beats
        cpus = [beat["cpu"] for beat in beats if beat["cpu"] is not None]
        waiting, first = due or (0, None)
        dues = [one for one in (first, depth.next_due_at) if one is not None]
        service = learned.service_time if learned and learned.service_time is not None else measures.service_time
        return GroupSignals(
            ready=depth.length,
            running=self.running,
            reserved=self.reserved,
            leaving=self.leaving,
            held=depth.held + waiting,
            next_due=max(0.0, min(dues) - now) if dues else None,
            agents_ready=self.ready,
            agents_starting=self.starting,
            agents_draining=self.draining,
            beats_fresh=len(beats) == self.ready,
            beats_age=max((max(0.0, now - beat["at"]) for beat in beats if beat["at"]), default=None),
            slots=self.group.concurrency,
            oldest_age=None if depth.oldest_published_at is None else max(0.0, now - depth.oldest_published_at),
            arrival_rate=learned.stable if learned else 0.0,
            burst_rate=learned.burst if learned else 0.0,
            service_time=service,
            start_time=measures.start_time,
            cpu_percent=sum(cpus) / len(cpus) if cpus else None,
        )
