"""What clusters spent today against their budgets, once per tick: told of once, and acted on by ``domain.choosing``.

A day's spending is what agents' hours and finished jobs cost by the ledger, and what calls of models cost by the
count in Redis, which knows those of jobs that still run; should that be lost, the ledger's figures stand.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from brain_clusters.broker import spending
from brain_clusters.db.models import Cluster, Event
from brain_clusters.domain import pricing
from brain_clusters.domain.budgets import Spent
from brain_clusters.domain.states import Intent
from brain_clusters.errors import TemporaryError
from brain_clusters.services import costs, history, metering
from brain_clusters.services.control import Control
from brain_clusters.services.observation import SeenCluster

log = logging.getLogger(__name__)

_DOES = {
    "alert": "nothing is held back",
    "hibernate": "the cluster sleeps until the day (UTC) is over",
    "stop": "the cluster sleeps until it is reactivated or its budget is raised",
}


def look(control: Control, clusters: Mapping[str, SeenCluster]) -> None:
    """Note which clusters have spent their budget, tell of those that just did, and of trees of jobs that did.

    Raises nothing but TemporaryError, when a server is away.
    """
    try:
        _look(control, clusters)
    except TemporaryError:
        raise
    except Exception:
        log.exception("budgets were left out of this tick")


def _look(control: Control, clusters: Mapping[str, SeenCluster]) -> None:
    watched = [one for one in clusters.values() if one.budget.per_day is not None and one.intent is not Intent.GONE]
    if watched:
        _look_at_days(control, watched)
    if any(one.budget.per_tree is not None for one in clusters.values()):
        _look_at_trees(control, clusters)


def _look_at_days(control: Control, watched: list[SeenCluster]) -> None:
    today = datetime.fromtimestamp(watched[0].at, UTC).date()
    ids = [cluster.id for cluster in watched]
    with control.database.transaction() as session:
        metering.fold(session, ids)
        ledger = costs.spent(session, ids, today)
    hours = {cluster_id: pricing.micros(part.besides_use) for cluster_id, part in ledger.items()}
    counted = spending.count(control.broker.redis, today, hours)
    refused = spending.refused(control.broker.redis)
    over = []
    for cluster in watched:
        limit = cluster.budget.per_day or 0.0
        spent = max(Decimal(counted[cluster.id]) / pricing.MICRO, ledger[cluster.id].total)
        crossed = spent >= Decimal(str(limit)) or _was_refused(refused.get(cluster.id, {}), today, limit)
        is_known = (cluster.spent.on, cluster.spent.limit) == (today, limit)
        if crossed and not is_known and cluster.spent.waived_on != today:
            over.append((cluster, float(spent)))
    if over:
        _tell(control, today, over)


def _was_refused(told: Mapping[str, Any], today: date, limit: float) -> bool:
    """Return whether a call had no room in the present limit today: what is left is less than one call."""
    asked = told.get("limit")
    return told.get("day") == today.isoformat() and isinstance(asked, int | float) and asked >= limit


def _tell(control: Control, today: date, over: Iterable[tuple[SeenCluster, float]]) -> None:
    events = []
    with control.database.transaction() as session:
        for cluster, spent in over:
            if _note(session, cluster, today):
                events.append(_record(session, cluster, "per_day", cluster.budget.per_day or 0.0, spent))
            cluster.spent = Spent(today, cluster.budget.per_day, cluster.spent.waived_on)
        session.flush()
    for event in events:
        _notify(control, event)


def _note(session: Session, cluster: SeenCluster, today: date) -> bool:
    """Write down that a budget is spent; return whether nobody did before: of two ticks at once, one tells."""
    limit = cluster.budget.per_day
    noted: Any = session.execute(
        update(Cluster)
        .where(
            Cluster.id == cluster.id,
            or_(Cluster.over_budget_on.is_distinct_from(today), Cluster.over_budget_limit.is_distinct_from(limit)),
            Cluster.budget_waived_on.is_distinct_from(today),
        )
        .values(over_budget_on=today, over_budget_limit=limit)
        .execution_options(synchronize_session=False)
    )
    return bool(noted.rowcount)


def _look_at_trees(control: Control, clusters: Mapping[str, SeenCluster]) -> None:
    for root, told in spending.take_trees(control.broker.redis).items():
        cluster = clusters.get(str(told.get("cluster_id")))
        if cluster is None or not all(isinstance(told.get(key), int | float) for key in ("limit", "spent")):
            continue
        with control.database.transaction() as session:
            event = _record(session, cluster, "per_tree", float(told["limit"]), float(told["spent"]), root[:200])
            session.flush()
        _notify(control, event)


@dataclass(frozen=True, slots=True)
class _Told:
    """How the crossing of a limit is told. tree: the root of the tree of jobs; None for the whole cluster."""

    sentence: str
    name: str


def _words(cluster: SeenCluster, limit: float, spent: float, tree: str | None) -> _Told:
    if tree is None:
        does = _DOES[cluster.budget.on_exceeded]
        return _Told(f"{spent:g} of {limit:g} a day (UTC) are spent; {does}", "budget")
    does = "nothing is held back" if cluster.budget.on_exceeded == "alert" else "it may call no model any more"
    return _Told(f"the tree of job {tree} has spent {spent:g} of {limit:g}; {does}", f"budget of job {tree}")


def _record(
    session: Session, cluster: SeenCluster, limit_of: str, limit: float, spent: float, tree: str | None = None
) -> Event:
    """Add the event of a crossed limit. It bears what an alert's does, since the same notification tells of it."""
    told, now = _words(cluster, limit, spent, tree), datetime.now(UTC).isoformat()
    data: dict[str, Any] = {
        "alert": told.name,
        "state": "firing",
        "condition": f"spent >= budget.{limit_of}",
        "severity": "critical",
        "value": spent,
        "threshold": limit,
        "since": now,
        "fired_at": now,
        "on_exceeded": cluster.budget.on_exceeded,
        "root_id": tree,
    }
    return history.record(session, "budget.exceeded", told.sentence, cluster_id=cluster.id, actor="budget", data=data)


def _notify(control: Control, event: Event) -> None:
    log.critical("budget exceeded event=%s: %s", event.id, event.reason, extra={"cluster_id": event.cluster_id})
    if control.settings.admin_webhook_url is None:
        return
    try:
        control.broker.publish_notification(event.id)
    except TemporaryError as exc:
        log.error("event %s is not told to the admin: %s", event.id, exc, extra={"cluster_id": event.cluster_id})
