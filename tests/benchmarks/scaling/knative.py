"""Knative's pod autoscaler (KPA), by its documented defaults, with containerConcurrency 1.

Every 2 s: desired = ceil(average concurrency / 0.7) over the stable window of 60 s, and over the panic window of 6 s;
when the latter is twice what is ready, the higher of both counts and nothing goes down until 60 s after. At most 1000
times what is ready up, half of it down. Concurrency is what runs plus what the activator holds back: with 20 pods of
one request each the capacity is below target-burst-capacity (211), so the activator is always in the path. From zero
it pokes the autoscaler at the first request. To zero: when the stable window saw nothing; the grace of 30 s is only
for getting the activator into the path, where it is already. A pod that goes is any (those not ready first) and may
finish what it does within the revision's timeout, 300 s by default. Requests longer than that would be cut off by
Knative anyway; here they are only when their pod goes.

Sources: https://knative.dev/docs/serving/autoscaling/kpa-specific/ (windows, panic threshold, rates);
https://knative.dev/docs/serving/autoscaling/concurrency/ (target utilization 70 %); knative/serving
pkg/autoscaler/scaling/autoscaler.go (Scale), pkg/autoscaler/scaling/multiscaler.go (tickInterval 2 s, Poke),
pkg/reconciler/autoscaling/kpa/scaler.go (handleScaleToZero, "fast path"), config/core/configmaps/autoscaler.yaml and
defaults.yaml (revision-timeout-seconds 300).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

STABLE, PANIC, TARGET, PANIC_THRESHOLD = 60.0, 6.0, 0.7, 2.0
MAX_UP, MAX_DOWN = 1000.0, 2.0


class Kpa:
    """The arithmetic of one decision: two averages and what is ready make a count."""

    def __init__(self) -> None:
        self.panicking_since: float | None = None
        self._most = 0

    def desired(self, now: float, stable: float, panic: float, ready: int) -> int:
        base = max(1, ready)
        highest, lowest = math.ceil(MAX_UP * base), math.floor(base / MAX_DOWN)
        by_panic = math.ceil(panic / TARGET)
        wanted = min(max(math.ceil(stable / TARGET), lowest), highest)
        if by_panic / base >= PANIC_THRESHOLD:
            self.panicking_since = now
        elif self.panicking_since is not None and self.panicking_since + STABLE < now:
            self.panicking_since, self._most = None, 0
        if self.panicking_since is None:
            return wanted
        self._most = max(self._most, wanted, min(max(by_panic, lowest), highest))
        return self._most


class Knative(Scaler):
    """One revision, min-scale 0."""

    name = "Knative"
    interval = 2.0
    hook = "zero"
    victims = "random"
    grace = 300.0

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self._kpa = Kpa()
        self._areas: deque[tuple[float, float]] = deque()

    def arrived(self, now: float, view: Simulation, job: int) -> int | None:
        # The activator reports its first request at once: a concurrency of one, whatever follows.
        if view.desired:
            return None
        self._areas.clear()
        self._areas.append((now, view.area()))
        return self._kpa.desired(now, 1.0, 1.0, view.serving)

    def tick(self, now: float, view: Simulation) -> int | None:
        area = view.area()
        self._areas.append((now, area))
        while len(self._areas) > 2 and self._areas[1][0] <= now - STABLE:
            self._areas.popleft()
        if not view.desired:
            return None
        stable, panic = self._average(now, area, STABLE), self._average(now, area, PANIC)
        return self._kpa.desired(now, stable, panic, view.serving)

    def _average(self, now: float, area: float, window: float) -> float:
        """Return the mean number of jobs in the system since ``now - window``, or since there is data."""
        at, then = next((point for point in reversed(self._areas) if point[0] <= now - window), self._areas[0])
        return (area - then) / max(now - at, 1.0)
