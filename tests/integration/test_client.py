"""The stamp that other programs' messages bear, with real Celery clients and a real worker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery
from celery.signals import before_task_publish

from brain_clusters import client as ours
from brain_clusters.broker import backlog, names

QUEUE = "stamped"

# A plain Celery program that does not know our transport: its task retries until its third delivery.
PROGRAM = """
import sys
from celery import Celery
from brain_clusters.client import stamp

app = Celery("program", broker=sys.argv[1])
stamp(app)

@app.task(name="again", bind=True)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.5, queue="retried")

app.worker_main(["worker", "-P", "solo", "-Q", "stamped", "-l", "ERROR", "--without-mingle", "--without-gossip"])
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        found.flushdb()
        yield found


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A Celery client like anybody's, in a process that stamps."""
    app = Celery(broker=redis_url, set_as_current=False)
    ours.stamp(app)
    yield app
    before_task_publish.disconnect(dispatch_uid="brain_clusters.client.stamp")
    app.close()


def headers(client: redis.Redis, queue: str = QUEUE) -> list[dict[str, Any]]:
    found: Any = client.lrange(queue, 0, -1)
    return [json.loads(entry)["headers"] for entry in reversed(found)]


def test_every_message_bears_the_time_of_its_publication(client: redis.Redis, plain: Celery, redis_url: str) -> None:
    ours.stamp()
    before = time.time()
    plain.send_task("any", queue=QUEUE)
    plain.send_task("any", queue=QUEUE, headers={"mine": 1, names.PUBLISHED_HEADER: 5.0})
    with Celery(broker=redis_url, set_as_current=False) as other:
        other.send_task("any", queue=QUEUE)
    stamps = [found[names.PUBLISHED_HEADER] for found in headers(client)]
    assert before <= stamps[0] <= stamps[1] <= stamps[2] <= time.time()
    assert headers(client)[1]["mine"] == 1
    assert backlog.read(client, [QUEUE], []).queues[QUEUE].oldest_published_at == stamps[0]


def test_a_message_for_later_bears_the_time_when_it_is_due(client: redis.Redis, plain: Celery) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    plain.send_task("any", queue=QUEUE, eta=due)
    plain.send_task("any", queue=QUEUE, countdown=3600)
    plain.send_task("any", queue=QUEUE, eta=due - timedelta(hours=2))
    exact, counted, past = (found[names.PUBLISHED_HEADER] for found in headers(client))
    assert exact == due.timestamp()
    assert 0 <= counted - exact < 60
    assert abs(past - time.time()) < 60


def test_without_the_line_there_is_no_stamp(client: redis.Redis, redis_url: str) -> None:
    with Celery(broker=redis_url, set_as_current=False) as other:
        other.send_task("any", queue=QUEUE)
    assert names.PUBLISHED_HEADER not in headers(client)[0]


def test_a_retry_is_stamped_anew_and_is_no_redelivery(
    client: redis.Redis, plain: Celery, redis_url: str, until: Callable[..., Any]
) -> None:
    plain.send_task("again", queue=QUEUE)
    [first] = headers(client)
    entry: Any = client.rpop(QUEUE)
    message = json.loads(entry)
    message["headers"]["redelivered"] = True
    message["headers"][names.PUBLISHED_HEADER] = first[names.PUBLISHED_HEADER] - 1000
    client.lpush(QUEUE, json.dumps(message))
    worker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROGRAM, redis_url], stderr=subprocess.DEVNULL)
    try:
        until(lambda: client.llen("retried"))
    finally:
        worker.terminate()
        worker.wait(30)
    [again] = headers(client, "retried")
    assert (again["id"], again["retries"]) == (first["id"], 1)
    assert again[names.PUBLISHED_HEADER] == datetime.fromisoformat(again["eta"]).timestamp()
    assert again[names.PUBLISHED_HEADER] > first[names.PUBLISHED_HEADER]
    assert "redelivered" not in again


def test_the_module_imports_no_celery_before_it_is_asked() -> None:
    code = "import sys, brain_clusters.client; sys.exit('celery' in sys.modules or 'redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
