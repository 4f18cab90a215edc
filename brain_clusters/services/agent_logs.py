"""What agents wrote: the files of this machine's process driver, and for all others what their host tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brain_clusters.broker import names, questions
from brain_clusters.broker.client import temporary_when_away
from brain_clusters.db.models import Agent
from brain_clusters.domain.engines import PROCESS
from brain_clusters.domain.states import LIVE_AGENT_STATUSES
from brain_clusters.errors import TemporaryError
from brain_clusters.services.control import Control

MOST_LINES = questions.MOST_LINES
# Of a long log only the end is read: a line of 1 MiB is no line that somebody looks for.
_MOST_BYTES = 1 << 20
# A host looks every second, and reads one log after the other.
_PATIENCE_SECONDS = 5.0
# So many lines of a host's answer are compared with the ones before, to know which are new.
_WINDOW_LINES = 1000
_FILE_LOOK_SECONDS = 0.5
_HOST_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Log:
    """The last lines. why: why there are none that could be read, and where they are; None where the log was read."""

    lines: list[str]
    why: str | None = None


def tail(control: Control, agent: Agent, lines: int) -> Log:
    """Return the last ``lines`` of an agent's log. Takes up to _PATIENCE_SECONDS where its host is to tell them."""
    path = path_of(control, agent)
    if path is None:
        return _of_host(control, agent, lines)
    found = _read(path, max(0, _size(path) - _MOST_BYTES)).decode(errors="replace")
    return Log(_last(found.splitlines(), lines))


def path_of(control: Control, agent: Agent) -> Path | None:
    """Return the file that an agent of this machine writes to; None where there is none."""
    if agent.driver != PROCESS or Path(agent.agent_id).name != agent.agent_id:
        return None
    path = control.settings.home / "logs" / "agents" / f"{agent.agent_id}.log"
    return path if path.exists() else None


def _last(found: Sequence[str], lines: int) -> list[str]:
    return list(found[max(0, len(found) - lines) :])


# --- from its host ----------------------------------------------------------------------------------------------


def _of_host(control: Control, agent: Agent, lines: int, *, wake: bool = True) -> Log:
    if agent.host_id is None:
        return Log([], "no host has taken the agent yet, so it has written nothing")
    try:
        if not _lives(control, agent.host_id):
            return Log([], f"its log is kept by the host {agent.host_id}, which does not answer now")
        question = questions.ask(control.broker.redis, agent.host_id, agent.agent_id, lines)
        if wake:
            control.wake_hosts()
        told = questions.wait(control.broker.redis, question, _PATIENCE_SECONDS)
    except TemporaryError:
        return Log([], "Redis does not answer, by which the agent's host would be asked for its log")
    if told is None:
        return Log([], f"its log is kept by the host {agent.host_id}, which did not tell it within a few seconds")
    if told.text is None:
        return Log([], f"the host {agent.host_id} cannot read its log: {told.why}")
    found = _last(told.text.splitlines(), lines)
    if not found and agent.status not in LIVE_AGENT_STATUSES:
        return Log([], f"the host {agent.host_id} has no log of it any more: it is kept for a while after its end")
    return Log(found)


def _lives(control: Control, host_id: str) -> bool:
    with temporary_when_away():
        return bool(control.broker.redis.exists(names.host_key(host_id)))


# --- as it is written -------------------------------------------------------------------------------------------


def follow(control: Control, agent: Agent, lines: int, goes_on: Callable[[], bool]) -> Iterator[list[str]]:
    """Yield the last ``lines``, then those that come, in batches, also empty ones, while ``goes_on()``.

    goes_on: called before each look, and once more is looked after it has said no: what was written last is not missed.
    """
    path = path_of(control, agent)
    if path is None:
        yield from _follow_host(control, agent, lines, goes_on)
    else:
        yield from _follow_file(path, lines, goes_on)


def _follow_file(path: Path, lines: int, goes_on: Callable[[], bool]) -> Iterator[list[str]]:
    """Follow a file. One that was emptied is read from its beginning; a line that is not ended is not told yet."""
    begin = max(0, _size(path) - _MOST_BYTES)
    rest, told, lasts = b"", False, True
    while lasts:
        lasts = goes_on() if told else True
        begin = begin if _size(path) >= begin else 0
        new = _read(path, begin)
        begin += len(new)
        *whole, rest = (rest + new).split(b"\n")
        found = [line.decode(errors="replace") for line in whole]
        yield found if told else _last(found, lines)
        if told and lasts and len(new) < _MOST_BYTES:
            time.sleep(_FILE_LOOK_SECONDS)
        told = True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path, begin: int) -> bytes:
    try:
        with path.open("rb") as log:
            log.seek(begin)
            return log.read(_MOST_BYTES)
    except FileNotFoundError:  # its host has removed it, some time after the agent's end
        return b""


def _follow_host(control: Control, agent: Agent, lines: int, goes_on: Callable[[], bool]) -> Iterator[list[str]]:
    before = _of_host(control, agent, max(lines, _WINDOW_LINES)).lines
    yield _last(before, lines)
    lasts = True
    while lasts:
        lasts = goes_on()
        now = _of_host(control, agent, _WINDOW_LINES, wake=False)
        yield [] if now.why else new_lines(before, now.lines)
        before = before if now.why else now.lines
        if lasts:
            time.sleep(_HOST_LOOK_SECONDS)


def new_lines(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return what ``now``, the end of a log, has after ``before``, its end a moment ago.

    That is what follows the longest end of ``before`` that ``now`` has at its beginning; all of it where none is.
    """
    last, now = list(before), list(now)
    if now[: len(last)] == last:  # it was not yet as long as what is asked for
        return now[len(last) :]
    for skipped in range(max(0, len(last) - len(now)), len(last)):
        if now[: len(last) - skipped] == last[skipped:]:
            return now[len(last) - skipped :]
    return now
