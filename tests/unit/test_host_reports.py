"""What the process driver makes of its zygotes' reports, in whatever order they come."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.genesis.process.driver import ProcessDriver
from brain_clusters.genesis.process.local import lock_path
from brain_clusters.processes import ProcessId

_SPEC = AgentSpec(agent_id="a", cluster_id="c", group_name="g", role="worker", queue="q")


class Reports:
    """A nursery that only reports."""

    def __init__(self, *reports: dict[str, Any]) -> None:
        self._left = list(reports)

    def reports(self) -> list[dict[str, Any]]:
        left, self._left = self._left, []
        return left


def test_an_agent_that_is_ready_before_its_birth_is_told_has_its_pid_all_the_same(tmp_path: Path) -> None:
    me = ProcessId.current()  # stands for the agent, which holds its lock file while it lives
    lock = os.open(lock_path(tmp_path, "a"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, f"{me.pid} {me.started}\n".encode())
    late = {"is": "spawned", "agent": "a", "pid": me.pid, "started": me.started}
    nursery: Any = Reports({"is": "ready", "agent": "a"}, late)
    driver = ProcessDriver(nursery, run_dir=tmp_path, log_dir=tmp_path)
    driver._population.expect(_SPEC, "")
    assert list(driver.changes()) == [
        Sighting("a", Phase.RUNNING, {"pid": me.pid, "started": me.started}, ready=True),
    ]
    agent = driver._population.living["a"]
    assert agent.process == me
    assert agent.reaped_here
    driver._population.close()
    driver._selector.close()
    os.close(lock)
