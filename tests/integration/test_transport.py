"""The transport: pinned to the kombu that it changes, and a message outlives whoever held it, at every instant."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from brain_clusters.broker import holding, names, transport
from brain_clusters.broker.app import transport_options
from brain_clusters.broker.restore import restore

Until = Callable[..., Any]
QUEUE = "work"

# A process that has imported everything. Each line "OWNER QUEUE" on its input makes it fork a worker of that name,
# which appends what it is sent to the list "done". It ignores its children's ends, and ends with its input.
NURSERY = """
import os, signal, sys
import redis
from celery.signals import worker_ready
import celery.apps.worker, celery.worker.consumer, celery.worker.components, celery.concurrency.solo
import kombu.transport.redis
from brain_clusters.broker.app import make_app, transport_options

url = sys.argv[1]
app = make_app(url, owner="nursery")
app.conf.result_backend = None

@app.task(name="note", typing=False)
def note(what, gate=None):
    client = redis.Redis.from_url(url, socket_timeout=60)
    client.rpush("begun", what)
    if gate is not None:
        client.blpop(gate, 30)
    client.rpush("done", what)
    client.close()

app.finalize()
app.amqp

def work(owner, queue):
    app.conf.broker_transport_options = transport_options(owner)
    client = redis.Redis.from_url(url)
    worker_ready.connect(lambda **_: client.rpush(f"ready:{owner}", os.getpid()), weak=False)
    worker = app.Worker(
        hostname=owner, queues=[queue], pool="solo", concurrency=1, loglevel="ERROR", quiet=True,
        without_mingle=True, without_gossip=True, without_heartbeat=True,
    )
    worker.start()
    return worker.exitcode or 0

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = 70
        try:
            code = work(*line.split())
        except SystemExit as exc:
            code = exc.code or 0
        finally:
            os._exit(code)
