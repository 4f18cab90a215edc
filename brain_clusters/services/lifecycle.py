"""The one door in. HTTP, queued commands and the autoscaler all call ``submit``; nobody else sets a desired count.

A command is recorded with its cluster's new intent and targets in one transaction, then published by its
operation's id. Running it is ``services.operations``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from brain_clusters import tracing
from brain_clusters.db.models import Cluster, Operation, Rollout
from brain_clusters.domain.commands import (
    Command,
    CreateCluster,
    Origin,
    RolloutCluster,
    as_request,
)
from brain_clusters.domain.states import Intent, OperationKind, advance
from brain_clusters.errors import Conflict, NotFound, TemporaryError
from brain_clusters.services import audit, blueprints, desired, etags, history, ledger, rollouts, served
from brain_clusters.services.control import Control

log = logging.getLogger(__name__)

# Jobs that waited longer than this when sleep was asked for do not wake the cluster again; newer ones do.
_OLD_BACKLOG_SECONDS = 2.0
_BY_BACKLOG = (OperationKind.SCALE, OperationKind.REACTIVATE, OperationKind.HIBERNATE, OperationKind.ROLLOUT)
# Actors whose commands no person gave.
_BY_ITSELF = ("job", "alert")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A recorded command. repeated: the same message came before, and this is what it made then.

    before: the cluster's agents by group until then. rollout: which it began or steers.
    """

    operation: Operation
    cluster: Cluster
    repeated: bool = False
    before: Mapping[str, int] = field(default_factory=dict)
    rollout: Rollout | None = None


def submit(control: Control, command: Command, origin: Origin, entry: ledger.Entry | None = None) -> Accepted:
    """Record ``command`` and ask a worker to run it. entry: the decision that it carries out, for the ledger; what a
    job or an alert brought about by itself is entered here, without inputs, as nothing was weighed.

    Raises InvalidInput, NotFound or Conflict when it cannot be, and TemporaryError when PostgreSQL is away. With
    Redis away it is recorded all the same, and delivered later by the sweep.
    """
    backlogs = waiting_jobs(control, command)
    with control.database.transaction() as session:
        served.guard(control, session, command, origin.message_id)
        accepted = record(session, command, origin, control.settings.start_timeout_seconds, backlogs)
        if entry is None and origin.actor in _BY_ITSELF:
            entry = _brought_about(accepted, origin)
        if entry is not None and not accepted.repeated:
            ledger.write(session, entry, accepted.operation.id)
    if not accepted.repeated:
        publish(control, accepted.operation)
    return accepted


def _brought_about(accepted: Accepted, origin: Origin) -> ledger.Entry:
    cluster = accepted.cluster
    runs = cluster.intent is Intent.RUNNING
    after = cluster.group_targets if runs else dict.fromkeys(accepted.before, 0)
    kind = str(accepted.operation.kind)
    return ledger.Entry(cluster.id, kind, f"{origin.actor}: {origin.reason}", accepted.before, after, inputs={})


def publish(control: Control, operation: Operation) -> None:
    """Send an operation's id to the workers; when Redis is away, leave it to the sweep."""
    try:
        control.broker.publish_operation(str(operation.id))
    except TemporaryError as exc:
        ids = {"operation_id": operation.id, "cluster_id": operation.cluster_id}
        log.warning("the operation is delivered later: %s", exc, extra=ids)


