"""What monitors are told at one scrape, read from PostgreSQL and Redis at that moment.

So it is the same from every process of the API, and after restarts. What is unknown is left out and never zero.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from brain_clusters.db.models import Cluster, Job, Operation, Tick
from brain_clusters.domain import pricing
from brain_clusters.domain.exposition import METRICS, OTHER, SUM, cumulated
from brain_clusters.domain.signals import GroupSignals
from brain_clusters.domain.specs import AgentGroup
from brain_clusters.domain.states import ClusterStatus, Intent, OperationStatus
from brain_clusters.errors import TemporaryError
from brain_clusters.services import costs, counting, memory, observation, placement, sensing
from brain_clusters.services.control import Control
from brain_clusters.services.costs import Period
from brain_clusters.services.counting import Key
from brain_clusters.services.observation import SeenCluster

_STATES = ("starting", "idle", "busy", "draining")
# The reports of costs add up all usage of a day: they are not made anew at each scrape.
_COSTS_SECONDS = 30.0

Labels = tuple[str, ...]


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, and the sum of what was observed, in seconds."""

    counts: dict[str, float] = field(default_factory=dict)
    sum: float = 0.0

    def add(self, bucket: str, value: float) -> None:
        """Add what was counted of one bucket, or to the sum."""
        if bucket == SUM:
            self.sum += value
        else:
            self.counts[bucket] = self.counts.get(bucket, 0.0) + value

    def cumulated(self) -> list[tuple[str, float]]:
        """Return the upper bounds with how many were no longer."""
        return list(cumulated(self.counts))


class Scrape:
    """Samples by metric and labels. Clusters beyond the first ``most`` are summed up under OTHER.

    seen: the clusters that are told of, the oldest first, so that the same ones are told apart at each scrape.
    """

    def __init__(self, seen: Sequence[str], most: int) -> None:
        self.values: dict[str, dict[Labels, float]] = {name: {} for name in METRICS}
        self.histograms: dict[str, dict[Labels, Histogram]] = {}
        self._known = frozenset(seen)
        self._apart = frozenset(seen[:most])

    def set(self, name: str, value: float, *labels: str) -> None:
        """Tell a figure; those of clusters that are not told apart are added up."""
        if METRICS[name].labels[:1] == ("cluster",) and labels[0] not in self._known:
            return
        found = self.values[name]
        shown = self._shown(name, labels)
        found[shown] = found.get(shown, 0.0) + value if OTHER in shown else value

    def grow(self, key: Key, value: float) -> None:
        """Tell what was counted."""
        metric = METRICS.get(key.metric)
        if metric is None:
            return
        given = {"cluster": key.cluster_id, "group": key.group_name}
        more = iter(key.label.split(" "))
        own = tuple(given[name] if name in given else next(more, "") for name in metric.labels)
        labels = self._shown(key.metric, own)
        if metric.kind == "histogram":
            self.histograms.setdefault(key.metric, {}).setdefault(labels, Histogram()).add(key.bucket, value)
        else:
            found = self.values[key.metric]
            found[labels] = found.get(labels, 0.0) + value

    def tells_apart(self, cluster_id: str) -> bool:
        """Return whether a cluster has series of its own."""
        return cluster_id in self._apart

    def _shown(self, name: str, labels: Labels) -> Labels:
        names = METRICS[name].labels
        if not names or names[0] != "cluster" or labels[0] in self._apart or not labels[0]:
            return labels
        return (OTHER, *("" if of == "group" else label for of, label in zip(names[1:], labels[1:], strict=True)))


class Monitor:
    """Gathers scrapes; one for a process."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._costs: tuple[float, list[tuple[str, Labels, float]]] | None = None

    def gather(self) -> Scrape:
        """Return all figures. Raises TemporaryError without PostgreSQL; without Redis, jobs are left out."""
        control = self._control
        with control.database.snapshot() as session:  # what is counted and who is told apart change together
            clusters = observation.load(session)
            rows = _rows(session)
            scrape = Scrape([row.id for row in rows], control.settings.metrics_clusters)
            _tell_clusters(scrape, rows)
            _tell_installation(scrape, session, control.settings.host_lease_seconds)
            for key, value in counting.read(session).items():
                scrape.grow(key, value)
        scrape.set("brain_redis_up", float(self._sense(clusters)))
        scrape.set("brain_groups_unknown", sum(_tell_groups(scrape, cluster) for cluster in clusters.values()))
        for cluster in clusters.values():
            self._tell_price(scrape, cluster)
        self._tell_costs(scrape)
        return scrape

    def _sense(self, clusters: Mapping[str, SeenCluster]) -> bool:
        """Fill in what Redis tells of ``clusters``; return whether it answered. The tick's memory is only read."""
        try:
            sensing.read(self._control, clusters, memory.load(self._control.broker))
        except TemporaryError:
            for cluster in clusters.values():
                cluster.signals, cluster.resting = {}, False
            return False
        return True

    def _tell_price(self, scrape: Scrape, cluster: SeenCluster) -> None:
        currency = self._control.settings.currency
        if cluster.budget.per_day is not None:
            scrape.set("brain_budget_per_day", float(cluster.budget.per_day), cluster.id, currency)
        counts = Counter(agent.group for agent in cluster.agents)
        prices = [_hour(group, counts[group.name]) for group in cluster.blueprint.groups if counts[group.name]]
        if None not in prices:  # an agent without a price makes the whole unknown
            scrape.set("brain_cost_per_hour", float(sum(filter(None, prices), Decimal(0))), cluster.id, currency)

    def _tell_costs(self, scrape: Scrape) -> None:
        now = time.monotonic()
        if self._costs is None or now - self._costs[0] >= _COSTS_SECONDS:
            self._costs = now, list(self._read_costs())
        for name, labels, value in self._costs[1]:
            if scrape.tells_apart(labels[0]):
                scrape.set(name, value, *labels)

    def _read_costs(self) -> Iterator[tuple[str, Labels, float]]:
        today, currency = datetime.now(UTC).date(), self._control.settings.currency
        with self._control.database.transaction() as session:
            report = costs.report(session, Period(today, today), "cluster", most=None)
        for named, tally in report.rows:
            labels = (str(named["cluster_id"]), currency)
            if tally.amount is not None:
                yield "brain_cost_today", labels, float(tally.amount)
            if tally.saved is not None:
                yield "brain_saved_today", labels, float(tally.saved)


