"""The API while a server that it needs is away, and with bodies and headers that make no sense."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from brain_clusters import __version__
from brain_clusters.api import release
from brain_clusters.api.app import create_app
from brain_clusters.api.routes import lifecycle as lifecycle_routes
from brain_clusters.config import Settings
from brain_clusters.db.models import Job, Operation
from brain_clusters.ports import free_port
from brain_clusters.services import operations
from brain_clusters.services.control import Control

NewCluster = Callable[..., str]


@contextmanager
def opened(settings: Settings) -> Iterator[Control]:
    control = Control.open(settings, application="tests-api")
    try:
        yield control
    finally:
        control.close()


@pytest.fixture
def without_redis(settings: Settings) -> Iterator[FlaskClient]:
    """The API on a Redis that is not there."""
    with opened(replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")) as control:
        control.broker.warm_up()
        yield create_app(control).test_client()


@pytest.fixture
def without_postgres(settings: Settings) -> Iterator[FlaskClient]:
    """The API on a PostgreSQL that is not there."""
    url = f"postgresql+psycopg2://brain@127.0.0.1:{free_port()}/brain"
    with opened(replace(settings, database_url=url)) as control:
        yield create_app(control).test_client()


# --- servers away -----------------------------------------------------------------------------------------------


def test_without_redis_commands_are_accepted_and_wait_for_delivery(
    without_redis: FlaskClient, api: FlaskClient, control: Control
) -> None:
    response = without_redis.post("/api/clusters", json={"blueprint_id": "office", "name": "n"})
    assert response.status_code == 202
    path = f"/api/clusters/{response.json['cluster']['id']}"
    for suffix, body in (("/scale", {"target_workers": 3}), ("/hibernate", {}), ("/reactivate", {})):
        response = without_redis.post(path + suffix, json=body)
        assert response.status_code == 202
    with control.database.transaction() as session:
        found = session.query(Operation).filter_by(cluster_id=path.rsplit("/", 1)[1]).all()
    assert [str(operation.status) for operation in found] == ["pending"] * 4


def test_without_redis_jobs_are_accepted_and_wait_for_delivery(
    without_redis: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    response = without_redis.post(f"/api/clusters/{new_cluster()}/jobs", json={"payload": 1})
    assert response.status_code == 202
    with control.database.transaction() as session:
        assert session.get_one(Job, response.json["job"]["id"]).published_at is None
    assert without_redis.get(response.headers["Location"]).json["status"] == "queued"


def test_without_redis_beats_are_unknown_and_the_api_is_ready(
    without_redis: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    with control.database.transaction() as session:
        operation = session.query(Operation).filter_by(cluster_id=cluster_id).one()
    operations.run(control, operation.id)
    agents = without_redis.get(f"/api/clusters/{cluster_id}/agents").json["agents"]
    assert [(agent["beat"], agent["status"], agent["cpu"]) for agent in agents] == [("unknown", "starting", None)] * 2
    assert without_redis.get(f"/api/clusters/{cluster_id}").json["backlog"] is None
    ready = without_redis.get("/readyz")
    assert (ready.status_code, ready.json["redis"]) == (200, "down")


def test_without_postgres_everything_is_503_with_retry_after(without_postgres: FlaskClient) -> None:
    for method, path, body in [
        ("GET", "/api/clusters", None),
        ("POST", "/api/clusters", {"blueprint_id": "office", "name": "n"}),
        ("DELETE", "/api/clusters/x", None),
        ("POST", "/api/clusters/x/jobs", {}),
        ("GET", "/api/jobs/x", None),
        ("GET", "/api/operations/00000000-0000-0000-0000-000000000000", None),
        ("GET", "/api/hosts", None),
        ("GET", "/readyz", None),
    ]:
        response = without_postgres.open(path, method=method, json=body)
        assert response.status_code == 503, path
        assert int(response.headers["Retry-After"]) >= 1
    assert response.json["problems"]
    assert without_postgres.get("/healthz").status_code == 200


def test_connections_that_postgres_cut_are_replaced(api: FlaskClient, control: Control) -> None:
    api.get("/api/clusters")
    with opened(control.settings) as other, other.database.transaction() as session:
        cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tests'")
        assert session.execute(cut).all()
    assert api.get("/api/clusters").status_code == 200


def test_what_was_accepted_is_answered_even_if_postgres_goes_away_then(
    api: FlaskClient, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is stored: an error now would have the client send it twice."""
    closed = replace(control.settings, database_url=f"postgresql+psycopg2://brain@127.0.0.1:{free_port()}/brain")
    with opened(closed) as away:
        monkeypatch.setattr(lifecycle_routes, "until_finished", lambda *_: monkeypatch.setattr(
            lifecycle_routes, "control", lambda: away))  # fmt: skip
        response = api.post(
            "/api/clusters",
            json={"blueprint_id": "office", "name": "n"},
            headers={"Prefer": "wait=1", "Idempotency-Key": "then-away"},
        )
    assert response.status_code == 202
    assert response.json["operation"]["status"] == "pending"