def record(
    session: Session, command: Command, origin: Origin, start_timeout: float, backlogs: Mapping[str, int]
) -> Accepted:
    """Write a command's intent: the cluster's row, the operation and an event. The caller commits and publishes.

    backlogs: waiting jobs by group name, where they are known; for HibernateCluster those that waited long.
    """
    repeated = _made_before(session, origin)
    if repeated is not None:
        return repeated
    targets: Mapping[str, int] = {}
    rollout: Rollout | None = None
    if isinstance(command, CreateCluster):
        cluster = desired.create(session, command)
    else:
        cluster = locked(session, command.cluster_id)
        targets = dict(cluster.group_targets)
        etags.guard(etags.of_cluster(cluster), origin.seen, f"the cluster {cluster.id!r}")
        _guard_generation(cluster, getattr(command, "if_generation", None))
        before = cluster.intent
        cluster.intent = advance(before, command.kind, status=cluster.status)
        if isinstance(command, RolloutCluster):
            rollout = rollouts.apply(session, cluster, command, origin, backlogs)
        else:
            desired.apply(session, cluster, command, backlogs, before)
        cluster.generation += 1
    operation = _operation(cluster, command, origin, start_timeout)
    session.add(operation)
    session.flush()
    if rollout is not None and rollout.operation_id is None:
        rollout.operation_id = operation.id
    history.record(
        session, "operation.accepted", origin.reason, cluster_id=cluster.id, actor=origin.actor,
        operation_id=operation.id, data={"kind": str(command.kind), **operation.request, **origin.inputs},
    )  # fmt: skip
    _note(session, command, origin, operation)
    session.flush()
    session.refresh(cluster)  # its times came from the database, and the caller reads them after the commit
    if rollout is not None:
        session.refresh(rollout)
    return Accepted(operation, cluster, before=targets, rollout=rollout)


def _note(session: Session, command: Command, origin: Origin, operation: Operation) -> None:
    if origin.actor == "api":
        audit.note(session, cluster_id=operation.cluster_id, operation_id=operation.id)
    elif origin.actor == "celery":
        action = f"lifecycle.{command.kind}"
        audit.queued(session, action, cluster_id=operation.cluster_id, operation_id=operation.id)


def locked(session: Session, cluster_id: str) -> Cluster:
    """Return a cluster whose row this transaction holds; raise NotFound."""
    found = session.scalars(select(Cluster).where(Cluster.id == cluster_id).with_for_update()).first()
    if found is None:
        raise NotFound(f"there is no cluster {cluster_id!r}")
    return found


def _made_before(session: Session, origin: Origin) -> Accepted | None:
    if origin.message_id is None:
        return None
    # Two deliveries at once: the second waits here for the first.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(origin.message_id, 0))))
    operation = session.scalars(select(Operation).where(Operation.message_id == origin.message_id)).first()
    if operation is None:
        return None
    if operation.cluster_id is None:
        raise Conflict(f"this message came before, as operation {operation.id}, and failed")
    return Accepted(operation, session.get_one(Cluster, operation.cluster_id), repeated=True)


def _guard_generation(cluster: Cluster, wanted: int | None) -> None:
    if wanted is not None and cluster.generation != wanted:
        raise Conflict("another command came first; look again", status=str(cluster.status))


def _operation(cluster: Cluster, command: Command, origin: Origin, start_timeout: float) -> Operation:
    starts = command.kind in (OperationKind.CREATE, OperationKind.REACTIVATE, OperationKind.SCALE, OperationKind.UPDATE)
    return Operation(
        kind=command.kind,
        cluster_id=cluster.id,
        origin=origin.actor,
        request=as_request(command),
        message_id=origin.message_id,
        generation=cluster.generation,
        trace=tracing.carrier() or None,
        published_at=func.now(),
        # Agents that leave may have hours of work to finish, so only what starts agents has a deadline.
        deadline_at=func.now() + timedelta(seconds=start_timeout) if starts else None,
    )


def waiting_jobs(control: Control, command: Command) -> Mapping[str, int]:
    """Return the waiting jobs by group that ``command`` is to be judged by; {} when they are unknown or no matter."""
    if command.kind not in _BY_BACKLOG:
        return {}
    if getattr(command, "if_generation", None) is not None:
        return {}
    with control.database.transaction() as session:
        cluster = session.get(Cluster, getattr(command, "cluster_id", ""))
        if cluster is None:
            return {}
        blueprint = blueprints.parsed(session, cluster.blueprint_id, cluster.blueprint_version)
    try:
        if command.kind is OperationKind.HIBERNATE:
            return served.old_lengths(control, cluster.id, blueprint, _OLD_BACKLOG_SECONDS)
        return served.lengths(control, cluster.id, blueprint)
    except TemporaryError as exc:
        log.warning("the backlog is unknown: %s", exc, extra={"cluster_id": cluster.id})
        return {}
