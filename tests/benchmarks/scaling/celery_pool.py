"""Celery's ``--autoscale=20,1``: the pool of one worker grows and shrinks; the worker itself always runs.

``qty`` is the number of reserved requests, running ones included; with a prefetch of 4 * 20 it is at least what the
pool could use. At each message received, and every AUTOSCALE_KEEPALIVE (30 s): min(qty, max) above the processes
grows the pool to it; max(qty, min) below them shrinks it, when neither a message came nor the pool grew for 30 s, and
only by idle processes. A task with an ETA is held by the worker; when it is due it is reserved without the callback
that would look at the pool, so the pool grows at the next message or timer. A process is a fork within a running
worker: 0.03 s whatever the table, and all on one machine. Not modelled: that prefetched tasks go on while the broker
is away.

Source: celery 5.7, celery/worker/autoscale.py (Autoscaler._maybe_scale, scale_down), celery/worker/strategy.py (the
return before ``callbacks`` for an ETA), celery/worker/components.py (prefetch), billiard/pool.py (Pool.shrink);
https://docs.celeryq.dev/en/stable/userguide/workers.html#autoscaling.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

KEEPALIVE = 30.0


class CeleryPool(Scaler):
    """One worker's pool. Its agent-hours are those of its pool processes, of which one always runs."""

    name = "Celery"
    interval = KEEPALIVE
    minimum = 1
    hook = "all"
    start_time = 0.03

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self._active = -math.inf

    def arrived(self, now: float, view: Simulation, job: int) -> int | None:
        if view.trace.known is not None and view.trace.known[job] < view.trace.due[job]:
            return None
        self._active = now
        return self._grown(view)

    def tick(self, now: float, view: Simulation) -> int | None:
        grown = self._grown(view)
        if grown is not None:
            self._active = now
            return grown
        surplus = view.desired - max(view.in_system, self.minimum)
        if surplus > 0 and now - self._active > KEEPALIVE:
            return view.desired - min(surplus, view.idle)
        return None

    def _grown(self, view: Simulation) -> int | None:
        wanted = min(view.in_system, self.maximum)
        return wanted if wanted > view.desired else None
