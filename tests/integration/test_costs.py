"""The usage ledger and what is told from it, on a real PostgreSQL. What is expected is counted here, by hand."""

from __future__ import annotations

import csv
import io
import json
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from brain_clusters.api.app import create_app
from brain_clusters.broker import counts, names
from brain_clusters.broker.jobs import Delivery, JobRecords, JobReport
from brain_clusters.db.models import Agent, Usage
from brain_clusters.domain.commands import HibernateCluster, ReactivateCluster
from brain_clusters.domain.states import ClusterStatus, JobStatus
from brain_clusters.genesis.desk import Ended
from brain_clusters.services import blueprints, costs, metering, metrics, outcomes
from brain_clusters.services.costs import Period
from brain_clusters.services.tallies import Tally
from tests.integration.stage import Stage

METERED = """
metadata: {id: metered, name: A metered office, version: "1", tags: [north, "=SUM(A1)"]}
cluster: {type: project, min_workers: 2, max_workers: 8, default_workers: 2}
agents:
  - {role: supervisor, name: Boss, count: 1, cost: {per_hour: 3.6}}
  - {role: worker, name: Packer, count: 0-5, standby: warm, cost: {per_hour: 36, per_job: 0.5}}
  - {role: worker, name: Writer, count: 0-2, cost: {per_job: 1, per_1k_tokens: 2}}
  - {role: worker, name: Free, count: 0-2}
lifecycle: {hibernate_conditions: [idle_time: 1 day]}
"""
GUESTS = """
metadata: {id: guests, name: Guests, version: "1"}
cluster: {type: project, min_workers: 0, max_workers: 8, default_workers: 1}
agents:
  - {role: supervisor, name: Boss, count: 1, cost: {per_hour: 0, per_job: 0.5}}
  - {role: worker, name: Guest, count: 0-2, celery: {app: "a:app", queues: [images]}, cost: {per_job: 0.25}}
  - {role: worker, name: Asked, count: 0-2, celery: {app: "a:app", queues: [mail]}, cost: {per_job: 1, per_call: 1}}
"""
TODAY = datetime.now(UTC).date()
LONG_AGO = Period(date(2020, 1, 1), TODAY + timedelta(days=1))


@pytest.fixture
def office(stage: Stage) -> str:
    """A cluster of the blueprint above with a Boss and a Packer."""
    blueprints.store(stage.control, METERED)
    return stage.active(blueprint_id="metered")


@pytest.fixture
def house(stage: Stage) -> str:
    """A cluster with groups that work for Celery applications."""
    blueprints.store(stage.control, GUESTS)
    return stage.active(blueprint_id="guests")


def life(stage: Stage, agent: Agent, **times: str | None) -> None:
    """Give an agent another life."""
    for name, value in times.items():
        stage.sql(f"UPDATE cluster_agents SET {name} = :value WHERE agent_id = :id", value=value, id=agent.agent_id)


def told(stage: Stage, group_by: str, cluster_id: str | None = None, period: Period = LONG_AGO) -> dict[Any, Tally]:
    with stage.control.database.transaction() as session:
        rows = costs.report(session, period, group_by, cluster_id).rows
    return {tuple(name.values())[-1]: tally for name, tally in rows}


def totals(stage: Stage, cluster_id: str | None = None, group_by: str = "group") -> Tally:
    with stage.control.database.transaction() as session:
        return costs.report(session, LONG_AGO, group_by, cluster_id).totals


def done(stage: Stage, cluster_id: str, group: str, status: str = "succeeded", **fields: Any) -> str:
    """Store the outcome of a job that a plain Celery client sent; return its id."""
    now = datetime.now(UTC).timestamp()
    report = JobReport(
        id=str(uuid.uuid4()), cluster_id=cluster_id, group_name=group, agent_id=fields.pop("agent_id", "somebody"),
        status=JobStatus(status), attempts=1, started_at=now - 2, finished_at=fields.pop("finished_at", now),
        usage=fields.pop("usage", None),
    )  # fmt: skip
    with stage.control.database.transaction() as session:
        outcomes.store(session, [report])
        outcomes.store(session, [report])  # what comes twice counts once
    return report.id


# --- agents -----------------------------------------------------------------------------------------------------


