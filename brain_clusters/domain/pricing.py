"""What use costs. Pure. Prices are those of a group's ``cost:``, amounts are in the currency of the installation.

None is unknown, and unknown is never zero. A unit that has no price is not charged for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_HOUR = Decimal(3600)
_THOUSAND = Decimal(1000)
# The digits that an amount is told with; sums are made of the exact figures.
_SHOWN = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What was used: seconds of agents, finished jobs, calls of models and their tokens. None is unknown."""

    agent_seconds: float | None = 0.0
    jobs: int | None = 0
    calls: int | None = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0


def amount(prices: Mapping[str, float], used: Used) -> Decimal | None:
    """Return what ``used`` costs; None where no price is stated, or where a figure that has a price is unknown."""
    if not prices:
        return None
    total = Decimal(0)
    for unit, price in prices.items():
        units = _units(unit, used)
        if units is None:
            return None
        total += Decimal(str(price)) * units
    return total


def job_amount(prices: Mapping[str, float], used: Used) -> Decimal | None:
    """Return what one job costs by itself: all but the hours of its agent."""
    return amount({unit: price for unit, price in prices.items() if unit != "per_hour"}, used)


def _units(unit: str, used: Used) -> Decimal | None:
    """Return how many units of a price were used; None when that is unknown."""
    if unit == "per_1k_tokens":
        known = used.input_tokens is not None and used.output_tokens is not None
        return Decimal((used.input_tokens or 0) + (used.output_tokens or 0)) / _THOUSAND if known else None
    figure, size = {
        "per_hour": (used.agent_seconds, _HOUR),
        "per_job": (used.jobs, Decimal(1)),
        "per_call": (used.calls, Decimal(1)),
        "per_1k_input_tokens": (used.input_tokens, _THOUSAND),
        "per_1k_output_tokens": (used.output_tokens, _THOUSAND),
    }[unit]
    return None if figure is None else Decimal(str(figure)) / size


def shown(found: Decimal | None) -> float | None:
    """Return an amount as answers and records tell it: rounded to a millionth; None stays None."""
    return None if found is None else float(found.quantize(_SHOWN))