def _hour(group: AgentGroup, agents: int) -> Decimal | None:
    return pricing.time_price(group.cost, 3600.0 * agents)


def _rows(session: Session) -> Sequence[Cluster]:
    query = select(
        Cluster.id, Cluster.name, Cluster.blueprint_id, Cluster.blueprint_version, cast(Cluster.status, Text),
        Cluster.health_score,
    ).where(counting.is_told())  # fmt: skip
    return session.execute(query.order_by(*counting.BY_AGE)).all()  # type: ignore[return-value]


def _tell_clusters(scrape: Scrape, rows: Sequence[Cluster]) -> None:
    statuses = Counter({str(status): 0 for status in ClusterStatus if status is not ClusterStatus.DESTROYED})
    statuses.update(str(row.status) for row in rows if row.status != ClusterStatus.DESTROYED)
    for status, count in statuses.items():
        scrape.set("brain_clusters", count, status)
    for row in rows:
        if scrape.tells_apart(row.id):
            scrape.set(
                "brain_cluster_info", 1, row.id, row.name, row.blueprint_id, row.blueprint_version, str(row.status)
            )
            if row.status != ClusterStatus.DESTROYED:
                scrape.set("brain_cluster_health_ratio", row.health_score, row.id)


def _tell_installation(scrape: Scrape, session: Session, lease_seconds: float) -> None:
    age = session.scalar(select(observation.epoch(func.now() - Tick.ran_at)).where(Tick.name == "autoscale"))
    if age is not None:
        scrape.set("brain_tick_age_seconds", max(0.0, age))
    states: Counter[Labels] = Counter()
    for host in placement.hosts(session, lease_seconds):
        states[host["driver"], "up" if host["lease"] == "held" else "silent"] += 1
        _tell_host(scrape, host)
    for labels, count in states.items():
        scrape.set("brain_hosts", count, *labels)
    unfinished = Operation.status.in_((OperationStatus.PENDING, OperationStatus.RUNNING))
    kinds = select(Operation.kind, func.count()).where(unfinished).group_by(Operation.kind)
    for kind, count in session.execute(kinds):
        scrape.set("brain_operations_unfinished", count, kind)
    letters = (
        select(Job.cluster_id, Job.group_name, func.count())
        .where(Job.error_key.is_not(None))
        .group_by(Job.cluster_id, Job.group_name)
    )
    for cluster_id, group, count in session.execute(letters):
        scrape.set("brain_jobs_dead_letters", count, cluster_id, group)


def _tell_host(scrape: Scrape, host: Mapping[str, Any]) -> None:
    figures = {
        "up": float(host["lease"] == "held"), "agents": host["agents"], "capacity_agents": host["capacity"],
        "capacity_cpus": host["cpus"], "asked_cpus": host["cpus_used"],
        "capacity_bytes": host["memory_bytes"], "asked_bytes": host["memory_bytes_used"],
    }  # fmt: skip
    for name, value in figures.items():
        if value is not None:
            scrape.set(f"brain_host_{name}", value, host["id"], host["driver"])


def _tell_groups(scrape: Scrape, cluster: SeenCluster) -> int:
    """Tell of the groups of a cluster; return of how many the jobs are unknown."""
    unknown = 0
    agents = Counter((agent.group, str(agent.status)) for agent in cluster.agents)
    for group in cluster.blueprint.groups:
        labels = (cluster.id, group.name)
        awake = cluster.intent is Intent.RUNNING
        scrape.set("brain_agents_wanted", cluster.group_targets.get(group.name, 0) if awake else 0, *labels)
        for state in _STATES:
            scrape.set("brain_agents", agents[group.name, state], *labels, state)
        found = GroupSignals(ready=0, running=0) if cluster.resting else cluster.signals.get(group.name)
        if found is None or found.ready is None:
            unknown += 1
        else:
            _tell_jobs(scrape, found, labels)
    return unknown


def _tell_jobs(scrape: Scrape, found: GroupSignals, labels: Labels) -> None:
    scrape.set("brain_jobs_ready", found.ready or 0, *labels)
    scrape.set("brain_jobs_reserved", found.reserved, *labels)
    scrape.set("brain_jobs_running", (found.running or 0) + found.leaving, *labels)
    scrape.set("brain_jobs_scheduled", found.held, *labels)
    age_is_known = not found.ready or found.oldest_age is not None
    if age_is_known and scrape.tells_apart(labels[0]):  # ages cannot be added up
        scrape.set("brain_jobs_oldest_age_seconds", found.oldest_age or 0.0, *labels)
