"""What one tick sees: all clusters in one query, their agents in a second, and Redis in one pipeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Float, Text, cast, func, select
from sqlalchemy.orm import Session

from brain_clusters.broker import names
from brain_clusters.db.models import Agent, Cluster, Rollout
from brain_clusters.domain import budgets, schedules
from brain_clusters.domain.budgets import Spent
from brain_clusters.domain.choosing import Situation
from brain_clusters.domain.scaling import ClusterView
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import Blueprint, Budget, ScalingSchedule
from brain_clusters.domain.states import (
    LIVE_AGENT_STATUSES,
    AgentStatus,
    ClusterStatus,
    ClusterType,
    Intent,
    RolloutStatus,
)
from brain_clusters.errors import InvalidInput
from brain_clusters.services import blueprints

log = logging.getLogger(__name__)

_UNSPENT = Spent()
_REPLACING = (RolloutStatus.RUNNING, RolloutStatus.REVERTING)
_STARTING = (ClusterStatus.PLANNING, ClusterStatus.SPAWNING)


@dataclass(slots=True)
class SeenAgent:
    """A live agent's row, as far as the tick needs it."""

    agent_id: str
    group: str
    status: AgentStatus
    tasks_completed: int
    tasks_failed: int
    busy_seconds: float = 0.0


