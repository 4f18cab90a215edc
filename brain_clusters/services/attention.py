"""What needs somebody's attention, over all clusters: the worst first, each with a sentence and since when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased

from brain_clusters.db.models import Alert, Cluster, Job, Operation
from brain_clusters.domain.states import DEAD_LETTER_STATUSES, Intent, OperationStatus
from brain_clusters.services import placement

# Of each kind, so many are told; ``total`` counts all.
_MOST = 20
# A cluster that has just been scaled is short of agents for a moment; that is no trouble yet.
_SETTLES_SECONDS = 30.0
_RECENT = timedelta(days=1)
_ORDER = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that needs attention. kind: dead_letters, unhealthy, operation, alert, budget or host.

    subject: the id of the cluster, or of the host. id: of the operation, or the alert's name.
    """

    kind: str
    severity: str
    subject: str
    sentence: str
    at: datetime | None
    id: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Attention:
    """The items, at most _MOST of each kind, and how many there are of each."""

    items: list[Item]
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """How many things need attention."""
        return sum(self.counts.values())


def attention(session: Session, *, lease_seconds: float, hosts: bool) -> Attention:
    """Return what needs attention. hosts: whether the reader may see hosts, which belong to no cluster."""
    found: dict[str, list[Item]] = {
        "alert": list(_alerts(session)),
        "unhealthy": list(_unhealthy(session)),
        "dead_letters": list(_dead_letters(session)),
        "operation": list(_operations(session)),
        "budget": list(_budgets(session)),
        "host": list(_hosts(session, lease_seconds)) if hosts else [],
    }
    items = [item for rows in found.values() for item in rows[:_MOST]]
    items.sort(key=lambda item: _ORDER.index(item.severity))
    return Attention(items, {kind: len(rows) for kind, rows in found.items()})


def _alerts(session: Session) -> Iterable[Item]:
    rows = session.execute(
        select(Alert.cluster_id, Alert.name, Alert.state, Alert.fired_at, Alert.value)
        .where(Alert.state.in_(("firing", "clearing")))
        .order_by(Alert.fired_at.desc())
    )
    for cluster_id, name, state, fired_at, value in rows:
        now = "" if value is None else f", now at {value:g}"
        told = f"the alert “{name}” fires{now}" if state == "firing" else f"the alert “{name}” is about to clear{now}"
        severity = "critical" if state == "firing" else "warning"
        yield Item(kind="alert", severity=severity, subject=cluster_id, sentence=told, at=fired_at, id=name)


def _unhealthy(session: Session) -> Iterable[Item]:
    settled = or_(Cluster.scaled_at.is_(None), Cluster.scaled_at < func.now() - timedelta(seconds=_SETTLES_SECONDS))
    short = or_(Cluster.current_workers < Cluster.target_workers, Cluster.health_score < 1)
    rows = session.execute(
        select(Cluster.id, Cluster.current_workers, Cluster.target_workers, Cluster.health_score, Cluster.scaled_at)
        .where(Cluster.intent == Intent.RUNNING, Cluster.destroyed_at.is_(None), settled, short)
        .order_by(Cluster.health_score, Cluster.id)
    )
    for cluster_id, current, target, health, scaled_at in rows:
        missing = f"{current} of {target} agents are there" if current < target else "agents died in the last minute"
        severity = "critical" if current == 0 and target else "warning"
        told = f"{missing}; health is {health * 100:.0f} %"
        yield Item(kind="unhealthy", severity=severity, subject=cluster_id, sentence=told, at=scaled_at)


def _dead_letters(session: Session) -> Iterable[Item]:
    rows = session.execute(
        select(Job.cluster_id, func.count(), func.count(Job.error_key.distinct()), func.max(Job.finished_at))
        .where(Job.error_key.is_not(None), Job.status.in_(DEAD_LETTER_STATUSES))
        .group_by(Job.cluster_id)
        .order_by(func.max(Job.finished_at).desc())
    )
    for cluster_id, count, kinds, last_at in rows:
        jobs = "job" if count == 1 else "jobs"
        told = f"{count:,} {jobs} failed for good, of {kinds} {'kind' if kinds == 1 else 'kinds'} of error"
        yield Item(kind="dead_letters", severity="warning", subject=cluster_id, sentence=told, at=last_at, count=count)


def _operations(session: Session) -> Iterable[Item]:
    """Yield operations that failed in the last day, unless the cluster has had one since that succeeded."""
    later = aliased(Operation)
    repaired = (
        select(later.id)
        .where(
            later.cluster_id == Operation.cluster_id,
            later.status == OperationStatus.SUCCEEDED,
            later.created_at > Operation.created_at,
        )
        .exists()
    )
    rows = session.execute(
        select(Operation.id, Operation.kind, Operation.cluster_id, Operation.error, Operation.finished_at)
        .where(Operation.status == OperationStatus.FAILED, Operation.finished_at > func.now() - _RECENT, ~repaired)
        .order_by(Operation.finished_at.desc())
    )
    for operation_id, kind, cluster_id, error, finished_at in rows:
        why = (error or {}).get("message") or "no reason was told"
        yield Item(
            kind="operation", severity="warning", subject=cluster_id or "", sentence=f"{kind} failed: {why}",
            at=finished_at, id=str(operation_id),
        )  # fmt: skip


def _budgets(session: Session) -> Iterable[Item]:
    rows = session.execute(
        select(Cluster.id, Cluster.over_budget_limit, Cluster.budget_waived_on)
        .where(Cluster.over_budget_on == datetime.now(UTC).date(), Cluster.destroyed_at.is_(None))
        .order_by(Cluster.id)
    )
    for cluster_id, limit, waived in rows:
        told = "today's budget is spent" if limit is None else f"today's budget of {limit:g} is spent"
        severity = "info" if waived else "critical"
        yield Item(kind="budget", severity=severity, subject=cluster_id, sentence=told, at=None)


def _hosts(session: Session, lease_seconds: float) -> Iterable[Item]:
    for host in placement.hosts(session, lease_seconds):
        if host["lease"] != "held" and host["agents"]:
            told = f"the host says nothing any more; it ran {host['agents']} agents"
            yield _host(host, "critical", told)
        elif host["lease"] == "ended":
            yield _host(host, "warning", "the host says nothing any more; it ran no agents")


def _host(host: dict[str, Any], severity: str, told: str) -> Item:
    return Item(kind="host", severity=severity, subject=host["id"], sentence=told, at=host["seen_at"])
