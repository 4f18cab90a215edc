"""Counting what waits, what is held and who beats, on a real Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from brain_clusters.broker import backlog, names
from brain_clusters.broker.client import Broker, connect
from brain_clusters.errors import TemporaryError
from brain_clusters.ports import free_port

BEAT = {
    "state": "idle", "in_flight": 0, "completed": 3, "failed": 1, "service_time": 0.5, "idle_since": 1.7e9,
    "cpu": 1.5, "memory": 1000, "pid": 7, "slots": 1,
}  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as found:
        found.flushdb()
        yield found


def message(published_at: Any = None) -> str:
    headers = {"id": "x"} if published_at is None else {"id": "x", names.PUBLISHED_HEADER: published_at}
    return json.dumps({"body": "", "headers": headers, "properties": {}})


def test_a_queue_is_the_sum_of_its_priorities(client: redis.Redis) -> None:
    for number, name in enumerate(names.priority_lists("q"), start=1):
        client.rpush(name, *[message()] * number)
    client.rpush("q2", message())
    found = backlog.read(client, ["q", "q2", "none"], [])
    assert {queue: depth.length for queue, depth in found.queues.items()} == {"q": 10, "q2": 1, "none": 0}


def test_the_oldest_stamp_is_found_at_the_tails(client: redis.Redis) -> None:
    client.lpush("q", message(100.5), message(200.0))
    client.lpush(names.priority_lists("q")[3], message(50.25))
    assert backlog.read(client, ["q"], []).queues["q"].oldest_published_at == 50.25


def test_messages_without_a_stamp_have_no_age_and_spoil_none(client: redis.Redis) -> None:
    client.lpush("q", message())
    assert backlog.read(client, ["q"], []).queues["q"].oldest_published_at is None
    client.lpush(names.priority_lists("q")[1], message(70))
    assert backlog.read(client, ["q"], []).queues["q"].oldest_published_at == 70.0


def test_a_stamp_that_is_no_number_is_none(client: redis.Redis) -> None:
    client.lpush("q", '{"brain_published_at": 1.2.3}')
    client.lpush("other", message(5))
    found = backlog.read(client, ["q", "other"], [])
    assert found.queues["q"] == backlog.QueueDepth(1, None)
    assert found.queues["other"] == backlog.QueueDepth(1, 5.0)
    assert backlog.waiting_since(client, ["q"], 10.0) == {"q": 1}


def test_what_we_publish_bears_a_stamp_and_what_others_publish_counts_too(client: redis.Redis, redis_url: str) -> None:
    broker, plain = Broker(redis_url), Celery(broker=redis_url, set_as_current=False)
    before = time.time()
    broker.publish_operation("an-operation")
    plain.send_task("brain.lifecycle.create", kwargs={}, queue=names.LIFECYCLE_QUEUE)
    depth = backlog.read(client, [names.LIFECYCLE_QUEUE], []).queues[names.LIFECYCLE_QUEUE]
    assert depth.length == 2
    assert depth.oldest_published_at is not None
    assert before <= depth.oldest_published_at <= time.time()
    broker.close()
    plain.close()


def test_a_batch_of_jobs_is_published_in_order(client: redis.Redis, redis_url: str) -> None:
    class OneJob:
        def __init__(self, number: int) -> None:
            self.id, self.payload = f"job-{number}", {"number": number}

    broker = Broker(redis_url)
    broker.publish_jobs("q", [OneJob(number) for number in range(1200)])
    broker.publish_jobs("q", [OneJob(1200)])
    entries: Any = client.lrange("q", 0, -1)
    assert [json.loads(entry)["headers"]["id"] for entry in reversed(entries)] == [f"job-{n}" for n in range(1201)]
    broker.close()


def test_closing_one_broker_closes_no_other(client: redis.Redis, redis_url: str) -> None:
    one, two = Broker(redis_url), Broker(redis_url)
    for broker in (one, two):
        broker.publish_operation("first")
    one.close()
    two.publish_operation("second")
    assert client.llen(names.LIFECYCLE_QUEUE) == 3
    two.close()


def test_held_counts_what_is_unacknowledged_and_what_is_claimed(client: redis.Redis) -> None:
    client.hset(names.unacked_key("a"), mapping={"t1": "m", "t2": "m"})
    client.rpush(names.claim_key("a"), "m")
    assert backlog.read(client, [], ["a", "b"]).held == {"a": 3, "b": 0}


def test_a_beat_that_is_not_there_is_absent_and_not_zero(client: redis.Redis) -> None:
    client.set(names.beat_key("a"), json.dumps(BEAT))
    found = backlog.read(client, [], ["a", "b"])
    assert set(found.beats) == {"a"}
    assert found.beats["a"]["completed"] == 3


@pytest.mark.parametrize(
    "junk",
    ["worker", "", "[]", "{}", "7", "null", "[" * 5000, b"\xff", json.dumps({**BEAT, "completed": "many"}),
     json.dumps({**BEAT, "idle_since": None}), json.dumps(BEAT).replace("1.5", "NaN"),
     json.dumps({**BEAT, "failed": -1}), json.dumps({**BEAT, "service_time": "slow"})],
    ids=range(13),
)  # fmt: skip
def test_a_beat_that_cannot_be_read_is_absent_and_stops_no_other(client: redis.Redis, junk: str | bytes) -> None:
    client.set(names.beat_key("bad"), junk)
    client.set(names.beat_key("good"), json.dumps(BEAT))
    assert set(backlog.read(client, [], ["bad", "good"]).beats) == {"good"}


def test_more_queues_and_agents_than_one_script_takes_are_read_in_one_look(client: redis.Redis) -> None:
    queues, agents = [f"q{number}" for number in range(2500)], [f"a{number}" for number in range(1500)]
    client.lpush("q2499", message(9))
    client.hset(names.unacked_key("a1499"), "t", "m")
    client.set(names.beat_key("a1499"), json.dumps(BEAT))
    found = backlog.read(client, queues, agents)
    assert (len(found.queues), found.queues["q2499"].length, found.queues["q0"].length) == (2500, 1, 0)
    assert (len(found.held), found.held["a1499"], found.held["a0"]) == (1500, 1, 0)
    assert set(found.beats) == {"a1499"}


def test_the_time_is_that_of_redis(client: redis.Redis) -> None:
    seconds, _ = client.time()  # type: ignore[misc]
    assert 0 <= backlog.read(client, [], []).now - seconds < 60


def test_nothing_asked_is_nothing_found(client: redis.Redis) -> None:
    found = backlog.read(client, [], [])
    assert (found.queues, found.held, found.beats) == ({}, {}, {})


def test_waiting_since_counts_what_is_old_or_bears_no_stamp(client: redis.Redis) -> None:
    client.lpush("q", message(10), message(20), message(30))
    client.lpush(names.priority_lists("q")[2], message(), message(15), message(40))
    assert backlog.waiting_since(client, ["q", "none"], 25.0) == {"q": 4, "none": 0}
    assert backlog.waiting_since(client, ["q"], 5.0) == {"q": 1}


def test_waiting_since_takes_what_lies_behind_a_thousand_old_ones_for_old(client: redis.Redis) -> None:
    client.lpush("q", *[message(10)] * 1500)
    assert backlog.waiting_since(client, ["q"], 25.0) == {"q": 1500}


def test_purging_deletes_every_priority_of_the_queue_and_nothing_else(client: redis.Redis) -> None:
    for name in (*names.priority_lists("q"), "kept"):
        client.rpush(name, message())
    backlog.purge(client, ["q", "never-there"])
    backlog.purge(client, [])
    assert client.keys() == [b"kept"]


def test_a_redis_that_is_away_is_an_error_and_never_an_empty_queue() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with connect(url) as nobody:
        with pytest.raises(TemporaryError):
            backlog.read(nobody, ["q"], ["a"])
        with pytest.raises(TemporaryError):
            backlog.waiting_since(nobody, ["q"], 1.0)
        with pytest.raises(TemporaryError):
            backlog.purge(nobody, ["q"])
    broker = Broker(url)
    with pytest.raises(TemporaryError):
        broker.publish_operation("an-operation")
    broker.close()
