"""kill -9 of agents and hosts: jobs run again, agents are replaced or found again, none runs twice or is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from .brain import Brain, until

Measured = Callable[[str, float], None]


def test_a_job_whose_agent_is_killed_runs_again_and_the_agent_is_replaced(brain: Brain, measured: Measured) -> None:
    cluster, gate = brain.cluster(target_workers=2), brain.gate()
    job = brain.job(cluster, gate=str(gate))
    first = brain.until_begun(job)
    killed_at = time.time()
    os.kill(first["pid"], signal.SIGKILL)
    second = brain.until_begun(job, 2, seconds=15)
    measured("a job of a killed agent runs again", second["at"] - killed_at)
    assert second["attempt"] == 2
    assert second["agent"] != first["agent"]
    gate.touch()
    done = brain.outcome(job)
    assert done | {"status": "succeeded", "attempts": 2, "agent_id": second["agent"]} == done
    brain.until_agents(cluster, 2)
    died = [agent for agent in brain.agents(cluster, "?ended=true") if agent["status"] == "failed"]
    assert [agent["agent_id"] for agent in died] == [first["agent"]]
    assert "SIGKILL" in died[0]["last_error"]
    brain.command("DELETE", f"/api/clusters/{cluster}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_the_next_host_finds_the_agents_of_the_last_one(
    brain: Brain, measured: Measured, number: signal.Signals
) -> None:
    cluster, gate = brain.cluster(target_workers=5), brain.gate()
    before = brain.until_agents(cluster, 5)
    running = brain.job(cluster, gate=str(gate))
    begun = brain.until_begun(running)
    old, killed_at = brain.child("host"), time.monotonic()
    old.send(number)
    until(lambda: brain.child("host") != old, "the host was started again")
    gate.touch()
    assert brain.outcome(running)["attempts"] == 1
    assert brain.outcome(brain.job(cluster))["result"]["pid"] in {pid for pids in before.values() for pid in pids}
    # It starts what is missing only after it has found what is there.
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 7})
    measured(f"a host serves again after {number.name}", time.monotonic() - killed_at)
    after = brain.until_agents(cluster, 7)
    assert before.items() <= after.items()
    assert [begun["pid"]] in before.values()
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 1})
    brain.until_agents(cluster, 1)
    assert not any(agent["status"] == "failed" for agent in brain.agents(cluster, "?ended=true"))
    brain.command("DELETE", f"/api/clusters/{cluster}")


@pytest.mark.parametrize("born", [1, 5, 15])
def test_a_host_killed_while_it_starts_agents_leaves_neither_too_few_nor_too_many(brain: Brain, born: int) -> None:
    cluster = brain.cluster(target_workers=1)
    answer = brain.call("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 21})
    assert answer.status == 202
    until(lambda: len(brain.agent_processes(cluster)) > born, f"{born} agents are born")
    brain.kill_child("host")
    operation = f"/api/operations/{answer.json['operation']['id']}"
    until(lambda: brain.get(operation)["status"] == "succeeded", "the operation succeeded")
    brain.until_agents(cluster, 21)
    assert brain.seen(cluster)["current_workers"] == 21
    brain.command("DELETE", f"/api/clusters/{cluster}")
    assert brain.agent_processes(cluster) == {}


def test_two_hosts_share_the_agents_and_start_none_twice(brain: Brain) -> None:
    cluster = brain.cluster(target_workers=1)
    other = brain.spawn("host", log="other.log", BRAIN_HOST_ID="other", BRAIN_HOST_CAPACITY="3")
    run_dir = brain.home / "run" / "other"
    try:
        with brain.redis() as client:
            until(lambda: client.exists("brain:host:other"), "the other host runs")
        # The first one is held, so that the second takes what it can; then they compete.
        first = brain.child("host")
        first.send(signal.SIGSTOP)
        try:
            assert brain.call("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 5}).status == 202
            until(lambda: len(list(run_dir.glob("*.lock"))) == 3, "the other host has taken what it has room for")
        finally:
            first.send(signal.SIGCONT)
        brain.until_agents(cluster, 5)
        for target in (12, 1, 10, 4, 15):
            brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": target})
            brain.until_agents(cluster, target)
            assert len(list(run_dir.glob("*.lock"))) <= 3
    finally:
        other.terminate()
        other.wait(60)
    brain.until_agents(cluster, 15)
    assert not list(run_dir.glob("*.lock"))
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_destroying_does_not_wait_longer_than_the_grace_for_a_busy_agent(brain: Brain, measured: Measured) -> None:
    cluster = brain.cluster(target_workers=2)
    job = brain.job(cluster, gate=str(brain.gate()))
    brain.until_begun(job)
    began = time.monotonic()
    brain.command("DELETE", f"/api/clusters/{cluster}")
    measured("destroying a cluster whose agent never ends, with a grace of 2 s", time.monotonic() - began)
    assert brain.agent_processes(cluster) == {}
    assert brain.outcome(job)["error"]["type"] == "ClusterDestroyed"


def test_a_group_that_cannot_start_says_why_backs_off_and_can_be_destroyed(brain: Brain) -> None:
    text = """
        metadata: {id: broken, name: Broken, version: "1"}
        cluster: {type: project, min_workers: 1, max_workers: 4, default_workers: 3}
        agents:
          - {role: supervisor, name: Boss, count: 1, handler: "workshop:work"}
          - {role: worker, name: Lost, count: 2, handler: "no_such_module:work"}
    """
    assert brain.call("POST", "/api/blueprints", {"yaml": text}).status == 201
    made = brain.call("POST", "/api/clusters", {"blueprint_id": "broken", "name": "Broken"}).json
    cluster, began = made["cluster"]["id"], time.monotonic()
    operation = f"/api/operations/{made['operation']['id']}"
    until(lambda: brain.get(operation)["status"] == "failed", "the operation failed")
    assert "no_such_module" in brain.get(operation)["error"]["message"]
    rows = brain.agents(cluster, "?ended=true")
    failed = [agent for agent in rows if agent["status"] == "failed"]
    assert failed
    assert all("no_such_module" in agent["last_error"] for agent in failed)
    # Two at once, then after 0.5, 1, 2, 4 ... seconds: with n rows that is less than 2 + 2 * log2(seconds / 0.5).
    assert len(failed) <= 2 + 2 * 8, f"{len(failed)} attempts in {time.monotonic() - began:.0f} s are a storm"
    brain.command("DELETE", f"/api/clusters/{cluster}")
    assert brain.agent_processes(cluster) == {}
