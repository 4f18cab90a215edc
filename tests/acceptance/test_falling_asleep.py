"""No lost wake-up: a thousand jobs that come around the instant in which their cluster falls asleep."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import psycopg2
import pytest

from brain_clusters.broker import names
from brain_clusters.embedded import running

from .brain import Brain, until

ROUNDS = 1000
CLUSTERS = 20
NAPS = """
metadata: {id: naps, name: Naps, version: "1"}
cluster: {type: temporary, min_workers: 1, max_workers: 1}
agents:
  - {role: supervisor, name: Desk, count: 1, handler: "workshop:work"}
lifecycle:
  hibernate_conditions: [idle_time: 500ms]
"""
# From the end of one job to the next: idle_time, a tick of half a second, and what the commands take, more or less.
_PAUSE_SECONDS = (0.5, 1.7)
_PATIENCE_SECONDS = 60.0


@dataclass
class Sleeper:
    """One cluster, and its jobs: when each was sent (seconds since the epoch)."""

    cluster: str
    queue: str
    next_at: float
    job: str | None = None
    sent: list[float] = field(default_factory=list)


def instants(brain: Brain) -> dict[str, list[tuple[float, float]]]:
    """By cluster: from when sleep was asked for until the last agent was gone, or until it was woken again."""
    found = running(brain.home)
    assert found is not None
    assert found.database_url is not None
    query = """
        SELECT cluster_id, extract(epoch FROM at), kind, data->>'kind', data->>'to' FROM events
        WHERE kind IN ('operation.accepted', 'cluster.status') ORDER BY id
    """
    connection = psycopg2.connect(found.database_url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(query)
            rows = cursor.fetchall()
    finally:
        connection.close()
    open_since: dict[str, float] = {}
    spans: dict[str, list[tuple[float, float]]] = {}
    for cluster, at, _kind, command, status in rows:
        if command == "hibernate":
            open_since[cluster] = float(at)
        elif (command == "reactivate" or status == "hibernated") and cluster in open_since:
            spans.setdefault(cluster, []).append((open_since.pop(cluster), float(at)))
    return spans


@pytest.mark.timeout(420)
def test_a_thousand_jobs_in_the_instant_of_falling_asleep_are_all_done(brain_with: type[Brain]) -> None:
    brain = brain_with(BRAIN_HOST_CAPACITY="100")
    assert brain.call("POST", "/api/blueprints", {"yaml": NAPS}).status == 201
    made = [brain.cluster("naps", id=f"nap-{number}") for number in range(CLUSTERS)]
    rng = random.Random(3)
    sleepers = [Sleeper(cluster, brain.queue(cluster, "Desk"), time.time() + rng.random()) for cluster in made]
    jobs: list[str] = []
    deadline = time.monotonic() + 300
    with brain.celery() as app, brain.redis() as redis:
        while len(jobs) < ROUNDS or any(one.job for one in sleepers):
            assert time.monotonic() < deadline, f"{len(jobs)} jobs sent, waiting for {[one.job for one in sleepers]}"
            waiting = [one for one in sleepers if one.job]
            pipe = redis.pipeline(transaction=False)
            for one in waiting:
                pipe.hget(names.job_key(str(one.job)), "status")
            for one, status in zip(waiting, pipe.execute(), strict=True):
                if status == b"succeeded":
                    one.job, one.next_at = None, time.time() + rng.uniform(*_PAUSE_SECONDS)
                late = time.time() - one.sent[-1]
                assert late < _PATIENCE_SECONDS, f"{one.cluster}: job {one.job} waits for {late:.0f} s\n{brain.told()}"
            for one in sleepers:
                if one.job is None and len(jobs) < ROUNDS and time.time() >= one.next_at:
                    one.sent.append(time.time())
                    if len(one.sent) % 2:  # any Celery client's, which wakes by the tick alone, and one by REST
                        one.job = str(app.send_task("brain.job", [{}], queue=one.queue, ignore_result=True))
                    else:
                        one.job = brain.job(one.cluster, to=None)
                    jobs.append(one.job)
            time.sleep(0.02)
    assert len(set(jobs)) == ROUNDS
    spans = instants(brain)
    hits = sum(
        any(begun - 0.05 <= at <= gone + 0.05 for begun, gone in spans.get(one.cluster, ()))
        for one in sleepers
        for at in one.sent
    )
    # Otherwise this test would not have tried what it is for.
    assert sum(map(len, spans.values())) > ROUNDS / 4
    assert hits > ROUNDS / 50
    until(lambda: all(brain.seen(cluster)["status"] == "hibernated" for cluster in made), "all sleep at the end")
    assert not [agent for cluster in made for agent in brain.agent_processes(cluster)]
