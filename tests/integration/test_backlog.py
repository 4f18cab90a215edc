"""Counting what waits, what is held and who beats, on a real Redis."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import example, given
from hypothesis import strategies as st

from brain_clusters.broker import backlog, names, scripts
from brain_clusters.broker.client import Broker, connect
from brain_clusters.broker.restore import restore
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


def with_eta(name: str, *, separators: tuple[str, str] | None = None, eta: Any = None, **ahead: float) -> str:
    """Return a message with an ETA, and a stamp of 5."""
    due = (datetime.now(UTC) + timedelta(**ahead)).isoformat() if eta is None else eta
    headers = {"id": name, "eta": due, names.PUBLISHED_HEADER: 5.0}
    return json.dumps({"body": "W10=", "headers": headers, "properties": {}}, separators=separators)


def due_time(text: str) -> float:
    found: str = json.loads(text)["headers"]["eta"]
    return datetime.fromisoformat(found).timestamp()


def depth(client: redis.Redis, queue: str = "q") -> backlog.QueueDepth:
    return backlog.read(client, [queue], []).queues[queue]


def test_a_queue_is_the_sum_of_its_priorities(client: redis.Redis) -> None:
    for number, name in enumerate(names.priority_lists("q"), start=1):
        client.rpush(name, *[message()] * number)
    client.rpush("q2", message())
    found = backlog.read(client, ["q", "q2", "none"], [])
    assert {queue: depth.length for queue, depth in found.queues.items()} == {"q": 15, "q2": 1, "none": 0}


def test_the_oldest_stamp_is_found_at_the_tails(client: redis.Redis) -> None:
    client.lpush("q", message(100.5), message(200.0))
    client.lpush(names.kombu_lists("q")[3], message(50.25))
    assert backlog.read(client, ["q"], []).queues["q"].oldest_published_at == 50.25


def test_messages_without_a_stamp_have_no_age_and_spoil_none(client: redis.Redis) -> None:
    client.lpush("q", message())
    assert backlog.read(client, ["q"], []).queues["q"].oldest_published_at is None
    client.lpush(names.kombu_lists("q")[1], message(70))
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
            self.id, self.payload, self.eta = f"job-{number}", {"number": number}, None
            self.priority, self.options = "normal", dict[str, Any]()

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
    client.lpush(names.kombu_lists("q")[2], message(), message(15), message(40))
    assert backlog.waiting_since(client, ["q", "none"], 25.0) == {"q": 4, "none": 0}
    assert backlog.waiting_since(client, ["q"], 5.0) == {"q": 1}


def test_waiting_since_takes_what_lies_behind_a_thousand_old_ones_for_old(client: redis.Redis) -> None:
    client.lpush("q", *[message(10)] * 1500)
    assert backlog.waiting_since(client, ["q"], 25.0) == {"q": 1500}


# --- what is not due yet ----------------------------------------------------------------------------------------


def test_what_is_not_due_yet_is_no_backlog_and_keeps_its_due_time(client: redis.Redis) -> None:
    late, later = with_eta("late", hours=1), with_eta("later", hours=2)
    client.lpush("q", message(70.0), later, message(80.0), late)
    client.lpush(names.kombu_lists("q")[3], with_eta("latest", hours=3))
    assert depth(client) == backlog.QueueDepth(2, 70.0, 3, pytest.approx(due_time(late), abs=1e-5))
    assert client.lrange("q", 0, -1) == [message(80.0).encode(), message(70.0).encode()]
    parked: Any = client.zrange(names.eta_key("q"), 0, -1)
    assert parked[:2] == [late.encode(), later.encode()]
    assert depth(client).length == 2


def test_the_plain_celery_clients_countdown_is_held(client: redis.Redis, redis_url: str) -> None:
    plain = Celery(broker=redis_url, set_as_current=False)
    for countdown in (300, None, 400):
        plain.send_task("note", ["x"], queue="q", countdown=countdown)
    plain.send_task("note", ['"eta": "2999-01-01T00:00:00"'], kwargs={"eta": "2999-01-01T00:00:00"}, queue="q")
    plain.send_task("note", headers={"mine": {"eta": "2999-01-01T00:00:00"}}, queue="q")
    found = backlog.read(client, ["q"], [])
    assert (found.queues["q"].length, found.queues["q"].held) == (3, 2)
    next_due = found.queues["q"].next_due_at
    assert next_due is not None
    assert 290 < next_due - found.now <= 300
    plain.close()


def test_what_is_due_counts_again_and_its_age_is_since_then(client: redis.Redis) -> None:
    client.zadd(names.eta_key("q"), {"first": 1000.5, "second": 2000.5, "ahead": 1e10})
    assert depth(client) == backlog.QueueDepth(2, 1000.5, 1, 1e10)
    client.lpush("q", message(500.0))
    assert depth(client) == backlog.QueueDepth(3, 500.0, 1, 1e10)
    assert backlog.waiting_since(client, ["q"], 1500.0) == {"q": 2}


def test_a_late_jobs_age_is_since_it_was_due_and_not_since_it_was_published(client: redis.Redis) -> None:
    client.lpush("q", with_eta("past", eta="1970-01-01T00:01:00Z"))
    assert depth(client) == backlog.QueueDepth(1, 60.0)


def test_a_redelivered_message_has_no_age_and_hides_none(client: redis.Redis) -> None:
    again = json.dumps({"headers": {names.PUBLISHED_HEADER: 5.0, "redelivered": True}})
    client.lpush("q", again)
    assert depth(client) == backlog.QueueDepth(1, None)
    client.lpush("q", message(70.0))
    assert depth(client) == backlog.QueueDepth(2, 70.0)


@pytest.mark.parametrize("separators", [None, (",", ":"), (" , ", " : ")])
def test_json_of_any_layout_is_read(client: redis.Redis, separators: tuple[str, str] | None) -> None:
    client.lpush("q", with_eta("past", separators=separators, hours=-1), with_eta("x", separators=separators, hours=1))
    found = depth(client)
    assert (found.length, found.held) == (1, 1)
    assert found.oldest_published_at == pytest.approx(time.time() - 3600, abs=600)


@pytest.mark.parametrize(
    "eta", ["whenever", "", 2999, 32503680000.5, True, {"eta": "2999-01-01T00:00:00Z"}, ["2999-01-01T00:00:00Z"],
            "2999-02-29T00:00:00Z", "2999-01-01", "2999-01-01T00:00:00 Europe/Berlin"],
)  # fmt: skip
def test_an_eta_that_nobody_can_read_stays_in_the_queue(client: redis.Redis, eta: Any) -> None:
    client.lpush("q", with_eta("x", eta=eta))
    for _ in range(2):
        found = depth(client)
        assert (found.length, found.held) == (1, 0)


def test_junk_with_the_word_eta_stays_in_the_queue(client: redis.Redis) -> None:
    junk = ['{"eta": "2999-01-01T00:00:00Z"', '{"headers": "eta", "eta": "2999-01-01T00:00:00Z"}', "[" * 5000, b"\xff",
            '["eta": "x"]', '{"headers": [{"eta": "2999-01-01T00:00:00Z"}]}', '"eta": "']  # fmt: skip
    client.lpush("q", *junk)
    found = depth(client)
    assert (found.length, found.held) == (len(junk), 0)


def test_keys_of_the_wrong_type_stop_no_look(client: redis.Redis) -> None:
    client.set(names.eta_key("q"), "text")
    client.lpush(names.sift_key("q"), "list")
    client.lpush("q", with_eta("x", hours=1), message(7.0))
    client.lpush("other", message(8.0))
    found = backlog.read(client, ["q", "other"], [])
    assert (found.queues["q"].length, found.queues["q"].held) == (2, 0)
    assert found.queues["other"] == backlog.QueueDepth(1, 8.0)
    assert backlog.waiting_since(client, ["q"], 100.0) == {"q": 1}


def test_five_thousand_messages_are_exact_after_five_looks(client: redis.Redis) -> None:
    chance = random.Random(1)
    ahead = [chance.random() < 0.3 for _ in range(5000)]
    entries = [with_eta(f"m{n}", hours=1 + n) if late else message(float(n)) for n, late in enumerate(ahead)]
    client.lpush("q", *entries)
    looks = [depth(client) for _ in range(6)]
    exact = (5000 - sum(ahead), sum(ahead))
    assert [found.length + found.held for found in looks] == [5000] * 6
    assert [found.held for found in looks] == sorted(found.held for found in looks)
    assert [(found.length, found.held) for found in looks[4:]] == [exact] * 2
    left: Any = client.lrange("q", 0, -1)
    assert left == [entry.encode() for entry, late in zip(entries, ahead, strict=True) if not late][::-1]
    parked: Any = client.zrange(names.eta_key("q"), 0, -1)
    assert set(parked) == {entry.encode() for entry, late in zip(entries, ahead, strict=True) if late}


def test_a_look_at_what_was_sorted_already_reads_nothing_anew(client: redis.Redis) -> None:
    client.lpush("q", *[message(float(n)) for n in range(100)])
    depth(client)
    before = dict(client.info("commandstats"))  # type: ignore[arg-type]
    depth(client)
    after = dict(client.info("commandstats"))  # type: ignore[arg-type]
    for command in ("cmdstat_lrange", "cmdstat_set", "cmdstat_lpos"):
        assert after.get(command, {}).get("calls") == before.get(command, {}).get("calls"), command


@pytest.mark.parametrize("popped", [0, 1, 3, 4])
def test_new_messages_are_found_whether_or_not_the_marker_was_popped(client: redis.Redis, popped: int) -> None:
    client.lpush("q", *[message(float(n)) for n in range(4)])
    assert depth(client).length == 4
    for _ in range(popped):
        client.rpop("q")
    client.lpush("q", message(10.0), with_eta("x", hours=1), message(11.0), with_eta("y", hours=1))
    found = depth(client)
    assert (found.length, found.held) == (6 - popped, 2)
    client.lpush("q", with_eta("z", hours=1))
    assert depth(client).held == 3


def test_what_a_dead_agent_had_claimed_is_sorted_again(client: redis.Redis) -> None:
    for number in range(3):
        client.lpush("q", message(float(number)))
    assert depth(client).length == 3
    claimed = json.loads(with_eta("x", hours=1))
    claimed["properties"] = {"delivery_info": {"routing_key": "q", "exchange": ""}}
    client.rpush(names.claim_key("dead"), json.dumps(claimed))
    assert restore(client, "dead") == 1
    found = depth(client)
    assert (found.length, found.held) == (3, 1)


@pytest.mark.parametrize("size", [1_000_000, 3_000])
def test_great_messages_are_looked_at_a_few_at_a_time(client: redis.Redis, size: int) -> None:
    client.lpush("q", *[with_eta(f"{n}" + "x" * size, hours=1) for n in range(30)])
    looks = [depth(client) for _ in range(5)]
    assert {found.length + found.held for found in looks} == {30}
    assert looks[-1].held == 30
    assert looks[0].held == (30 if size < 10_000 else 8)


OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(timezones=st.none() | st.just(UTC) | OFFSETS).map(datetime.isoformat)
FORMS = st.sampled_from([str, lambda t: t.replace("+00:00", "Z"), lambda t: t.replace("T", " "), lambda t: t[:-1],
                         lambda t: t + "0", lambda t: t.replace("-02-", "-13-"), lambda t: t.replace("1", "3"),
                         lambda t: t.replace("0", "2", 3), lambda t: t.replace(":", "")])  # fmt: skip


def lua_time(redis_url: str, text: str) -> float | None:
    script = scripts.TIMES + "local found = at(ARGV[1]) return found and string.format('%.17g', found) or false"
    with connect(redis_url) as client:
        found: Any = client.eval(script, 0, text)
    return None if found is None else float(found)


@given(text=TIMES)
@example(text="2000-02-29T23:59:59.999999+05:45")
@example(text="1900-03-01T00:00:00")
@example(text="9999-12-31T23:59:59.999999-23:59")
def test_the_scripts_read_every_time_that_python_writes(redis_url: str, text: str) -> None:
    expected = datetime.fromisoformat(text)
    expected = expected if expected.tzinfo else expected.replace(tzinfo=UTC)
    assert lua_time(redis_url, text) == pytest.approx(expected.timestamp(), abs=1e-4)


@given(text=TIMES, form=FORMS)
@example(text="2023-02-29T00:00:00", form=str)
@example(text="2023-01-01T24:00:00", form=str)
@example(text="2023-01-01T00:00:00.1234567Z", form=str)
@example(text="2023-01-01T00:00:00.5+0230", form=str)
@example(text="2023-01-01T00:00:00+24:00", form=str)
@example(text="0000-01-01T00:00:00", form=str)
def test_the_scripts_take_no_time_that_python_reads_otherwise(redis_url: str, text: str, form: Any) -> None:
    found = lua_time(redis_url, form(text))
    if found is not None:
        expected = datetime.fromisoformat(form(text))
        expected = expected if expected.tzinfo else expected.replace(tzinfo=UTC)
        assert found == pytest.approx(expected.timestamp(), abs=1e-4)


def test_purging_deletes_every_priority_of_the_queue_and_nothing_else(client: redis.Redis) -> None:
    for name in (*names.priority_lists("q"), "kept"):
        client.rpush(name, message(), with_eta("late", hours=1))
    backlog.read(client, ["q"], [])
    assert client.exists(names.eta_key("q"), names.sift_key("q")) == 2
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
