"""Processes of this machine: who one is, whether it lives, how to end it, and how to tie it to its parent.

A pid alone names nobody: the system gives it to others later. A pid with its start time does.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TETHER = str(Path(__file__).with_name("tether.py"))
# Tells an agent to look at its drain marker.
DRAIN_SIGNAL = signal.SIGUSR1
_POLL_SECONDS = 0.02
_LOG_BYTES = 10_000_000


def drain_marker(run_dir: Path, agent_id: str) -> Path:
    """Return the file whose presence tells an agent to drain."""
    return run_dir / f"{agent_id}.drain"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that stays the same one even when its pid is used again."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of the live process ``pid``, or None when there is none."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def current(cls) -> ProcessId:
        """Return the identity of this very process."""
        return cls(os.getpid(), _start_time(os.getpid()) or "")

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return _start_time(self.pid) == self.started

    def wait(self, seconds: float) -> bool:
        """Wait until it ended, at most ``seconds``; return whether it did."""
        deadline = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)

    def end(self, steps: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send each signal in turn and wait its seconds, until it ended. For processes that are no children of ours."""
        for number, seconds in steps:
            self.send(number)
            if self.wait(seconds):
                return


class LifeLock:
    """A lock file that one process at a time holds, until it ends: the kernel frees it, however that ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def name(self) -> str | None:
        """Lock the file, unless it is locked here already; return what names it, None where another process holds it.

        The name stays the same for as long as the file does, and no copy of it has the same. So who finds that a former
        holder knew it by this name knows that this one is dead, be it in another container. None, too, where the
        system cannot make or lock it.
        """
        try:
            if self._descriptor < 0:
                self._lock()
            written = os.pread(self._descriptor, 100, 0).decode()
            return f"{_boot()}-{os.fstat(self._descriptor).st_ino}-{written}"
        except OSError:
            return None

    def _lock(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(descriptor).st_size:
                os.write(descriptor, secrets.token_hex(8).encode())
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others lock it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _start_time(pid: int) -> str | None:
    """Return what tells this process from any other that has or had ``pid``; None when it is dead or a zombie."""
    if sys.platform == "linux":
        return _start_time_from_proc(pid)
    found = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = found.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _start_time_from_proc(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The second field is the command in parentheses and may itself hold any character: split after the last ")".
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else f"{_boot()}-{rest[18]}"


def _boot() -> str:
    """Return what tells this boot from others: start times count from it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def tethered(argv: Sequence[str], death_signal: signal.Signals, account: tuple[int, int] | None = None) -> list[str]:
    """Return the command that runs ``argv`` (an absolute path first) so that it gets ``death_signal`` when we die.

    account: the (uid, gid) to run as, for root. Start it from a thread that lives as long as the child shall.
    """
    user = "-" if account is None else f"{account[0]}:{account[1]}"
    return [sys.executable, "-I", "-S", _TETHER, str(int(death_signal)), str(os.getpid()), user, *argv]


def wake_pipe() -> tuple[int, int]:
    """Return a pipe whose ends neither block nor are inherited, for waking a select from a signal handler."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def how_ended(code: int) -> str:
    """Return a return code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to; one that has grown large is kept aside once, so that logs have a bound."""
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


# Of a long log only the end is read: so much, or more for many lines of this mean length.
_TAIL_BYTES = 16_384
_LINE_BYTES = 256


def tail(path: Path, lines: int = 15) -> str:
    """Return the last ``lines`` of a log, or "" when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - max(_TAIL_BYTES, lines * _LINE_BYTES)))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