def test_an_unexpected_error_is_500_without_internals(
    api: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("brain_clusters.services.operations.get", fail)
    response = api.get("/api/operations/x")
    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert "secret" not in response.text
    assert "secret detail" in caplog.text


# --- senseless requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"name": NaN}', "application/json", 400),
        (b'{"name": -Infinity}', "application/json", 400),
        (b'{"name": 1, "name": 2}', "application/json", 400),
        (b'{"name": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (b"[" * 500_000, "application/json", 400),
        (b'{"name": 1e999}', "application/json", 422),
        (b"[]", "application/json; charset=utf-8", 422),
        (b"null", "application/json", 422),
        (b"", None, 422),
        (b"{}", None, 415),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"{}", "application/jsonp", 415),
        (b" " * ((1 << 20) + 1), "application/json", 413),
    ],
)
def test_a_body_that_is_no_good_gets_its_own_status(
    api: FlaskClient, data: bytes, content_type: str | None, status: int
) -> None:
    response = api.post("/api/clusters", data=data, content_type=content_type)
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    assert response.json["status"] == status


@pytest.mark.parametrize("wrong", [{"a": 1}, {"type": "string"}, [{}], [[["x"]]], "text", 5, None])
@pytest.mark.parametrize("key", ["tags", "name", "config", "min_workers", "type"])
def test_a_value_of_the_wrong_kind_is_422(api: FlaskClient, key: str, wrong: Any) -> None:
    response = api.post("/api/clusters", json={"blueprint_id": "nothing like it", key: wrong})
    assert response.status_code == 422


def test_a_body_of_just_the_limit_is_read(api: FlaskClient) -> None:
    body = b'{"x": "' + b"y" * ((1 << 20) - 9) + b'"}'
    assert len(body) == 1 << 20
    assert api.post("/api/clusters", data=body, content_type="application/json").status_code == 422


def test_nothing_is_needed_where_nothing_is_required(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}"
    assert api.post(path + "/hibernate").status_code == 202
    assert api.post(path + "/reactivate", data=b"").status_code == 202
    assert api.delete(path).status_code == 202


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([2**31, 2**63, "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["blueprint_id", "name", "id", "type", "target_workers", "min_workers", "max_workers", "description", "tags",
     "config", "parent_cluster_id", "groups", "to", "capability", "payload", "yaml", "documents", "version"]
)  # fmt: skip
_GOOD = st.sampled_from(["office", "Clerks", "filing", 1, 2, ["a"], {"Clerks": 2}, {}, "project"])
_BODIES = _JSON | st.dictionaries(_KEYS | st.text(max_size=5), _GOOD | _JSON, max_size=6)
_POSTED = st.sampled_from(["/api/clusters", "/api/clusters/fuzz/scale", "/api/clusters/fuzz/jobs", "/api/blueprints",
                           "/api/clusters/fuzz/reactivate", "/api/clusters/fuzz/rollout", "/api/plan",
                           "/api/apply"])  # fmt: skip