@dataclass(slots=True)
class SeenCluster:
    """A cluster's row and what was found about it.

    signals is empty while Redis does not answer, and while the cluster is resting, which is that nothing waits, runs
    or could change; whole is their total. queues: one for each group, in blueprint order. idle_seconds and the others
    count from the database's clock. at: that clock, in seconds since the epoch. budget, spent: its own,
    and that it was spent. paused: the autoscaler is to leave it alone. rolling: its agents are being replaced.
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
    health_score: float
    budget: Budget
    spent: Spent
    at: float
    paused: bool = False
    rolling: bool = False
    agents: list[SeenAgent] = field(default_factory=list)
    signals: Mapping[str, GroupSignals] = field(default_factory=dict)
    whole: GroupSignals = field(default_factory=GroupSignals)
    unfinished: bool = False
    resting: bool = False
    queues: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.queues = tuple([names.group_queue(self.id, group.slug) for group in self.blueprint.groups])

    @property
    def to_settle(self) -> bool:
        """Whether it is on its way, or lacks agents: who saw some end may have died before it had them replaced."""
        missing = len(self.agents) != sum(self.group_targets.values())
        return self.unfinished or self.rolling or (self.intent is Intent.RUNNING and missing)

    def situation(self, settings_start_timeout: float, look_ahead: float, last_look: float | None) -> Situation:
        """Return what ``domain.choosing`` needs. last_look: ``at`` of the tick before."""
        now = datetime.fromtimestamp(self.at, UTC)
        crons = self.blueprint.lifecycle.reactivate.schedules
        after = max(last_look or self.at - look_ahead, self.at - (self.hibernated_seconds or 0.0))
        asleep = self.intent is Intent.ASLEEP
        fired = schedules.fired(crons, datetime.fromtimestamp(after, UTC), now) if crons and asleep else None
        return Situation(
            view=self._view(now),
            phase=self._phase(settings_start_timeout + look_ahead),
            asleep_backlog=self.asleep_backlog,
            hibernated_seconds=self.hibernated_seconds,
            look_ahead=look_ahead,
            fired=None if fired is None else fired.isoformat(),
            over_budget=self.over_budget,
        )

    @property
    def over_budget(self) -> str | None:
        """Why the cluster has to sleep for what it spent, or None."""
        today = datetime.fromtimestamp(self.at, UTC).date()
        return self.spent.sleeps_for(self.budget, today)

    def _phase(self, start_timeout: float) -> Any:
        if self.intent is Intent.ASLEEP:
            return "asleep"
        # One whose agents never come is sized all the same, after a while. That is a look longer than its operation
        # has, which would succeed although nobody came, were fewer agents asked for just before it is late.
        if self.status in _STARTING and self.since_change < start_timeout:
            return "starting"
        # Whatever is being replaced has still to prove itself, so it does not fall asleep.
        return "settled" if self.status is ClusterStatus.ACTIVE and not self.rolling else "changing"

    def _view(self, now: datetime) -> ClusterView:
        floor, next_floor = floors(self.blueprint, now)
        if floor and self.intent is Intent.ASLEEP:
            # Sleep that somebody asked for while the schedule was in force lasts until it begins anew.
            fell_asleep = now - timedelta(seconds=self.hibernated_seconds or 0.0)
            floor = 0 if floors(self.blueprint, fell_asleep)[0] >= floor else floor
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
            paused=self.paused,
        )


def floors(blueprint: Blueprint, now: datetime) -> tuple[int, float | None]:
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


def epoch(column: Any) -> Any:
    """Return a time, or an interval, as SQL for its seconds."""
    return func.date_part("epoch", column, type_=Float(53))  # a double; extract is numeric, and slower


def load(session: Session, cluster_id: str | None = None) -> dict[str, SeenCluster]:
    """Return every cluster that is not destroyed, or one of them, with its live agents."""
    at = float(session.scalar(select(func.extract("epoch", func.now()))) or 0.0)

    def age(column: Any) -> Any:
        return epoch(func.now() - column)

    query = select(
        Cluster.id, cast(Cluster.type, Text), cast(Cluster.status, Text), cast(Cluster.intent, Text),
        Cluster.blueprint_id, Cluster.blueprint_version, cast(Cluster.group_targets, Text), Cluster.min_workers,
        Cluster.max_workers, Cluster.generation, Cluster.asleep_backlog, Cluster.load_percentage,
        age(Cluster.scaled_at), age(func.greatest(Cluster.last_active, Cluster.created_at)),
        age(Cluster.hibernated_at), Cluster.unknown_ticks,
        epoch(Cluster.wake_at), Cluster.health_score, Cluster.budget_per_day,
        Cluster.over_budget_on, Cluster.over_budget_limit, Cluster.budget_waived_on,
        Cluster.paused,
    ).where(Cluster.status != ClusterStatus.DESTROYED)  # fmt: skip
    agents = select(
        Agent.cluster_id, Agent.agent_id, Agent.group_name, cast(Agent.status, Text), Agent.tasks_completed,
        Agent.tasks_failed, Agent.busy_seconds, Agent.retiring,
    ).where(Agent.status.in_(LIVE_AGENT_STATUSES))  # fmt: skip
    if cluster_id is not None:
        query, agents = query.where(Cluster.id == cluster_id), agents.where(Agent.cluster_id == cluster_id)
    found, shared = {}, _Shared(session)
    # On the connection itself: the session would treat tens of thousands of rows as if they were objects of its own.
    connection = session.connection()
    for row in connection.execute(query).all():
        try:
            found[row[0]] = _cluster(shared, row, at)
        except InvalidInput as exc:  # stored by a version of ours that accepted more: one must not stop the others
            log.error("a cluster is left out: %s", exc, extra={"cluster_id": row[0]})
    # Paused ones are settled as they stand.
    for owner in connection.scalars(select(Rollout.cluster_id).where(Rollout.status.in_(_REPLACING))):
        if owner in found:
            found[owner].rolling = True
    for owner, agent_id, group, status, completed, failed, busy, retiring in connection.execute(agents).all():
        if owner in found:
            found[owner].rolling |= retiring
            found[owner].agents.append(SeenAgent(agent_id, group, _AGENT_STATUSES[status], completed, failed, busy))
    return found


class _Shared:
    """What many clusters have alike: their blueprint, and their counts by group. Read once for all of them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._blueprints: dict[tuple[str, str], Blueprint] = {}
        self._targets: dict[str, Mapping[str, int]] = {}

    def blueprint(self, identity: str, version: str) -> Blueprint:
        """Return a blueprint. Raises InvalidInput for one that can no longer be read."""
        found = self._blueprints.get((identity, version))
        if found is None:
            found = self._blueprints[identity, version] = blueprints.parsed(self._session, identity, version)
        return found

    def targets(self, text: str) -> Mapping[str, int]:
        """Return counts by group, given as JSON. They are shared: nobody may change them."""
        found = self._targets.get(text)
        if found is None:
            found = self._targets[text] = json.loads(text)
        return found


def _cluster(shared: _Shared, row: Any, at: float) -> SeenCluster:
    (identity, kind, status, intent, blueprint_id, version, targets, low, high, generation, asleep, load_percentage,
     since_change, idle, hibernated, unknown, wake_at, health, per_day, *spent, paused) = row  # fmt: skip
    blueprint = shared.blueprint(blueprint_id, version)
    return SeenCluster(
        identity, _TYPES[kind], _STATUSES[status], _INTENTS[intent], blueprint,
        shared.targets(targets), low, high, generation, asleep, load_percentage, since_change or 0.0, idle or 0.0,
        hibernated, unknown, wake_at, health, budgets.effective(blueprint.budget, per_day),
        Spent(*spent) if any(spent) else _UNSPENT, at, paused, unfinished=status not in ("active", "hibernated"),
    )  # fmt: skip
