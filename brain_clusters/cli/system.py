"""The whole system on one machine: the embedded servers, if needed, and our four processes.

with System(settings, say=click.echo) as system:
    system.wait_ready()
    while ...: system.poll()
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from brain_clusters import drivers
from brain_clusters.config import Settings, child_environment
from brain_clusters.domain.engines import PROCESS
from brain_clusters.embedded import EmbeddedServers, make_home
from brain_clusters.errors import PermanentError
from brain_clusters.ports import free_port, is_free
from brain_clusters.processes import ProcessId, tail
from brain_clusters.supervise import Child, Supervisor

POLL_SECONDS = 0.2
_READY_SECONDS = 60.0
_PROBE_SECONDS = 5.0
_ENGINE_STOP_SECONDS = 40.0


class System:
    """Starts, watches and stops everything. Use it from one thread that stays.

    settings: as given; after ``start`` with the servers' URLs and the API's port filled in.
    """

    def __init__(self, settings: Settings, *, say: Callable[[str], None], host: bool = True) -> None:
        self.settings = replace(settings, api_port=settings.api_port or free_port(settings.api_host))
        self._say = say
        self._drivers = settings.drivers if host else ()
        hosts = tuple("host" if driver == PROCESS else f"host {driver}" for driver in self._drivers)
        self._names = ("api", "worker", "beat", *hosts)
        self._servers = EmbeddedServers(
            settings.home, postgres=not settings.database_url, redis=not settings.redis_url, say=say
        )
        self._supervisor = Supervisor(say, on_poll=self._servers.ensure_running)

    @property
    def api_url(self) -> str:
        """Where the API answers on this machine."""
        return f"http://{self._local_host()}:{self.settings.api_port}"

    @property
    def processes(self) -> dict[str, ProcessId]:
        """Our live children by name; the embedded servers are not among them."""
        return self._supervisor.processes()

    @property
    def pids(self) -> dict[str, int]:
        """The pids of the live servers and children by name."""
        return self._servers.pids() | {name: process.pid for name, process in self.processes.items()}

    def start(self) -> None:
        """Start everything without waiting for the API. Raises PermanentError when that is not possible."""
        self._requirefree_port()
        # Before anything runs: a host that ends at every start ends all of the system, a minute later.
        for name in self._drivers:
            drivers.check_usable(name)
        make_home(self.settings.home)
        try:
            self.settings = self._servers.start().fill(self.settings)
            self._prepare()
            for name in self._names:
                self._supervisor.start(self._child(name))
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, seconds: float = _READY_SECONDS, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the API says that it is ready; False when cancelled. Raises PermanentError when it never does."""
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            if cancelled():
                return False
            if time.monotonic() > deadline:
                log = self.settings.home / "logs" / "api.log"
                raise PermanentError(f"the API is not ready after {seconds:g} s. The end of {log}:\n{tail(log)}")
            self.poll()
            time.sleep(POLL_SECONDS)
        return True

    def poll(self) -> None:
        """Start again what died. Call it a few times a second."""
        self._supervisor.poll()

    def stop(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop the host with its agents first, the servers last. When ``hurried`` turns true, quickly."""
        self._supervisor.stop(hurried)
        if self._servers.owned:
            self._say("stopping the embedded servers")
        self._servers.stop()

    def remove_data(self) -> None:
        """Stop, and delete the embedded servers' data."""
        self.stop()
        self._servers.remove()

    def _prepare(self) -> None:
        from brain_clusters.services.setup import prepare  # here: it imports the database's libraries

        self._say("preparing the database")
        made = prepare(self.settings)
        if made is not None:
            self._say(f"made a key for an admin, which this command line reads: {made}")

    def _child(self, name: str) -> Child:
        command, *driver = name.split()
        grace = self.settings.stop_grace_seconds if command in ("host", "worker") else 0.0
        return Child(
            name=name,
            # -P: a module of the user's in the working directory must not take the place of one of ours.
            argv=(sys.executable, "-P", "-m", "brain_clusters", command, *(f"--driver={each}" for each in driver)),
            env=child_environment(self.settings),
            log=self.settings.home / "logs" / f"{name.replace(' ', '.')}.log",
            # An engine elsewhere takes its time to end agents, and who kills the host before leaves some there.
            stop_seconds=grace + (_ENGINE_STOP_SECONDS if driver else 10.0),
            heirs=command == "host",
        )

    def _local_host(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.api_host, self.settings.api_host)  # noqa: S104
        return f"[{host}]" if ":" in host else host

    def _requirefree_port(self) -> None:
        host, port = self.settings.api_host, self.settings.api_port
        if not is_free(port, host):
            raise PermanentError(
                f"cannot listen on port {port} of {host}: another program uses it, or the address is not this "
                "machine's. Choose another port with --port or BRAIN_API_PORT"
            )

    def _is_ready(self) -> bool:
        """Ask /readyz, past any proxy that the environment names."""
        connection = http.client.HTTPConnection(
            self._local_host().strip("[]"), self.settings.api_port, timeout=_PROBE_SECONDS
        )
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> System:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
