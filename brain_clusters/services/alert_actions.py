"""What an alert's event asks for, done after its commit, through the doors that everyone uses.

Each action may be repeated: a command carries the event's id and is one operation. When it is done, ``alert.acted``
says so; an event without that line after a while is acted on again, by the next tick, whoever died in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import aliased

from brain_clusters.db.models import Agent, Cluster, Event, Operation
from brain_clusters.domain.alerts import AlertState
from brain_clusters.domain.commands import Command, HibernateCluster, Origin, ScaleCluster
from brain_clusters.domain.planning import one_step_up
from brain_clusters.domain.states import AgentStatus
from brain_clusters.errors import BrainError, Conflict, TemporaryError
from brain_clusters.services import clusters, history, lifecycle, ticks
from brain_clusters.services.control import Control
from brain_clusters.services.figures import Figures
from brain_clusters.services.reconcile import act as act_on
from brain_clusters.services.reconcile import reconcile

log = logging.getLogger(__name__)

# An event older than the first is acted on again when nobody was done with it; older than the second, it is history.
_FORGOTTEN_SECONDS = 5.0
_RECENT = timedelta(hours=1)
_SWEEP_SECONDS = 10.0
# The autoscaler may have sent a command in the same tick; then the size is worked out anew.
_TRIES = 3
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


def act(control: Control, event: Event, figures: Figures) -> None:
    """Do all that ``event`` asks for, and write down what came of it. Raises nothing."""
    outcomes: dict[str, str] = {}
    try:
        for action in event.data["actions"]:
            outcomes[action] = _outcome(control, event, figures, action)
        if outcomes:
            _write_down(control, event, outcomes)
    except TemporaryError as exc:
        log.warning("event %s is acted on later: %s", event.id, exc, extra={"cluster_id": event.cluster_id})
    except Exception:
        log.exception("event %s could not be acted on", event.id, extra={"cluster_id": event.cluster_id})


def is_recent(state: AlertState, now: datetime) -> bool:
    """Return whether an alert was told of a short time ago, so that something may be left to do about it."""
    return any(at is not None and now - at < _RECENT for at in (state.fired_at, state.resolved_at))


def sweep(control: Control, figures: Mapping[str, Figures]) -> None:
    """Act on what was forgotten: who wrote the event died before it acted, or a server was away."""
    if not figures or not ticks.due(control, "alerts", _SWEEP_SECONDS):
        return
    done = aliased(Event)
    with control.database.transaction() as session:
        forgotten = session.scalars(
            select(Event)
            .where(
                Event.cluster_id.in_(list(figures)),
                Event.kind.in_(("alert.firing", "alert.resolved")),
                Event.at > func.now() - _RECENT,
                Event.at < func.now() - timedelta(seconds=_FORGOTTEN_SECONDS),
                func.jsonb_array_length(Event.data["actions"]) > 0,
                ~select(done.id)
                .where(
                    done.cluster_id == Event.cluster_id,
                    done.id > Event.id,
                    done.kind == "alert.acted",
                    done.data["event"].astext == cast(Event.id, Text),
                )
                .exists(),
            )
            .order_by(Event.id)
        ).all()
    for event in forgotten:
        act(control, event, figures[str(event.cluster_id)])


def _outcome(control: Control, event: Event, figures: Figures, action: str) -> str:
    """Do one action; return what came of it. Raises TemporaryError only."""
    try:
        return _ACTIONS[action](control, event, figures)
    except TemporaryError:
        raise
    except BrainError as exc:
        return f"not done: {exc}"
    except Exception as exc:
        log.exception("event %s: %s failed", event.id, action, extra={"cluster_id": event.cluster_id})
        return f"not done: {type(exc).__name__}, see the log"


def _write_down(control: Control, event: Event, outcomes: Mapping[str, str]) -> None:
    told = "; ".join(f"{action}: {outcome}" for action, outcome in outcomes.items())
    data = {"event": event.id, "alert": event.data["alert"], "outcomes": dict(outcomes)}
    with control.database.transaction() as session:
        history.record(session, "alert.acted", told, cluster_id=event.cluster_id, actor="alert", data=data)


# --- the actions ------------------------------------------------------------------------------------------------


def _notify_admin(control: Control, event: Event, _figures: Figures) -> str:
    log.log(
        _LEVELS[event.data["severity"]], "alert %s severity=%s event=%s: %s",
        event.data["state"], event.data["severity"], event.id, event.reason, extra={"cluster_id": event.cluster_id},
    )  # fmt: skip
    if control.settings.admin_webhook_url is None:
        return "logged"
    control.broker.publish_notification(event.id)
    return "logged, and handed to a worker that posts it"


def _scale_up(control: Control, event: Event, figures: Figures) -> str:
    _check_permitted(control, figures, "out")
    for attempt in range(1, _TRIES + 1):
        with control.database.transaction() as session:
            # When it is repeated, the step was made, and there may be no room for a second one.
            made = session.scalars(select(Operation.id).where(Operation.message_id == _message_id(event, "scale_up")))
            if operation_id := made.first():
                return f"operation {operation_id}"
            cluster = clusters.get(session, figures.cluster_id)
        try:
            return _submit(control, event, _one_step(cluster, figures), "scale_up")
        except Conflict:
            if attempt == _TRIES:
                raise
    raise AssertionError("the loop returns or raises")


def _one_step(cluster: Cluster, figures: Figures) -> Command:
    groups = one_step_up(cluster.group_targets, figures.blueprint.groups, figures.backlogs, cluster.max_workers)
    if not groups:
        raise Conflict("the cluster's max_workers and the counts of its groups leave no room for one more agent")
    return ScaleCluster(cluster_id=cluster.id, groups=groups, if_generation=cluster.generation)


def _hibernate(control: Control, event: Event, figures: Figures) -> str:
    _check_permitted(control, figures, "in")
    return _submit(control, event, HibernateCluster(cluster_id=figures.cluster_id), "hibernate")


def _spawn_replacement(control: Control, _event: Event, figures: Figures) -> str:
    """Start at once what is missing, without the pause that agents which die young are replaced with."""
    with control.database.transaction() as session:
        followup = reconcile(session, figures.cluster_id)
        paused = select(Agent).where(
            Agent.cluster_id == figures.cluster_id,
            Agent.status == AgentStatus.STARTING,
            Agent.host_id.is_(None),
            Agent.not_before > func.now(),
        )
        # One that a host takes this moment needs nothing, and waiting for it could be a deadlock.
        waiting = session.scalars(paused.with_for_update(skip_locked=True)).all()
        for agent in waiting:
            agent.not_before = None
    act_on(control, followup)
    return f"{len(waiting)} agents start without their pause"


def _submit(control: Control, event: Event, command: Command, action: str) -> str:
    reason = f"alert {event.data['alert']!r} fires: {event.reason}"
    origin = Origin("alert", reason, message_id=_message_id(event, action))
    accepted = lifecycle.submit(control, command, origin)
    return f"operation {accepted.operation.id}"


def _message_id(event: Event, action: str) -> str:
    """Return what makes a repeated command the same operation."""
    return f"alert.{event.id}.{action}"


def _check_permitted(control: Control, figures: Figures, direction: Literal["in", "out"]) -> None:
    """Raise Conflict where what the autoscaler does by itself is held: an alert is no person either."""
    with control.database.transaction() as session:
        if clusters.get(session, figures.cluster_id).paused:
            raise Conflict("the cluster is paused")
    policy = figures.blueprint.scaling
    if policy.dry_run:
        raise Conflict("cluster.scaling.dry_run is on")
    if policy.paused in ("both", direction):
        raise Conflict("cluster.scaling.paused holds it")


_ACTIONS: dict[str, Callable[[Control, Event, Figures], str]] = {
    "notify_admin": _notify_admin,
    "scale_up": _scale_up,
    "spawn_replacement": _spawn_replacement,
    "hibernate": _hibernate,
}
