"""``demo``: the whole main job once, on real servers with real agents and real files, shown while it happens."""

from __future__ import annotations

import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from brain_clusters.cli.client import ApiClient, own_key
from brain_clusters.cli.screen import Screen
from brain_clusters.cli.system import System
from brain_clusters.config import Settings
from brain_clusters.errors import InvalidInput, PermanentError

_SUFFIXES = {".py", ".pyi", ".c", ".h", ".js", ".ts", ".go", ".rs", ".java", ".rb", ".sh", ".sql", ".md", ".yaml"}
# Neither trivial nor so large that a few files are most of the work.
_BYTES = range(2_000, 60_000)
_SENDERS = 4
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class Figures:
    """What the demo measured. Times in seconds."""

    jobs: int = 0
    failed: int = 0
    peak_backlog: int = 0
    peak_agents: int = 0
    decisions: list[tuple[str, str]] = field(default_factory=list)
    drained_after: float = 0.0
    asleep_after: float = 0.0
    wake: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--jobs", default=400, show_default=True, type=click.IntRange(20, 5000), help="At most so many files.")
def demo(folder: Path | None, jobs: int) -> None:
    """Digest the source files below FOLDER (Python's own library without it) with a cluster that scales and sleeps."""
    files = _files(folder or Path(sysconfig.get_path("stdlib")), jobs)
    with _system() as system:
        figures = _Demo(system, files).run()
    _tell(figures, len(files))


@contextmanager
def _system() -> Iterator[System]:
    """Run a system of its own, on embedded servers whatever is set, and leave nothing of it behind."""
    settings = Settings.from_env()
    home = settings.home / f"demo-{time.time_ns():x}"
    settings = replace(
        settings, home=home, database_url=None, redis_url=None, api_host="127.0.0.1", api_port=0, api_keys=(),
        insecure_dev=False,
        tick_interval_seconds=0.5, beat_interval_seconds=0.5, host_id=None, stop_grace_seconds=2.0,
    )  # fmt: skip
    system = System(settings, say=lambda line: click.secho(f"  {line}", dim=True))
    click.secho("Starting PostgreSQL, Valkey, the API, a worker, beat and a host", bold=True)
    try:
        system.start()
        system.wait_ready()
        yield system
    finally:
        click.secho("Cleaning up", bold=True)
        system.remove_data()
        rmtree(home, ignore_errors=True)


def _files(folder: Path, limit: int) -> list[Path]:
    """Return up to ``limit`` source files below ``folder``, evenly chosen."""
    found = [
        path.resolve()
        for path in sorted(folder.rglob("*"))
        if path.suffix in _SUFFIXES and path.is_file() and path.stat().st_size in _BYTES
    ]
    if len(found) < 20:
        raise InvalidInput(
            f"{folder} holds {len(found)} source files of 2 to 60 KB; the demo needs at least 20 to show anything"
        )
    step = max(1.0, len(found) / limit)
    return [found[int(place * step)] for place in range(min(limit, len(found)))]


