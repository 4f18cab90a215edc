"""One agent process on this machine: how it is found again, watched, and ended with all that it started."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brain_clusters.domain.agents import AgentSpec
from brain_clusters.genesis.driver import Phase, Sighting
from brain_clusters.processes import DRAIN_SIGNAL, ProcessId

_LOG_KEEP_SECONDS = 86_400.0
_LOG_BYTES = 10_000_000


@dataclass(slots=True)
class LocalAgent:
    """An agent of this host. process is None until the zygote has told its pid.

    spec: None for one of an earlier host. zygote: the one it comes from. marker: the file that tells it to drain.
    ready: it consumes. wish: how it is to end as soon as it has a process. reaped_here: a zygote of this host reports
    its exit code. since: monotonic seconds.
    """

    agent_id: str
    marker: Path
    since: float
    spec: AgentSpec | None = None
    zygote: str = ""
    process: ProcessId | None = None
    exit_descriptor: int | None = None
    ready: bool = False
    wish: signal.Signals | None = None
    code: int | None = None
    reaped_here: bool = False
    error: str | None = None
    dead: bool = False

    def end(self, *, now: bool) -> None:
        """Ask it to finish what it does and end, or kill it."""
        number = signal.SIGKILL if now else signal.SIGTERM
        if self.process is None:
            self.wish = number
        else:
            self.process.send(number)

    def tell(self, *, drains: bool) -> None:
        """Tell it to finish what it does and leave, or to take jobs again."""
        if drains:
            self.marker.touch(0o600)
        else:
            self.marker.unlink(missing_ok=True)
        if self.process is not None:
            self.process.send(DRAIN_SIGNAL)

    def sighting(self) -> Sighting:
        """Return what is to be told of it."""
        handle = {"pid": self.process.pid, "started": self.process.started} if self.process else {}
        if self.dead:
            return Sighting(self.agent_id, Phase.ENDED, handle, reason=self._how_it_ended(), code=self.code)
        phase = Phase.RUNNING if self.process else Phase.STARTING
        return Sighting(self.agent_id, phase, handle, ready=self.ready)

    def _how_it_ended(self) -> str | None:
        if self.error is not None or self.code is None:
            return self.error
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exited with {self.code} unasked"


def exit_descriptor(pid: int) -> int | None:
    """Return a descriptor that becomes readable when ``pid`` ends; None where the system has none (not Linux)."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def lock_path(run_dir: Path, agent_id: str) -> Path:
    """Return the file that a living agent holds locked."""
    return run_dir / f"{agent_id}.lock"


def holder(path: Path) -> ProcessId | None:
    """Return the process that holds an agent's lock file, or None when it is free: then that agent is dead."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, started = os.read(descriptor, 200).decode().strip().partition(" ")
        return ProcessId(int(pid), started) if started else None
    finally:
        os.close(descriptor)
    return None


def was_held(path: Path) -> bool:
    """Return whether an agent held this file: it writes into it once it has locked it."""
    with suppress(FileNotFoundError):
        return path.stat().st_size > 0
    return False


def tidy_logs(folder: Path, living: Collection[str]) -> None:
    """Delete the logs of agents that ended a day ago, and empty those that have grown out of bounds."""
    for path in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            found = path.stat()
            if path.stem not in living and time.time() - found.st_mtime > _LOG_KEEP_SECONDS:
                path.unlink()
            elif found.st_size > _LOG_BYTES:
                os.truncate(path, 0)  # its writer appends, so that this leaves no hole


def end_session(leader: int) -> None:
    """Kill whatever an ended agent started: it led a session of its own, and its children are still in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    if sys.platform != "linux":
        return
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _session(entry.name) == leader:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry.name), signal.SIGKILL)


def _session(pid: str) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # Fields after the command in parentheses: state, parent, process group, session [proc(5)].
    return int(stat.rpartition(")")[2].split()[3])