"""


class Nursery:
    """Makes workers, and knows which still live."""

    def __init__(self, url: str, until: Until) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=60)
        self._until = until
        self._numbers = count()
        self._living: set[int] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", NURSERY, url],
            stdin=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def worker(self, queue: str = QUEUE) -> tuple[str, int]:
        """Start a worker; return its name and pid as soon as it consumes."""
        owner = f"owner{next(self._numbers)}"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{owner} {queue}\n")
        self._process.stdin.flush()
        ready: Any = self._client.blpop([f"ready:{owner}"], 30)
        pid = int(ready[1])
        self._living.add(pid)
        return owner, pid

    def end(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Signal a worker and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        self._until(lambda: not Path(f"/proc/{pid}").exists(), f"the end of {pid}")
        self._living.discard(pid)

    def close(self) -> None:
        """End all workers."""
        for pid in list(self._living):
            self.end(pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._client.close()


@pytest.fixture(scope="module")
def nursery(redis_url: str, until: Until) -> Iterator[Nursery]:
    found = Nursery(redis_url, until)
    yield found
    found.close()


@pytest.fixture
def client(redis_url: str, nursery: Nursery) -> Iterator[redis.Redis]:
    """A client of an empty Redis, of which no worker is left afterwards."""
    with redis.Redis.from_url(redis_url) as found:
        found.flushdb()
        yield found
        for pid in list(nursery._living):
            nursery.end(pid)


@pytest.fixture
def plain(redis_url: str) -> Iterator[Celery]:
    """A Celery client as anybody has one: the plain transport, and no code of ours."""
    app = Celery(broker=redis_url, set_as_current=False)
    yield app
    app.close()


def done(client: redis.Redis) -> list[bytes]:
    found: Any = client.lrange("done", 0, -1)
    return list(found)


def sent(plain: Celery, client: redis.Redis) -> dict[str, Any]:
    """Return a message as a client sends it, without leaving it anywhere."""
    plain.send_task("note", ["copy"], queue="elsewhere")
    found: Any = client.rpop("elsewhere")
    return dict(json.loads(found))


# --- pinned to kombu --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "method", "parameters"),
    [
        (kombu_redis.Channel, "_brpop_start", ["self", "timeout"]),
        (kombu_redis.Channel, "_brpop_read", ["self", "options"]),
        (kombu_redis.Channel, "_connparams", ["self", "asynchronous"]),
        (kombu_redis.Channel, "_q_for_pri", ["self", "queue", "pri"]),
        (kombu_redis.Channel, "_flush_brpop_reauth", ["self"]),
        (kombu_redis.Channel, "conn_or_acquire", ["self", "client"]),
        (kombu_redis.QoS, "append", ["self", "message", "delivery_tag"]),
        (kombu_redis.QoS, "restore_visible", ["self", "start", "num", "interval"]),
        (kombu_redis.Channel, "_create_client", ["self", "asynchronous"]),
        (kombu_redis.QoS, "ack", ["self", "delivery_tag"]),
        (kombu_redis.QoS, "reject", ["self", "delivery_tag", "requeue"]),
        (kombu_redis.QoS, "restore_by_tag", ["self", "tag", "client", "leftmost"]),
        (virtual.QoS, "ack", ["self", "delivery_tag"]),
        (virtual.QoS, "append", ["self", "message", "delivery_tag"]),
        (kombu_redis.Transport, "_deliver", ["self", "message", "queue"]),
    ],
)
def test_kombu_still_has_what_the_transport_changes_and_calls(owner: type, method: str, parameters: list[str]) -> None:
    found = inspect.unwrap(getattr(owner, method))
    assert list(inspect.signature(found).parameters) == parameters


def test_kombu_is_the_version_that_the_transport_was_written_for() -> None:
    assert kombu.__version__.startswith("5.7.")


@pytest.mark.parametrize(
    ("ours", "theirs"), [(transport.Channel, kombu_redis.Channel), (holding.QoS, kombu_redis.QoS)]
)
def test_every_method_of_kombus_that_we_name_anew_takes_what_kombu_gives(ours: type, theirs: type) -> None:
    for name, method in vars(ours).items():
        if inspect.isfunction(method) and hasattr(theirs, name):
            here, there = inspect.signature(method), inspect.signature(inspect.unwrap(getattr(theirs, name)))
            assert list(here.parameters) == list(there.parameters), name


def test_kombus_source_still_reads_as_it_did_where_the_transport_hooks_in() -> None:
    poller = inspect.getsource(kombu_redis.MultiChannelPoller)
    assert "if not channel._in_poll:  # send BRPOP" in poller
    assert "channel._brpop_start()" in poller
    assert "channel._brpop_sent_at" in poller
    channel = inspect.getsource(kombu_redis.Channel)
    assert "self.handlers = {'BRPOP': self._brpop_read, 'LISTEN': self._receive}" in channel
    close = inspect.getsource(kombu_redis.Channel.close)
    assert "self._closing = True" in close
    assert "if self._in_poll:" in close


# --- in use -----------------------------------------------------------------------------------------------------


def test_a_plain_celery_client_can_publish_to_a_worker(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    nursery.worker()
    for number in range(5):
        plain.send_task("note", [number], queue=QUEUE)
    until(lambda: len(done(client)) == 5)
    assert done(client) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_running_job_is_in_its_owners_hash_and_leaves_nothing_behind(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, _ = nursery.worker()
    sent_id = plain.send_task("note", ["one", "gate"], queue=QUEUE).id
    until(lambda: client.llen("begun"))
    entries: Any = client.hgetall(names.unacked_key(owner))
    [(tag, entry)] = entries.items()
    message, exchange, routing_key = json.loads(entry)
    assert (message["headers"]["id"], exchange, routing_key) == (sent_id, "", QUEUE)
    assert message["properties"]["delivery_tag"] == tag.decode()
    assert client.llen(names.claim_key(owner)) == 0
    client.rpush("gate", "open")
    until(lambda: not client.exists(names.unacked_key(owner)))
    assert done(client) == [b"one"]
    assert not client.exists(names.claim_key(owner))


def test_the_urgent_come_first(nursery: Nursery, client: redis.Redis, plain: Celery, until: Until) -> None:
    for priority in (9, 3, 6, 0, 9, 6, 3, 0):
        plain.send_task("note", [priority], queue=QUEUE, priority=priority)
    plain.send_task("note", ["high"], queue=names.high_list(QUEUE))
    assert [client.llen(name) for name in names.priority_lists(QUEUE)] == [1, 2, 2, 2, 2]
    nursery.worker()
    until(lambda: len(done(client)) == 9)
    assert done(client) == [b"high", b"0", b"0", b"3", b"3", b"6", b"6", b"9", b"9"]


def test_an_idle_worker_hears_of_every_priority(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    nursery.worker()
    for number, priority in enumerate((9, 0, 6, 3)):
        plain.send_task("note", [priority], queue=QUEUE, priority=priority)
        until(lambda number=number: len(done(client)) == number + 1)
    plain.send_task("note", ["high"], queue=names.high_list(QUEUE))
    until(lambda: len(done(client)) == 5)


def spoilt(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], str]:
    def apply(message: dict[str, Any]) -> str:
        change(message)
        return json.dumps(message)

    return apply


JUNK: dict[str, Callable[[dict[str, Any]], str | bytes]] = {
    "text": lambda _: "junk",
    "bytes": lambda _: b"\xff\xfe\x00",
    "number": lambda _: "7",
    "nested": lambda _: "[" * 5000,
    "no headers": spoilt(lambda m: m.pop("headers")),
    "headers of null": spoilt(lambda m: m.update(headers=None)),
    "no routing key": spoilt(lambda m: m["properties"]["delivery_info"].pop("routing_key")),
    "a tag that is a number": spoilt(lambda m: m["properties"].update(delivery_tag=5)),
    "a body that is not base64": spoilt(lambda m: m.update(body="!!!")),
    "a body that is a number": spoilt(lambda m: m.update(body=5)),
    "a body of another shape": spoilt(lambda m: m.update(body="WzVd")),
    "an encoding nobody knows": spoilt(lambda m: m["properties"].update(body_encoding="rot13")),
    "no content type": spoilt(lambda m: m.pop("content-type")),
    "a time limit that is a number": spoilt(lambda m: m["headers"].update(timelimit=5)),
    "no id": spoilt(lambda m: m["headers"].pop("id")),
}
# These Celery itself refuses, says so in the worker's log, and acknowledges.
REFUSED: dict[str, Callable[[dict[str, Any]], str | bytes]] = {
    "pickle": spoilt(lambda m: m.update({"content-type": "application/x-python-serialize"})),
    "an unknown task": spoilt(lambda m: m["headers"].update(task="nobody.knows")),
    "a bad eta": spoilt(lambda m: m["headers"].update(eta="whenever")),
}


def test_junk_is_set_aside_and_the_queue_keeps_flowing(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, _ = nursery.worker()
    for number, make in enumerate([*JUNK.values(), *REFUSED.values()]):
        client.lpush(QUEUE, make(sent(plain, client)))
        plain.send_task("note", [number], queue=QUEUE)
    until(lambda: len(done(client)) == len(JUNK) + len(REFUSED), "the good job behind each bad one")
    assert b"copy" not in done(client)
    assert client.llen(names.UNREADABLE_LIST) == len(JUNK)
    until(lambda: not client.exists(names.unacked_key(owner)))
    assert not client.exists(QUEUE, names.claim_key(owner))


def test_a_message_whose_reply_was_lost_with_its_connection_is_done_next(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    """As after a reset just when the server had moved the message, and before the worker had read that it did."""
    owner, _ = nursery.worker()
    message = json.dumps(sent(plain, client)).replace('"elsewhere"', f'"{QUEUE}"')
    client.rpush(names.claim_key(owner), message)
    plain.send_task("note", ["next"], queue=QUEUE)
    until(lambda: len(done(client)) == 2)
    assert sorted(done(client)) == [b"copy", b"next"]
    until(lambda: not client.exists(names.claim_key(owner), names.unacked_key(owner)))


def test_a_worker_whose_connections_are_cut_goes_on(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, _ = nursery.worker()
    for number in range(3):
        cut: Any = client.client_list()
        for one in cut:
            if one["name"] == owner:
                with suppress(redis.ResponseError):
                    client.client_kill_filter(_id=one["id"])
        plain.send_task("note", [number], queue=QUEUE)
        until(lambda number=number: len(done(client)) == number + 1)


# --- not due yet ------------------------------------------------------------------------------------------------


def test_a_message_with_an_eta_ahead_is_parked_and_holds_nobody_up(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, _ = nursery.worker()
    for priority in (0, 9):
        plain.send_task("note", ["later"], queue=QUEUE, countdown=300, priority=priority)
        plain.send_task("note", ["now"], queue=QUEUE, priority=priority)
    until(lambda: len(done(client)) == 2)
    until(lambda: client.zcard(names.eta_key(QUEUE)) == 2)
    assert done(client) == [b"now", b"now"]
    until(lambda: not client.exists(names.unacked_key(owner), names.claim_key(owner), *names.priority_lists(QUEUE)))
    [(entry, due_at), _] = client.zrange(names.eta_key(QUEUE), 0, -1, withscores=True)  # type: ignore[misc]
    assert datetime.fromisoformat(json.loads(entry)["headers"]["eta"]).timestamp() == pytest.approx(due_at, abs=1e-5)


def test_parked_messages_are_done_when_they_are_due_and_not_before(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    """One more worker than messages, so that one always waits; what is parked late is due while they wait."""
    workers = [nursery.worker()[0] for _ in range(4)]
    due = {number: time.time() + 0.7 + 0.2 * number for number in (2, 0, 1)}
    for number, when in due.items():
        plain.send_task("note", [number], queue=QUEUE, eta=datetime.fromtimestamp(when, UTC))
    until(lambda: client.zcard(names.eta_key(QUEUE)) == 3, "all parked")
    for number in range(3):
        until(lambda number=number: len(done(client)) > number)
        assert time.time() >= due[number]
    assert done(client) == [b"0", b"1", b"2"]
    until(lambda: not client.exists(*map(names.unacked_key, workers), *map(names.claim_key, workers)))
    assert not client.exists(names.eta_key(QUEUE))


def test_what_is_due_comes_before_what_waits_in_lists(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    plain.send_task("note", ["due"], queue=QUEUE, eta=datetime.now(UTC) + timedelta(hours=1), priority=9)
    parked: Any = client.rpop(names.kombu_lists(QUEUE)[3])
    client.zadd(names.eta_key(QUEUE), {parked: time.time() - 1})
    for priority in (0, 9):
        plain.send_task("note", [priority], queue=QUEUE, priority=priority)
    nursery.worker()
    until(lambda: len(done(client)) == 3)
    # Due by the clock of Redis: what the message itself says is not asked again.
    assert done(client) == [b"due", b"0", b"9"]


def test_a_message_that_is_due_already_is_a_plain_one(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, _ = nursery.worker()
    plain.send_task("note", ["past", "gate"], queue=QUEUE, eta=datetime.now(UTC) - timedelta(hours=1))
    until(lambda: client.llen("begun"))
    assert client.hlen(names.unacked_key(owner)) == 1
    assert not client.exists(names.eta_key(QUEUE))
    client.rpush("gate", "open")
    until(lambda: done(client) == [b"past"])


@pytest.mark.parametrize("form", ["{}Z", "{}", "{}+00:00"])
def test_an_eta_of_any_form_is_parked(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until, form: str
) -> None:
    nursery.worker()
    message = sent(plain, client)
    message["headers"]["eta"] = form.format((datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S"))
    client.lpush(QUEUE, json.dumps(message, separators=(",", ":")))
    until(lambda: client.zcard(names.eta_key(QUEUE)))
    assert done(client) == []


def test_a_worker_killed_while_it_parks_loses_nothing(nursery: Nursery, client: redis.Redis, plain: Celery) -> None:
    for number in range(15):
        owner, pid = nursery.worker()
        plain.send_task("note", [number], queue=QUEUE, countdown=300)
        for _ in range(number * 60):  # from none to a few milliseconds, without the clock's coarseness
            os.getppid()
        nursery.end(pid)
        restore(client, owner)
        parked, waiting = int(client.zcard(names.eta_key(QUEUE))), int(client.llen(QUEUE))  # type: ignore[arg-type]
        assert (parked, waiting) in ((1, 0), (0, 1)), f"round {number}"
        assert not client.exists(names.claim_key(owner))
        client.delete(QUEUE, names.eta_key(QUEUE))


def test_a_worker_killed_with_a_due_message_gives_it_back(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, pid = nursery.worker()
    plain.send_task("note", ["held", "gate"], queue=QUEUE, countdown=0.2)
    until(lambda: client.llen("begun"))
    nursery.end(pid)
    assert restore(client, owner) == 1
    client.rpush("gate", "open")
    nursery.worker()
    until(lambda: done(client) == [b"held"])


def test_a_set_of_the_wrong_type_stops_no_list_and_loses_nothing(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    client.set(names.eta_key(QUEUE), "text")
    owner, pid = nursery.worker()
    plain.send_task("note", ["later"], queue=QUEUE, countdown=300)
    plain.send_task("note", ["behind"], queue=QUEUE)
    until(lambda: done(client) == [b"behind"])
    until(lambda: client.hlen(names.unacked_key(owner)) == 1, "Celery holds the one, and is done with the other")
    nursery.end(pid)
    client.delete(names.eta_key(QUEUE))
    restore(client, owner)
    nursery.worker()
    until(lambda: client.zcard(names.eta_key(QUEUE)) == 1)


# --- killed -----------------------------------------------------------------------------------------------------


def test_a_message_survives_a_kill_in_the_first_milliseconds(
    nursery: Nursery, client: redis.Redis, plain: Celery
) -> None:
    """25 rounds over the window in which kombu's own transport loses about one in three."""
    plain.send_task("note", ["first"], queue="elsewhere")
    client.flushdb()
    for number in range(25):
        owner, pid = nursery.worker()
        plain.send_task("note", [number], queue=QUEUE)
        for _ in range(number * 40):  # from none to a few milliseconds, without the clock's coarseness
            os.getppid()
        nursery.end(pid)
        restore(client, owner)
        finished = str(number).encode() in done(client)
        waiting = [json.loads(entry)["headers"]["argsrepr"] for entry in client.lrange(QUEUE, 0, -1)]
        assert finished or waiting == [f"[{number}]"], f"round {number} lost its message"
        client.delete(QUEUE)


