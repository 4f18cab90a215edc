"""What agents cost and how well they do, as the API tells it, against a count that the test makes by itself."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from datetime import datetime
from typing import Any

import pytest

from .brain import Brain, until

METERED = """
metadata: {id: metered, name: Metered, version: "1", tags: [paid]}
cluster: {type: project, min_workers: 1, max_workers: 9, scaling: {scale_up_threshold: 100000, scale_down_threshold: 0}}
agents:
  - {role: supervisor, name: Boss, count: 1, handler: "workshop:work", cost: {per_hour: 36}}
  - {role: worker, name: Hands, count: 0-5, handler: "workshop:work", cost: {per_hour: 3600, per_job: 0.25}}
lifecycle: {hibernate_conditions: [idle_time: 1 day]}
"""
GOOD, BAD, SECONDS = 6, 2, 0.4
# What may pass between an agent's start and end and what its host writes down of them, and the start of a handler.
SLACK = 0.5


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def union(spans: list[tuple[float, float]]) -> float:
    """The seconds in which at least one of ``spans`` goes on."""
    total, end = 0.0, 0.0
    for begin, until_ in sorted(spans):
        total += max(0.0, until_ - max(begin, end))
        end = max(end, until_)
    return total


@pytest.fixture(scope="module")
def worked(brain: Brain) -> tuple[str, list[Any]]:
    """A cluster that has done a known number of jobs of known lengths, and these as the API tells them."""
    assert brain.call("POST", "/api/blueprints", {"yaml": METERED}).status == 201
    cluster = brain.cluster("metered")
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 2}})
    ids = [brain.job(cluster, sleep=SECONDS) for _ in range(GOOD)]
    ids += [brain.job(cluster, sleep=SECONDS, fail="as asked") for _ in range(BAD)]
    return cluster, [brain.outcome(job) for job in ids]


def test_the_figures_of_a_cluster_and_its_agents_are_those_of_the_work(
    brain: Brain, worked: tuple[str, list[Any]]
) -> None:
    cluster, jobs = worked
    seen = until(
        lambda: (now := brain.seen(cluster))["tasks_completed"] + now["tasks_failed"] == len(jobs) and now, "it counted"
    )
    assert (seen["tasks_completed"], seen["tasks_failed"], seen["health_score"]) == (GOOD, BAD, 1.0)
    assert seen["current_workers"] == 3
    by_agent: defaultdict[str, list[Any]] = defaultdict(list)
    for job in jobs:
        by_agent[job["agent_id"]].append(job)

    def told() -> dict[str, Any]:
        """What the agents' beats and rows say by now: not all of it is of the same moment."""
        names = ("tasks_completed", "tasks_failed", "health_score")
        return {one["agent_id"]: tuple(one[name] for name in names) for one in brain.agents(cluster)}

    def expected(mine: list[Any]) -> tuple[int, int, float]:
        good = sum(job["status"] == "succeeded" for job in mine)
        return good, len(mine) - good, round((1 + good) / (1 + len(mine)), 3)

    agents = [agent["agent_id"] for agent in brain.agents(cluster)]
    until(lambda: told() == {name: expected(by_agent[name]) for name in agents}, "agents tell of their jobs")
    for agent in brain.agents(cluster):
        if mine := by_agent[agent["agent_id"]]:
            lengths = [at(job["finished_at"]) - at(job["started_at"]) for job in mine]
            assert agent["avg_task_duration"] == pytest.approx(sum(lengths) / len(mine), abs=0.05)
            assert at(agent["last_active"]) == pytest.approx(max(at(job["finished_at"]) for job in mine), abs=0.1)


def test_samples_count_every_agent_and_job(brain: Brain, worked: tuple[str, list[Any]]) -> None:
    cluster, jobs = worked

    def sampled() -> Any:
        newest = brain.get(f"/api/clusters/{cluster}/metrics?limit=1")["metrics"][0]
        return newest["tasks_per_minute"] == len(jobs) and newest

    found = until(sampled, "a sample with all jobs")
    assert found["error_rate"] == 100 * BAD / (GOOD + BAD)
    lengths = [at(job["finished_at"]) - at(job["started_at"]) for job in jobs]
    assert found["avg_response_time"] == pytest.approx(1000 * sum(lengths) / len(lengths), abs=5)
    assert (found["active_agents"], found["idle_agents"], found["busy_agents"], found["failed_agents"]) == (3, 3, 0, 0)
    assert (found["queue_length"], found["queue_wait_time"]) == (0, 0.0)
    assert 0 <= found["cpu_usage"] < 100 * os.cpu_count()  # type: ignore[operator]
    assert 0 < found["memory_usage"] < 100
    blueprint = brain.get("/api/blueprints/metered")
    assert (blueprint["instances_created"], blueprint["instances_active"], blueprint["success_rate"]) == (1, 1, 1.0)


