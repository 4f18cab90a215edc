"""Running recorded operations: claimed by compare-and-set with a lease, repeated when a worker died over one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Text, and_, cast, func, or_, select, update
from sqlalchemy.orm import Session

from brain_clusters import logs, tracing
from brain_clusters.broker import names
from brain_clusters.db.models import Cluster, Operation
from brain_clusters.domain.commands import Origin
from brain_clusters.domain.states import OperationKind, OperationStatus
from brain_clusters.errors import BrainError, InvalidInput, NotFound, TemporaryError
from brain_clusters.failpoints import failpoint
from brain_clusters.services import audit, history, lifecycle
from brain_clusters.services.control import Control
from brain_clusters.services.endings import finish
from brain_clusters.services.paging import Page, page
from brain_clusters.services.reconcile import Followup, act, reconcile

log = logging.getLogger(__name__)

# An unclaimed operation is published again after this long: its message was lost, or its worker died with it.
_REDELIVER_SECONDS = 5.0


def run(control: Control, operation_id: uuid.UUID) -> bool:
    """Carry out one operation's plan; return whether it was ours to do.

    It ends when its agents are there, which ``reconcile`` sees; nobody waits for them here.
    """
    with logs.bound(operation_id=operation_id):
        return _run(control, operation_id)


def _run(control: Control, operation_id: uuid.UUID) -> bool:
    claimed = _claim(control, operation_id)
    if claimed is None:
        return False
    told = {"operation_id": operation_id, "cluster_id": claimed.cluster_id}
    span = tracing.span(
        f"operation {claimed.kind}", "consumer", claimed.trace, **told,
        **tracing.messaging(names.LIFECYCLE_QUEUE, "process"),
    )  # fmt: skip
    with logs.bound(**told), span:
        _carry_out(control, operation_id)
    return True


def _carry_out(control: Control, operation_id: uuid.UUID) -> None:
    failpoint("claimed")
    followup = Followup()
    try:
        with control.database.transaction() as session:
            operation = session.get_one(Operation, operation_id)
            _hold_cluster(session, operation)
            operation.acted_at = func.now()
            operation.lease_until = None
            session.flush()
            if operation.cluster_id is not None:
                followup = reconcile(session, operation.cluster_id, tuple(operation.request.get("groups", ())))
            failpoint("planned")
    except TemporaryError:
        raise
    except BrainError as exc:
        _fail(control, operation_id, exc)
        return
    failpoint("committed")
    act(control, followup)


def _claim(control: Control, operation_id: uuid.UUID) -> Any:
    """Return the row of an operation that is this worker's to carry out, None for one that is not."""
    lease = timedelta(seconds=control.settings.operation_lease_seconds)
    unclaimed = Operation.status == OperationStatus.PENDING
    abandoned = and_(
        Operation.status == OperationStatus.RUNNING, Operation.acted_at.is_(None), Operation.lease_until < func.now()
    )
    with control.database.transaction() as session:
        claimed = session.execute(
            update(Operation)
            .where(Operation.id == operation_id, or_(unclaimed, abandoned))
            .values(
                status=OperationStatus.RUNNING,
                attempts=Operation.attempts + 1,
                lease_until=func.now() + lease,
                started_at=func.coalesce(Operation.started_at, func.now()),
            )
            .returning(Operation.cluster_id, Operation.kind, Operation.trace)
        ).first()
    return claimed


def _fail(control: Control, operation_id: uuid.UUID, exc: BrainError) -> None:
    log.error("the operation failed: %s", exc)
    with control.database.transaction() as session:
        operation = session.get_one(Operation, operation_id)
        _hold_cluster(session, operation)
        finish(session, operation, OperationStatus.FAILED, describe(exc))


def _hold_cluster(session: Session, operation: Operation) -> None:
    """Lock the cluster's row before the operation's own: whoever holds it ends operations of it."""
    if operation.cluster_id is not None:
        session.execute(select(Cluster.id).where(Cluster.id == operation.cluster_id).with_for_update())


def describe(exc: BrainError) -> dict[str, Any]:
    """Return an error as the JSON that an operation keeps."""
    found: dict[str, Any] = {"type": type(exc).__name__, "message": str(exc)}
    if isinstance(exc, InvalidInput) and exc.faults:
        found["errors"] = [fault.as_dict() for fault in exc.faults]
    return found


def record_failed(
    control: Control, kind: OperationKind, request: Mapping[str, Any], origin: Origin, exc: BrainError
) -> uuid.UUID:
    """Keep a queued command that could not be accepted as a failed operation with its reason."""
    with control.database.transaction() as session:
        before = session.scalars(select(Operation).where(Operation.message_id == origin.message_id)).first()
        if origin.message_id is not None and before is not None:
            return before.id
        cluster_id = request.get("cluster_id")
        known = isinstance(cluster_id, str) and "\0" not in cluster_id and session.get(Cluster, cluster_id) is not None
        operation = Operation(
            id=uuid.uuid4(),
            kind=kind,
            status=OperationStatus.FAILED,
            cluster_id=cluster_id if known else None,
            origin=origin.actor,
            request=dict(request),
            error=describe(exc),
            message_id=origin.message_id,
            finished_at=func.now(),
        )
        session.add(operation)
        history.record(
            session, "operation.failed", str(exc), cluster_id=operation.cluster_id, actor=origin.actor,
            operation_id=operation.id, data={"kind": str(kind), "request": dict(request)},
        )  # fmt: skip
        if origin.actor == "celery":
            name = f"lifecycle.{kind}"
            audit.queued(session, name, cluster_id=operation.cluster_id, operation_id=operation.id, error=str(exc))
        return operation.id


def get(session: Session, operation_id: str) -> Operation:
    """Return an operation; raise NotFound."""
    try:
        found = session.get(Operation, uuid.UUID(operation_id))
    except ValueError:
        found = None
    if found is None:
        raise NotFound(f"there is no operation {operation_id!r}")
    return found


def listing(
    session: Session, cluster_id: str | None, *, limit: int, cursor: str | None,
    kind: OperationKind | None = None, status: OperationStatus | None = None,
) -> Page[Operation]:  # fmt: skip
    """Return a page of operations, of one cluster or of all, of a kind and a status or of any, newest first."""
    stated = ((Operation.cluster_id, cluster_id), (Operation.kind, kind), (Operation.status, status))
    query = select(Operation).where(*(column == value for column, value in stated if value is not None))
    order = (Operation.created_at, cast(Operation.id, Text))
    return page(session, query, order, lambda row: (row.created_at, str(row.id)), limit=limit, cursor=cursor)


def sweep(control: Control) -> int:
    """Publish again what was not delivered, or whose worker died over it; return how many. Safe to run anywhere."""
    old = func.now() - timedelta(seconds=_REDELIVER_SECONDS)
    undelivered = and_(Operation.status == OperationStatus.PENDING, Operation.published_at < old)
    abandoned = and_(
        Operation.status == OperationStatus.RUNNING, Operation.acted_at.is_(None), Operation.lease_until < func.now()
    )
    with control.database.transaction() as session:
        found = session.scalars(
            update(Operation)
            .where(or_(undelivered, abandoned))
            .values(published_at=func.now())
            .returning(Operation)
            .execution_options(synchronize_session=False)
        ).all()
    for operation in found:
        lifecycle.publish(control, operation)
    return len(found)
