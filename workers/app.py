"""The Celery app of the control plane. The one module that does something on import: it makes ``app``."""

from __future__ import annotations

import logging
import os
import socket
import uuid
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_shutdown

from brain_clusters.broker import names
from brain_clusters.broker.app import make_app
from brain_clusters.broker.client import Broker
from brain_clusters.config import Settings
from brain_clusters.embedded import connected
from brain_clusters.services.control import Control
from workers import lifecycle, periodic

# The name under which this process keeps unacknowledged messages. Unique, so that what a dead one held is known.
OWNER = f"worker.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"

settings: Settings = connected(Settings.from_env())
assert settings.redis_url is not None  # noqa: S101 - connected() made sure
app: Celery = make_app(settings.redis_url, owner=OWNER)


@lru_cache(maxsize=1)
def control() -> Control:
    """Return this process's collaborators, opened at the first task."""
    assert settings.redis_url is not None  # noqa: S101
    return Control.open(settings, application=OWNER, broker=Broker(settings.redis_url, app=app))


def _configure() -> None:
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")
    interval = settings.tick_interval_seconds
    app.conf.beat_schedule = {
        # A tick that nobody took in time is worth nothing: it expires instead of piling up.
        names.TICK_TASK: {"task": names.TICK_TASK, "schedule": interval, "options": {"expires": interval}},
        names.SWEEP_TASK: {"task": names.SWEEP_TASK, "schedule": 10.0, "options": {"expires": 10.0}},
    }
    app.conf.worker_hijack_root_logger = False
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)


@worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _forget_inherited_connections(**_: Any) -> None:
    control.cache_clear()


@worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _close(**_: Any) -> None:
    if control.cache_info().currsize:
        control().close()


_register: tuple[Callable[[Celery, Callable[[], Control]], None], ...] = (lifecycle.register, periodic.register)
_configure()
for register in _register:
    register(app, control)