class _Demo:
    """The acts of the play. Each waits for what it promises and fails loudly when it does not come."""

    def __init__(self, system: System, files: Sequence[Path]) -> None:
        self._system = system
        self._files = files
        self._api = ApiClient(system.api_url, key=own_key(system.settings))
        self._figures = Figures(jobs=len(files))
        self._screen = Screen()
        self._sent = 0
        self._cluster = ""

    def run(self) -> Figures:
        """Play all acts and return what was measured."""
        try:
            with self._screen:
                self._create()
                self._send_and_drain()
                self._summarise()
                self._fall_asleep()
                self._wake()
                self._remember_decisions()
                self._destroy()
        finally:
            self._api.close()
        return self._figures

    def _create(self) -> None:
        self._screen.act("Create a cluster from the blueprint `demo`: a supervisor, and no reader yet")
        body = {"blueprint_id": "demo", "name": "Source readers"}
        made = self._api.post("/api/clusters", body, wait_seconds=30)
        self._cluster = f"/api/clusters/{made['cluster']['id']}"
        self._require(made["operation"]["status"] == "succeeded", f"the cluster was not created: {made['operation']}")

    def _send_and_drain(self) -> None:
        self._screen.act(f"Send {len(self._files)} jobs, one per file: the backlog grows, readers start, it drains")
        began = time.monotonic()
        sender = threading.Thread(target=self._send_all, daemon=True)
        sender.start()
        self._until("all jobs are done", lambda seen: not sender.is_alive() and self._done(seen) >= len(self._files))
        sender.join()
        self._figures.drained_after = time.monotonic() - began
        self._require(self._sent == len(self._files), f"only {self._sent} jobs were accepted")
        self._require(self._figures.peak_backlog > 0, "no backlog was ever seen")
        self._require(self._figures.peak_agents > 1, "no reader was ever seen")

    def _send_all(self) -> None:
        local = threading.local()

        def send(path: Path) -> None:
            if not hasattr(local, "api"):
                local.api = ApiClient(self._system.api_url, key=own_key(self._system.settings))
            local.api.post(f"{self._cluster}/jobs", {"to": "Readers", "payload": {"path": str(path)}})
            self._sent += 1

        with ThreadPoolExecutor(_SENDERS) as pool:
            list(pool.map(send, self._files))

    def _summarise(self) -> None:
        self._screen.act("Let the supervisor add up what the readers found")
        digests, failed = self._digests()
        self._figures.failed = failed
        self._require(len(digests) + failed == len(self._files), "some jobs have no outcome")
        self._figures.summary = self._job({"payload": {"digests": digests}})["result"]

    def _digests(self) -> tuple[list[dict[str, Any]], int]:
        found, failed, cursor = [], 0, ""
        while True:
            page = self._api.get(f"{self._cluster}/jobs?limit=200&group=Readers{cursor}")
            for job in page["jobs"]:
                if job["status"] == "succeeded":
                    found.append({key: job["result"][key] for key in ("path", "language", "lines", "bytes", "sha256")})
                failed += job["status"] == "failed"
            if not page["next_cursor"]:
                return found, failed
            cursor = f"&cursor={page['next_cursor']}"

    def _job(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self._api.post(f"{self._cluster}/jobs", body)["job"]
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while job["status"] not in ("succeeded", "failed"):
            self._require(time.monotonic() < deadline, f"job {job['id']} was not done")
            time.sleep(0.01)
            job = self._api.get(f"/api/jobs/{job['id']}")
        self._require(job["status"] == "succeeded", f"the job failed: {job.get('error')}")
        found: dict[str, Any] = job
        return found

    def _fall_asleep(self) -> None:
        self._screen.act("Nothing more to do: after 3 idle seconds every agent leaves, the supervisor too")
        began = time.monotonic()
        self._until("the cluster sleeps", lambda seen: seen["status"] == "hibernated" and seen["current_workers"] == 0)
        self._figures.asleep_after = time.monotonic() - began
        agents = self._api.get(f"{self._cluster}/agents")
        self._require(agents["total"] == 0, f"agents are left: {agents}")

    def _wake(self) -> None:
        self._screen.act("One more job wakes it")
        sent = time.time()
        job = self._job({"to": "Readers", "payload": {"path": str(self._files[0])}})
        self._figures.wake = _seconds(job["started_at"]) - sent
        self._until("the cluster is awake", lambda seen: seen["status"] == "active")

    def _remember_decisions(self) -> None:
        """Take what the autoscaler wrote down of its own accord: the ledger, oldest first."""
        made = [
            one for one in self._api.get(f"{self._cluster}/scaling?limit=200")["decisions"] if one["action"] != "hold"
        ]
        self._figures.decisions = [(one["action"], one["reason"]) for one in reversed(made)]
        self._require(bool(made), "the autoscaler wrote no decision down")

    def _destroy(self) -> None:
        self._screen.act("Destroy the cluster")
        gone = self._api.delete(self._cluster, wait_seconds=30)
        self._require(gone["cluster"]["status"] == "destroyed", f"the cluster was not destroyed: {gone}")

    # --- watching ----------------------------------------------------------------------------------------------

    def _done(self, seen: dict[str, Any]) -> int:
        return int(seen["tasks_completed"] + seen["tasks_failed"])

    def _until(self, what: str, reached: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self._system.poll()
            seen = self._api.get(self._cluster)
            backlog = seen.get("backlog") or {"waiting": 0, "running": 0}
            self._figures.peak_backlog = max(self._figures.peak_backlog, backlog["waiting"])
            self._figures.peak_agents = max(self._figures.peak_agents, seen["current_workers"])
            self._screen.show(seen, backlog, sent=self._sent, done=self._done(seen), of=len(self._files))
            if reached(seen):
                return
            self._require(time.monotonic() < deadline, f"waited {_PATIENCE_SECONDS:g} s in vain: {what}")
            time.sleep(_POLL_SECONDS)

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            logs = self._system.settings.home / "logs"
            hints = "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(logs.glob("*.log")))
            raise PermanentError(f"the demo did not do what it promises: {otherwise}\n{hints}")


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


def _tell(figures: Figures, files: int) -> None:
    click.secho("\nWhat happened", bold=True)
    rows = [
        ("jobs", f"{files} files digested, {figures.failed} of them refused by their handler"),
        ("largest backlog", f"{figures.peak_backlog} jobs waiting"),
        ("most agents", f"{figures.peak_agents} processes"),
        ("all done after", f"{figures.drained_after:.1f} s"),
        ("asleep after", f"{figures.asleep_after:.1f} s, with no agent left"),
        ("woken in", f"{figures.wake * 1000:.0f} ms, from the request to the handler's first line"),
    ]
    for name, text in rows:
        click.echo(f"  {name:<16} {text}")
    click.secho("\nWhat the autoscaler decided, and why", bold=True)
    for action, reason in figures.decisions:
        click.echo(f"  {action:<16} {reason}")
    click.secho("\nWhat was read", bold=True)
    for language, total in figures.summary.get("languages", {}).items():
        click.echo(f"  {language:<16} {total['files']} files, {total['lines']} lines, {total['bytes']} bytes")
