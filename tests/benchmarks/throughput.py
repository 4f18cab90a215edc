"""Jobs per second of one agent and its Redis commands per job, beside plain ``celery worker -P solo`` with acks_late.

The same task that does nothing, from the same list of messages, on the same Redis, in turns. Ours keeps a record with
the result of each job and announces it; the peer keeps nothing, and once more keeps results in Redis.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree

import redis
from celery import Celery

from brain_clusters.agent.config import AgentConfig
from brain_clusters.broker import names
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.embedded import EmbeddedServers, running
from brain_clusters.genesis.process.nursery import Nursery

PEER_APP = """
from celery import Celery
app = Celery("peer", broker={url!r}, backend={backend!r})
app.conf.update(task_acks_late=True, task_ignore_result={backend!r} is None)

@app.task(name="brain.job")
def noop(payload):
    return None
"""
HANDLER = "def noop(payload, context):\n    return None\n"
_KEEPING = "plain, results"
# What the bench itself sends while it looks.
_NOT_COUNTED = {"TYPE", "LPUSH", "RENAME", "LRANGE", "DEL", "PING", "AUTH", "HELLO", "SELECT", "CLIENT"}
FLAGS = ("--without-mingle", "--without-gossip", "--without-heartbeat")


@dataclass(frozen=True)
class Contender:
    """Who does jobs: its name, its queue, and the hash in which it notes what it holds."""

    name: str
    queue: str
    held: str
    pid: int

    def cpu(self) -> float:
        """Return the seconds of processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with _redis() as url, _agent(url) as ours, _peer(url, None) as plain, _peer(url, url) as keeping:
        client = redis.Redis.from_url(url)
        contenders = (ours, plain, keeping)
        for contender in contenders:
            _round(client, url, contender, 300)  # warm up
        rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        costs: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for _ in range(given.rounds):
            for contender in contenders:
                before = contender.cpu()
                rates[contender.name].append(given.jobs / _round(client, url, contender, given.jobs))
                costs[contender.name].append((contender.cpu() - before) / given.jobs * 1e6)
        for contender in contenders:
            _tell(contender, rates[contender.name], costs[contender.name], _commands(client, url, contender))
        for peer in (plain, keeping):
            ratio = statistics.median(rates[ours.name]) / statistics.median(rates[peer.name])
            print(f"{ours.name} to {peer.name}: {ratio:.2f}")
        client.close()


def _tell(contender: Contender, rates: list[float], costs: list[float], commands: tuple[float, float]) -> None:
    sent, inside = commands
    print(
        f"{contender.name:<22} {min(rates):6.0f} / {statistics.median(rates):6.0f} / {max(rates):6.0f} jobs/s   "
        f"{statistics.median(costs):5.0f} us of processor time a job   "
        f"{sent:.2f} commands a job sent, {inside:.2f} more inside of scripts"
    )


def _round(client: redis.Redis, url: str, contender: Contender, jobs: int) -> float:
    """Put ``jobs`` into the queue at one instant; return the seconds until all are done and acknowledged."""
    with Celery(broker=url, set_as_current=False) as sender:
        sender.send_task(names.JOB_TASK, [None], queue="staged", ignore_result=contender.name != _KEEPING)
        [template] = client.lrange("staged", 0, -1)  # type: ignore[misc]
        client.delete("staged")
    text = template.decode().replace('"staged"', f'"{contender.queue}"')
    old = (_between(text, '"id": "', '"'), _between(text, '"delivery_tag": "', '"'))
    pipe = client.pipeline(transaction=False)
    for _ in range(jobs):
        pipe.lpush("staged", text.replace(old[0], str(uuid.uuid4())).replace(old[1], str(uuid.uuid4())))
    pipe.execute()
    began = time.perf_counter()
    client.rename("staged", contender.queue)
    _until(lambda: {client.type(contender.queue), client.type(contender.held)} == {b"none"})
    return time.perf_counter() - began


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def _commands(client: redis.Redis, url: str, contender: Contender, jobs: int = 300) -> tuple[float, float]:
    """Return how many commands a job costs that are sent, and how many more that scripts call."""
    seen: Counter[bool] = Counter()
    ended = threading.Event()

    def listen() -> None:
        with redis.Redis.from_url(url).monitor() as monitor:
            for command in monitor.listen():
                name = command["command"].split(" ", 1)[0].upper()
                if command["command"] == "ECHO ended":
                    break
                if name not in _NOT_COUNTED:
                    seen[command["client_type"] == "lua"] += 1
        ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.3)
    _round(client, url, contender, jobs)
    client.echo("ended")
    ended.wait(30)
    thread.join()
    return seen[False] / jobs, seen[True] / jobs


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("it did not happen in time")
        time.sleep(0.002)


@contextmanager
def _folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="brain-bench-"))
    try:
        yield found
    finally:
        rmtree(found, ignore_errors=True)


@contextmanager
def _redis() -> Iterator[str]:
    with _folder() as folder:
        servers = EmbeddedServers(folder / "home", say=lambda _: None)
        try:
            servers.start()
            urls = running(folder / "home")
            assert urls is not None
            assert urls.redis_url is not None
            yield urls.redis_url
        finally:
            servers.remove()


@contextmanager
def _agent(url: str) -> Iterator[Contender]:
    """An agent as a host has it forked."""
    with _folder() as folder:
        (folder / "throughput_noop.py").write_text(HANDLER)
        here = str(folder)
        nursery = Nursery(asdict(AgentConfig(url, None, here, here, (here,))), os.environ, folder / "zygote.log")
        spec = AgentSpec(
            agent_id="ours", cluster_id="c", group_name="g", role="worker", queue="for-ours",
            handler="throughput_noop:noop",
        )  # fmt: skip
        nursery.spawn(spec)
        reports: dict[str, dict[str, object]] = {}
        _until(lambda: reports.update((one["is"], one) for one in nursery.reports()) or "ready" in reports)
        pid = int(str(reports["spawned"]["pid"]))
        try:
            yield Contender("ours", spec.queue, names.unacked_key(spec.agent_id), pid)
        finally:
            os.kill(pid, signal.SIGKILL)
            nursery.close()


@contextmanager
def _peer(url: str, backend: str | None) -> Iterator[Contender]:
    """A plain worker. Both share one hash of what they hold, and only one at a time holds anything."""
    with _folder() as folder:
        (folder / "peer.py").write_text(PEER_APP.format(url=url, backend=backend))
        name = "plain, no results" if backend is None else _KEEPING
        queue = "for-plain" if backend is None else "for-keeping"
        command = [sys.executable, "-m", "celery", "-A", "peer", "worker", "-P", "solo", "-c", "1", "-Q", queue, *FLAGS]
        process = subprocess.Popen(
            [*command, "-n", f"{queue}@bench"], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Contender(name, queue, "unacked", process.pid)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
