"""Jobs for later on the real system: nobody is kept awake for them, and they begin when they are due."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from .brain import Brain, until

Measured = Callable[[str, float], None]

NAPS = """
metadata: {id: naps, name: Naps, version: "1"}
cluster: {type: temporary, min_workers: 1, max_workers: 3, scaling: {hibernate: {eta_horizon: 1 s}}}
agents:
  - {role: supervisor, name: Desk, count: 1, handler: "workshop:work"}
  - {role: worker, name: Hands, count: 0-2, handler: "workshop:work"}
lifecycle:
  hibernate_conditions: [idle_time: 1 s]
"""
CREW = """
metadata: {id: crew, name: A crew, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 9, scaling: {idle_workers: 1}}
agents:
  - {role: supervisor, name: Desk, count: 1, handler: "workshop:work"}
  - {role: worker, name: Hands, count: 0-8, handler: "workshop:work"}
lifecycle:
  hibernate_conditions: [idle_time: 1 day]
"""


@pytest.fixture(scope="module")
def brain(brain_with: Callable[..., Brain]) -> Brain:
    """A running system with the blueprints of these tests."""
    brain = brain_with()
    for text in (NAPS, CREW):
        assert brain.call("POST", "/api/blueprints", {"yaml": text}).status == 201
    return brain


def asleep(brain: Brain, cluster: str) -> None:
    until(lambda: brain.seen(cluster)["status"] == "hibernated", f"{cluster} sleeps")
    assert brain.agent_processes(cluster) == {}


def later(brain: Brain, cluster: str, to: str, delay: float | str) -> Any:
    """Send a job for later and return it."""
    answer = brain.call("POST", f"/api/clusters/{cluster}/jobs", {"to": to, "delay": delay, "payload": {}})
    assert answer.status == 202, answer
    return answer.json["job"]


def explained(brain: Brain, cluster: str) -> Any:
    return brain.get(f"/api/clusters/{cluster}/scaling/explain")


def woken(brain: Brain, cluster: str) -> list[Any]:
    """Return the decisions to wake a cluster, the newest first."""
    return list(brain.get(f"/api/clusters/{cluster}/scaling?action=reactivate")["decisions"])


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_sleeping_cluster_starts_in_time_for_a_job_that_is_due(brain: Brain, measured: Measured) -> None:
    cluster = brain.cluster("naps")
    asleep(brain, cluster)
    job = later(brain, cluster, "Desk", 4)
    assert brain.seen(cluster)["status"] == "hibernated"  # as opposed to a job for now, nobody is woken
    found = explained(brain, cluster)
    assert (found["action"], found["signals"]["Desk"]["held"]) == ("none", 1)
    assert found["wake_in"] is not None
    begun = brain.until_begun(job["id"])
    assert begun["at"] >= seconds(job["eta"])
    measured("a job for later of a sleeping cluster begins after it is due", begun["at"] - seconds(job["eta"]))
    assert brain.outcome(job["id"])["attempts"] == 1
    [wake] = woken(brain, cluster)
    assert seconds(wake["at"]) > seconds(job["created_at"])
    asleep(brain, cluster)  # and again, when it is done


def test_a_plain_celery_countdown_starts_a_sleeping_cluster_in_time(brain: Brain, measured: Measured) -> None:
    cluster = brain.cluster("naps")
    queue = brain.queue(cluster, "Hands")
    asleep(brain, cluster)
    with brain.celery() as app:
        due = time.time() + 4
        job = str(app.send_task("brain.job", [{}], queue=queue, countdown=4, ignore_result=True))
    until(lambda: explained(brain, cluster)["signals"]["Hands"]["held"] == 1, "the job is seen to be held")
    assert woken(brain, cluster) == []
    begun = brain.until_begun(job)
    assert begun["at"] >= due
    measured("a countdown of a plain Celery client begins after it is due", begun["at"] - due)
    assert len(woken(brain, cluster)) == 1
    assert len(brain.marks(job)) == 1


def test_an_awake_cluster_falls_asleep_over_a_job_in_an_hour(brain: Brain) -> None:
    cluster = brain.cluster("naps")
    job = later(brain, cluster, "Hands", "1 hour")
    asleep(brain, cluster)
    found = until(lambda: (now := explained(brain, cluster))["wake_in"] and now, "it knows when to wake")
    assert 3000 < found["wake_in"] < 3600
    assert found["action"] == "none"
    assert brain.get(f"/api/jobs/{job['id']}")["status"] == "queued"
    assert woken(brain, cluster) == []


def test_thirty_countdowns_are_no_backlog(brain: Brain) -> None:
    cluster = brain.cluster("crew")
    before = until(
        lambda: (
            (now := brain.agents(cluster)) and len(now) == 2 and {agent["beat"] for agent in now} == {"fresh"} and now
        ),
        "one of the crew is there in reserve",
    )
    queue = brain.queue(cluster, "Hands")
    with brain.celery() as app:
        for _ in range(30):
            app.send_task("brain.job", [{}], queue=queue, countdown=3600, ignore_result=True)
    until(lambda: explained(brain, cluster)["signals"]["Hands"]["held"] == 30, "all thirty are held")
    ticks(brain, 4)
    found = explained(brain, cluster)
    signals = found["signals"]["Hands"]
    assert {key: signals[key] for key in ("ready", "running", "reserved", "held")} == {
        "ready": 0, "running": 0, "reserved": 0, "held": 30,
    }  # fmt: skip
    assert (found["action"], found["after"]) == ("none", {"Desk": 1, "Hands": 1})
    assert {agent["agent_id"] for agent in brain.agents(cluster)} == {agent["agent_id"] for agent in before}
    assert brain.get(f"/api/clusters/{cluster}")["backlog"] == {"waiting": 0, "running": 0}


def ticks(brain: Brain, count: int) -> None:
    """Wait until so many more ticks have looked."""
    seen: set[float] = set()
    with brain.redis() as client:

        def looked() -> bool:
            seen.add(json.loads(client.get("brain:scaling") or '{"at": 0}')["at"])  # type: ignore[arg-type]
            return len(seen) > count

        until(looked, f"{count} ticks")