def test_an_agents_life_is_cut_at_midnight_and_into_states(stage: Stage, office: str) -> None:
    boss, packer = stage.agents(office)
    life(
        stage, packer, claimed_at="2025-03-29T23:00:05Z", spawned_at="2025-03-29T23:00:00Z",
        ready_at="2025-03-29T23:00:35Z", draining_at="2025-03-31T00:10:00Z", stopped_at="2025-03-31T00:10:20Z",
        status="stopped",
    )  # fmt: skip
    # On the day between, clocks changed in Europe; a day of UTC has 24 hours all the same.
    days = {"2025-03-29": [600.5, 0, 601.0], "2025-03-30": [86_000, 0, 86_000], "2025-03-31": [100, 15, 115]}
    stage.sql(
        "UPDATE cluster_agents SET busy_days = :days WHERE agent_id = :id", days=json.dumps(days), id=packer.agent_id
    )
    stage.sql("DELETE FROM cluster_agents WHERE agent_id = :id", id=boss.agent_id)
    found = told(stage, "day", office)
    assert {day: tally.seconds for day, tally in found.items()} == {
        "2025-03-29": {"starting": 30, "idle": 3565 - 600.5, "busy": 600.5, "draining": 0, "asleep_warm": 0},
        "2025-03-30": {"starting": 0, "idle": 400, "busy": 86_000, "draining": 0, "asleep_warm": 0},
        "2025-03-31": {"starting": 0, "idle": 500, "busy": 100, "draining": 20, "asleep_warm": 0},
    }
    assert [tally.amount for tally in found.values()] == [Decimal("35.95"), Decimal(864), Decimal("6.20")]
    assert found["2025-03-29"].slot_seconds == 601
    again = told(stage, "day", office)
    assert again == found


def test_an_agent_that_no_host_has_taken_costs_nothing(stage: Stage) -> None:
    blueprints.store(stage.control, METERED)
    cluster_id = stage.create(blueprint_id="metered")
    stage.earlier("cluster_agents", "spawned_at", 3600)
    assert told(stage, "agent", cluster_id) == {}
    stage.settle(cluster_id)
    assert sum(totals(stage, cluster_id).seconds.values()) < 60  # it waited for an hour, and that was no start


def test_the_last_beat_of_an_agent_counts_when_it_has_died(stage: Stage, office: str) -> None:
    boss, packer = stage.agents(office)
    for column in ("spawned_at", "claimed_at", "ready_at"):
        stage.earlier("cluster_agents", column, 20)
    day = TODAY.isoformat()
    stage.beat(packer, completed=7, failed=2, busy_seconds=4.0, busy_days={day: [3.0, 1.0, 5.5]}, mean_time=4.5)
    desk = stage.desk()
    desk.release(packer.agent_id)
    desk.ended([Ended(packer.agent_id, asked=False, error="killed")])
    with stage.control.database.transaction() as session:
        row = session.get_one(Agent, packer.id)
        assert (row.tasks_completed, row.tasks_failed, row.avg_task_duration, row.health_score) == (7, 2, 4.5, 0.0)
    mine = told(stage, "agent", office)[packer.agent_id]
    assert (mine.seconds["busy"], mine.slot_seconds) == (3.0, 5.5)
    assert told(stage, "agent", office)[boss.agent_id].seconds["busy"] == 0


@pytest.mark.parametrize(
    "junk", ["soon", [1], {"today": [1, 2, 3]}, {TODAY.isoformat(): [1, 2]}, {TODAY.isoformat(): ["a", 1, 1]}]
)
def test_busy_days_that_make_no_sense_are_left_out(stage: Stage, office: str, junk: Any) -> None:
    _, packer = stage.agents(office)
    stage.beat(packer, completed=1, busy_seconds=5.0, busy_days=junk)
    stage.tick()
    assert {agent.tasks_completed for agent in stage.agents(office)} == {0, 1}
    assert totals(stage, office).seconds["busy"] == 0


# --- jobs -------------------------------------------------------------------------------------------------------


def test_each_finished_job_counts_once_with_its_price(stage: Stage, office: str) -> None:
    outcomes_of = ["succeeded", "succeeded", "failed", "dead", "cancelled"]
    for status in outcomes_of:
        done(stage, office, "Packer", status)
    tally = told(stage, "agent", office)["somebody"]
    assert (tally.succeeded, tally.failed) == (2, 2)
    assert (tally.amount, tally.is_known) == (Decimal("2.0"), True)
    cluster = stage.cluster(office)
    assert (cluster.tasks_completed, cluster.tasks_failed) == (2, 2)


def test_tokens_are_summed_and_priced_and_what_nobody_counted_is_unknown(stage: Stage, office: str) -> None:
    counted = [
        {"calls": 2, "input_tokens": 1000, "output_tokens": 500, "images": 1},
        {"calls": 1, "input_tokens": 500, "output_tokens": 0, "images": 2, "pages": 0.5},
    ]
    ids = [done(stage, office, "Writer", usage=usage) for usage in counted]
    tally = told(stage, "agent", office)["somebody"]
    assert tally.told == {"calls": 3, "input_tokens": 1500, "output_tokens": 500}
    assert tally.counters == {"images": 3, "pages": 0.5}
    assert (tally.amount, tally.is_known) == (Decimal(2 + 4), True)
    assert [stage.job(job_id).usage["amount"] for job_id in ids] == [4.0, 2.0]  # type: ignore[index]
    silent = done(stage, office, "Writer")
    assert stage.job(silent).usage is None
    tally = told(stage, "agent", office)["somebody"]
    assert tally.succeeded == 3
    shown = tally.as_dict()
    assert (shown["amount"], shown["amount_known"]) == (None, 6.0)


