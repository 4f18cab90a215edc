"""The memory that the agents of a cluster share, on a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from brain_clusters.broker import names, shared
from brain_clusters.broker.client import connect
from brain_clusters.broker.shared import ClusterStore, MemoryFull
from brain_clusters.domain.commands import DestroyCluster
from brain_clusters.domain.sharing import SharedMemory
from tests.integration.stage import Stage


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    found = connect(redis_url)
    found.flushdb()
    return found


@pytest.fixture
def store(client: redis.Redis) -> ClusterStore:
    return ClusterStore(client, "c", SharedMemory(1000, 3600.0))


def used(client: redis.Redis, cluster_id: str = "c") -> int:
    return int(client.get(names.memory_keys(cluster_id)[2]) or 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, False, 0, -1.5, "", "ü\n\0", [], {}, {"a": [1, {"b": None}]}])
def test_a_value_comes_back_as_it_was(store: ClusterStore, value: Any) -> None:
    store.set("key", value)
    assert store.get("key", "other") == value


def test_what_is_not_there_is_the_default(store: ClusterStore) -> None:
    assert store.get("key") is None
    assert store.get("key", 7) == 7
    assert store.delete("key") is False
    assert store.keys() == []


def test_keys_and_items_are_found_by_their_prefix(store: ClusterStore) -> None:
    for key in ("b:2", "a:1", "b:1", "%b"):
        store.set(key, {"is": key})
    assert store.keys("b:") == ["b:1", "b:2"]
    assert store.keys() == ["%b", "a:1", "b:1", "b:2"]
    assert store.items("a") == {"a:1": {"is": "a:1"}}
    assert store.delete("b:1") is True
    assert store.keys("b:") == ["b:2"]


def test_clusters_do_not_see_each_other(store: ClusterStore, client: redis.Redis) -> None:
    store.set("key", 1)
    assert ClusterStore(client, "d", SharedMemory()).get("key") is None


def test_the_size_is_the_sum_of_keys_and_values(store: ClusterStore, client: redis.Redis) -> None:
    store.set("ab", "xyz")
    assert used(client) == 2 + 5
    store.set("ab", 1)
    assert used(client) == 2 + 1
    store.incr("n", 99)
    assert used(client) == 3 + 1 + 2
    store.delete("ab")
    store.delete("n")
    assert used(client) == 0


def test_what_does_not_fit_is_refused_and_changes_nothing(store: ClusterStore, client: redis.Redis) -> None:
    store.set("key", "x" * 900)
    with pytest.raises(MemoryFull, match=r"'other' does not fit .*: 905 of 1000 bytes are used; delete keys, or raise"):
        store.set("other", "x" * 100)
    with pytest.raises(MemoryFull):
        store.set("key", "x" * 1000)
    assert store.items() == {"key": "x" * 900}
    assert used(client) == 905
    store.set("key", "x" * 995)
    assert used(client) == 1000


def test_many_writers_at_once_do_not_exceed_the_size(store: ClusterStore, client: redis.Redis) -> None:
    def write(number: int) -> bool:
        try:
            store.set(f"{number:04}", "x" * 44)
        except MemoryFull:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        kept = sum(pool.map(write, range(60)))
    assert kept == len(store.keys()) == 20
    assert used(client) == 1000


def test_what_ended_is_not_there_and_its_room_is_free(
    store: ClusterStore, client: redis.Redis, until: Callable[..., Any]
) -> None:
    store.set("short", "x" * 900, ttl=0.05)
    store.set("long", 1, ttl=1e9)  # no longer than the blueprint says
    assert float(client.zscore(names.memory_keys("c")[1], "long") or 0) <= client.time()[0] + 3601  # type: ignore[index]
    until(lambda: store.keys() == ["long"], "the end of a value")
    assert store.get("short") is None
    store.set("next", "x" * 900)
    assert used(client) == 906 + len("long1")


def test_counters_count_what_all_add(store: ClusterStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.incr("n"), range(200)))
    assert store.get("n") == 200
    assert store.incr("n", -0.5) == 199.5
    assert store.incr("big", 2**53 - 1) == 2**53 - 1
    store.set("text", "5")
    with pytest.raises(ValueError, match="'text' is not a number"):
        store.incr("text")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda store: store.set("", 1), "a key is a text of 1 to 512 bytes"),
        (lambda store: store.get("ü" * 257), "a key is a text of 1 to 512 bytes"),
        (lambda store: store.set("key", {1, 2}), "the memory keeps JSON only"),
        (lambda store: store.set("key", float("nan")), "the memory keeps JSON only"),
        (lambda store: store.set("key", 1, ttl=0), "ttl is a number of seconds above 0"),
        (lambda store: store.incr("key", float("inf")), "incr adds a number"),
    ],
)
def test_what_makes_no_sense_is_refused(store: ClusterStore, call: Callable[[ClusterStore], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call(store)


def test_a_destroyed_cluster_leaves_nothing(stage: Stage) -> None:
    cluster_id, other = stage.active(), stage.active()
    for each in (cluster_id, other):
        ClusterStore(stage.redis, each, SharedMemory()).set("key", 1)
    stage.do(DestroyCluster(cluster_id=cluster_id))
    stage.settle(cluster_id)
    assert stage.redis.exists(*names.memory_keys(cluster_id)) == 0
    assert stage.redis.exists(*names.memory_keys(other)) == 3
    shared.forget(stage.redis, [other])
    assert stage.redis.exists(*names.memory_keys(other)) == 0
