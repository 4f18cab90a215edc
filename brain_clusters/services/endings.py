"""How operations end: done, too late, or overtaken by a later command that wants something else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from brain_clusters.db.models import Agent, Cluster, Operation, Rollout, StoredBlueprint
from brain_clusters.domain.planning import Census
from brain_clusters.domain.states import (
    ROLLOUTS_UNDER_WAY,
    AgentStatus,
    Intent,
    OperationKind,
    OperationStatus,
)
from brain_clusters.services import history
from brain_clusters.services.counting import Counts, Key

# What a later command makes of an unfinished one: those that want the same direction share its outcome.
_KEEPS_RUNNING = (OperationKind.CREATE, OperationKind.UPDATE, OperationKind.SCALE, OperationKind.REACTIVATE)


def end_operations(session: Session, cluster: Cluster, census: Census, done: bool) -> None:
    """End the unfinished operations of a cluster that its present state decides. done: it is as it is wanted."""
    unfinished = session.scalars(
        select(Operation).where(
            Operation.cluster_id == cluster.id,
            Operation.status.in_((OperationStatus.PENDING, OperationStatus.RUNNING)),
        )
    ).all()
    now = session.scalar(select(func.now()))
    under_way = Rollout.cluster_id == cluster.id, Rollout.status.in_(ROLLOUTS_UNDER_WAY)
    rolling = set(session.scalars(select(Rollout.operation_id).where(*under_way))) if unfinished else set()
    for operation in unfinished:
        if _contradicted(operation.kind, cluster.intent):
            reason = f"a later command wants the cluster {cluster.intent}"
            finish(session, operation, OperationStatus.FAILED, {"type": "superseded", "message": reason})
        elif operation.acted_at is None or operation.id in rolling:
            continue  # its worker has not come to it yet, or its rollout is under way and will end it
        elif operation.kind is OperationKind.ROLLOUT or done:
            finish(session, operation, OperationStatus.SUCCEEDED, None, _result(cluster))
        elif _all_came(cluster, census):
            # What is left is to leave, and an agent that leaves may have hours of work to finish.
            operation.deadline_at = None
        elif operation.deadline_at is not None and now is not None and operation.deadline_at < now:
            finish(session, operation, OperationStatus.FAILED, _late(session, cluster, census))


def _all_came(cluster: Cluster, census: Census) -> bool:
    """Return whether no agent is to be started any more."""
    return cluster.intent is not Intent.RUNNING or (census.starting == 0 and census.ready >= cluster.target_workers)


def _contradicted(kind: OperationKind, intent: Intent) -> bool:
    if kind in (OperationKind.UPDATE, OperationKind.ROLLOUT):
        return intent is Intent.GONE
    if kind in _KEEPS_RUNNING:
        return intent is not Intent.RUNNING
    return kind is OperationKind.HIBERNATE and intent is not Intent.ASLEEP


def _result(cluster: Cluster) -> dict[str, Any]:
    return {
        "status": str(cluster.status),
        "current_workers": cluster.current_workers,
        "target_workers": cluster.target_workers,
    }


def _late(session: Session, cluster: Cluster, census: Census) -> dict[str, Any]:
    last = session.scalars(
        select(Agent.last_error)
        .where(Agent.cluster_id == cluster.id, Agent.last_error.is_not(None), Agent.status == AgentStatus.FAILED)
        .order_by(Agent.stopped_at.desc())
        .limit(1)
    ).first()
    message = f"{census.ready} of {cluster.target_workers} agents were ready in time; more are still being started"
    waits = session.scalars(
        select(Agent.reason)
        .where(Agent.cluster_id == cluster.id, Agent.reason.is_not(None), Agent.status == AgentStatus.STARTING)
        .order_by(Agent.spawned_at)
        .limit(1)
    ).first()
    if waits:
        message += f". The first of them waits: {waits}"
    if last:
        message += f". The last one that failed: {last}"
    elif not waits and census.starting and census.ready == 0:
        message += ". No host took them: is one running, and has it room?"
    return {"type": "timeout", "message": message}


def finish(
    session: Session, operation: Operation, status: OperationStatus,
    error: Mapping[str, Any] | None, result: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """End an operation with its outcome."""
    operation.status = status
    operation.error = dict(error) if error else None
    operation.result = dict(result) if result else None
    operation.finished_at = func.clock_timestamp()
    operation.lease_until = None
    reason = str(error["message"]) if error else f"{operation.kind} is done"
    history.record(
        session, f"operation.{status}", reason, cluster_id=operation.cluster_id, operation_id=operation.id,
        data={"kind": str(operation.kind)},
    )  # fmt: skip
    _tally(session, operation, "superseded" if (error or {}).get("type") == "superseded" else str(status))
    if operation.kind is OperationKind.CREATE:
        _note_success_rate(session, operation)


def _tally(session: Session, operation: Operation, outcome: str) -> None:
    """Count an ended operation for monitors. outcome: superseded, by a later command, is no failure there."""
    counts, kind, of = Counts(), str(operation.kind), operation.cluster_id or ""
    counts.add(Key(of, "", "brain_operations_total", f"{kind} {outcome}"))
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    seconds = (now - operation.created_at).total_seconds()
    counts.observe(Key("", "", "brain_operation_seconds", kind), seconds)
    if operation.kind is OperationKind.REACTIVATE and outcome == OperationStatus.SUCCEEDED:
        counts.observe(Key(of, "", "brain_wake_seconds"), seconds)
    counts.write(session)


def _note_success_rate(session: Session, operation: Operation) -> None:
    """Keep the share of this blueprint version's creations that succeeded (0 to 1)."""
    session.flush()
    cluster = session.get(Cluster, operation.cluster_id) if operation.cluster_id else None
    if cluster is None:
        return
    rate = (
        select(func.avg(case((Operation.status == OperationStatus.SUCCEEDED, 1.0), else_=0.0)))
        .join(Cluster, Cluster.id == Operation.cluster_id)
        .where(
            Operation.kind == OperationKind.CREATE,
            Operation.finished_at.is_not(None),
            Cluster.blueprint_id == cluster.blueprint_id,
            Cluster.blueprint_version == cluster.blueprint_version,
        )
        .scalar_subquery()
    )
    session.execute(
        update(StoredBlueprint)
        .where(StoredBlueprint.id == cluster.blueprint_id, StoredBlueprint.version == cluster.blueprint_version)
        .values(success_rate=func.coalesce(rate, 0.0))
        .execution_options(synchronize_session=False)
    )
