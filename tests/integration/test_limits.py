"""Limits: counted for all processes together, told in headers, and no reason to refuse anybody when Redis is away."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from brain_clusters.api.app import create_app
from brain_clusters.broker.client import Broker, connect
from brain_clusters.broker.limiting import Limit, Limiter
from brain_clusters.domain.access import Role
from brain_clusters.ports import free_port
from brain_clusters.services.control import Control
from tests.integration.tenants import guarded, make_key

FIXED = "a-key-of-the-environment"
Opened = Callable[..., FlaskClient]


@pytest.fixture
def opened(control: Control) -> Opened:
    """A function that opens an API with some settings, as a process of its own would be, with nothing counted yet."""
    control.broker.redis.flushdb()

    def make(**settings: Any) -> FlaskClient:
        given = {"insecure_dev": False, "api_keys": (FIXED,), **settings}
        return create_app(replace(control, settings=replace(control.settings, **given))).test_client()

    return make


@pytest.fixture
def limiters(redis_url: str) -> Iterator[list[Limiter]]:
    """Four processes' limiters on one Redis."""
    clients = [connect(redis_url) for _ in range(4)]
    yield [Limiter(client) for client in clients]
    for client in clients:
        client.close()


@pytest.mark.parametrize("uses", [1, 7, 400])
def test_all_processes_and_threads_together_allow_the_limit_and_no_more(limiters: list[Limiter], uses: int) -> None:
    limit, who = Limit("test", uses, 60), uuid.uuid4().hex

    def ask(number: int) -> bool:
        return limiters[number % 4].use(limit, who).allowed

    with ThreadPoolExecutor(16) as pool:
        allowed = sum(pool.map(ask, range(uses * 3)))
    assert allowed <= uses
    for limiter in limiters:  # what one was given while another was refused is still to be had
        while limiter.use(limit, who).allowed:
            allowed += 1
    assert allowed == uses
    assert all(one.blocked(limit, who) > 0 for one in limiters)
    assert limiters[0].use(limit, uuid.uuid4().hex).allowed


def test_a_window_is_over_after_its_time(limiters: list[Limiter], until: Callable[..., Any]) -> None:
    limit, who = Limit("short", 1, 1), uuid.uuid4().hex
    assert limiters[0].use(limit, who).allowed
    assert not limiters[1].use(limit, who).allowed
    until(lambda: limiters[1].use(limit, who).allowed, "a new window")


def test_without_redis_each_process_counts_for_itself() -> None:
    broker = Broker(f"redis://127.0.0.1:{free_port()}/0")
    limiter, limit = Limiter(broker.redis), Limit("alone", 3, 60)
    assert [limiter.use(limit, "a").allowed for _ in range(5)] == [True] * 3 + [False] * 2
    assert limiter.use(limit, "b").left == 2
    broker.close()


def test_a_key_is_told_what_is_left_and_then_to_wait(opened: Opened, control: Control) -> None:
    one, other = opened(rate_limit=5), opened(rate_limit=5)
    headers = {"Authorization": f"Bearer {make_key(control, Role.VIEWER)}"}
    told = [one.get("/api/me", headers=headers).headers["RateLimit"] for _ in range(3)]
    assert [line.split(";")[:2] for line in told] == [['"key"', f"r={left}"] for left in (4, 3, 2)]
    assert other.get("/api/me", headers=headers).headers["RateLimit-Policy"] == '"key";q=5;w=60'
    assert other.get("/api/me", headers=headers).status_code == 200
    refused = one.get("/api/me", headers=headers)
    assert (refused.status_code, refused.mimetype) == (429, "application/problem+json")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit"].startswith('"key";r=0;t=')
    assert one.get("/api/me", headers={"Authorization": f"Bearer {FIXED}"}).status_code == 200


def test_who_has_no_key_has_a_limit_by_address_and_probes_have_none(opened: Opened) -> None:
    client = opened(rate_limit=100)
    assert [client.get("/version").status_code for _ in range(11)] == [200] * 10 + [429]
    assert client.get("/api/me").status_code == 429
    assert client.get("/version", environ_base={"REMOTE_ADDR": "192.0.2.8"}).status_code == 200
    for address, status in (("2001:db8:1:2::1", 200), ("::ffff:192.0.2.8", 200)):
        assert client.get("/version", environ_base={"REMOTE_ADDR": address}).status_code == status
    assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_no_limit_is_none(opened: Opened) -> None:
    answered = opened(rate_limit=0).get("/api/me", headers={"Authorization": f"Bearer {FIXED}"})
    assert (answered.status_code, answered.headers.get("RateLimit")) == (200, None)


def test_guessing_ends_and_locks_nobody_out_whose_key_cannot_be_guessed(opened: Opened, control: Control) -> None:
    client, made = opened(), make_key(control, Role.ADMIN)
    right, guessed = {"Authorization": f"Bearer {made}"}, {"Authorization": f"Bearer {FIXED}"}
    tried = [client.get("/api/me", headers={"Authorization": f"Bearer guess-{n}"}).status_code for n in range(15)]
    tried += [client.post("/login", json={"key": f"guess-{n}"}).status_code for n in range(6)]
    assert tried == [401] * 20 + [429]
    late = client.post("/login", json={"key": "one more"})
    assert (late.status_code, int(late.headers["Retry-After"]) > 0) == (429, True)
    assert client.get("/api/me", headers=guessed).status_code == 429
    assert client.get("/api/me", headers=right).status_code == 200
    assert client.post("/login", json={"key": made}).status_code == 200
    assert client.get("/api/me", headers=guessed, environ_base={"REMOTE_ADDR": "192.0.2.9"}).status_code == 200


def test_who_sent_the_right_key_before_goes_on_while_others_guess(opened: Opened) -> None:
    client, right = opened(), {"Authorization": f"Bearer {FIXED}"}
    assert client.get("/api/me", headers=right).status_code == 200
    for number in range(25):
        client.get("/api/me", headers={"Authorization": f"Bearer guess-{number}"})
    assert client.get("/api/me", headers=right).status_code == 200


def test_names_that_are_not_ours_are_refused_where_ours_are_told(opened: Opened) -> None:
    client = opened(allowed_hosts=("brain.example.org", "[::1]"))
    right = {"Authorization": f"Bearer {FIXED}"}
    for host, status in (
        ("brain.example.org", 200), ("BRAIN.example.org:8080", 200), ("[::1]:8080", 200), ("localhost", 403),
        ("evil.example", 403), ("brain.example.org.evil.example", 403), ("", 403),
    ):  # fmt: skip
        assert client.get("/api/me", headers={**right, "Host": host}).status_code == status, host
    assert client.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200


def test_an_api_without_redis_answers(opened: Opened, control: Control) -> None:
    broker = Broker(f"redis://127.0.0.1:{free_port()}/0")
    client = create_app(replace(guarded(control), broker=broker)).test_client()
    headers = {"Authorization": f"Bearer {make_key(control, Role.VIEWER)}"}
    assert [client.get("/api/clusters", headers=headers).status_code for _ in range(3)] == [200] * 3
    broker.close()
