"""One embedded server: its record in the home, its process, and how it is started, watched and stopped."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from brain_clusters.errors import PermanentError, TemporaryError
from brain_clusters.ports import free_port, is_free
from brain_clusters.processes import ProcessId, how_ended, open_log, tail, tethered

_READY_SECONDS = 60.0
_ATTEMPTS = 6
_LONGEST_PAUSE_SECONDS = 5.0
# The servers need nothing of the user's environment, and PG* or LC_* in it would change what they do.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Record:
    """What a home remembers of a server: the process, its port, and the process that looks after it."""

    server: ProcessId
    owner: ProcessId
    port: int

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Return the record in ``path``; None when there is none that can be read."""
        try:
            data = json.loads(path.read_text())
            return cls(ProcessId(**data["server"]), ProcessId(**data["owner"]), int(data["port"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the record in one step, so that nobody reads half of it."""
        write_private(path, json.dumps(asdict(self)))


class Server(ABC):
    """What both servers have in common. ``start`` is called under the home's lock."""

    name: str
    title: str
    stop_steps: Sequence[tuple[signal.Signals, float]]
    account: tuple[int, int] | None = None

    def __init__(self, home: Path, say: Say) -> None:
        self.home = home
        self.say = say
        self.log = home / "logs" / f"{self.name}.log"
        self._record_path = home / f"{self.name}.json"
        self._password_path = home / f"{self.name}.password"
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._next_attempt = 0.0

    @abstractmethod
    def prepare(self) -> None:
        """Make the data directory when there is none."""

    @abstractmethod
    def argv(self, port: int) -> list[str]:
        """Return the command that runs the server in the foreground on ``port``."""

    @abstractmethod
    def answers(self, record: Record) -> bool:
        """Return whether the server of ``record`` takes commands."""

    @abstractmethod
    def url(self, port: int) -> str:
        """Return the URL that clients use."""

    @abstractmethod
    def remove_data(self) -> None:
        """Delete the server's data, wherever they are."""

    @property
    def owned(self) -> bool:
        """Whether this object started the server and must stop it."""
        return self._process is not None

    @property
    def password(self) -> str:
        """The server's password, made at the first use."""
        if not self._password_path.exists():
            write_private(self._password_path, secrets.token_urlsafe(24))
        return self._password_path.read_text()

    def running(self) -> Record | None:
        """Return the record of a live server of this home, or None."""
        record = Record.read(self._record_path)
        return record if record and record.server.alive else None

    def start(self) -> str:
        """Start the server, or find the one that another process looks after; return its URL."""
        record = Record.read(self._record_path)
        if self.owned and record:
            return self.url(record.port)
        if record and record.owner.alive:
            return self._found(record)
        self.stop_left_over()
        self.prepare()
        record = self._start(record.port if record else None)
        self.say(f"{self.title} runs on 127.0.0.1:{record.port} (pid {record.server.pid})")
        return self.url(record.port)

    def ensure_running(self) -> None:
        """Start the server again, on its port, when it died. Returns at once; call it often."""
        if self._process is None:
            return
        now = time.monotonic()
        if self._process.poll() is None:
            if now > self._next_attempt + _LONGEST_PAUSE_SECONDS:
                self._failures = 0
            return
        record = Record.read(self._record_path)
        if record is None or now < self._next_attempt:
            return
        if not self._failures:
            self.say(f"{self.title} ended unexpectedly ({how_ended(self._process.returncode)}); starting it again")
        # After a kill the old backends hold the shared memory for a moment: the first attempts may fail.
        self._failures += 1
        self._next_attempt = now + min(0.1 * 2**self._failures, _LONGEST_PAUSE_SECONDS)
        self._spawn(record.port)

    def stop(self) -> None:
        """Stop the server when this object owns it; escalate when it takes too long."""
        if self._process is None:
            return
        for number, seconds in self.stop_steps:
            if self._process.poll() is None:
                self._process.send_signal(number)
            try:
                self._process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                self.say(f"{self.title} takes more than {seconds:g} s to stop")
        self._process = None
        self._forget()

    def stop_left_over(self) -> bool:
        """Stop a server whose owner ended without doing so; return whether there was one."""
        record = self.running()
        if record is None or record.owner.alive:
            return False
        self.say(f"stopping the {self.title} that an ended process left (pid {record.server.pid})")
        record.server.end(self.stop_steps)
        return True

    def _found(self, record: Record) -> str:
        """Return the URL of the server that another owner looks after, once it answers."""
        deadline = time.monotonic() + _READY_SECONDS
        while not (record.server.alive and self.answers(record)):
            if time.monotonic() > deadline or not record.owner.alive:
                raise TemporaryError(f"{self.title} of {self.home} does not answer; see {self.log}")
            time.sleep(0.05)
            record = Record.read(self._record_path) or record
        self.say(f"{self.title} runs already on 127.0.0.1:{record.port} (pid {record.server.pid})")
        return self.url(record.port)

    def _start(self, preferred: int | None) -> Record:
        """Start until it answers, on the port of last time when that is free."""
        for attempt in range(_ATTEMPTS):
            record = self._spawn(preferred if preferred and is_free(preferred) else free_port())
            if self._wait_ready(record):
                return record
            time.sleep(0.1 * 2**attempt)
        self._process = None
        raise PermanentError(f"{self.title} does not start. The end of {self.log}:\n{tail(self.log)}")

    def _spawn(self, port: int) -> Record:
        """Start the process without waiting for it to answer."""
        with open_log(self.log) as log:
            self._process = subprocess.Popen(
                tethered(self.argv(port), self.stop_steps[0][0], self.account),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,  # Ctrl-C in a terminal must reach the owner only
            )
        server = ProcessId.of(self._process.pid) or ProcessId(self._process.pid, "")
        record = Record(server, ProcessId.current(), port)
        record.write(self._record_path)
        return record

    def _wait_ready(self, record: Record) -> bool:
        """Wait until the server answers; return False when it ended instead."""
        deadline = time.monotonic() + _READY_SECONDS
        while self._process and self._process.poll() is None:
            if self.answers(record):
                return True
            if time.monotonic() > deadline:
                self.stop()
                return False
            time.sleep(0.02)
        return False

    def _forget(self) -> None:
        """Keep only the port of the stopped server, for the next start."""
        record = Record.read(self._record_path)
        if record:
            nobody = ProcessId(0, "")
            Record(nobody, nobody, record.port).write(self._record_path)

    def remove(self) -> None:
        """Delete everything that the home holds of this server."""
        self.remove_data()
        for path in (self._record_path, self._password_path, self.log):
            path.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
