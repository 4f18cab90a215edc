"""What beat asks for: the autoscaler's tick, and the sweeping of what dead workers and destroyed clusters left.

And what the tick hands on, since it must not wait: telling the admin of an alert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery

from brain_clusters.broker import names
from brain_clusters.errors import TemporaryError
from brain_clusters.services import (
    accruing,
    alerts,
    alone,
    autoscale,
    counting,
    metering,
    metrics,
    notify,
    served,
    workers,
)
from brain_clusters.services.control import Control


def register(app: Celery, control: Callable[[], Control]) -> None:
    """Register the tasks with ``app``. What beat asks for is not repeated when it fails: the next beat comes."""

    @app.task(name=names.TICK_TASK, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
    def tick() -> None:
        autoscale.tick(control())

    @app.task(name=names.SWEEP_TASK, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
    def sweep() -> None:
        workers.release_dead(control())
        alone.give_up_silent(control())
        served.pay(control())
        alerts.end_destroyed(control())
        metering.keep(control())
        accruing.accrue(control())
        counting.fold(control())
        metrics.prune(control())

    retry = {"autoretry_for": (TemporaryError,), "retry_backoff": 1, "retry_backoff_max": 60, "max_retries": None}

    @app.task(name=names.NOTIFY_TASK, bind=True, ignore_result=True, **retry)  # type: ignore[untyped-decorator]
    def notify_admin(self: Any, event_id: int) -> None:
        notify.send(control(), event_id, attempt=self.request.retries + 1)
