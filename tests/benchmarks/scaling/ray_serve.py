"""Ray Serve's default autoscaling policy, by its documented defaults, with min_replicas 0.

desired = ceil(ongoing requests / target_ongoing_requests), target 2, where ongoing requests, queued ones included, are
sampled every 0.5 s by the handle, averaged over look_back_period_s (30 s) and pushed every metrics_interval_s (10 s).
A decision counts only after it was the same way for upscale_delay_s (30 s) or downscale_delay_s (600 s) without a
break, in a control loop of 0.1 s; only one replica goes to zero. At zero replicas a request is pushed at once and
starts one. A replica that goes (those not running first) has graceful_shutdown_timeout_s (20 s), then it is killed.
A replica here does one request at a time, as a synchronous deployment does.

Sources: https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html;
https://docs.ray.io/en/latest/serve/api/doc/ray.serve.config.AutoscalingConfig.html; ray-project/ray
python/ray/serve/autoscaling_policy.py (_apply_delay_logic, _get_cold_start_scale_up_replicas),
python/ray/serve/_private/constants.py (CONTROL_LOOP_INTERVAL_S, record and push intervals,
DEFAULT_GRACEFUL_SHUTDOWN_TIMEOUT_S), python/ray/serve/_private/router.py (should_send_scaled_to_zero_optimized_push).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

TARGET, LOOK_BACK, PUSH, RECORD = 2.0, 30.0, 10.0, 0.5
UP_DELAY, DOWN_DELAY = 30.0, 600.0


class Delays:
    """A change is made only after it was asked for without a break for its delay."""

    def __init__(self) -> None:
        self._way, self._since = 0, 0.0

    def passed(self, now: float, desired: int, target: int) -> int:
        """Return the new target. From more than one replica the way down ends at one."""
        way = (desired > target) - (desired < target)
        if way != self._way:
            self._way, self._since = way, now
        if way == 0 or now - self._since <= (UP_DELAY if way > 0 else DOWN_DELAY):
            return target
        self._way = 0
        return max(1, desired) if way < 0 and target > 1 else desired


class RayServe(Scaler):
    """One deployment behind one handle."""

    name = "Ray Serve"
    interval = RECORD
    hook = "zero"
    victims = "random"
    grace = 20.0

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self._delays = Delays()
        self._records: deque[int] = deque(maxlen=int(LOOK_BACK / RECORD))
        self._ongoing = 0.0
        self._ticks = 0

    def arrived(self, now: float, view: Simulation, job: int) -> int | None:
        return 1 if view.desired == 0 else None

    def tick(self, now: float, view: Simulation) -> int | None:
        self._records.append(view.in_system)
        self._ticks += 1
        if self._ticks % int(PUSH / RECORD) == 0:
            self._ongoing = sum(self._records) / len(self._records)
        if view.desired == 0:
            return None
        desired = min(self.maximum, math.ceil(self._ongoing / TARGET))
        return self._delays.passed(now, desired, view.desired)
