"""What beat asks for: the autoscaler's tick, and the sweeping of what dead workers and destroyed clusters left."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from brain_clusters.broker import names
from brain_clusters.services import autoscale, hosting, metrics, workers
from brain_clusters.services.control import Control


def register(app: Celery, control: Callable[[], Control]) -> None:
    """Register the tasks with ``app``. None is repeated when it fails: the next beat brings the next one."""

    @app.task(name=names.TICK_TASK, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
    def tick() -> None:
        autoscale.tick(control())

    @app.task(name=names.SWEEP_TASK, ignore_result=True, acks_late=False)  # type: ignore[untyped-decorator]
    def sweep() -> None:
        workers.release_dead(control())
        hosting.release_lost(control())
        metrics.prune(control())
