"""The whole system with agents that a Genesis service starts: `up` with the driver remote, and that service."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.ports import free_port
from brain_clusters.processes import ProcessId

from .brain import BLUEPRINT, PATIENCE_SECONDS, Brain, until

KEY = "a-key-of-the-genesis-service"


class Remote:
    """A system, and the Genesis service that it has agents started by."""

    def __init__(self, brain: Brain, port: int) -> None:
        self.brain = brain
        self.home = brain.folder / "genesis"
        self._port = port
        self.start()

    def start(self) -> None:
        listen = f"127.0.0.1:{self._port}"
        self._process = self.brain.spawn("genesis", "--listen", listen, log="genesis.log", BRAIN_HOME=str(self.home))

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE_SECONDS) == 0

    def cluster(self, **fields: Any) -> str:
        return self.brain.cluster("workshop-remote", **fields)

    def until_agents(self, cluster: str, count: int) -> dict[str, ProcessId]:
        """Wait until there are ``count`` agents with a live process each, in the service's folders; return these."""

        def settled() -> dict[str, ProcessId] | None:
            found = {agent["agent_id"]: agent["pid"] for agent in self.brain.agents(cluster)}
            live = {agent: process for agent, pid in found.items() if pid and (process := ProcessId.of(pid))}
            return live if len(found) == len(live) == count and self.locked() >= live.keys() else None

        return until(settled, f"{cluster} has {count} agents") or {}

    def locked(self) -> set[str]:
        """Return the agents that left a file in the folder of their host at the service."""
        return {path.stem for path in self.home.glob("run/remote/*.lock")}


@pytest.fixture(scope="module")
def remote(brain_with: Callable[..., Brain]) -> Iterator[Remote]:
    port = free_port()
    brain = brain_with(
        BRAIN_DRIVERS="remote", BRAIN_GENESIS_URL=f"http://127.0.0.1:{port}", BRAIN_GENESIS_KEY=KEY,
    )  # fmt: skip
    text = BLUEPRINT.read_text().replace("id: workshop,", "id: workshop-remote,")
    text = text.replace("  type: project\n", "  type: project\n  driver: remote\n")
    answer = brain.call("POST", "/api/blueprints", {"yaml": text})
    assert answer.status == 201, answer
    found = Remote(brain, port)
    yield found
    found.stop()
    assert list(found.home.glob("run/remote/*.lock")) == []


def test_the_whole_story_with_agents_that_a_service_starts(remote: Remote) -> None:
    brain = remote.brain
    cluster = remote.cluster(target_workers=3)
    first = remote.until_agents(cluster, 3)
    assert brain.outcome(brain.job(cluster, say="hello"))["result"]["said"] == "hello"

    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 6})
    grown = remote.until_agents(cluster, 6)
    assert grown.items() >= first.items()
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 2})
    remote.until_agents(cluster, 2)

    assert brain.command("POST", f"/api/clusters/{cluster}/hibernate")["cluster"]["status"] == "hibernated"
    until(lambda: not remote.locked(), "nothing of its agents is left")
    assert not any(process.alive for process in grown.values())
    assert brain.outcome(brain.job(cluster, say="wake up"))["status"] == "succeeded"
    woken = remote.until_agents(cluster, brain.seen(cluster)["target_workers"])

    brain.command("DELETE", f"/api/clusters/{cluster}")
    until(lambda: not remote.locked(), "nothing of its agents is left")
    assert not any(process.alive for process in woken.values())


def test_service_and_host_are_killed_in_turn_and_the_agents_work_on(remote: Remote) -> None:
    brain = remote.brain
    cluster = remote.cluster(target_workers=3)
    before = remote.until_agents(cluster, 3)
    remote.kill()
    assert brain.outcome(brain.job(cluster, say="without the service"))["status"] == "succeeded"
    remote.start()
    brain.kill_child("host remote")
    brain.command("POST", f"/api/clusters/{cluster}/scale", {"target_workers": 4})
    assert remote.until_agents(cluster, 4).items() >= before.items()
    brain.command("DELETE", f"/api/clusters/{cluster}")
    until(lambda: not remote.locked(), "nothing of its agents is left")


def test_an_agent_that_is_killed_in_the_middle_of_a_job_is_replaced_and_the_job_is_done(remote: Remote) -> None:
    brain = remote.brain
    cluster = remote.cluster(target_workers=2)
    gate: Path = brain.gate()
    job = brain.job(cluster, gate=str(gate))
    begun = brain.until_begun(job)
    os.kill(begun["pid"], signal.SIGKILL)
    again = brain.until_begun(job, 2)
    assert again["agent"] != begun["agent"]
    gate.touch()
    assert brain.outcome(job)["status"] == "succeeded"
    brain.command("DELETE", f"/api/clusters/{cluster}")


def test_why_agents_do_not_start_is_shown_while_the_service_is_away(remote: Remote) -> None:
    brain = remote.brain
    remote.kill()
    body = {"blueprint_id": "workshop-remote", "name": "Waiting"}
    cluster = brain.call("POST", "/api/clusters", body).json["cluster"]["id"]

    def reason() -> bool:
        return any("does not answer" in (agent.get("reason") or "") for agent in brain.agents(cluster))

    until(reason, "the reason is shown")
    remote.start()
    until(lambda: brain.seen(cluster)["status"] == "active", "it is active")
    brain.command("DELETE", f"/api/clusters/{cluster}")
