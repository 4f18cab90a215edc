"""The reference's step rule: a fifth up, a fifth down, between two thresholds, with a cooldown.

Up to int(n * 1.2) + 1 when more than 10 jobs wait, down to int(n * 0.8) when fewer than 2 do, 60 s between changes:
the thresholds and cooldown_period of blueprints/marketing.yaml. It has no way from zero for 10 jobs or fewer, so it
keeps one agent. Agents that leave finish their job.

Source: the reference blueprint format, as in ``brain_clusters.domain`` under ``policy: step``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.benchmarks.scaling.scaler import Scaler

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

UP_ABOVE, DOWN_BELOW, COOLDOWN = 10, 2, 60.0


def step(waiting: int, n: int) -> int:
    """Return the count that the rule asks for."""
    if waiting > UP_ABOVE:
        return int(n * 1.2) + 1
    return int(n * 0.8) if waiting < DOWN_BELOW else n


class Step(Scaler):
    """The reference's autoscaler, looking every 2 s."""

    name = "step rule"
    interval = 2.0
    minimum = 1

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        super().__init__(maximum, seed)
        self._changed = -math.inf

    def tick(self, now: float, view: Simulation) -> int | None:
        if not view.readable or now - self._changed < COOLDOWN:
            return None
        wanted = max(self.minimum, min(self.maximum, step(view.ready, view.desired)))
        if wanted == view.desired:
            return None
        self._changed = now
        return wanted
