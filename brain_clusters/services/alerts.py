"""The alerts of all clusters, once per tick: one query for where they stand, one transaction for what changed.

A transition's row and its event are written together, so it is told once. What it asks for is done after the commit,
by ``alert_actions``, which may repeat it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from brain_clusters.broker.backlog import Reading
from brain_clusters.db.models import Alert, Cluster, Event
from brain_clusters.domain import alerts as domain
from brain_clusters.domain.alerts import AlertRule, AlertState, Transition
from brain_clusters.errors import TemporaryError
from brain_clusters.services import alert_actions, blueprints, clusters, history
from brain_clusters.services.control import Control
from brain_clusters.services.figures import Figures, figures
from brain_clusters.services.observation import SeenCluster

log = logging.getLogger(__name__)

_FIELDS = ("state", "since", "fired_at", "resolved_at", "value")
_TICK_IS_OVER_SECONDS = 30.0
# Of PostgreSQL's advisory locks: any number that nothing else of ours takes.
_LOCK = 0x616C65727473
States = dict[tuple[str, str], AlertState]


@dataclass(frozen=True, slots=True)
class _Look:
    """One alert at one look: what it was, what it is, and what is to be told."""

    figures: Figures
    rule: AlertRule
    before: AlertState
    after: AlertState
    told: Transition | None


def watch(control: Control, clusters: Mapping[str, SeenCluster], reading: Reading | None) -> None:
    """Look at the alerts of all clusters. Raises nothing but TemporaryError, when PostgreSQL is away.

    reading: what Redis said; None while it does not answer.
    """
    try:
        evaluate(control, figures(control, clusters, reading), datetime.now(UTC))
    except TemporaryError:
        raise
    except Exception:
        log.exception("alerts were left out of this tick")


def evaluate(control: Control, figures: Mapping[str, Figures], now: datetime) -> None:
    """Move every alert by what ``figures`` say, tell what is to be told, and do what it asks for."""
    watched = {key: found for key, found in figures.items() if found.blueprint.alerts}
    if not watched:
        return
    with control.database.transaction() as session:
        # Two ticks at once, where one was slow, would both see that an alert has to be told, and both tell it.
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        stored = _stored(session, watched)
        looks = [look for found in watched.values() for look in _looks(found, stored, now)]
        events = _write(session, looks)
    for event in events:
        alert_actions.act(control, event, watched[str(event.cluster_id)])
    told = {cluster_id for (cluster_id, _), state in stored.items() if alert_actions.is_recent(state, now)}
    alert_actions.sweep(control, {key: watched[key] for key in told})


def end_destroyed(control: Control) -> None:
    """End the alerts of clusters that were gone before a tick could see that they went."""
    open_alert = select(Alert.name).where(Alert.cluster_id == Cluster.id, Alert.state != "resolved").exists()
    # A tick that still saw the cluster is over by then.
    gone = Cluster.destroyed_at < func.now() - timedelta(seconds=_TICK_IS_OVER_SECONDS)
    with control.database.transaction() as session:
        ending = {
            cluster.id: Figures(
                cluster_id=cluster.id,
                blueprint=blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version),
                generation=cluster.generation,
                values={},
                is_ending=True,
            )
            for cluster in session.scalars(select(Cluster).where(gone, open_alert))
        }
    evaluate(control, ending, datetime.now(UTC))


def listing(session: Session, cluster_id: str) -> list[tuple[AlertRule, AlertState]]:
    """Return the alerts of a cluster's blueprint and where they stand; raise NotFound."""
    cluster = clusters.get(session, cluster_id)
    blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    stored = _stored(session, [cluster_id])
    return [(rule, stored.get((cluster_id, rule.name), AlertState())) for rule in blueprint.alerts]


def _stored(session: Session, cluster_ids: Iterable[str]) -> States:
    columns = [getattr(Alert, name) for name in _FIELDS]
    rows = session.execute(
        select(Alert.cluster_id, Alert.name, *columns).where(Alert.cluster_id.in_(list(cluster_ids)))
    )
    return {(cluster_id, name): AlertState(*fields) for cluster_id, name, *fields in rows}


def _looks(found: Figures, stored: States, now: datetime) -> Iterator[_Look]:
    for rule in found.blueprint.alerts:
        before = stored.get((found.cluster_id, rule.name), AlertState())
        after, told = domain.close(before, now) if found.is_ending else domain.step(rule, before, found.values, now)
        yield _Look(found, rule, before, after, told)


def _write(session: Session, looks: Sequence[_Look]) -> list[Event]:
    """Write what changed, in two statements at most, and the events; return these."""
    changed = [look for look in looks if look.after != look.before]
    over = [(look.figures.cluster_id, look.rule.name) for look in changed if look.after.state == "ok"]
    rows = [
        {
            "cluster_id": look.figures.cluster_id,
            "name": look.rule.name,
            **{name: getattr(look.after, name) for name in _FIELDS},
        }
        for look in changed
        if look.after.state != "ok"
    ]
    if over:
        session.execute(delete(Alert).where(tuple_(Alert.cluster_id, Alert.name).in_(over)))
    if rows:
        statement = insert(Alert).values(rows)
        new = {name: statement.excluded[name] for name in _FIELDS}
        session.execute(statement.on_conflict_do_update(index_elements=[Alert.cluster_id, Alert.name], set_=new))
    events = [_record(session, look) for look in looks if look.told]
    session.flush()  # the events' ids name what is done about them
    return events


def _record(session: Session, look: _Look) -> Event:
    rule, values = look.rule, look.figures.values
    shown = ", ".join(f"{name} is {_shown(values.get(name))}" for name in rule.condition.metrics)
    over = "is over: the cluster was destroyed" if look.figures.is_ending else f"is over: {shown}"
    told = f"{rule.condition}: {shown}" if look.told == "firing" else f"{rule.condition} {over}"
    todo = rule.actions if look.told == "firing" else [one for one in rule.actions if one == "notify_admin"]
    data: dict[str, Any] = {
        "alert": rule.name,
        "state": look.told,
        "condition": str(rule.condition),
        "severity": rule.severity,
        "value": look.after.value,
        "threshold": rule.condition.comparisons[0].threshold,
        "values": {name: values.get(name) for name in rule.metrics},
        "since": look.after.since.isoformat() if look.after.since else None,
        "fired_at": look.after.fired_at.isoformat() if look.after.fired_at else None,
        "actions": list(todo),
    }
    return history.record(
        session, f"alert.{look.told}", told, cluster_id=look.figures.cluster_id, actor="alert", data=data
    )


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
