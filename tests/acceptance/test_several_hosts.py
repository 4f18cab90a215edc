"""Several hosts: they share the agents, and what one that does not answer has is done by the others, and once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from brain_clusters.embedded import running
from brain_clusters.processes import ProcessId

from .brain import Brain, until
from .several import Network, OtherHost, another_host, network, why_no_networks

LEASE_SECONDS = 4
NO_NETWORKS = why_no_networks()


@pytest.fixture(scope="module")
def brain(brain_with: Callable[..., Brain]) -> Brain:
    return brain_with(BRAIN_START_TIMEOUT_SECONDS="15", BRAIN_HOST_LEASE_SECONDS=str(LEASE_SECONDS))


@contextmanager
def made(brain: Brain, hands: int) -> Iterator[str]:
    """Make a cluster of a Boss and so many Hands, and destroy it at the end."""
    cluster = brain.cluster(target_workers=1)
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": hands}})
    brain.until_agents(cluster, hands + 1)
    yield cluster
    brain.command("DELETE", f"/api/clusters/{cluster}")
    assert brain.agent_processes(cluster) == {}


def busy_on(brain: Brain, host: OtherHost, cluster: str, gate: str) -> str:
    """Keep every Hand busy until the file ``gate`` is there; return a job that runs on ``host``."""
    hands = [agent for agent in brain.agents(cluster) if agent["group"] == "Hands"]
    for job in [brain.job(cluster, gate=gate) for _ in hands]:
        if brain.until_begun(job)["agent"] in host.rows(cluster):
            found = job
    return found


def until_replaced(brain: Brain, cluster: str, lost: dict[str, int]) -> None:
    """Wait until all agents are there again, and none of ``lost`` is among them."""
    wanted = brain.seen(cluster)["target_workers"]

    def replaced() -> bool:
        rows = [agent for agent in brain.agents(cluster) if agent["pid"] and agent["status"] in ("idle", "busy")]
        return len(rows) == wanted and not {agent["agent_id"] for agent in rows} & lost.keys()

    until(replaced, "the lost agents are replaced")


def done_once(brain: Brain, cluster: str, jobs: int) -> None:
    """See that so many outcomes count, and no more."""
    until(lambda: brain.seen(cluster)["tasks_completed"] >= jobs, "every outcome is counted")
    assert brain.seen(cluster)["tasks_completed"] == jobs
    assert brain.seen(cluster)["tasks_failed"] == 0


def test_two_hosts_share_the_agents_of_a_cluster(brain: Brain) -> None:
    with another_host(brain, "second") as second, made(brain, hands=11) as cluster:
        assert 3 <= len(second.rows(cluster)) <= 9  # evenly, unless this machine is too slow to look in time
        found = brain.get("/api/hosts")["hosts"]
        assert sum(host["agents"] for host in found) == 12
        assert all(host["cpus"] and host["memory_bytes"] for host in found)


def test_the_agents_of_a_host_that_does_not_answer_are_replaced_and_it_writes_nothing_afterwards(brain: Brain) -> None:
    with another_host(brain, "second") as second, made(brain, hands=5) as cluster:
        gate = brain.gate()
        job, lost = busy_on(brain, second, cluster, str(gate)), second.rows(cluster)
        second.send(signal.SIGSTOP)
        until_replaced(brain, cluster, lost)
        # They could be reached, and have ended though their host does not run.
        until(lambda: not any(ProcessId.of(pid) for pid in lost.values()), "the fenced agents have ended")
        brain.until_begun(job, 2)
        gate.touch()
        done = brain.outcome(job)
        assert done | {"status": "succeeded", "attempts": 2} == done
        assert done["agent_id"] not in lost
        done_once(brain, cluster, 5)
        died = {agent["agent_id"]: agent["last_error"] for agent in brain.agents(cluster, "?ended=true")
                if agent["status"] == "failed"}  # fmt: skip
        assert died == dict.fromkeys(lost, f"its host second has not answered for {LEASE_SECONDS} s")
        second.send(signal.SIGCONT)
        until(lambda: second.lease() == "held", "it is a host again")
        brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 11}})
        brain.until_agents(cluster, 12)
        assert second.rows(cluster)
        assert {
            agent["agent_id"] for agent in brain.agents(cluster, "?ended=true") if agent["last_error"]
        } == lost.keys()


def test_a_host_that_is_lost_with_all_its_agents_is_replaced(brain: Brain) -> None:
    with another_host(brain, "second") as second, made(brain, hands=5) as cluster:
        gate = brain.gate()
        job, lost = busy_on(brain, second, cluster, str(gate)), second.rows(cluster)
        second.kill_all(cluster)
        until_replaced(brain, cluster, lost)
        brain.until_begun(job, 2)
        gate.touch()
        assert brain.outcome(job)["attempts"] == 2
        done_once(brain, cluster, 5)
        until(lambda: second.lease() is None, "it is forgotten")


def test_a_second_process_of_the_same_host_stands_by_and_takes_its_agents_over(brain: Brain) -> None:
    with another_host(brain, "second") as second, made(brain, hands=5) as cluster:
        before = brain.until_agents(cluster, 6)
        gate = brain.gate()
        job = busy_on(brain, second, cluster, str(gate))
        standby = brain.spawn("host", log="standby.log", BRAIN_HOST_ID="second")
        try:
            until(lambda: "stands by" in (brain.folder / "standby.log").read_text(), "it stands by")
            assert brain.until_agents(cluster, 6) == before
            second.process.kill()
            second.process.wait()
            gate.touch()
            assert brain.outcome(job)["attempts"] == 1
            brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 9}})
            after = brain.until_agents(cluster, 10)
            assert before.items() <= after.items()
        finally:
            standby.terminate()
            standby.wait(60)


# --- networks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def far(brain: Brain) -> Iterator[Network]:
    if NO_NETWORKS:
        pytest.skip(NO_NETWORKS)
    found = running(brain.home)
    assert found is not None
    assert found.database_url is not None
    assert found.redis_url is not None
    with network(found.database_url, found.redis_url) as made_network:
        yield made_network


def test_jobs_go_on_when_a_host_is_cut_off_and_none_counts_twice_when_it_comes_back(brain: Brain, far: Network) -> None:
    host = far.spawn_host(brain, "far")
    try:
        until(lambda: host.lease() == "held", "the far host runs")
        with made(brain, hands=7) as cluster:
            gate = brain.gate()
            job, lost = busy_on(brain, host, cluster, str(gate)), host.rows(cluster)
            far.cut()
            until_replaced(brain, cluster, lost)
            brain.until_begun(job, 2)
            # Its host knows that others do their work now, though nobody can tell it.
            until(lambda: not any(ProcessId.of(pid) for pid in lost.values()), "the agents that are cut off have ended")
            late = [brain.job(cluster, sleep=0.05) for _ in range(20)]
            gate.touch()
            done = brain.outcome(job)
            assert done["agent_id"] not in lost
            assert {brain.outcome(one)["status"] for one in late} == {"succeeded"}
            far.heal()
            until(lambda: host.lease() == "held", "the far host is back")
            now = brain.outcome(job)
            assert (now["attempts"], now["agent_id"], now["result"]) == (2, done["agent_id"], done["result"])
            done_once(brain, cluster, 7 + 20)
            brain.command("POST", f"/api/clusters/{cluster}/scale", {"groups": {"Hands": 13}})
            brain.until_agents(cluster, 14)
            assert host.rows(cluster)
    finally:
        far.heal()
        host.end()
        assert not list((brain.home / "run" / "far").glob("*.lock"))


def test_a_far_host_that_ends_leaves_nothing(brain: Brain, far: Network) -> None:
    host = far.spawn_host(brain, "far")
    until(lambda: host.lease() == "held", "the far host runs")
    os.kill(host.process.pid, signal.SIGTERM)
    assert host.process.wait(60) == 0
    until(lambda: host.lease() is None, "it has left")
