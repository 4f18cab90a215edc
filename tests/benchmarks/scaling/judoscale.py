"""Judoscale for worker processes, by its documented defaults.

Adapters report queue time every 10 s; it is aggregated and looked at every 10 s. A queue time above the range starts
one more process, again at the next look; when it stayed below the range for the downscale delay (10 minutes), one
stops, and the delay begins anew. While any job is busy nothing goes down: that is an option, and the one it names for
jobs that must not be cut off. The range is the user's; 0.5 s and 0.1 s here, as no default for workers was found. An
older guide has three minutes between two upscales; the shorter is kinder. A process that goes has 30 s, as on Heroku.

Sources: https://judoscale.com/docs/tuning-your-application (one step, downscale delay 10 minutes, upscale frequency);
https://judoscale.com/guides/autoscaling-behavior/ (10-second aggregates); https://judoscale.com/docs/long-running-jobs-ruby
(busy jobs veto; 30 s); https://judoscale.com/guides/worker-dynos/ (job queue time).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

UP_ABOVE, DOWN_BELOW, DOWN_DELAY = 0.5, 0.1, 600.0


class Judoscale(Scaler):
    """One worker process type, range 0 to ``maximum``."""

    name = "Judoscale"
    interval = 10.0
    victims = "random"
    grace = 30.0

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self._reported: float | None = None
        self._calm_since: float | None = None

    def tick(self, now: float, view: Simulation) -> int | None:
        latency, self._reported = self._reported, (view.oldest_age() or 0.0) if view.readable else None
        if latency is None:
            return None
        if latency > UP_ABOVE:
            self._calm_since = None
            return view.desired + 1
        if latency >= DOWN_BELOW:
            self._calm_since = None
            return None
        if self._calm_since is None:
            self._calm_since = now
        if not view.desired or now - self._calm_since < DOWN_DELAY or view.running:
            return None
        self._calm_since = now
        return view.desired - 1
