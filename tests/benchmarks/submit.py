"""Sending jobs, beside Celery's ``apply_async`` in the same run: one by one and in batches.

    python tests/benchmarks/submit.py [--runs 5] [--single 2000] [--batch 10000]

REST goes through the whole way of the API's server: HTTP, checks, PostgreSQL, Redis. Queue pushes into Redis itself,
as apply_async does. Nobody takes the jobs meanwhile. Also measured: how many outcomes of jobs a second are stored.
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid
from collections.abc import Callable

import redis
import stage
from celery import Celery
from sqlalchemy import text

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.cli.client import ApiClient, own_key
from brain_clusters.cli.system import System
from brain_clusters.client import Client, Queue
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import outcomes
from brain_clusters.services.control import Control

# A cluster that never takes a job: it is asleep, and jobs do not wake it.
BLUEPRINT = """
metadata: {id: desk, name: A desk, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 2}
agents:
  - {role: supervisor, name: Boss, count: 1}
  - {role: worker, name: Clerk, count: 0-1, reports_to: Boss, capabilities: [filing]}
lifecycle:
  reactivate_triggers: [manual_trigger]
"""
PAYLOAD = {"customer": 4711, "text": "a few words about what is to be done", "lines": [1, 2, 3]}


def nothing(_payload: object) -> None:
    """Be the peer's task, which nobody runs."""


def rate(count: int, send: Callable[[], object]) -> float:
    """Return jobs per second of ``send``, which sends ``count``."""
    begun = time.perf_counter()
    send()
    return count / (time.perf_counter() - begun)


def show(name: str, rates: list[float], peer: list[float] | None = None) -> None:
    """Print the median rate, and its ratio to the peer's."""
    middle = statistics.median(rates)
    ratio = f"{middle / statistics.median(peer):6.2f} x apply_async" if peer else ""
    print(f"{name:<44} {min(rates):9.0f} {middle:9.0f} {max(rates):9.0f} jobs/s  {ratio}", flush=True)


def measure(found: System, runs: int, single: int, batch: int) -> None:
    """Measure every way in turn, ``runs`` times, and print the figures."""
    control, url = Control.open(found.settings, application="bench"), found.settings.redis_url or ""
    client, plain = Client(found.api_url, key=own_key(found.settings), timeout=120.0), redis.Redis.from_url(url)
    app = Celery("peer", broker=url, backend=None, set_as_current=False)
    task = app.task(name="peer.task")(nothing)
    queue, many = Queue(url, "desk", "Clerk"), [PAYLOAD] * batch
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "apply_async, one by one": (
            single, lambda: [task.apply_async((PAYLOAD,), queue="peer", ignore_result=True) for _ in range(single)],
        ),
        "Queue.submit, one by one": (single, lambda: [queue.submit(PAYLOAD) for _ in range(single)]),
        "Queue.submit_many": (batch, lambda: queue.submit_many(many)),
        "REST, one by one": (
            single // 4, lambda: [client.submit("desk", PAYLOAD, to="Clerk") for _ in range(single // 4)],
        ),
        "REST, a list": (batch, lambda: client.submit_many("desk", many, to="Clerk")),
        "REST, a list in which each has a key": (
            batch, lambda: client.submit_many("desk", many, to="Clerk", keys=[uuid.uuid4().hex for _ in many]),
        ),
    }  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs + 1):  # the first warms up
        for name, (count, send) in ways.items():
            rates[name].append(rate(count, send))
            with control.database.transaction() as session:  # rows first, or the sweep would publish them again
                session.execute(text("TRUNCATE jobs"))
            plain.delete("peer", *names.priority_lists(queue.name))
    peer = rates["apply_async, one by one"][1:]
    print(f"{'':<44} {'min':>9} {'median':>9} {'max':>9}")
    for name, found_rates in rates.items():
        show(name, found_rates[1:], None if name.startswith("apply") else peer)
    for one in (client, queue, plain, app, control):
        one.close()


def store(found: System, runs: int) -> None:
    """Measure how many outcomes a second are stored, of jobs that came by REST and of those that did not."""
    control = Control.open(found.settings, application="bench")
    records, now = JobRecords(control.broker.redis), time.time()
    rates: list[float] = []
    for _ in range(runs + 1):
        for _ in range(10_000):
            report = JobReport(uuid.uuid4().hex, "desk", "Clerk", "a", JobStatus.SUCCEEDED, 1, now - 1, now, {"sum": 3})
            records.finish(report)
        rates.append(rate(10_000, lambda: outcomes.collect(control)))
    show("outcomes.collect, 10,000 new rows", rates[1:])
    control.close()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--single", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=10_000)
    chosen = parser.parse_args()
    with stage.system() as found:
        api = ApiClient(found.api_url, key=own_key(found.settings))
        api.post("/api/blueprints", {"yaml": BLUEPRINT})
        api.post("/api/clusters", {"blueprint_id": "desk", "name": "Desk", "id": "desk"}, wait_seconds=30)
        api.post("/api/clusters/desk/hibernate", {}, wait_seconds=30)
        measure(found, chosen.runs, chosen.single, chosen.batch)
        store(found, chosen.runs)


if __name__ == "__main__":
    main()
