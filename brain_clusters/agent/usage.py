"""What one job uses: calls of models, tokens, and whatever else its handler counts."""

from __future__ import annotations

import math
import threading

from brain_clusters.agent.errors import HandlerError

_MOST_FIGURES = 50
_MOST_CHARACTERS = 100


class Usage:
    """Sums of figures by name. Safe for several threads. What was never counted is unknown, which is not 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[str, float] = {}

    def add(
        self,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        calls: float | None = None,
        **others: float,
    ) -> None:
        """Count so much more of each; None is not counted. Raises HandlerError for what is no number from 0."""
        told = {"input_tokens": input_tokens, "output_tokens": output_tokens, "calls": calls, **others}
        counted = {name: _sound(name, value) for name, value in told.items() if value is not None}
        with self._lock:
            sums = {name: self._figures.get(name, 0) + value for name, value in counted.items()}
            if len(self._figures | sums) > _MOST_FIGURES:
                raise HandlerError(f"a job can count at most {_MOST_FIGURES} kinds of usage")
            self._figures |= sums

    def as_dict(self) -> dict[str, float] | None:
        """Return what was counted, or None when nothing was."""
        with self._lock:
            return dict(self._figures) or None


def _sound(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise HandlerError(f"usage is counted in numbers from 0, and {name[:_MOST_CHARACTERS]} was {value!r:.50}")
    if len(name) > _MOST_CHARACTERS:
        raise HandlerError(f"the name of a kind of usage has at most {_MOST_CHARACTERS} characters")
    return value
