"""What becomes of a cluster that has spent its budget of a day. Pure; days are UTC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from brain_clusters.domain.specs import Budget


def effective(budget: Budget, per_day: float | None) -> Budget:
    """Return a cluster's budget: its blueprint's, with the cluster's own limit of a day where it has one."""
    return budget if per_day is None else replace(budget, per_day=per_day)


@dataclass(frozen=True, slots=True)
class Spent:
    """That a budget was spent. on: the last day; limit: what it was then.

    waived_on: the day on which somebody woke the cluster all the same, which holds for the rest of it.
    """

    on: date | None = None
    limit: float | None = None
    waived_on: date | None = None

    def sleeps_for(self, budget: Budget, today: date) -> str | None:
        """Return why the cluster has to sleep, or None.

        A budget that only alerts lets it work on. What ``hibernate`` asks for ends with the day, what ``stop`` asks for
        with a person's word: a reactivation, or a higher budget.
        """
        if self.on is None or budget.per_day is None or self.waived_on == today:
            return None
        if self.limit is not None and budget.per_day > self.limit:
            return None
        if budget.on_exceeded == "hibernate" and self.on == today:
            return f"the budget of {budget.per_day:g} for this day (UTC) is spent; it sleeps until the next"
        if budget.on_exceeded == "stop":
            return f"the budget of {budget.per_day:g} a day was spent on {self.on}; it sleeps until it is reactivated"
        return None
