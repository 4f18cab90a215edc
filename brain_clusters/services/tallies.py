"""The sums of one row of a report, and how they are priced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from brain_clusters.domain import pricing

STATES = ("starting", "idle", "busy", "draining", "asleep_warm")
PAID_STATES = ("starting", "idle", "busy", "draining")
_TOLD = ("calls", "input_tokens", "output_tokens")


@dataclass(slots=True)
class Tally:
    """What was used under one heading. Tokens and calls are None where nobody counted any.

    amount: what is known of it; known: whether that is all. saved: the same of what sleep saved; None: no price.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATES, 0.0))
    slot_seconds: float = 0.0
    succeeded: int = 0
    failed: int = 0
    told: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(_TOLD))
    counters: dict[str, float] = field(default_factory=dict)
    amount: Decimal | None = None
    is_known: bool = True
    saved_seconds: float = 0.0
    saved: Decimal | None = None
    saved_is_known: bool = True

    def add(self, sums: Mapping[str, Any], cost: Mapping[str, float]) -> None:
        """Add the sums of one group's rows, priced by its ``cost``."""
        for state in STATES:
            self.seconds[state] += sums[f"{state}_seconds"]
        self.slot_seconds += sums["slot_seconds"]
        self.succeeded += int(sums["jobs_succeeded"])
        self.failed += int(sums["jobs_failed"])
        for name in _TOLD:
            if sums[name] is not None:
                self.told[name] = (self.told[name] or 0) + int(sums[name])
        self._charge(sums, cost)
        self.save(sums["saved_seconds"], cost)

    def _charge(self, sums: Mapping[str, Any], cost: Mapping[str, float]) -> None:
        seconds = sum(sums[f"{state}_seconds"] for state in PAID_STATES)
        if not seconds and not sums["jobs_succeeded"] and not sums["jobs_failed"] and not sums["jobs_amount"]:
            return  # nothing that has a price was used
        if not cost:
            self.is_known = False
            return
        hours = pricing.time_price(cost, seconds) or Decimal(0)
        self.amount = (self.amount or Decimal(0)) + hours + Decimal(sums["jobs_amount"])
        self.is_known = self.is_known and not sums["unpriced_jobs"]

    def save(self, seconds: float, cost: Mapping[str, float]) -> None:
        """Add agents' seconds that were not paid since a cluster slept."""
        if not seconds:
            return
        self.saved_seconds += seconds
        price = pricing.time_price(cost, seconds)
        if price is None:
            self.saved_is_known = False
        else:
            self.saved = (self.saved or Decimal(0)) + price

    def as_dict(self) -> dict[str, Any]:
        """Return the tally as answers show it."""
        paid = sum(self.seconds[state] for state in PAID_STATES)
        return {
            "agent_seconds": {**_rounded(self.seconds), "total": round(paid, 3)},
            "slot_seconds": round(self.slot_seconds, 3),
            "jobs": {"succeeded": self.succeeded, "failed": self.failed},
            **self.told,
            "counters": self.counters,
            "amount": _shown(self.amount if self.is_known else None),
            "amount_known": _shown(self.amount),
            "saved": {
                "agent_seconds": round(self.saved_seconds, 3),
                "amount": _shown(self.saved if self.saved_is_known else None),
            },
        }


def _shown(amount: Decimal | None) -> float | None:
    """Return an amount to a millionth; None stays None."""
    return None if amount is None else float(round(amount, 6))


def _rounded(found: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in found.items()}
