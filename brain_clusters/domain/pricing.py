"""What work costs, by a group's ``cost``. Pure; amounts are exact Decimals in the currency of the installation.

None is "unknown": no price is stated for it, or a figure that the price needs was not counted. Unknown is never 0.
Usage is a mapping as ``agent.usage.Usage.as_dict`` writes it: calls, input_tokens, output_tokens and other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

# Prices by the figures that they need: (name in ``cost``, figures, how many of them the price is for).
_BY_USE = (
    ("per_call", ("calls",), 1),
    ("per_1k_tokens", ("input_tokens", "output_tokens"), 1000),
    ("per_1k_input_tokens", ("input_tokens",), 1000),
    ("per_1k_output_tokens", ("output_tokens",), 1000),
)
# Of the calls, those whose tokens nobody told: they were cut off, or their endpoint counts none.
UNMETERED = "unmetered_calls"
# Attempts whose agent died, and with it the knowledge of what they had used.
UNMETERED_ATTEMPTS = "unmetered_attempts"
MICRO = 1_000_000

Cost = Mapping[str, float]
Figures = Mapping[str, float]


def priced_by_use(cost: Cost) -> bool:
    """Return whether any price depends on what a job uses."""
    return any(name in cost for name, _, _ in _BY_USE)


def use_price(cost: Cost, usage: Figures | None) -> Decimal | None:
    """Return the price of calls and tokens."""
    if usage is None or not priced_by_use(cost) or usage.get(UNMETERED_ATTEMPTS):
        return None
    total = Decimal(0)
    for name, figures, unit in _BY_USE:
        if name not in cost:
            continue
        if any(figure not in usage for figure in figures) or (unit > 1 and usage.get(UNMETERED)):
            return None
        total += _exact(cost[name]) * sum(_exact(usage[figure]) for figure in figures) / unit
    return total


def job_price(cost: Cost, usage: Figures | None) -> Decimal | None:
    """Return the price of one finished job: ``per_job``, and what it used where that has a price."""
    per_job = _exact(cost["per_job"]) if "per_job" in cost else None
    if not priced_by_use(cost):
        return per_job
    used = use_price(cost, usage)
    return None if used is None else used + (per_job or 0)


def time_price(cost: Cost, seconds: float) -> Decimal | None:
    """Return the price of an agent that ran for ``seconds``."""
    return _exact(cost["per_hour"]) * _exact(seconds) / 3600 if "per_hour" in cost else None


def micros(amount: Decimal | float) -> int:
    """Return an amount in millionths, as budgets are counted in Redis; rounded up, so that no call is free."""
    return int((_exact(amount) * MICRO).to_integral_value(ROUND_CEILING))


def _exact(number: Decimal | float) -> Decimal:
    """Return the decimal number that was written: 0.1 is a tenth, and not the binary fraction beside it."""
    return number if isinstance(number, Decimal) else Decimal(str(number))
