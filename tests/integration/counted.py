"""Budgets whose counts a test can see."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from brain_clusters.broker import names
from brain_clusters.broker.budget import Budgets


class CountedBudgets(Budgets):
    """Tells what is spent and reserved, in millionths."""

    def of_day(self, cluster_id: str, day: date | None = None) -> tuple[int, int]:
        number = ((day or datetime.now(UTC).date()) - date(1970, 1, 1)).days
        return self._counts(names.budget_day_key(cluster_id, number))

    def of_tree(self, root_id: str) -> tuple[int, int]:
        return self._counts(names.budget_tree_key(root_id))

    def _counts(self, key: str) -> tuple[int, int]:
        spent: Any = self._client.get(key)
        seconds, micros = self._client.time()  # type: ignore[misc]
        binding: Any = self._client.zrangebyscore(f"{key}:reserved", f"({seconds + micros / 1e6:.6f}", "+inf")
        return int(spent or 0), sum(int(member.partition(b":")[0]) for member in binding)