def test_what_the_failed_attempts_of_a_job_used_counts_too(stage: Stage, office: str) -> None:
    records = JobRecords(stage.redis)
    used = ({"calls": 1, "input_tokens": 100, "output_tokens": 0}, None, {"calls": 2, "input_tokens": 50, "pages": 1})
    for number, usage in enumerate(used, start=1):
        report = JobReport(
            id="job-1", cluster_id=office, group_name="Writer", agent_id="somebody", status=JobStatus.QUEUED,
            attempts=number, started_at=1.0, finished_at=None, usage=usage,
        )  # fmt: skip
        stage.redis.hset(names.unacked_key("somebody"), "tag", '[{"headers":{}},"","queue"]')
        assert records.again(report, Delivery(number, tag="tag", queue="queue"), 60.0)
    last = {"calls": 1, "input_tokens": 10, "output_tokens": 20}
    finished = replace(report, status=JobStatus.SUCCEEDED, attempts=4, finished_at=2.0, usage=last)
    records.finish(finished)
    assert records.get(["job-1"])["job-1"].usage == {"calls": 4, "input_tokens": 160, "output_tokens": 20, "pages": 1}
    outcomes.collect(stage.control)
    assert stage.job("job-1").usage == {
        "calls": 4, "input_tokens": 160, "output_tokens": 20, "pages": 1, "amount": 1.36,
    }  # fmt: skip


def test_tasks_of_celery_groups_have_prices_and_rates(stage: Stage, house: str) -> None:
    done(stage, house, "Boss")  # two seconds
    for agent, completed, failed in (("one", 2, 1), ("one", 3, 0), ("two", 0, 2)):
        counts.add(stage.redis, house, "Guest", agent, counts.Done(completed, failed, 5.0))
    assert stage.tick()
    assert stage.tick()
    tallies = told(stage, "agent", house)
    assert [(tallies[agent].succeeded, tallies[agent].failed) for agent in ("one", "two")] == [(5, 1), (0, 2)]
    guests = told(stage, "group", house)["Guest"]
    assert (guests.amount, guests.is_known) == (Decimal(2), True)
    cluster = stage.cluster(house)
    assert (cluster.tasks_completed, cluster.tasks_failed) == (6, 3)
    with stage.control.database.transaction() as session:
        rates = metrics.job_rates(session, counts.of_the_last_minute(stage.redis))
    assert rates[house] == (9, 3, pytest.approx((2 + 15) / 9, rel=0.01))


def test_what_tasks_of_celery_groups_used_is_unknown(stage: Stage, house: str) -> None:
    counts.add(stage.redis, house, "Asked", "three", counts.Done(1, 0, 1.0))
    assert stage.tick()
    asked = told(stage, "group", house)["Asked"]
    assert (asked.succeeded, asked.as_dict()["amount"]) == (1, None)


def test_a_group_without_prices_makes_the_whole_unknown_and_not_free(stage: Stage, office: str) -> None:
    done(stage, office, "Packer")
    assert totals(stage, office).is_known
    done(stage, office, "Free")
    found = told(stage, "group", office)
    assert (found["Free"].amount, found["Free"].as_dict()["amount"]) == (None, None)
    assert totals(stage, office).as_dict()["amount"] is None
    assert totals(stage, office).as_dict()["amount_known"] > 0.5


def test_usage_that_makes_no_sense_is_left_out(stage: Stage, office: str) -> None:
    done(
        stage, office, "Writer", usage={"calls": -1, "input_tokens": True, "output_tokens": "many", "x": 1e300, "y": 2}
    )
    tally = told(stage, "agent", office)["somebody"]
    assert (tally.told, tally.counters) == (dict.fromkeys(("calls", "input_tokens", "output_tokens")), {"y": 2})


# --- sleep ------------------------------------------------------------------------------------------------------


