"""The contract between the engine and an autoscaler."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.benchmarks.scaling.engine import Simulation

Grace = float | None


class Scaler:
    """Says how many agents there should be. One instance serves one run.

    interval: seconds between ticks; the first comes at a random part of it. minimum, maximum: bounds that the engine
    also holds it to. hook: which arrivals it hears of at once, those at an empty fleet ("zero"), "all" or "none".
    victims: who leaves first, "idle" (starting ones, then the longest idle, busy ones last) or "random" (starting
    ones, then any, as a ReplicaSet does). grace: seconds that a leaving busy agent may go on, then it is killed and
    its job runs again; None lets it finish. undo: take leaving agents back before new ones are started. start_time:
    seconds when it does not depend on where agents run.
    """

    name = "scaler"
    interval = 10.0
    minimum = 0
    hook: Literal["none", "zero", "all"] = "none"
    victims: Literal["idle", "random"] = "idle"
    grace: Grace = None
    undo = False
    start_time: float | None = None

    def __init__(self, maximum: int = 20, seed: int = 0) -> None:
        self.maximum = maximum
        self.overhead_seconds = 0.0
        self.rng = random.Random(seed)

    def tick(self, now: float, view: Simulation) -> int | None:
        """Return the count wanted now; None is no change."""
        raise NotImplementedError

    def arrived(self, now: float, view: Simulation, job: int) -> int | None:
        """Return the count wanted as ``job`` arrives; None is no change."""
        return None

    def ended(self, now: float) -> None:
        """Hear that the run is over."""
