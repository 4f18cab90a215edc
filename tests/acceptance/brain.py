"""The system under test: ``brain-clusters up`` as a process of its own, and how to ask, watch and hurt it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import kombu.pools
import redis
from celery import Celery

from brain_clusters.cli.upfile import UpFile
from brain_clusters.embedded import remove_data, running
from brain_clusters.embedded.server import Record
from brain_clusters.ports import is_free
from brain_clusters.processes import ProcessId
from tests import documented

PATIENCE_SECONDS = 60.0
FINISHED = ("succeeded", "failed", "dead", "cancelled")
HANDLERS = Path(__file__).with_name("workshop.py")
BLUEPRINT = Path(__file__).with_name("workshop.yaml")

# Quick ticks, beats and leases: the tests wait for what these bring about.
QUICK = {
    "BRAIN_TICK_INTERVAL_SECONDS": "0.5",
    "BRAIN_BEAT_INTERVAL_SECONDS": "0.5",
    "BRAIN_OPERATION_LEASE_SECONDS": "2",
    "BRAIN_METRICS_INTERVAL_SECONDS": "1",
    "BRAIN_STOP_GRACE_SECONDS": "2",
    "BRAIN_LOG_LEVEL": "INFO",
}

Found = TypeVar("Found")


def until(condition: Callable[[], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """Wait until ``condition`` returns something true and return that; fail saying ``what`` never happened."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}; last seen: {found!r}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said. json is None without a body."""

    status: int
    headers: Mapping[str, str]
    json: Any


