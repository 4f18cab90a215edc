"""The messages of jobs: as Celery makes them, and in the list where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery

from brain_clusters.broker import names
from brain_clusters.broker.messages import push

QUEUE = "brain.shop.packer"
LATER = datetime.now(UTC) + timedelta(hours=1)


@dataclass
class Sent:
    id: str = "job-1"
    payload: Any = None
    eta: datetime | None = None
    priority: str = "normal"
    options: Mapping[str, Any] = field(default_factory=dict)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as found:
        found.flushdb()
        yield found


def lists(client: redis.Redis) -> dict[str, list[str]]:
    """Return the ids in each list of the queue, the next first."""
    found = {}
    for name in names.priority_lists(QUEUE):
        entries: Any = client.lrange(name, 0, -1)
        if entries:
            place = name.removeprefix(QUEUE).removeprefix(names.PRIORITY_SEPARATOR) or "normal"
            found[place] = [json.loads(entry)["headers"]["id"] for entry in reversed(entries)]
    return found


@pytest.mark.parametrize(
    ("job", "options"),
    [
        (Sent(payload={"text": 'ü"\\', "n": [1.5, None, 10**40]}), {}),
        (Sent(id='odd "id"', payload="x" * 5000, options={"max_attempts": 3, "capability": 'a"eta"'}), {}),
        (Sent(payload=1, eta=LATER), {"eta": LATER}),
        (Sent(payload=1, eta=LATER.astimezone(UTC) - timedelta(days=1)), {}),
        (Sent(priority="low"), {"priority": 6}),
        (Sent(priority="high"), {"queue": names.high_list(QUEUE)}),
    ],
)
def test_a_message_is_what_celery_would_send(
    client: redis.Redis, redis_url: str, job: Sent, options: dict[str, Any]
) -> None:
    push(client, QUEUE, [job])
    [ours] = [json.loads(client.lpop(name)) for name in names.priority_lists(QUEUE) if client.llen(name)]  # type: ignore[arg-type]
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.conf.task_default_queue = "other"
        stated = {names.PUBLISHED_HEADER: 1.0, names.OPTIONS_HEADER: dict(job.options)}
        app.send_task(
            names.JOB_TASK, [job.payload], task_id=job.id, headers=stated, ignore_result=True, argsrepr="(...)",
            kwargsrepr="{}", **{"queue": QUEUE, **options},
        )  # fmt: skip
    [theirs] = [json.loads(client.lpop(name)) for name in names.priority_lists(QUEUE) if client.llen(name)]  # type: ignore[arg-type]
    ours["headers"][names.PUBLISHED_HEADER] = 1.0
    for message in (ours, theirs):
        assert message["headers"].pop("origin").startswith("gen")
        assert message["properties"].pop("delivery_tag")
        assert message["properties"].pop("reply_to")
    assert ours == theirs


def test_each_message_has_a_tag_of_its_own(client: redis.Redis) -> None:
    push(client, QUEUE, [Sent(id=str(n)) for n in range(1200)])
    push(client, QUEUE, [Sent(id=str(n)) for n in range(1200, 1300)])
    entries: Any = client.lrange(QUEUE, 0, -1)
    assert len({json.loads(entry)["properties"]["delivery_tag"] for entry in entries}) == 1300
    assert lists(client) == {"normal": [str(n) for n in range(1300)]}


def test_large_messages_go_in_smaller_chunks(client: redis.Redis) -> None:
    push(client, QUEUE, [Sent(id=str(n), payload="x" * 1_000_000) for n in range(9)])
    assert lists(client) == {"normal": [str(n) for n in range(9)]}


@pytest.mark.parametrize(
    ("waiting", "sent", "found"),
    [
        ("", "h1 h2 h3", {"normal": ["h1"], "high": ["h2", "h3"]}),
        ("n1", "h1 h2", {"normal": ["n1"], "high": ["h1", "h2"]}),
        ("", "l1 l2", {"normal": ["l1"], "6": ["l2"]}),
        ("n1", "l1", {"normal": ["n1"], "6": ["l1"]}),
        ("", "l1 h1 n1 h2", {"normal": ["h1", "n1"], "high": ["h2"], "6": ["l1"]}),
    ],
)
def test_each_priority_has_its_list_and_the_first_job_wakes_an_idle_agent(
    client: redis.Redis, waiting: str, sent: str, found: dict[str, list[str]]
) -> None:
    words = {"h": "high", "n": "normal", "l": "low"}
    for names_of in (waiting, sent):
        push(client, QUEUE, [Sent(id=one, priority=words[one[0]]) for one in names_of.split()])
    assert lists(client) == found


def test_low_jobs_do_not_come_before_high_ones_that_wait(client: redis.Redis) -> None:
    client.lpush(names.high_list(QUEUE), json.dumps({"headers": {"id": "h"}}))
    push(client, QUEUE, [Sent(id="l", priority="low")])
    assert lists(client) == {"high": ["h"], "6": ["l"]}


def test_what_is_not_due_yet_waits_in_the_list_that_is_sorted(client: redis.Redis) -> None:
    push(client, QUEUE, [Sent(id="l", priority="low", eta=LATER), Sent(id="h", priority="high", eta=LATER)])
    assert lists(client) == {"normal": ["l", "h"]}
