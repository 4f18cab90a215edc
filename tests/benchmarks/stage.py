"""What the benchmarks share: a system of their own, plain Celery workers to compare with, and figures."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import redis

from brain_clusters.cli.system import System
from brain_clusters.config import Settings
from brain_clusters.embedded import EmbeddedServers
from brain_clusters.services.control import Control
from brain_clusters.services.setup import prepare

PEER_QUEUE = "peer"
PEER_APP = """
import time
from celery import Celery
app = Celery("peer", broker={url!r}, backend=None)
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)

@app.task(name="peer.stamp")
def stamp():
    import redis
    redis.Redis.from_url({url!r}).rpush("peer:stamps", time.time())
"""


@contextmanager
def system(**settings: object) -> Iterator[System]:
    """Run a whole system of its own; remove it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="brain-bench-"))
    chosen = replace(Settings.from_env({}), home=home, api_port=0, **settings)  # type: ignore[arg-type]
    found = System(chosen, say=lambda _line: None)
    try:
        found.start()
        found.wait_ready()
        time.sleep(2)  # the host's zygote and the worker import while nobody asks for anything
        yield found
    finally:
        found.remove_data()
        rmtree(home, ignore_errors=True)


@contextmanager
def collaborators(**settings: object) -> Iterator[Control]:
    """Run servers of their own with the schema, for what is measured in this process; remove them afterwards."""
    home = Path(tempfile.mkdtemp(prefix="brain-bench-"))
    servers = EmbeddedServers(home, say=lambda _line: None)
    chosen = replace(Settings.from_env({}), home=home, **settings)  # type: ignore[arg-type]
    try:
        filled = servers.start().fill(chosen)
        prepare(filled)
        control = Control.open(filled, application="bench")
        yield control
        control.close()
    finally:
        servers.remove()
        rmtree(home, ignore_errors=True)


@contextmanager
def plain_workers(url: str, count: int, *options: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run ``count`` plain ``celery worker -P solo`` processes; end them afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="brain-peer-"))
    (folder / "peer.py").write_text(PEER_APP.format(url=url))
    worker = [sys.executable, "-m", "celery", "-A", "peer", "worker"]
    command = [*worker, "-P", "solo", "-c", "1", "-Q", PEER_QUEUE, *options]
    running = [
        subprocess.Popen(
            [*command, "-n", f"peer{number}@bench"], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        yield running
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()
        rmtree(folder, ignore_errors=True)


def send_peer_task(url: str) -> None:
    """Queue one task for the plain workers."""
    from celery import Celery

    with Celery("sender", broker=url, set_as_current=False) as app:
        app.send_task("peer.stamp", queue=PEER_QUEUE)


def wait_for_stamps(url: str, count: int, seconds: float = 120.0) -> list[float]:
    """Return the times at which plain workers began their tasks."""
    client, deadline = redis.Redis.from_url(url), time.monotonic() + seconds
    while client.llen("peer:stamps") < count:
        if time.monotonic() > deadline:
            raise SystemExit("the plain workers did not do their tasks in time")
        time.sleep(0.005)
    stamps = [float(stamp) for stamp in client.lrange("peer:stamps", 0, -1)]
    client.delete("peer:stamps")
    client.close()
    return stamps


def pss_megabytes(pid: int) -> float:
    """Return a process's proportional set size: its own pages, and its share of shared ones."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system tells no proportional set size")


def figures(name: str, values: Sequence[float], unit: str) -> None:
    """Print minimum, median and maximum."""
    print(
        f"{name:<44} min {min(values):8.1f}   p50 {statistics.median(values):8.1f}   "
        f"max {max(values):8.1f} {unit}   ({len(values)} runs)",
        flush=True,
    )
