"""The main job by the command line, as a person does it, with real agents."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
from typing import Any

import pytest

from .brain import Brain


class Typed:
    """A shell in which commands are typed."""

    def __init__(self, brain: Brain) -> None:
        self.brain = brain
        self.environment = brain.environment(XDG_CONFIG_HOME=str(brain.folder / "config"), TERM="xterm")

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(self._argv(arguments), env=self.environment, capture_output=True, text=True, timeout=90)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def on_a_terminal(self, *arguments: str, keys: bytes) -> str:
        """Return what is shown on a terminal of 24 lines until the command ends."""
        mine, its = pty.openpty()
        termios.tcsetwinsize(its, (24, 100))
        process = subprocess.Popen(self._argv(arguments), env=self.environment, stdin=its, stdout=its, stderr=its)
        os.close(its)
        os.write(mine, keys)
        shown = b""
        try:
            while select.select([mine], [], [], 30)[0]:
                shown += os.read(mine, 65536)
        except OSError:  # so Linux says that nobody has the terminal any more
            pass
        finally:
            os.close(mine)
            process.kill()
            process.wait()
        return shown.decode()

    @staticmethod
    def _argv(arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-P", "-m", "brain_clusters", *arguments]


@pytest.fixture
def typed(brain: Brain) -> Typed:
    """The command line of the one who started the system."""
    return Typed(brain)


def test_a_cluster_lives_by_the_command_line(typed: Typed, brain: Brain) -> None:
    made = typed("create", "workshop", "--id", "typed", "--name", "Typed", "--workers", "2", "--wait")
    assert made == "typed is active with 2 agents\n"
    assert typed("scale", "typed", "Hands=2", "--wait") == "typed is active with 3 agents\n"
    assert len(brain.agent_processes("typed")) == 3
    agents = typed("get", "agents", "-c", "typed", "-o", "name").split()
    assert len(agents) == 3
    shown = typed.on_a_terminal("top", keys=b"q")
    assert "typed" in shown
    assert "q quit" in shown
    assert typed("hibernate", "typed", "--wait") == "typed is hibernated with 0 agents\n"
    woken = typed("jobs", "submit", "-c", "typed", "--to", "Sorters", '"b\\na"', "--wait")
    assert json.loads(woken)
    kinds = {event["kind"] for event in typed.json("events", "typed")["events"]}
    assert {"operation.accepted", "operation.succeeded", "cluster.status"} <= kinds
    assert [job["status"] for job in typed.json("jobs", "list", "-c", "typed")["jobs"]] == ["succeeded"]
    assert "nothing is wrong" in typed("doctor")
    assert "typed" not in typed("destroy", "typed", code=2)
    assert typed("destroy", "typed", "--yes", "--wait") == "typed is destroyed with 0 agents\n"
    assert typed("get", "clusters", "-o", "name") == ""
    assert brain.agent_processes("typed") == {}