def test_while_a_job_runs_its_agent_is_busy_and_the_load_says_so(brain: Brain, worked: tuple[str, list[Any]]) -> None:
    cluster, jobs = worked
    gate = brain.gate()
    job = brain.job(cluster, gate=str(gate))
    brain.until_begun(job)
    # One job, three slots.
    until(lambda: brain.seen(cluster)["load_percentage"] == pytest.approx(100 / 3, abs=0.1), "a third is in use")
    began = time.time()
    until(
        lambda: any(
            row["busy_agents"] == 1 and row["idle_agents"] == 2
            for row in brain.get(f"/api/clusters/{cluster}/metrics?limit=3")["metrics"]
        ),
        "a sample of it",
    )
    assert at(brain.seen(cluster)["last_active"]) > began - 10
    gate.touch()
    jobs.append(brain.outcome(job))
    until(lambda: brain.seen(cluster)["load_percentage"] == 0, "nothing is in use")


def test_costs_are_the_seconds_and_jobs_that_the_test_counts(brain: Brain, worked: tuple[str, list[Any]]) -> None:
    cluster, jobs = worked
    brain.command("POST", f"/api/clusters/{cluster}/hibernate")  # and with it all agents have ended
    rows = {row["agent_id"]: row for row in brain.get(f"/api/clusters/{cluster}/costs?group_by=agent")["rows"]}
    rows.pop(None)  # what sleep saved
    agents = {agent["agent_id"]: agent for agent in brain.agents(cluster, "?ended=true")}
    assert set(rows) == set(agents)
    for name, row in rows.items():
        agent, mine = agents[name], [job for job in jobs if job["agent_id"] == name]
        seconds = row["agent_seconds"]
        busy = union([(at(job["started_at"]), at(job["finished_at"])) for job in mine])
        assert seconds["total"] == pytest.approx(at(agent["stopped_at"]) - at(agent["spawned_at"]), abs=SLACK)
        assert seconds["starting"] == pytest.approx(at(agent["ready_at"]) - at(agent["spawned_at"]), abs=SLACK)
        assert seconds["busy"] == pytest.approx(busy, abs=0.05 + 0.02 * len(mine))
        assert seconds["idle"] == pytest.approx(
            seconds["total"] - seconds["starting"] - seconds["busy"] - seconds["draining"], abs=0.01
        )
        good = sum(job["status"] == "succeeded" for job in mine)
        assert row["jobs"] == {"succeeded": good, "failed": len(mine) - good}
        price = 36 / 3600 if row["group"] == "Boss" else 1.0
        assert row["amount"] == pytest.approx(price * seconds["total"] + 0.25 * len(mine), abs=0.01)
    answer = brain.get("/api/costs?group_by=tag")
    [paid] = [row for row in answer["rows"] if row["tag"] == "paid"]
    assert paid["jobs"] == {"succeeded": GOOD + 1, "failed": BAD}
    assert paid["amount"] == pytest.approx(sum(row["amount"] for row in rows.values()), abs=0.01)
    assert paid["saved"]["amount"] >= 0
    assert answer["currency"] == "USD"


def test_an_agent_that_is_killed_while_it_works_is_paid_until_then_and_its_job_counts_once(brain: Brain) -> None:
    cluster = brain.cluster("metered")
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 1}})
    gate = brain.gate()
    job = brain.job(cluster, gate=str(gate))
    begun = brain.until_begun(job)
    time.sleep(1.5)  # so that there is something to count
    os.kill(begun["pid"], signal.SIGKILL)
    died = time.time()
    until(lambda: brain.seen(cluster)["health_score"] < 1, "its death is seen")
    gate.touch()
    assert brain.outcome(job)["attempts"] == 2
    until(lambda: brain.seen(cluster)["tasks_completed"] == 1, "it is counted")
    rows = {row["agent_id"]: row for row in brain.get(f"/api/clusters/{cluster}/costs?group_by=agent")["rows"]}
    # The last beat counts, and what came after it is less than the interval of beats, which is half a second here.
    assert died - begun["at"] - 1.0 < rows[begun["agent"]]["agent_seconds"]["busy"] < died - begun["at"] + 0.1
    assert sum(row["jobs"]["succeeded"] + row["jobs"]["failed"] for row in rows.values()) == 1
    brain.command("DELETE", f"/api/clusters/{cluster}")