def test_the_busy_jobs_of_a_killed_worker_return_to_the_head_of_their_priority(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, pid = nursery.worker()
    plain.send_task("note", ["held", "gate"], queue=QUEUE, priority=6)
    until(lambda: client.llen("begun"))
    for priority in (6, 0):
        plain.send_task("note", [f"later{priority}"], queue=QUEUE, priority=priority)
    nursery.end(pid)
    assert restore(client, owner) == 1
    assert restore(client, owner) == 0
    entry: Any = client.lindex(names.kombu_lists(QUEUE)[2], -1)
    assert json.loads(entry)["headers"]["redelivered"] is True
    assert [client.llen(name) for name in names.kombu_lists(QUEUE)] == [1, 0, 2, 0]
    client.rpush("gate", "open")
    nursery.worker()
    until(lambda: len(done(client)) == 3)
    assert done(client) == [b"later0", b"held", b"later6"]


def test_what_a_dead_owner_had_claimed_returns_once(client: redis.Redis, plain: Celery) -> None:
    message = sent(plain, client)
    message["properties"]["priority"] = 9
    client.rpush(names.claim_key("dead"), json.dumps(message))
    client.set(names.beat_key("dead"), "{}")
    assert restore(client, "dead") == 1
    assert restore(client, "dead") == 0
    assert client.llen(names.kombu_lists("elsewhere")[3]) == 1
    assert not client.exists(names.claim_key("dead"), names.beat_key("dead"))


def test_junk_that_a_dead_owner_held_stops_no_one(client: redis.Redis, plain: Celery) -> None:
    message = sent(plain, client)
    message["properties"]["priority"] = "high"
    client.rpush(names.claim_key("dead"), "junk", json.dumps({**message, "headers": None}), json.dumps(message))
    restore(client, "dead")
    assert client.llen(names.UNREADABLE_LIST) == 2
    assert client.llen("elsewhere") == 1


def test_a_stopping_worker_finishes_its_job_and_loses_none(
    nursery: Nursery, client: redis.Redis, plain: Celery, until: Until
) -> None:
    owner, pid = nursery.worker()
    plain.send_task("note", ["held", "gate"], queue=QUEUE)
    until(lambda: client.llen("begun"))
    os.kill(pid, signal.SIGTERM)
    for number in range(20):
        plain.send_task("note", [number], queue=QUEUE)
    client.rpush("gate", "open")
    nursery.end(pid, signal.SIGTERM)
    restore(client, owner)
    assert done(client)[0] == b"held"
    assert len(done(client)) + int(client.llen(QUEUE)) == 21
    assert not client.exists(names.unacked_key(owner), names.claim_key(owner))


def test_messages_that_come_while_a_worker_stops_are_not_lost(
    nursery: Nursery, client: redis.Redis, plain: Celery
) -> None:
    for number in range(4):
        owner, pid = nursery.worker()
        os.kill(pid, signal.SIGTERM)
        for place in range(10):
            plain.send_task("note", [f"{number}.{place}"], queue=QUEUE)
        nursery.end(pid, signal.SIGTERM)
        assert restore(client, owner) == 0
    assert len(set(done(client))) + int(client.llen(QUEUE)) == 40


def test_each_owner_has_keys_of_its_own() -> None:
    one, two = transport_options("one"), transport_options("two")
    keys = ("unacked_key", "claim_key", "owner")
    assert not {one[key] for key in keys} & {two[key] for key in keys}
    assert set(keys) <= set(transport.Channel.from_transport_options)
    assert one["socket_timeout"] > one["polling_interval"]
