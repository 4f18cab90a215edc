"""The lifecycle commands as Celery tasks, for other services to queue by name, and the running of operations.

Any Celery client may send ``brain.lifecycle.create|update|scale|hibernate|reactivate|destroy`` with keyword
arguments as in the API to the queue ``brain.lifecycle``. The message's id makes a redelivery the same operation.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from celery import Celery

from brain_clusters import tracing
from brain_clusters.broker import names
from brain_clusters.domain.commands import Origin
from brain_clusters.domain.states import OperationKind
from brain_clusters.errors import BrainError, Fault, InvalidInput, TemporaryError
from brain_clusters.services import lifecycle, operations
from brain_clusters.services.control import Control
from brain_clusters.services.requests import parse_queued_command


def register(app: Celery, control: Callable[[], Control]) -> None:
    """Register the tasks with ``app``. A server that is away makes a task wait and try again, without end."""
    retry = {"autoretry_for": (TemporaryError,), "retry_backoff": 1, "retry_backoff_max": 30, "max_retries": None}

    @app.task(name=names.RUN_OPERATION_TASK, ignore_result=True, **retry)  # type: ignore[untyped-decorator]
    def run_operation(operation_id: str) -> None:
        operations.run(control(), uuid.UUID(operation_id))

    for kind in OperationKind:
        _register_command(app, control, kind, retry)


def _register_command(app: Celery, control: Callable[[], Control], kind: OperationKind, retry: dict[str, Any]) -> None:
    @app.task(name=f"brain.lifecycle.{kind}", bind=True, typing=False, **retry)  # type: ignore[untyped-decorator]
    def command(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        origin = Origin("celery", f"queued as brain.lifecycle.{kind}", message_id=self.request.id)
        message = tracing.messaging(names.LIFECYCLE_QUEUE, "process", self.request.id)
        with tracing.span(f"brain.lifecycle.{kind}", "consumer", tracing.carried(self.request.get), **message):
            return accept(control(), kind, args, kwargs, origin)


def accept(
    control: Control, kind: OperationKind, args: tuple[Any, ...], arguments: dict[str, Any], origin: Origin
) -> dict[str, Any]:
    """Record and run one queued command; return its operation's id and the cluster's, or what is wrong with it."""
    try:
        if args:
            raise InvalidInput(
                "commands take keyword arguments only", [Fault("", "send kwargs={...}, as in the API's bodies")]
            )
        accepted = lifecycle.submit(control, parse_queued_command(kind, arguments), origin)
    except TemporaryError:
        raise
    except BrainError as exc:
        failed = operations.record_failed(control, kind, arguments, origin, exc)
        return {"operation_id": str(failed), "status": "failed", "error": operations.describe(exc)}
    return {"operation_id": str(accepted.operation.id), "status": "accepted", "cluster_id": accepted.cluster.id}
