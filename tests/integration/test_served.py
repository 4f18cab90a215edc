"""Groups that serve the queues of other applications, on brokers that may be away."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from brain_clusters.broker import backlog, debts, names
from brain_clusters.broker.brokers import place_of
from brain_clusters.domain.states import ClusterStatus
from brain_clusters.errors import Conflict, InvalidInput
from brain_clusters.ports import free_port
from brain_clusters.services import blueprints, served
from tests.integration.stage import Stage

BLUEPRINT = """
metadata: {id: guest, name: Guest, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 9}
agents:
  - {role: supervisor, name: Boss, count: 1}
  - {role: worker, name: Packer, count: 0-4, handler: "a:b"}
  - {role: worker, name: Artist, count: 0-4, celery: {app: "x:app", queues: [images, mail], broker: "env:GUEST_BROKER"}}
"""


@pytest.fixture
def away() -> str:
    return f"redis://127.0.0.1:{free_port()}/1"


@pytest.fixture
def there(stage: Stage, there_url: str) -> Iterator[redis.Redis]:
    """Another database of the same server."""
    with redis.Redis.from_url(there_url) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def there_url(redis_url: str) -> str:
    server, _, number = redis_url.rpartition("/")
    return f"{server}/{(int(number) + 8) % 16}"


@pytest.fixture(autouse=True)
def stored(stage: Stage, monkeypatch: pytest.MonkeyPatch, there_url: str) -> None:
    monkeypatch.setenv("GUEST_BROKER", there_url)
    blueprints.store(stage.control, BLUEPRINT)


def message(**headers: Any) -> str:
    info = {"exchange": "media", "routing_key": "media.jpg"}
    properties = {"delivery_tag": str(uuid.uuid4()), "delivery_info": info, "priority": 0}
    return json.dumps({"body": "", "headers": {"id": "t", "task": "x.t", **headers}, "properties": properties})


def test_what_waits_in_all_queues_of_the_application_is_the_groups_backlog(stage: Stage, there: redis.Redis) -> None:
    cluster_id = stage.create(blueprint_id="guest")
    stage.settle(cluster_id)
    there.lpush("images", message(), message())
    there.lpush("mail", message(eta="2999-01-01T00:00:00"), message())
    assert served.lengths(stage.control, cluster_id, blueprint(stage)) == {"Boss": 0, "Packer": 0, "Artist": 3}
    stage.tick()
    assert stage.cluster(cluster_id).group_targets["Artist"] > 0
    assert stage.cluster(cluster_id).group_targets["Packer"] == 0


def blueprint(stage: Stage) -> Any:
    with stage.control.database.transaction() as session:
        return blueprints.parsed(session, "guest", "1")


def test_a_broker_that_is_away_makes_only_its_group_unknown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    cluster_id = stage.create(blueprint_id="guest")
    stage.settle(cluster_id)
    monkeypatch.setenv("GUEST_BROKER", away)
    stage.redis.lpush(names.group_queue(cluster_id, "packer"), *["{}"] * 20)
    assert stage.tick()
    assert served.lengths(stage.control, cluster_id, blueprint(stage)) == {"Boss": 0, "Packer": 20}
    targets = stage.cluster(cluster_id).group_targets
    assert targets["Packer"] > 0
    assert targets["Artist"] == 0
    assert stage.cluster(cluster_id).status is not ClusterStatus.HIBERNATED


def test_what_a_dead_agent_held_at_a_broker_that_is_away_is_returned_later(
    stage: Stage, there: redis.Redis, there_url: str, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    client, agent = stage.redis, "guest.artist.1"
    debts.note(client, agent, "env:GUEST_BROKER", ("images", "mail"), 3)
    there.hset(names.unacked_key(agent), "tag", f'[{message()}, "", "images"]')
    there.lpush(names.claim_key(agent), message())
    monkeypatch.setenv("GUEST_BROKER", away)
    served.release(stage.control, agent)
    assert served.pay(stage.control) == 0
    monkeypatch.setenv("GUEST_BROKER", there_url)
    assert served.pay(stage.control) == 1
    # One came by an exchange and named no queue: any of the application's will do.
    assert there.llen("images") == 2
    assert client.hgetall(names.OWED) == client.hgetall(names.FOREIGN) == {}


_NONSENSE = {
    "completed x": "many",
    "[": "1",
    json.dumps(["completed", "2026-01-01", "y\0", "g", "a"]): "1",
    json.dumps(["completed", "2026-01-01", "\ud800", "g", "a"]): "1",
    json.dumps(["completed", "today", "c", "g", "a"]): "1",
    json.dumps(["completed", "2026-01-01", "no such cluster", "g", "a"]): "1",
    json.dumps(["completed", "2026-01-01", "c", "g"]): "1",
    json.dumps(["failed", "2026-01-01", "c", "g", "a"]): "-3",
}


def test_what_users_code_wrote_there_holds_nobody_up(stage: Stage) -> None:
    stage.redis.hset(names.OWED, mapping={"a": "[", "b": "[1]", "c": "7"})
    stage.redis.hset(names.COUNTS, mapping=_NONSENSE)
    stage.redis.hset(
        f"{names.RATES}{int(time.time() // 5)}", mapping={"failed x": "nan", "completed y": "-1", "z": "z"}
    )
    assert served.pay(stage.control) == 0
    assert stage.tick()


def test_a_task_with_which_three_agents_died_is_set_aside(stage: Stage, there: redis.Redis) -> None:
    there.lpush("images", message())
    for number in range(3):
        agent = f"guest.artist.{number}"
        debts.note(stage.redis, agent, "env:GUEST_BROKER", ("images",), 3)
        raw: Any = there.rpop("images")
        there.hset(names.unacked_key(agent), "tag", f'[{raw.decode()}, "", "images"]')
        served.release(stage.control, agent)
    assert there.llen("images") == 0
    assert there.llen(names.dead_list("images")) == 1


def test_a_second_cluster_for_the_same_queues_is_refused(stage: Stage, there: redis.Redis) -> None:
    first = stage.create(blueprint_id="guest")
    with pytest.raises(Conflict, match=f"cluster '{first}' serves the queue"):
        stage.create(blueprint_id="guest")


def test_a_broker_that_nobody_told_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUEST_BROKER")
    with pytest.raises(InvalidInput) as found:
        stage.create(blueprint_id="guest")
    assert "env:GUEST_BROKER is not set" in found.value.faults[0].message


def test_what_was_parked_goes_back_by_priority(there: redis.Redis) -> None:
    urgent = json.loads(message(eta="2999-01-01T00:00:00"))
    urgent["properties"]["priority"] = 9
    there.zadd(names.eta_key("images"), {json.dumps(urgent): 1.0, message(): 2.0})
    assert backlog.unpark(there, "images") == 2
    assert [there.llen(name) for name in names.kombu_lists("images")] == [1, 0, 0, 1]
    assert not there.exists(names.eta_key("images"))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost", "127.0.0.1:6379/0"),
        ("redis://user:secret@LOCALHOST:6380/3?timeout=1", "127.0.0.1:6380/3"),
        ("rediss://cache.example/?db=2", "cache.example:6379/2"),
    ],
)
def test_a_database_has_one_name(url: str, place: str) -> None:
    assert place_of(url) == place


def test_what_is_no_redis_has_none() -> None:
    with pytest.raises(ValueError, match="is no redis://"):
        place_of("amqp://guest:secret@rabbit//")
