"""A supervisor of child processes: it starts them, starts them again when they die, and leaves none behind.

Not thread-safe; use it from one thread that stays, since on Linux the children end with the thread that made them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from brain_clusters.errors import PermanentError
from brain_clusters.processes import ProcessId, how_ended, open_log, tail, tethered

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_HEALTHY_SECONDS = 30.0
_MOST_FAILED_STARTS = 5
_HURRIED_SECONDS = 3.0
_KILLED_SECONDS = 5.0
_WAIT_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What to run.

    argv: an absolute path and its arguments.
    stop_seconds: how long it may take to end after SIGTERM.
    heirs: its own children outlive a crash, and its successor takes them over (else they are killed with it).
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    stop_seconds: float = 10.0
    heirs: bool = False


@dataclass(slots=True)
class _Run:
    """How it stands with one child. failures: deaths since it was last healthy."""

    child: Child
    process: subprocess.Popen[bytes]
    started_at: float
    failures: int = 0
    failed_starts: int = 0
    ever_healthy: bool = False
    due_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Keeps children running. Call ``poll`` a few times a second.

    say: is told of every death. on_poll: is called at every poll, also while children stop.
    """

    say: Callable[[str], None]
    on_poll: Callable[[], None] | None = None
    _runs: dict[str, _Run] = field(default_factory=dict)

    def start(self, child: Child) -> None:
        """Start a child and keep it running from now on."""
        self._runs[child.name] = _Run(child, _spawn(child), time.monotonic())

    def processes(self) -> dict[str, ProcessId]:
        """Return the children that are alive, in the order of their start."""
        found = {name: ProcessId.of(run.process.pid) for name, run in self._runs.items() if run.process.poll() is None}
        return {name: process for name, process in found.items() if process}

    def poll(self) -> None:
        """Start again what died and is due. Raises PermanentError for a child that fails at every start."""
        if self.on_poll:
            self.on_poll()
        now = time.monotonic()
        for run in self._runs.values():
            if run.due_at is not None:
                if now >= run.due_at:
                    run.process, run.started_at, run.due_at = _spawn(run.child), now, None
            elif run.process.poll() is not None:
                self._died(run, now)
            elif now - run.started_at > _HEALTHY_SECONDS:
                run.failures, run.ever_healthy = 0, True

    def stop(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop all, the last started first. When ``hurried`` turns true, nobody gets more than a few seconds."""
        for run in reversed(self._runs.values()):
            if run.process.poll() is None:
                self.say(f"stopping {run.child.name}")
                self._stop(run, hurried)
            _signal_group(run.process, signal.SIGKILL)  # what it left behind
        self._runs.clear()

    def _died(self, run: _Run, now: float) -> None:
        code = run.process.returncode
        if not run.child.heirs:
            _signal_group(run.process, signal.SIGKILL)
        # Only its own exit tells that it cannot start; a signal came from somebody else.
        run.failed_starts += code >= 0
        if not run.ever_healthy and run.failed_starts > _MOST_FAILED_STARTS:
            log = run.child.log
            raise PermanentError(
                f"{run.child.name} ends at every start ({how_ended(code)}). The end of {log}:\n{tail(log)}"
            )
        pause = min(_FIRST_PAUSE_SECONDS * 2**run.failures, _LONGEST_PAUSE_SECONDS)
        run.failures += 1
        run.due_at = now + pause
        self.say(f"{run.child.name} ended ({how_ended(code)}); starting it again in {pause:.1f} s")

    def _stop(self, run: _Run, hurried: Callable[[], bool]) -> None:
        """Ask, wait, insist."""
        run.process.terminate()
        deadline = time.monotonic() + run.child.stop_seconds
        in_hurry = False
        while run.process.poll() is None and time.monotonic() < deadline:
            if hurried() and not in_hurry:
                in_hurry = True
                deadline = min(deadline, time.monotonic() + _HURRIED_SECONDS)
                run.process.terminate()
            if self.on_poll:
                self.on_poll()
            time.sleep(_WAIT_SECONDS)
        if run.process.poll() is None:
            self.say(f"{run.child.name} does not stop; killing it")
            _signal_group(run.process, signal.SIGKILL)
            run.process.wait(_KILLED_SECONDS)


def _spawn(child: Child) -> subprocess.Popen[bytes]:
    with open_log(child.log) as log:
        return subprocess.Popen(
            tethered(child.argv, signal.SIGTERM),
            env=dict(child.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches us only: we stop the children in our order
        )


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the child's group, which may outlive the child. A group of another user is none of ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
