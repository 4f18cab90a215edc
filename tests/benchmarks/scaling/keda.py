"""KEDA with the Horizontal Pod Autoscaler, by their documented defaults.

KEDA owns 0 <-> 1: every pollingInterval (30 s) it looks whether the list has anything, starts one replica when there
is none, and goes to zero when the list was empty at every look for cooldownPeriod (300 s). The HPA owns 1 <-> N:
every 15 s desired = ceil(length / listLength), listLength 5, unless the ratio is within 10 % of what runs; up by at
most max(100 %, 4 pods) in 15 s; down to the highest recommendation of the last 300 s. A Redis list shows what waits;
jobs in work are in no list, so they do not count, neither for the HPA nor for the cooldown. A pod that goes is any of
the ReplicaSet's (those not ready first): SIGTERM, 30 s, SIGKILL. A look at a broker that is away changes nothing.

Sources: https://keda.sh/docs/latest/reference/scaledobject-spec/ (pollingInterval, cooldownPeriod);
https://keda.sh/docs/scalers/redis-lists/ (listLength 5, activationListLength 0); kedacore/keda
pkg/scaling/executor/scale_scaledobjects.go (scaleFromZero, scaleToZero); kubernetes/kubernetes
pkg/controller/podautoscaler/replica_calculator.go (GetExternalPerPodMetricReplicas) and horizontal.go
(stabilizeRecommendationWithBehaviors, calculateScaleUpLimitWithScalingRules);
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ (defaults of behavior, tolerance 0.1,
sync period 15 s); https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ (grace period 30 s).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

POLLING, COOLDOWN, SYNC = 30.0, 300.0, 15.0
LIST_LENGTH, TOLERANCE = 5, 0.1
DOWN_STABILIZATION, UP_PERIOD, UP_PODS, UP_PERCENT = 300.0, 15.0, 4, 100


class Hpa:
    """The HPA's arithmetic for one external metric of type AverageValue and the default behavior."""

    def __init__(self, maximum: int, minimum: int = 1, target: float = LIST_LENGTH) -> None:
        self.minimum, self.maximum, self.target = minimum, maximum, target
        self._wishes: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def desired(self, now: float, metric: float, replicas: int) -> int:
        """Return the replicas after a sync at ``now``."""
        ratio = metric / (self.target * replicas)
        wish = math.ceil(metric / self.target) if abs(1.0 - ratio) > TOLERANCE else replicas
        wanted = self._stabilized(now, wish, replicas)
        if wanted > replicas:
            wanted = max(replicas, min(wanted, self._limit_up(now, replicas), self.maximum))
        wanted = max(wanted, self.minimum)
        self._changes.append((now, wanted - replicas))
        return wanted

    def _stabilized(self, now: float, wish: int, replicas: int) -> int:
        if not self._wishes:
            self._wishes.append((now, replicas))
        self._wishes = [(at, old) for at, old in self._wishes if at > now - DOWN_STABILIZATION]
        highest = max([wish, *(old for _, old in self._wishes)])
        self._wishes.append((now, wish))
        return wish if wish > replicas else min(replicas, highest)

    def _limit_up(self, now: float, replicas: int) -> int:
        self._changes = [(at, change) for at, change in self._changes if at > now - UP_PERIOD]
        begin = replicas - sum(change for _, change in self._changes)
        return max(begin + UP_PODS, math.ceil(begin * (1 + UP_PERCENT / 100)))


class Keda(Scaler):
    """A ScaledObject with one Redis list, minReplicaCount 0."""

    name = "KEDA"
    interval = 2.5  # a common divisor: the two loops keep phases of their own
    victims = "random"
    grace = 30.0

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self._hpa = Hpa(maximum)
        self._ticks = 0
        self._poll_phase = self.rng.randrange(int(POLLING / self.interval))
        self._last_active = -math.inf

    def tick(self, now: float, view: Simulation) -> int | None:
        self._ticks += 1
        if not view.readable:
            return None
        wanted = None
        if self._ticks % int(POLLING / self.interval) == self._poll_phase:
            wanted = self._poll(now, view)
        replicas = view.desired if wanted is None else wanted
        if replicas and self._ticks % int(SYNC / self.interval) == 0:
            wanted = self._hpa.desired(now, view.ready, replicas)
        return wanted

    def _poll(self, now: float, view: Simulation) -> int | None:
        if view.ready > 0:
            self._last_active = now
            return 1 if view.desired == 0 else None
        return 0 if view.desired and self._last_active + COOLDOWN < now else None
