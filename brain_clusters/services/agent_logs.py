"""What agents wrote, as far as this process can read it: the files of the process driver on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from brain_clusters.db.models import Agent
from brain_clusters.domain.states import LIVE_AGENT_STATUSES
from brain_clusters.services.control import Control

MOST_LINES = 2000
# Of a long log only the end is read: a line of 1 MiB is no line that somebody looks for.
_MOST_BYTES = 1 << 20
_HOW = {
    "docker": "the agent runs in a container: look with `docker logs` on its host",
    "kubernetes": "the agent runs in a pod: look with `kubectl logs`",
}


@dataclass(frozen=True, slots=True)
class Log:
    """The last lines. why: why there are none that could be read, and where they are; None where the log was read."""

    lines: list[str]
    why: str | None = None


def tail(control: Control, agent: Agent, lines: int) -> Log:
    """Return the last ``lines`` of an agent's log."""
    path = path_of(control, agent)
    if path is None or not path.exists():
        return Log([], _why(agent))
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _MOST_BYTES))
        found = log.read().decode(errors="replace").splitlines()
    return Log(found[max(0, len(found) - lines) :])


def path_of(control: Control, agent: Agent) -> Path | None:
    """Return where the process driver of this machine lets an agent write to; None for agents of other engines."""
    if agent.driver != "process" or Path(agent.agent_id).name != agent.agent_id:
        return None
    return control.settings.home / "logs" / "agents" / f"{agent.agent_id}.log"


def _why(agent: Agent) -> str:
    if agent.driver in _HOW:
        return f"{_HOW[agent.driver]} ({agent.host_id or 'no host has taken it yet'})"
    if agent.driver != "process":
        return f"the driver {agent.driver!r} keeps its agents' logs itself"
    if agent.host_id is None:
        return "no host has taken the agent yet, so it has written nothing"
    gone = "" if agent.status in LIVE_AGENT_STATUSES else "; logs of agents that ended are kept for a day"
    return (
        f"there is no logs/agents/{agent.agent_id}.log in this API's BRAIN_HOME. If the host {agent.host_id} runs on "
        f"another machine, or with another BRAIN_HOME, it is there{gone}"
    )


def follow(path: Path, begin: int, goes_on: Callable[[], bool]) -> Iterator[list[str]]:
    """Yield the lines that come to a log after byte ``begin``, in batches, also empty ones, while ``goes_on()``.

    goes_on: called before each look; it waits in between. A log that was emptied is read from its beginning.
    """
    rest = b""
    while goes_on():
        size = path.stat().st_size if path.exists() else 0
        begin = begin if size >= begin else 0
        if size == begin:
            yield []
            continue
        with path.open("rb") as log:
            log.seek(begin)
            new = log.read(_MOST_BYTES)
        begin += len(new)
        *whole, rest = (rest + new).split(b"\n")
        yield [line.decode(errors="replace") for line in whole]
