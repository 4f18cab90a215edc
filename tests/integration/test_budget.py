"""Budgets in a real Redis: reserved before, settled after, and never given twice."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from brain_clusters.broker import names
from brain_clusters.broker.budget import Budgets, Refused, Reservation
from brain_clusters.broker.client import connect
from brain_clusters.domain.specs import Budget
from brain_clusters.errors import TemporaryError
from brain_clusters.ports import free_port
from tests.integration.counted import CountedBudgets

STOP = Budget(per_day=1.0, on_exceeded="stop")


def reserve(
    budgets: CountedBudgets, estimate: int, *, budget: Budget = STOP, root: str = "root", seconds: float = 60
) -> Any:
    return budgets.reserve(budget, "c1", root, estimate, seconds)


def exceeded(redis_url: str, name: str, field: str) -> dict[str, Any] | None:
    with connect(redis_url) as client:
        found: Any = client.hget(name, field)
    return None if found is None else dict(json.loads(found))


def test_a_reservation_binds_until_it_is_settled(budgets: CountedBudgets) -> None:
    one = reserve(budgets, 700_000)
    assert isinstance(one, Reservation)
    assert budgets.of_day("c1") == (0, 700_000)
    assert isinstance(reserve(budgets, 400_000), Refused)
    budgets.settle(one, 100_000)
    assert budgets.of_day("c1") == (100_000, 0)
    assert budgets.of_tree("root") == (100_000, 0)
    assert isinstance(reserve(budgets, 900_000), Reservation)


def test_a_limit_may_be_reached_and_not_crossed(budgets: CountedBudgets) -> None:
    assert isinstance(reserve(budgets, 1_000_000), Reservation)
    refused = reserve(budgets, 1)
    assert isinstance(refused, Refused)
    assert str(refused) == (
        "the cluster's budget of a day is 1; 0 is spent and 1 reserved by calls in flight, and this call may cost "
        "1e-06; raise `budget` in the blueprint, or wait for the next day (UTC)"
    )


def test_a_call_that_costs_more_than_it_was_estimated_at_is_counted_whole(budgets: CountedBudgets) -> None:
    one = reserve(budgets, 900_000)
    budgets.settle(one, 1_200_000)
    assert budgets.of_day("c1") == (1_200_000, 0)
    assert isinstance(reserve(budgets, 0), Refused)


def test_a_tree_has_its_own_limit(budgets: CountedBudgets, redis_url: str) -> None:
    budget = Budget(per_tree=0.5, on_exceeded="hibernate")
    assert isinstance(reserve(budgets, 400_000, budget=budget, root="a"), Reservation)
    refused = reserve(budgets, 400_000, budget=budget, root="a")
    assert isinstance(refused, Refused)
    assert refused.limit_of == "tree"
    assert isinstance(reserve(budgets, 400_000, budget=budget, root="b"), Reservation)
    told = exceeded(redis_url, names.BUDGET_TREES_HASH, "a")
    assert told is not None
    assert (told["cluster_id"], told["spent"], told["limit"], told["asked"]) == ("c1", 0, 0.5, 0.4)
    assert exceeded(redis_url, names.BUDGET_EXCEEDED_HASH, "c1") is None


def test_clusters_do_not_share_a_day(budgets: CountedBudgets) -> None:
    assert isinstance(reserve(budgets, 1_000_000), Reservation)
    assert isinstance(budgets.reserve(STOP, "c2", "root", 1_000_000, 60), Reservation)


def test_the_reservation_of_a_dead_agent_counts_no_more_when_its_call_must_be_over(
    budgets: CountedBudgets, until: Callable[..., Any]
) -> None:
    lost = reserve(budgets, 1_000_000, seconds=0.05)
    assert isinstance(lost, Reservation)
    until(lambda: isinstance(reserve(budgets, 1_000_000), Reservation), "the lost reservation ends")
    budgets.settle(lost, 300_000)  # it was alive after all
    assert budgets.of_day("c1") == (300_000, 1_000_000)


def test_a_budget_that_alerts_refuses_nothing_and_is_announced_once(budgets: CountedBudgets, redis_url: str) -> None:
    budget = Budget(per_day=1.0)
    assert isinstance(reserve(budgets, 900_000, budget=budget), Reservation)
    assert exceeded(redis_url, names.BUDGET_EXCEEDED_HASH, "c1") is None
    assert isinstance(reserve(budgets, 900_000, budget=budget), Reservation)
    told = exceeded(redis_url, names.BUDGET_EXCEEDED_HASH, "c1")
    assert told is not None
    assert told["day"] == datetime.now(UTC).date().isoformat()
    assert (told["spent"], told["limit"], told["asked"]) == (0, 1.0, 0.9)
    reserve(budgets, 900_000, budget=budget)
    assert exceeded(redis_url, names.BUDGET_EXCEEDED_HASH, "c1") == told


def test_the_announcement_of_an_earlier_day_makes_room_for_that_of_today(
    budgets: CountedBudgets, redis_url: str
) -> None:
    with connect(redis_url) as client:
        client.hset(names.BUDGET_EXCEEDED_HASH, "c1", json.dumps({"day": "2020-01-01", "at": 1}))
    reserve(budgets, 2_000_000)
    told = exceeded(redis_url, names.BUDGET_EXCEEDED_HASH, "c1")
    assert told is not None
    assert told["day"] == datetime.now(UTC).date().isoformat()


def test_huge_amounts_stay_exact(budgets: CountedBudgets) -> None:
    budget = Budget(per_day=1e9, on_exceeded="stop")
    budgets.settle(reserve(budgets, 999_999_999_999_999, budget=budget), 999_999_999_999_999)
    assert isinstance(reserve(budgets, 2, budget=budget), Refused)
    assert isinstance(reserve(budgets, 1, budget=budget), Reservation)
    assert budgets.of_day("c1") == (999_999_999_999_999, 1)


def test_a_budget_that_cannot_be_asked_is_a_temporary_fault() -> None:
    with connect(f"redis://127.0.0.1:{free_port()}/0") as client, pytest.raises(TemporaryError):
        reserve(Budgets(client), 1)


SPENDER = """
import json, sys, threading
from brain_clusters.broker.budget import Budgets, Reservation
from brain_clusters.broker.client import connect
from brain_clusters.domain.specs import Budget
url, cluster, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
budgets, budget, given = Budgets(connect(url)), Budget(per_day=1.0, on_exceeded="stop"), []
ready, go = threading.Barrier(threads + 1), threading.Event()
def call():
    ready.wait(); go.wait()
    found = budgets.reserve(budget, cluster, "root", 70_000, 60)
    if isinstance(found, Reservation):
        given.append(1)
        budgets.settle(found, 80_000)
all_of_them = [threading.Thread(target=call) for _ in range(threads)]
for one in all_of_them: one.start()
ready.wait(); print("ready", flush=True); sys.stdin.readline(); go.set()
for one in all_of_them: one.join()
print(len(given), flush=True)
"""


def test_fifty_calls_of_three_processes_cross_a_budget_by_no_more_than_what_was_in_flight(
    budgets: CountedBudgets, redis_url: str
) -> None:
    cluster = uuid.uuid4().hex
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, redis_url, cluster, str(calls)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for calls in (17, 17, 16)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        given = sum(int(process.communicate("go\n", timeout=100)[0]) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    spent, reserved = budgets.of_day(cluster)
    assert (spent, reserved) == (given * 80_000, 0)
    # Each call costs 10,000 more than it was estimated at; 14 estimates of 70,000 fit at once.
    assert 12 <= given <= 14
    assert spent <= 1_000_000 + 14 * 10_000
