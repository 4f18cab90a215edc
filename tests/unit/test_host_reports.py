"""What a host makes of its zygotes' reports, in whatever order they come."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from brain_clusters.genesis.process.host import Host
from brain_clusters.genesis.process.local import LocalAgent, lock_path
from brain_clusters.processes import ProcessId


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
    host = Host(None, nursery, capacity=1, run_dir=tmp_path, log_dir=tmp_path)  # type: ignore[arg-type]
    agent = host._roster.living["a"] = LocalAgent("a", "", time.monotonic(), tmp_path / "a.drain")
    host._take_reports()
    assert host._roster.ready == {"a": {"pid": me.pid, "started": me.started}}
    assert agent.process == me
    assert agent.reaped_here
    host._roster.note_death(agent)
    host._selector.close()
    for descriptor in (lock, host._wake_read, host._wake_write):
        os.close(descriptor)