_fuzz = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_fuzz
@given(path=_POSTED, body=_BODIES, put=st.booleans())
def test_no_body_makes_a_5xx(api: FlaskClient, path: str, body: Any, put: bool) -> None:
    if api.get("/api/clusters/fuzz").status_code == 404:
        api.post("/api/clusters", json={"blueprint_id": "office", "name": "n", "id": "fuzz"})
    data = json.dumps(body)
    response = api.open(
        "/api/clusters/fuzz" if put else path,
        method="PUT" if put else "POST",
        data=data,
        content_type="application/json",
    )
    assert response.status_code < 500, response.text
    assert response.status_code != 404 or path in ("/api/clusters", "/api/clusters/fuzz/rollout"), response.text


@_fuzz
@given(
    path=st.sampled_from(["/api/clusters", "/api/operations", "/api/clusters/fuzz/events", "/api/clusters/fuzz/jobs",
                          "/api/clusters/fuzz/metrics", "/api/clusters/fuzz/agents", "/api/blueprints/office"]),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "status", "type", "tag", "name", "group", "ended", "version", "cluster_id"])
        | st.text(max_size=5),
        st.text(max_size=30) | st.integers().map(str) | st.binary(max_size=30).map(lambda raw: raw.hex()),
        max_size=3,
    ),
)  # fmt: skip
def test_no_query_makes_a_5xx(api: FlaskClient, path: str, query: dict[str, str]) -> None:
    clean = {key: value.encode("utf-8", "replace").decode() for key, value in query.items()}
    assert api.get(path, query_string=clean).status_code < 500


@_fuzz
@given(
    name=st.sampled_from(["Prefer", "Idempotency-Key", "Content-Type", "Accept", "Authorization", "Origin", "Host"]),
    value=st.text(string.printable.translate({10: None, 11: None, 12: None, 13: None}) + "é", max_size=30),
)
def test_no_header_makes_a_5xx(api: FlaskClient, name: str, value: str) -> None:
    assert api.post("/api/clusters", data=b"{}", headers={name: value}).status_code < 500


@_fuzz
@given(segment=st.text(min_size=1, max_size=30))
def test_no_id_makes_a_5xx(api: FlaskClient, segment: str) -> None:
    clean = segment.encode("utf-8", "replace").decode()
    for folder in ("clusters", "jobs", "operations", "blueprints"):
        assert api.get(f"/api/{folder}/{clean}").status_code < 500


# --- the list of routes -----------------------------------------------------------------------------------------


