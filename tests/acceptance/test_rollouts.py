"""Rollouts on the real system, under load: jobs end on the version that they began on, and broken versions go."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from .brain import Brain, until

MILL = """
metadata: {{id: mill, name: A mill, version: "{version}"}}
cluster:
  type: project
  min_workers: 1
  max_workers: 8
  default_workers: 5
  scaling: {{scale_up_threshold: 100000, scale_down_threshold: 0, target_latency: 1 hour}}
agents:
  - {{role: supervisor, name: Boss, count: 1, handler: "workshop:work"}}
  - {{role: worker, name: Hands, count: 4, handler: "workshop:{handler}", config: {{version: "{version}"}}}}
rollout: {{max_parallel: 2, min_healthy_time: 0.3, progress_deadline: 30 s}}
lifecycle:
  hibernate_conditions: [idle_time: 1 day]
"""


@pytest.fixture(scope="module")
def mill(brain: Brain) -> str:
    """A cluster of a Boss and four Hands, all of version 1."""
    applied(brain, version="1")
    return brain.cluster("mill")


def applied(brain: Brain, *, version: str, handler: str = "work") -> Any:
    answer = brain.call("POST", "/api/apply", {"documents": [MILL.format(version=version, handler=handler)]})
    assert answer.status == 200, answer
    return answer.json


def newest(brain: Brain, cluster: str) -> Any:
    return brain.get(f"/api/clusters/{cluster}/rollouts?limit=1")["rollouts"][0]


def ended(brain: Brain, cluster: str) -> Any:
    return until(lambda: (found := newest(brain, cluster))["finished_at"] and found, "the rollout has ended")


def versions_of(brain: Brain, cluster: str) -> dict[str, str]:
    """The version of every Hand that there is or was, by agent."""
    found = brain.agents(cluster, "?ended=true")
    return {one["agent_id"]: one["blueprint_version"] for one in found if one["group"] == "Hands"}


def live(brain: Brain, cluster: str) -> set[str]:
    return {one["blueprint_version"] for one in brain.agents(cluster) if one["group"] == "Hands"}


def of_version(brain: Brain, cluster: str, version: str) -> list[int]:
    versions, processes = versions_of(brain, cluster), brain.agent_processes(cluster)
    return [pid for agent, pids in processes.items() for pid in pids if versions.get(agent) == version]


def check_jobs(brain: Brain, jobs: list[str]) -> set[str]:
    """Assert that every job was begun once, and ended by whom it was begun; return these agents."""
    done = set()
    for job in jobs:
        found = brain.outcome(job)
        assert (found["status"], found["attempts"]) == ("succeeded", 1), found
        [mark] = brain.marks(job)
        assert mark["agent"] == found["result"]["agent"]
        done.add(str(mark["agent"]))
    return done


def test_under_load_each_job_ends_on_the_version_it_began_on_though_host_and_worker_are_killed(
    brain: Brain, mill: str
) -> None:
    gate = brain.gate()
    held = [brain.job(mill, gate=str(gate)) for _ in range(2)]
    for job in held:
        brain.until_begun(job)
    [move] = applied(brain, version="2")["changes"][0]["clusters"]
    assert (move["action"], move["agents"]["replaced"]) == ("rollout", 4)
    jobs, kills = list[str](), ["host", "worker"]
    while len(live(brain, mill)) == 1 or newest(brain, mill)["progress"].get("old", 4) > 2:
        jobs += [brain.job(mill, sleep=0.05) for _ in range(5)]
        if kills and live(brain, mill) == {"1", "2"}:
            brain.kill_child(kills.pop())
        assert newest(brain, mill)["status"] == "running"
    jobs += [brain.job(mill, sleep=0.05) for _ in range(5)]
    assert len(brain.agents(mill)) <= 7  # no more than two beside the five
    gate.touch()
    assert ended(brain, mill)["status"] == "succeeded"
    assert live(brain, mill) == {"2"}
    done, versions = check_jobs(brain, [*held, *jobs]), versions_of(brain, mill)
    assert {versions[agent] for agent in done} == {"1", "2"}
    assert {versions[brain.marks(job)[0]["agent"]] for job in held} == {"1"}
    brain.until_agents(mill, 5)


def test_a_version_that_does_not_load_is_taken_back_and_no_job_notices(brain: Brain, mill: str) -> None:
    before = {one["agent_id"] for one in brain.agents(mill)}
    applied(brain, version="3", handler="nothing_like_it")
    jobs = [brain.job(mill, sleep=0.05) for _ in range(20)]
    found = ended(brain, mill)
    assert (found["status"], found["to_version"]) == ("reverted", "3")
    assert "nothing_like_it" in found["reason"]
    assert brain.seen(mill)["blueprint_version"] == "2"
    check_jobs(brain, jobs)
    assert set(brain.until_agents(mill, 5)) == before
    kinds = [one["kind"] for one in brain.get(f"/api/clusters/{mill}/events?limit=200")["events"]]
    assert {"rollout.reverting", "rollout.reverted"} <= set(kinds)
    # The same documents again do not try it again.
    [move] = applied(brain, version="3", handler="nothing_like_it")["changes"][0]["clusters"]
    assert move["action"] == "held"


def test_an_undo_in_the_middle_goes_back_and_a_killed_agent_does_not_matter(brain: Brain, mill: str) -> None:
    applied(brain, version="4")
    until(lambda: live(brain, mill) == {"2", "4"}, "some are of version 4")
    os.kill(until(lambda: of_version(brain, mill, "4"), "one of version 4 is a process")[0], signal.SIGKILL)
    jobs = [brain.job(mill, sleep=0.2) for _ in range(10)]
    answer = brain.call("POST", f"/api/clusters/{mill}/rollout/undo", {}, Prefer="wait=60")
    assert answer.status == 200, answer
    assert answer.json["operation"]["status"] == "succeeded", answer.json
    assert live(brain, mill) == {"2"}
    check_jobs(brain, jobs)
    brain.until_agents(mill, 5)
    history = brain.get(f"/api/clusters/{mill}/rollouts")["rollouts"]
    assert [(one["to_version"], one["status"]) for one in history] == [
        ("2", "succeeded"), ("4", "superseded"), ("3", "reverted"), ("2", "succeeded"),
    ]  # fmt: skip
    brain.command("DELETE", f"/api/clusters/{mill}")
