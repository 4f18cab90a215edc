"""One agent process on this machine: how it is found again, watched, and ended with all that it started."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brain_clusters.genesis.process.desk import Ended
from brain_clusters.processes import DRAIN_SIGNAL, ProcessId, tail

log = logging.getLogger(__name__)

# An agent that had begun to leave when it was told to go on is gone before then.
_LEAVING_SECONDS = 10.0
_LOG_KEEP_SECONDS = 86_400.0
_LOG_BYTES = 10_000_000


@dataclass(slots=True)
class LocalAgent:
    """An agent of this host. process is None until the zygote has told its pid.

    handler: the zygote it comes from. marker: the file that tells it to drain. ready: it consumes.
    drains: what it was told last, None when an earlier host may have told it something; told_at: when that was.
    asked_to_leave_at: when it got SIGTERM, which is final. reaped_here: a zygote of this host reports its exit code.
    Times are monotonic seconds.
    """

    agent_id: str
    handler: str
    since: float
    marker: Path
    process: ProcessId | None = None
    exit_descriptor: int | None = None
    ready: bool = False
    drains: bool | None = False
    told_at: float | None = None
    asked_to_leave_at: float | None = None
    code: int | None = None
    reaped_here: bool = False
    error: str | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still is the same one."""
        if self.process is not None:
            self.process.send(number)

    def leave(self) -> None:
        """Ask it, once, to finish what it does and end. While it is being born nothing is asked: its pid comes soon."""
        if self.asked_to_leave_at is None and self.process is not None:
            self.asked_to_leave_at = time.monotonic()
            self.signal(signal.SIGTERM)

    def drain(self) -> None:
        """Ask it to finish what it does and end, so that ``go_on`` can undo it. One that is not ready just ends."""
        if not self.ready:
            self.leave()
        elif self.asked_to_leave_at is None and not self.drains:
            self._tell(drains=True)

    def go_on(self) -> None:
        """Ask it to take jobs again, if it was told to drain or may have been."""
        if self.asked_to_leave_at is None and self.drains is not False:
            self._tell(drains=False)

    def _tell(self, *, drains: bool) -> None:
        self.drains, self.told_at = drains, time.monotonic()
        if drains:
            self.marker.touch(0o600)
        else:
            self.marker.unlink(missing_ok=True)
        self.signal(DRAIN_SIGNAL)

    @property
    def left_as_asked(self) -> bool:
        """Whether its end is what it was asked for, be it that it was told to go on a moment too late."""
        if self.asked_to_leave_at is not None or self.drains:
            return True
        return self.code in (0, None) and _within(self.told_at, _LEAVING_SECONDS)


def _within(since: float | None, seconds: float) -> bool:
    return since is not None and time.monotonic() - since < seconds


def obituary(agent: LocalAgent, log_dir: Path) -> Ended:
    """Return what is told of an agent that is gone: whether it left as asked, and else why it died."""
    if agent.left_as_asked:
        return Ended(agent.agent_id, asked=True, error=agent.error)
    error = agent.error
    if error is None:
        last_words = tail(log_dir / f"{agent.agent_id}.log", 3).strip()
        error = _how_it_ended(agent.code) + (f"; its log ends: {last_words[-500:]}" if last_words else "")
    log.warning("agent %s died: %s", agent.agent_id, error)
    return Ended(agent.agent_id, asked=False, error=error)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "ended unasked"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exited with {code} unasked"


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