@dataclass
class Brain:
    """One system on one home below ``folder``. variables: BRAIN_* settings besides QUICK."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    _up: subprocess.Popen[bytes] | None = None
    # Every process inherits it, agents too, which are given none of our own variables.
    _token: str = field(default_factory=lambda: f"acceptance-{uuid.uuid4().hex}")

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.workshop = self.folder / "handlers"
        self.api_url = ""
        self.workshop.mkdir(parents=True)
        shutil.copy(HANDLERS, self.workshop)

    # --- running ------------------------------------------------------------------------------------------------

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of our processes."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BRAIN_")}
        ours = {"BRAIN_HOME": str(self.home), "BRAIN_HANDLER_PATH": str(self.workshop), "ACCEPTANCE_RUN": self._token}
        return kept | QUICK | ours | self.variables | more

    def spawn(self, *arguments: str, log: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start one of our commands beside the system."""
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "brain_clusters", *arguments],
                cwd=self.folder, env=self.environment(**variables), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def start(self) -> None:
        """Start ``up`` and wait until it says that it is ready."""
        up = self._up = self.spawn("up", "--port", "0", log="up.log")

        def ready() -> bool:
            assert up.poll() is None, f"up ended with {up.returncode}:\n{self.told()}"
            found = UpFile.of_running(self.home)
            return found is not None and found.up.pid == up.pid and found.ready

        until(ready, "up is ready")
        self.api_url = self._file().api_url

    def stop(self) -> None:
        """Stop ``up`` in an orderly way; nothing but files in its home may be left."""
        assert self._up is not None
        self._up.send_signal(signal.SIGTERM)
        assert self._up.wait(PATIENCE_SECONDS) == 0, self.told()
        self._up = None
        assert self.processes() == {}
        assert is_free(self.port, "127.0.0.1")
        assert not (self.home / "up.json").exists()
        assert not list(self.home.glob("run/*/*.lock"))

    def kill(self) -> None:
        """Kill ``up`` itself with -9."""
        assert self._up is not None
        self._up.kill()
        self._up.wait()
        self._up = None

    def kill_everything(self) -> None:
        """Kill every process of this system with -9, the servers too, as a loss of power would."""
        self.kill()
        self._kill_what_is_there()

    def _kill_what_is_there(self) -> None:
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._up is not None:
            self._up.wait()

    def remove(self) -> None:
        """Stop and delete everything, whatever state it is in. Raises when an orderly stop leaves something."""
        kombu.pools.reset()
        data = self._data
        try:
            if self._up is not None and self._up.poll() is None:
                self.stop()
        finally:
            self._kill_what_is_there()
            remove_data(self.home)
            shutil.rmtree(self.folder)
        assert not data.exists()

    @property
    def _data(self) -> Path:
        """Where PostgreSQL's data are: outside the home when root's account cannot reach it."""
        return (self.home / "postgres").resolve()

    def told(self) -> str:
        """The ends of all logs, for whoever has to find out why a test failed."""
        logs = sorted([*self.folder.glob("*.log"), *self.home.glob("logs/*.log"), *self.home.glob("logs/agents/*.log")])
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in logs)

    # --- processes ----------------------------------------------------------------------------------------------

    def _file(self) -> UpFile:
        found = UpFile.of_running(self.home)
        assert found is not None
        return found

    @property
    def port(self) -> int:
        """The API's port."""
        return int(self.api_url.rpartition(":")[2])

    def child(self, name: str) -> ProcessId:
        """The live process api, worker, beat or host; waits until there is one."""
        return until(lambda: (found := self._file().children.get(name)) and found.alive and found, f"{name} runs")

    def server(self, name: str) -> ProcessId:
        """The live process postgres or valkey; waits until there is one."""

        def alive() -> ProcessId | None:
            record = Record.read(self.home / f"{name}.json")
            return record.server if record and record.server.alive else None

        return until(alive, f"{name} runs") or ProcessId(0, "")

    def kill_child(self, name: str) -> None:
        """Kill api, worker, beat or host with -9 and wait for its successor."""
        old = self.child(name)
        old.send(signal.SIGKILL)
        until(lambda: self.child(name) != old, f"{name} was started again")

    def kill_server(self, name: str) -> None:
        """Kill postgres or valkey with -9 and wait for its successor's process."""
        old = self.server(name)
        old.send(signal.SIGKILL)
        until(lambda: self.server(name) != old, f"{name} was started again")

    def processes(self) -> dict[int, str]:
        """Every live process of this system by pid, servers included, as /proc knows it."""
        found = {}
        data = self._data
        for pid in _pids():
            command, environ = _read(pid, "cmdline"), _read(pid, "environ")
            told = self._token in environ or any(mark in command for mark in (str(self.home), str(data)))
            ours = told or _link(pid, "cwd").startswith((f"{self.home}/", f"{data}/"))
            if ours and ProcessId.of(pid):
                found[pid] = command.replace("\0", " ")
        return found

    def agent_processes(self, cluster: str = "") -> dict[str, list[int]]:
        """The pids of live agents by agent id, as /proc knows them: an agent's output goes to its own log."""
        folder, found = f"{self.home}/logs/agents/", dict[str, list[int]]()
        for pid in _pids():
            path = _link(pid, "fd/1")
            if path.startswith(folder) and ProcessId.of(pid):
                found.setdefault(path[len(folder) :].removesuffix(".log"), []).append(pid)
        return {agent: pids for agent, pids in found.items() if agent.startswith(f"{cluster}.") or not cluster}

    @property
    def key(self) -> str:
        """The key that the first start made."""
        return (self.home / "admin.key").read_text().strip()

    # --- REST ---------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; its answer must be as documented. headers: with underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS + 10)
        sent = {"Authorization": f"Bearer {self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body)
        if data is not None:
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read()
            if wrong := documented.fault_at(method, path, answer.status, answer.getheader("Content-Type", ""), text):
                raise AssertionError(wrong)
            return Answer(answer.status, dict(answer.getheaders()), json.loads(text) if text else None)
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON at ``path``, which must be there."""
        answer = self.call("GET", path)
        assert answer.status == 200, answer
        return answer.json

    def command(self, method: str, path: str, body: Any = None) -> Any:
        """Send a lifecycle command, wait for its operation and return it; the operation must succeed."""
        answer = self.call(method, path, body, Prefer="wait=60")
        assert answer.status == 200, answer
        assert answer.json["operation"]["status"] == "succeeded", answer.json["operation"]
        return answer.json

    def cluster(self, blueprint: str = "workshop", **fields: Any) -> str:
        """Make a cluster, wait until all its agents are there, and return its id."""
        body = {"blueprint_id": blueprint, "name": "A cluster", **fields}
        return str(self.command("POST", "/api/clusters", body)["cluster"]["id"])

    def store_workshop(self) -> None:
        """Store the blueprint of the tests."""
        answer = self.call("POST", "/api/blueprints", {"yaml": BLUEPRINT.read_text()})
        assert answer.status in (200, 201), answer

    def job(self, cluster: str, to: str | None = "Hands", **payload: Any) -> str:
        """Send a job and return its id."""
        body = {"payload": payload} | ({"to": to} if to else {})
        answer = self.call("POST", f"/api/clusters/{cluster}/jobs", body)
        assert answer.status == 202, answer
        return str(answer.json["job"]["id"])

    def outcome(self, job: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait until a job is finished and return it."""

        def finished() -> Any:
            answer = self.call("GET", f"/api/jobs/{job}")
            assert answer.status in (200, 404, 503), answer
            return answer.status == 200 and answer.json["status"] in FINISHED and answer.json

        return until(finished, f"job {job} is finished", seconds)

    def seen(self, cluster: str) -> Any:
        """The cluster as it stands."""
        return self.get(f"/api/clusters/{cluster}")

    def agents(self, cluster: str, query: str = "") -> list[Any]:
        """The cluster's live agents."""
        return list(self.get(f"/api/clusters/{cluster}/agents{query}")["agents"])

    def until_agents(self, cluster: str, count: int) -> dict[str, list[int]]:
        """Wait until rows and processes agree on ``count`` agents, one process each; return the processes."""

        def settled() -> dict[str, list[int]] | None:
            rows = {agent["agent_id"]: [agent["pid"]] for agent in self.agents(cluster)}
            found = self.agent_processes(cluster)
            seen.append(f"{len(rows)} rows, {len(found)} with a process: {rows} {found}")
            return found if len(rows) == count and rows == found else None

        seen: list[str] = []
        try:
            return until(settled, f"{cluster} has {count} agents") or {}
        except AssertionError as exc:
            raise AssertionError(f"{exc}; {seen[-1]}") from None

    # --- Redis and Celery ---------------------------------------------------------------------------------------

    @property
    def redis_url(self) -> str:
        """Where Valkey answers."""
        found = running(self.home)
        assert found is not None
        assert found.redis_url is not None
        return found.redis_url

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """A plain client."""
        with redis.Redis.from_url(self.redis_url) as client:
            yield client

    @contextmanager
    def celery(self) -> Iterator[Celery]:
        """What any other service has: a Celery app on this Redis, without a line of our code."""
        app = Celery("somebody-else", broker=self.redis_url, backend=self.redis_url, set_as_current=False)
        try:
            yield app
        finally:
            app.close()

    def queue(self, cluster: str, group: str) -> str:
        """The queue of a group, as GET .../hierarchy tells it."""

        def find(branch: Any) -> str | None:
            if branch["group"] == group:
                return str(branch["queue"])
            return next((found for below in branch["reports"] if (found := find(below))), None)

        found = find(self.get(f"/api/clusters/{cluster}/hierarchy")["hierarchy"])
        assert found is not None
        return found

    # --- what handlers did --------------------------------------------------------------------------------------

    def marks(self, job: str) -> list[dict[str, Any]]:
        """The runs of a job that began, in order, as the handler itself wrote them down."""
        path = self.workshop / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [mark for line in lines if (mark := json.loads(line))["job"] == job]

    def until_begun(self, job: str, runs: int = 1, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until a job has begun for the ``runs``-th time; return what the handler wrote then."""
        until(lambda: len(self.marks(job)) >= runs, f"run {runs} of job {job} began", seconds)
        return self.marks(job)[runs - 1]

    def gate(self) -> Path:
        """A file that is not there yet; a job with ``gate=str(path)`` ends when it is."""
        return self.folder / f"gate-{uuid.uuid4().hex}"


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""