def test_what_sleeping_saved_is_told_while_it_sleeps_and_kept_when_it_is_over(stage: Stage, office: str) -> None:
    stage.do(HibernateCluster(cluster_id=office))
    stage.settle(office)
    assert stage.cluster(office).status is ClusterStatus.HIBERNATED
    began = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(hours=1)
    stage.sql("UPDATE clusters SET hibernated_at = :at", at=began)
    yesterday = Period(began.date(), began.date())
    # It would wake with two: the Boss, and a Packer. Either alone has slept for the last hour of yesterday.
    asleep = told(stage, "group", office, yesterday)
    assert {name: tally.saved_seconds for name, tally in asleep.items()} == {"Boss": 3600, "Packer": 3600}
    assert {name: tally.saved for name, tally in asleep.items()} == {"Boss": Decimal("3.6"), "Packer": Decimal(36)}
    so_far = totals(stage, office).saved_seconds
    stage.do(ReactivateCluster(cluster_id=office))
    stage.settle(office)
    kept = told(stage, "group", office, yesterday)
    assert {name: tally.saved_seconds for name, tally in kept.items()} == {"Boss": 3600, "Packer": 3600}
    assert kept["Packer"].seconds["asleep_warm"] == 3600
    assert kept["Boss"].seconds["asleep_warm"] == 0
    assert so_far <= totals(stage, office).saved_seconds < so_far + 120


# --- the report -------------------------------------------------------------------------------------------------


@pytest.fixture
def client(stage: Stage) -> FlaskClient:
    return create_app(stage.control).test_client()


def test_all_clusters_are_told_by_every_heading(stage: Stage, office: str, client: FlaskClient) -> None:
    other = stage.active(blueprint_id="metered", tags=("south", "north"))
    done(stage, office, "Packer")
    done(stage, other, "Writer", usage={"calls": 1, "input_tokens": 10, "output_tokens": 10})
    jobs = {}
    for group_by in ("agent", "group", "cluster", "blueprint", "tag", "day"):
        answer = client.get(f"/api/costs?group_by={group_by}").json
        jobs[group_by] = {row[next(iter(row))]: row["jobs"]["succeeded"] for row in answer["rows"]}
        assert answer["totals"]["jobs"] == {"succeeded": 2, "failed": 0}
        assert (answer["currency"], answer["group_by"], answer["total"]) == ("USD", group_by, len(answer["rows"]))
    assert jobs["cluster"] == {office: 1, other: 1}
    assert jobs["blueprint"] == {"metered": 2}
    assert jobs["day"] == {TODAY.isoformat(): 2}
    assert jobs["tag"] == {"=SUM(A1)": 1, "north": 2, "south": 1}


def test_costs_outlive_their_cluster(stage: Stage, office: str, client: FlaskClient) -> None:
    done(stage, office, "Packer")
    totals(stage, office)
    stage.sql("DELETE FROM clusters")
    answer = client.get(f"/api/clusters/{office}/costs")
    assert answer.json["totals"]["jobs"] == {"succeeded": 1, "failed": 0}
    assert answer.json["totals"]["amount"] > 0.5
    assert client.get("/api/clusters/nobody/costs").status_code == 404


def test_a_table_is_csv_that_no_spreadsheet_runs(stage: Stage, office: str, client: FlaskClient) -> None:
    done(stage, office, "Packer")
    by_header = client.get("/api/costs?group_by=tag", headers={"Accept": "text/csv"})
    by_word = client.get("/api/costs?group_by=tag&format=csv", headers={"Accept": "application/json"})
    for answer in (by_header, by_word):
        assert answer.content_type.startswith("text/csv")
        assert answer.text.endswith("\r\n")
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [row["tag"] for row in rows] == ["'=SUM(A1)", "north"]
        assert [(row["jobs_succeeded"], row["currency"], row["calls"]) for row in rows] == [("1", "USD", "")] * 2
    assert client.get("/api/costs?format=json", headers={"Accept": "text/csv"}).is_json
    assert client.get("/api/costs", headers={"Accept": "*/*"}).is_json


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("since=yesterday", "/since"), ("until=2026-02-30", "/until"), ("since=2026-02-02&until=2026-02-01", "/since"),
        ("group_by=colour", "/group_by"), ("format=xml", "/format"), ("since=1900-01-01&until=2026-01-01", "/since"),
        ("limit=5", ""), ("since=0001-01-01&until=0001-01-02", None), ("until=0001-01-01", None),
        ("since=9999-12-31", None),
    ],
)  # fmt: skip
def test_a_period_that_makes_no_sense_is_refused(
    stage: Stage, client: FlaskClient, query: str, pointer: str | None
) -> None:
    answer = client.get(f"/api/costs?{query}")
    assert answer.status_code == (200 if pointer is None else 422), answer.text
    if pointer:
        assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]


def test_the_ledger_is_kept_for_its_time(stage: Stage, office: str) -> None:
    done(stage, office, "Packer", finished_at=datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    metering.keep(stage.control)
    stage.sql("DELETE FROM ticks")
    metrics.prune(stage.control)
    with stage.control.database.transaction() as session:
        assert set(session.scalars(select(Usage.day))) == {TODAY}