def test_every_promised_route_is_there(api_app: Flask) -> None:
    promised = {
        ("/api/clusters", "GET POST"),
        ("/api/hosts", "GET"),
        ("/api/overview", "GET"),
        ("/api/agents/<>", "GET"),
        ("/api/agents/<>/drain", "POST"),
        ("/api/agents/<>/replace", "POST"),
        ("/api/agents/<>/logs", "GET"),
        ("/api/openapi.json", "GET"),
        ("/api/docs", "GET"),
        ("/api/docs/<>", "GET"),
        ("/api/events", "GET"),
        ("/api/events/stream", "GET"),
        ("/api/clusters/<>", "DELETE GET PUT"),
        ("/api/clusters/<>/scale", "POST"),
        ("/api/clusters/<>/hibernate", "POST"),
        ("/api/clusters/<>/reactivate", "POST"),
        ("/api/clusters/<>/pause", "POST"),
        ("/api/clusters/<>/resume", "POST"),
        ("/api/clusters/<>/rollout", "POST"),
        ("/api/clusters/<>/rollout/undo", "POST"),
        ("/api/clusters/<>/rollout/pause", "POST"),
        ("/api/clusters/<>/rollout/resume", "POST"),
        ("/api/clusters/<>/rollouts", "GET"),
        ("/api/rollouts/<>", "GET"),
        ("/api/plan", "POST"),
        ("/api/apply", "POST"),
        ("/api/clusters/<>/agents", "GET"),
        ("/api/clusters/<>/hierarchy", "GET"),
        ("/api/clusters/<>/metrics", "GET"),
        ("/api/clusters/<>/events", "GET"),
        ("/api/clusters/<>/alerts", "GET"),
        ("/api/clusters/<>/costs", "GET"),
        ("/api/costs", "GET"),
        ("/api/clusters/<>/scaling", "GET"),
        ("/api/clusters/<>/scaling/explain", "GET"),
        ("/api/clusters/<>/scaling/replay", "POST"),
        ("/api/clusters/<>/jobs", "GET POST"),
        ("/api/clusters/<>/jobs/cancel", "POST"),
        ("/api/clusters/<>/dead-letters", "GET"),
        ("/api/clusters/<>/dead-letters/retry", "POST"),
        ("/api/clusters/<>/dead-letters/discard", "POST"),
        ("/api/jobs", "GET POST"),
        ("/api/jobs/cancel", "POST"),
        ("/api/jobs/retry", "POST"),
        ("/api/jobs/discard", "POST"),
        ("/api/dead-letters", "GET"),
        ("/api/blueprints/validate", "POST"),
        ("/api/jobs/<>", "GET"),
        ("/api/jobs/<>/tree", "GET"),
        ("/api/jobs/<>/retry", "POST"),
        ("/api/jobs/<>/cancel", "POST"),
        ("/api/blueprints", "GET POST"),
        ("/api/blueprints/<>", "DELETE GET PUT"),
        ("/api/operations", "GET"),
        ("/api/operations/<>", "GET"),
        ("/login", "POST"),
        ("/logout", "POST"),
        ("/api/me", "GET"),
        ("/api/sessions", "GET"),
        ("/api/audit", "GET"),
        ("/api/keys", "GET POST"),
        ("/api/keys/<>", "DELETE"),
        ("/api/keys/<>/rotate", "POST"),
        ("/api/sessions/<>", "DELETE"),
        ("/metrics", "GET"),
        ("/api/clusters/<>/groups/<>/backlog", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/version", "GET"),
    }
    found: dict[str, set[str]] = {}
    for rule in api_app.url_map.iter_rules():
        path = "/".join("<>" if part.startswith("<") else part for part in rule.rule.split("/"))
        found.setdefault(path, set()).update((rule.methods or set()) - {"HEAD", "OPTIONS"})
    assert {(path, " ".join(sorted(methods))) for path, methods in found.items()} == promised


def test_version_tells_what_is_running(api: FlaskClient, control: Control) -> None:
    commit = release.commit(None)
    assert api.get("/version").json == {
        "version": __version__, "commit": commit, "schema": control.database.schema.head,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/api/clusters", "/api/clusters/none", "/nowhere"])
def test_every_answer_names_the_version_that_gave_it(control: Control, path: str) -> None:
    built = replace(control, settings=replace(control.settings, commit="0123456789abcdef0123456789abcdef01234567"))
    answered = create_app(built).test_client().get(path)
    assert answered.headers["X-Brain-Version"] == f"{__version__}+0123456789ab"


def test_an_internal_error_and_a_refused_key_name_the_version_too(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = replace(
        control, settings=replace(control.settings, commit="c0ffee", api_keys=("k" * 16,), insecure_dev=False)
    )
    client = create_app(built).test_client()
    refused = client.get("/api/clusters")
    monkeypatch.setattr("brain_clusters.services.operations.get", lambda *_: 1 / 0)
    failed = client.get("/api/operations/x", headers={"Authorization": "Bearer " + "k" * 16})
    assert [(one.status_code, one.headers["X-Brain-Version"]) for one in (refused, failed)] == [
        (401, f"{__version__}+c0ffee"),
        (500, f"{__version__}+c0ffee"),
    ]
