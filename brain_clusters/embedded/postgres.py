"""The embedded PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from brain_clusters.embedded.binaries import find_postgres
from brain_clusters.embedded.place import data_place, remove_place, runnable, service_account
from brain_clusters.embedded.server import ENVIRONMENT, Record, Say, Server
from brain_clusters.errors import PermanentError

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """PostgreSQL on loopback, with one superuser and one database, both called brain."""

    name = "postgres"
    title = "PostgreSQL"
    # Fast, then immediate, then hard: https://www.postgresql.org/docs/current/server-shutdown.html
    stop_steps = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

    def __init__(self, home: Path, say: Say) -> None:
        super().__init__(home, say)
        self.account = service_account()

    @property
    def _data(self) -> Path:
        return (self.home / "postgres").resolve() / "data"

    def prepare(self) -> None:
        """Make the database cluster at the first start; complete or not at all."""
        found = find_postgres()
        place = data_place(self.home, found, self.account)
        if (place / "data").is_dir():
            self._drop_stale_lock()
            return
        self.say("creating the PostgreSQL database")
        program = runnable(found, self.account)
        part = place / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        self._initdb(program, place, part)
        self._run([str(program), "--single", "-D", str(part), "postgres"], "CREATE DATABASE brain\n")
        part.rename(place / "data")

    def argv(self, port: int) -> list[str]:
        """Return the command of the server in the foreground."""
        options = [f"-c{key}={value}" for key, value in (_SETTINGS | {"port": str(port)}).items()]
        return [str(runnable(find_postgres(), self.account)), "-D", str(self._data), *options]

    def answers(self, record: Record) -> bool:
        """Read the state that the server itself writes, as pg_ctl does; asking would need a connection."""
        lines = self._lock_lines()
        return len(lines) >= 8 and lines[0] == str(record.server.pid) and lines[7].strip() == "ready"

    def url(self, port: int) -> str:
        """Return the URL of the database."""
        return f"postgresql+psycopg2://brain:{self.password}@127.0.0.1:{port}/brain"

    def remove_data(self) -> None:
        """Delete the database cluster, also one outside the home."""
        remove_place(self.home)

    def _lock_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _drop_stale_lock(self) -> None:
        """Delete the lock file of a dead server whose pid another process has got since: PostgreSQL would believe it.

        Backends that outlived that server are still found out, by the shared memory that they hold.
        """
        record, lines = Record.read(self._record_path), self._lock_lines()
        if record and lines and lines[0] == str(record.server.pid) and not record.server.alive:
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _initdb(self, program: Path, place: Path, data: Path) -> None:
        secret = place / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        try:
            if self.account is not None:
                os.chown(secret, *self.account)
            options = ["--username=brain", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-locale", "-EUTF8"]
            self._run([str(program.with_name("initdb")), *options, "-D", str(data)])
        finally:
            secret.unlink()

    def _run(self, argv: list[str], text: str = "") -> None:
        """Run a command as the server's account; raise PermanentError with its words when it fails."""
        uid, gid = self.account or (None, None)
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, check=False, cwd="/", env=ENVIRONMENT,
            user=uid, group=gid, extra_groups=None if uid is None else [],
        )  # fmt: skip
        if done.returncode:
            raise PermanentError(f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
