"""The embedded Valkey (or Redis)."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

from brain_clusters.embedded.binaries import find_valkey
from brain_clusters.embedded.server import Record, Server, write_private

_ANSWER_SECONDS = 2.0


class Valkey(Server):
    """Valkey on loopback with a password and an append-only file, so that a kill loses a second at most."""

    name = "valkey"
    title = "Valkey"
    stop_steps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    @property
    def _data(self) -> Path:
        return self.home / "valkey"

    def prepare(self) -> None:
        """Make the data directory."""
        self._data.mkdir(mode=0o700, exist_ok=True)

    def argv(self, port: int) -> list[str]:
        """Return the command; everything else stands in a file, since arguments are there for all to read."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "requirepass": self.password,
            "dir": str(self._data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
        }
        config = self.home / "valkey.conf"
        write_private(config, "".join(f"{key} {_quoted(value)}\n" for key, value in settings.items()))
        return [str(find_valkey()), str(config)]

    def answers(self, record: Record) -> bool:
        """Ask for a PING by hand: a client library would cost more to import than the server takes to start."""
        try:
            with socket.create_connection(("127.0.0.1", record.port), timeout=_ANSWER_SECONDS) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as answer:
                    return answer.read().startswith(b"+OK\r\n+PONG")
        except OSError:
            return False

    def url(self, port: int) -> str:
        """Return the URL of database 0."""
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def remove_data(self) -> None:
        """Delete the data and the configuration."""
        shutil.rmtree(self._data, ignore_errors=True)
        (self.home / "valkey.conf").unlink(missing_ok=True)


def _quoted(value: str) -> str:
    """Return ``value`` as one argument of a configuration line."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
