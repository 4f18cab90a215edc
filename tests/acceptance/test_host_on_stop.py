"""A host that is to leave its agents when it is stopped, as a rollout of the control plane wants it."""

from __future__ import annotations

import signal
from collections.abc import Callable

from .brain import Brain, until


def test_a_stopped_host_leaves_its_agents_to_the_next_one(brain_with: Callable[..., Brain]) -> None:
    brain = brain_with(BRAIN_HOST_ON_STOP="leave")
    cluster = brain.cluster(target_workers=3)
    before, host = brain.until_agents(cluster, 3), brain.child("host")
    job = brain.job(cluster, gate=str(gate := brain.gate()))
    brain.until_begun(job)
    host.send(signal.SIGTERM)
    until(lambda: brain.child("host") != host, "its successor runs")
    gate.touch()
    assert brain.outcome(job)["attempts"] == 1
    assert brain.until_agents(cluster, 3) == before
    brain.command("DELETE", f"/api/clusters/{cluster}")
    assert brain.agent_processes(cluster) == {}
