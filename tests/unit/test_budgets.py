"""When a cluster sleeps for what it spent."""

from __future__ import annotations

from datetime import date
from typing import Literal

import pytest

from brain_clusters.domain.budgets import Spent, effective
from brain_clusters.domain.specs import Budget

TODAY, YESTERDAY = date(2026, 3, 2), date(2026, 3, 1)


@pytest.mark.parametrize(
    ("on_exceeded", "spent", "sleeps"),
    [
        ("alert", Spent(TODAY, 5.0), False),
        ("hibernate", Spent(), False),
        ("hibernate", Spent(TODAY, 5.0), True),
        ("hibernate", Spent(YESTERDAY, 5.0), False),
        ("hibernate", Spent(TODAY, 5.0, TODAY), False),
        ("hibernate", Spent(TODAY, 5.0, YESTERDAY), True),
        ("hibernate", Spent(TODAY, 4.0), False),
        ("stop", Spent(TODAY, 5.0), True),
        ("stop", Spent(YESTERDAY, 5.0), True),
        ("stop", Spent(YESTERDAY, 4.0), False),
        ("stop", Spent(YESTERDAY, 5.0, TODAY), False),
    ],
)
def test_it_sleeps_until_the_day_or_the_reason_is_over(
    on_exceeded: Literal["alert", "hibernate", "stop"], spent: Spent, sleeps: bool
) -> None:
    found = spent.sleeps_for(Budget(per_day=5.0, on_exceeded=on_exceeded), TODAY)
    assert (found is not None) is sleeps
    assert spent.sleeps_for(Budget(on_exceeded=on_exceeded), TODAY) is None


def test_a_cluster_s_own_limit_takes_the_place_of_its_blueprint_s() -> None:
    budget = Budget(per_day=5.0, per_tree=1.0, on_exceeded="stop")
    assert effective(budget, None) is budget
    assert effective(budget, 0.0) == Budget(per_day=0.0, per_tree=1.0, on_exceeded="stop")
