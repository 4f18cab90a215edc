"""Budgets that are spent: told once, acted on, and over with the day or with a person's word."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from brain_clusters.broker import names, spending
from brain_clusters.broker.budget import Refused, Reservation
from brain_clusters.db.models import Event, Operation
from brain_clusters.domain.commands import ReactivateCluster, UpdateCluster
from brain_clusters.domain.pricing import MICRO
from brain_clusters.domain.specs import Budget
from brain_clusters.domain.states import ClusterStatus, Intent
from brain_clusters.services import blueprints, explain, ledger
from tests.integration.counted import CountedBudgets
from tests.integration.stage import Stage
from tests.integration.test_costs import done

TODAY = datetime.now(UTC).date()


def limited(stage: Stage, on_exceeded: str, per_day: str = "5", more: str = "") -> str:
    """Return a cluster whose finished jobs cost 2 each, of 5 a day."""
    name = f"limited-{uuid.uuid4().hex[:8]}"
    text = f"""
        metadata: {{id: {name}, name: Limited, version: "1"}}
        cluster: {{type: project, min_workers: 1, max_workers: 4, default_workers: 2}}
        agents:
          - {{role: supervisor, name: Boss, count: 1, cost: {{per_hour: 0.001}}}}
          - {{role: worker, name: Packer, count: 0-3, cost: {{per_job: 2}}}}
        budget: {{per_day: {per_day}, on_exceeded: {on_exceeded}{more}}}
        lifecycle: {{hibernate_conditions: [idle_time: 1 day]}}
    """
    blueprints.store(stage.control, text)
    return stage.active(blueprint_id=name)


def spend(stage: Stage, cluster_id: str, jobs: int) -> None:
    for _ in range(jobs):
        done(stage, cluster_id, "Packer")
    look(stage, cluster_id)


def look(stage: Stage, cluster_id: str) -> None:
    """Tick, and carry out what came of it."""
    stage.beat(*stage.agents(cluster_id))
    stage.tick()
    with stage.control.database.transaction() as session:
        asked = select(Operation).where(Operation.cluster_id == cluster_id, Operation.status == "pending")
        pending = list(session.scalars(asked))
    for operation in pending:
        stage.run(operation)
    stage.settle(cluster_id)


def next_day(stage: Stage) -> None:
    """Let what was spent today have been spent yesterday."""
    for table, column in (("usage", "day"), ("clusters", "over_budget_on"), ("clusters", "budget_waived_on")):
        stage.sql(f"UPDATE {table} SET {column} = {column} - 1")
    stage.redis.delete(*stage.redis.keys("brain:budget:day:*"))  # type: ignore[misc]
    stage.sql("UPDATE cluster_agents SET spawned_at = now(), claimed_at = now() WHERE stopped_at IS NULL")


def told(stage: Stage, cluster_id: str) -> list[dict[str, Any]]:
    with stage.control.database.transaction() as session:
        query = select(Event).where(Event.cluster_id == cluster_id, Event.kind == "budget.exceeded")
        return [{**event.data, "reason": event.reason} for event in session.scalars(query.order_by(Event.id))]


def gate(stage: Stage, cluster_id: str) -> str | None:
    found = explain.explain(stage.control, cluster_id)["held"].get("cluster")
    return found and found["gate"]


def test_below_its_budget_a_cluster_works_on(stage: Stage) -> None:
    cluster_id = limited(stage, "stop")
    spend(stage, cluster_id, 2)
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    assert told(stage, cluster_id) == []


def test_a_spent_budget_is_told_once_a_day_and_alert_lets_it_work_on(stage: Stage) -> None:
    cluster_id = limited(stage, "alert")
    spend(stage, cluster_id, 3)
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).intent is Intent.RUNNING
    [event] = told(stage, cluster_id)
    assert event["reason"].startswith("6")
    assert "of 5 a day (UTC) are spent; nothing is held back" in event["reason"]
    assert (event["state"], event["threshold"], event["condition"]) == ("firing", 5.0, "spent >= budget.per_day")
    next_day(stage)
    look(stage, cluster_id)
    assert len(told(stage, cluster_id)) == 1
    spend(stage, cluster_id, 3)
    assert len(told(stage, cluster_id)) == 2


def test_hibernate_lasts_for_the_day_whatever_comes_and_then_what_waits_wakes_it(stage: Stage) -> None:
    cluster_id = limited(stage, "hibernate")
    assert stage.cluster(cluster_id).over_budget_on is None
    spend(stage, cluster_id, 3)
    cluster = stage.cluster(cluster_id)
    assert (cluster.status, cluster.over_budget_on) == (ClusterStatus.HIBERNATED, TODAY)
    stage.post(cluster_id, to="Packer", payload={})
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED
    assert stage.waiting(cluster_id, "packer") == 1
    assert gate(stage, cluster_id) == "budget"
    with stage.control.database.transaction() as session:
        rows = ledger.listing(session, cluster_id, action=None, limit=10, cursor=None).items
        assert [(row.action, row.held["cluster"]["gate"]) for row in rows] == [
            ("hold", "budget"),
            ("hibernate", "budget"),
        ]
        assert (
            ledger.choose_again(rows[0].inputs, blueprints.parsed(session, *rows[0].inputs["blueprint"])).action
            == "hold"
        )
    next_day(stage)
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE
    assert gate(stage, cluster_id) is None


def test_stop_lasts_until_somebody_reactivates_it_and_then_for_that_day(stage: Stage) -> None:
    cluster_id = limited(stage, "stop")
    spend(stage, cluster_id, 3)
    stage.post(cluster_id, to="Packer", payload={})
    next_day(stage)
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED
    assert gate(stage, cluster_id) == "budget"
    stage.do(ReactivateCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE
    spend(stage, cluster_id, 3)
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE  # whoever woke it did so for the day
    next_day(stage)
    spend(stage, cluster_id, 3)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED


def test_a_higher_budget_ends_what_the_lower_one_held(stage: Stage) -> None:
    cluster_id = limited(stage, "stop")
    spend(stage, cluster_id, 3)
    stage.post(cluster_id, to="Packer", payload={})
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED
    stage.do(UpdateCluster(cluster_id=cluster_id, budget_per_day=7.0))
    assert stage.cluster(cluster_id).over_budget_on is None
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE
    spend(stage, cluster_id, 1)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED
    assert [event["threshold"] for event in told(stage, cluster_id)] == [5.0, 7.0]


def test_idle_agents_spend_too(stage: Stage) -> None:
    cluster_id = limited(stage, "hibernate", per_day="0.000000001")
    look(stage, cluster_id)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED


def test_hours_and_jobs_count_against_the_budget_that_calls_reserve_from(stage: Stage) -> None:
    cluster_id = limited(stage, "hibernate")
    budgets, budget = CountedBudgets(stage.control.broker.redis), Budget(per_day=5, on_exceeded="hibernate")
    spend(stage, cluster_id, 2)
    assert budgets.of_day(cluster_id)[0] == pytest.approx(4 * MICRO, abs=1000)
    look(stage, cluster_id)
    assert budgets.of_day(cluster_id)[0] == pytest.approx(4 * MICRO, abs=1000)  # told again, counted once
    small = budgets.reserve(budget, cluster_id, "root", MICRO // 2, 60)
    assert isinstance(small, Reservation)
    budgets.settle(small, MICRO // 2)
    assert isinstance(budgets.reserve(budget, cluster_id, "root", MICRO, 60), Refused)
    look(stage, cluster_id)  # what a call could not have any more is spent
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED


def test_a_lost_redis_loses_no_spending_that_the_ledger_knows(stage: Stage) -> None:
    cluster_id = limited(stage, "hibernate")
    spend(stage, cluster_id, 2)
    stage.redis.flushdb()
    spend(stage, cluster_id, 1)
    assert stage.cluster(cluster_id).status is ClusterStatus.HIBERNATED


def test_a_tree_over_its_budget_is_told_once(stage: Stage) -> None:
    cluster_id = limited(stage, "hibernate", more=", per_tree: 1")
    mark = {"cluster_id": cluster_id, "spent": 0.9, "limit": 1.0, "asked": 0.2, "at": 1.0}
    stage.redis.hset(names.BUDGET_TREES_HASH, "root-1", json.dumps(mark))
    stage.redis.hset(names.BUDGET_TREES_HASH, "junk", "{")
    look(stage, cluster_id)
    look(stage, cluster_id)
    [event] = told(stage, cluster_id)
    assert (event["root_id"], event["value"], event["threshold"]) == ("root-1", 0.9, 1.0)
    assert stage.cluster(cluster_id).status is ClusterStatus.ACTIVE


def test_spending_is_of_its_day(stage: Stage) -> None:
    yesterday = TODAY - timedelta(days=1)
    assert spending.count(stage.control.broker.redis, yesterday, {"c": 7}) == {"c": 7}
    assert spending.count(stage.control.broker.redis, TODAY, {"c": 3}) == {"c": 3}
    assert spending.count(stage.control.broker.redis, TODAY, {"c": 2}) == {"c": 2}
    assert CountedBudgets(stage.control.broker.redis).of_day("c") == (2, 0)
    assert CountedBudgets(stage.control.broker.redis).of_day("c", yesterday) == (7, 0)


@pytest.mark.parametrize("lie", ["a lie", None], ids=["no number", "another type"])
def test_a_count_that_is_none_stops_no_tick(stage: Stage, lie: str | None) -> None:
    cluster_id = limited(stage, "alert", more=", per_tree: 1")
    number = (TODAY - date(1970, 1, 1)).days
    for key in (names.budget_day_key(cluster_id, number), names.BUDGET_EXCEEDED_HASH, names.BUDGET_TREES_HASH):
        for name in (key, f"{key}:hours"):
            stage.redis.delete(name)
            if lie:
                stage.redis.set(name, lie)
            else:
                stage.redis.rpush(name, "x")
    assert stage.tick()
    assert stage.cluster(cluster_id).over_budget_on is None
