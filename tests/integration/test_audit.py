"""The audit: a line for every change and every refused one, with the change or not at all, and no secret in it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from brain_clusters.api.app import create_app
from brain_clusters.db.models import Audit, Operation
from brain_clusters.domain.access import Role
from brain_clusters.domain.commands import Origin
from brain_clusters.domain.states import OperationKind
from brain_clusters.services import audit, blueprints
from brain_clusters.services.control import Control
from tests.conftest import OFFICE
from tests.integration.tenants import guarded, make_key
from workers.lifecycle import accept

Lines = Callable[[], list[Audit]]
CREATE = {"blueprint_id": "office", "name": "n"}


@pytest.fixture(scope="module")
def key(control: Control) -> str:
    """An admin's key."""
    blueprints.store(control, OFFICE)
    return make_key(control, Role.ADMIN, payloads=True)


@pytest.fixture
def client(control: Control, key: str) -> FlaskClient:
    """A client of an API that asks for keys, with an admin's."""
    client = create_app(guarded(control)).test_client()
    client.environ_base |= {"HTTP_AUTHORIZATION": f"Bearer {key}", "REMOTE_ADDR": "192.0.2.1"}
    return client


@pytest.fixture
def lines(control: Control) -> Lines:
    """A function that returns the lines that were added since the test began, the oldest first."""

    def added() -> list[Audit]:
        with control.database.transaction() as session:
            return session.query(Audit).filter(Audit.id > newest).order_by(Audit.id).all()

    newest = 0
    newest = max((line.id for line in added()), default=0)
    return added


def test_a_command_has_one_line_with_all_there_is_to_know(client: FlaskClient, lines: Lines, key: str) -> None:
    made = client.post("/api/clusters", json=CREATE).json
    [line] = lines()
    assert (line.actor, line.method, line.address) == ("admin ()", "key", "192.0.2.1")
    assert (line.action, line.verb, line.path) == ("lifecycle.create", "POST", "/api/clusters")
    assert (line.cluster_id, str(line.operation_id)) == (made["cluster"]["id"], made["operation"]["id"])
    assert (line.status, line.result, line.key_id) == (202, "done", key.split("_")[1])


def test_whatever_changes_nothing_has_its_line_too(client: FlaskClient, lines: Lines, control: Control) -> None:
    viewer = {"Authorization": f"Bearer {make_key(control, Role.VIEWER)}"}
    wrong = {"Authorization": "Bearer brain_0123456789ab_" + "x" * 43}
    for headers, path, body in (
        (viewer, "/api/clusters", CREATE), (wrong, "/api/clusters", CREATE), ({}, "/api/clusters", {}),
        ({}, "/api/clusters/none/scale", {"target_workers": 1}), ({}, "/api/nowhere", {}),
    ):  # fmt: skip
        client.post(path, json=body, headers=headers)
    assert [(line.actor, line.status, line.result, line.cluster_id) for line in lines()] == [
        ("viewer ()", 403, "refused", None), ("unknown", 401, "refused", None), ("admin ()", 422, "failed", None),
        ("admin ()", 404, "failed", "none"), ("admin ()", 404, "failed", None),
    ]  # fmt: skip


def test_reading_has_none(client: FlaskClient, lines: Lines) -> None:
    cluster_id = client.post("/api/clusters", json=CREATE).json["cluster"]["id"]
    client.get("/api/clusters")
    client.get("/api/clusters/none")
    client.post(f"/api/clusters/{cluster_id}/scaling/replay", json={"yaml": OFFICE})
    assert len(lines()) == 1


def test_jobs_blueprints_keys_and_sessions_have_theirs_and_no_secret_is_in_them(
    client: FlaskClient, lines: Lines, key: str
) -> None:
    cluster_id = client.post("/api/clusters", json=CREATE).json["cluster"]["id"]
    client.post(f"/api/clusters/{cluster_id}/jobs", json={"payload": "canary"})
    client.post(f"/api/clusters/{cluster_id}/jobs", json=[{"payload": "canary"}] * 3)
    client.post("/api/blueprints", json={"yaml": OFFICE})
    made = client.post("/api/keys", json={"name": "theirs", "role": "viewer"}).json
    renewed = client.post(f"/api/keys/{made['key']['id']}/rotate").json
    client.delete(f"/api/keys/{made['key']['id']}")
    opened = client.post("/login", json={"key": renewed["secret"]})
    del client.environ_base["HTTP_AUTHORIZATION"]
    client.post("/logout", headers={"X-CSRF-Token": opened.json["csrf_token"]})
    client.post("/login", json={"key": "a wrong one"})
    found = [(line.action, line.actor, line.status, line.result) for line in lines()][1:]
    assert found == [
        ("jobs.add", "admin ()", 202, "done"), ("jobs.add", "admin ()", 202, "done"),
        ("blueprints.add", "admin ()", 200, "done"), ("keys.create", "admin ()", 201, "done"),
        ("keys.rotate", "admin ()", 201, "done"), ("keys.revoke", "admin ()", 200, "done"),
        ("sessions.login", "theirs", 200, "done"), ("sessions.logout", "theirs", 204, "done"),
        ("sessions.login", "unknown", 401, "refused"),
    ]  # fmt: skip
    assert lines()[2].detail == "3 jobs"
    assert made["key"]["id"] in str(lines()[4].detail)
    told = repr([{**vars(line)} for line in lines()])
    for secret in (key, made["secret"], renewed["secret"], opened.json["csrf_token"], "canary", "a wrong one"):
        assert secret not in told


def test_a_line_and_its_change_are_there_together_or_not_at_all(
    client: FlaskClient, lines: Lines, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the line cannot be written")

    name = f"n-{uuid.uuid4().hex}"
    monkeypatch.setattr(audit, "_insert", fail)
    assert client.post("/api/clusters", json={**CREATE, "id": name}).status_code == 500
    assert client.get(f"/api/clusters/{name}").status_code == 404
    assert lines() == []


def test_what_is_done_stays_done_in_the_audit_when_its_answer_is_an_error(
    client: FlaskClient, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("after the commit")

    monkeypatch.setattr("brain_clusters.services.lifecycle.publish", fail)
    assert client.post("/api/clusters", json=CREATE).status_code == 500
    assert [(line.status, line.result) for line in lines()] == [(500, "done")]


def test_a_repeated_request_is_told_apart_by_its_second_line(client: FlaskClient, lines: Lines) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    for _ in range(2):
        assert client.post("/api/clusters", json=CREATE, headers=headers).status_code == 202
    assert [line.operation_id is None for line in lines()] == [False, True]


def test_queued_commands_have_theirs(lines: Lines, control: Control) -> None:
    for arguments in (CREATE, {"blueprint_id": "none"}):
        accept(control, OperationKind.CREATE, (), arguments, Origin("celery", "queued", message_id=uuid.uuid4().hex))
    assert [(line.actor, line.method, line.verb, line.action, line.result) for line in lines()] == [
        ("celery", "queue", "QUEUE", "lifecycle.create", "done"),
        ("celery", "queue", "QUEUE", "lifecycle.create", "failed"),
    ]
    with control.database.transaction() as session:
        assert all(session.get(Operation, line.operation_id) for line in lines())


def test_the_address_is_the_peer_s_unless_a_proxy_is_trusted(control: Control, key: str, lines: Lines) -> None:
    sent = {"X-Forwarded-For": "203.0.113.9, 198.51.100.4", "Authorization": f"Bearer {key}"}
    for proxies in (0, 1, 2):
        settings = replace(guarded(control).settings, trusted_proxies=proxies)
        app = create_app(replace(control, settings=settings))
        app.test_client().post("/api/keys", json={}, headers=sent, environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert [line.address for line in lines()] == ["192.0.2.1", "198.51.100.4", "203.0.113.9"]


def test_lines_are_filtered_paged_and_forgotten_after_their_time(client: FlaskClient, control: Control) -> None:
    cluster_id = client.post("/api/clusters", json=CREATE).json["cluster"]["id"]
    for count in (2, 3, 1):
        client.post(f"/api/clusters/{cluster_id}/scale", json={"target_workers": count})
    found = client.get("/api/audit", query_string={"cluster_id": cluster_id, "limit": 3}).json
    assert (len(found["audit"]), found["total"]) == (3, 4)
    rest = client.get("/api/audit", query_string={"cluster_id": cluster_id, "cursor": found["next_cursor"]}).json
    assert [line["action"] for line in rest["audit"]] == ["lifecycle.create"]
    for wanted, count in (
        ({"action": "lifecycle.scale"}, 3), ({"action": "lifecycle.scale", "result": "failed"}, 0),
        ({"actor": "nobody"}, 0), ({"since": "2999-01-01T00:00:00Z"}, 0), ({"until": "2999-01-01T00:00:00Z"}, 4),
    ):  # fmt: skip
        assert client.get("/api/audit", query_string={"cluster_id": cluster_id, **wanted}).json["total"] == count
    assert client.get("/api/audit", query_string={"result": "maybe"}).status_code == 422
    with control.database.transaction() as session:
        old = text("UPDATE audit SET at = now() - interval '400 days' WHERE action = 'lifecycle.scale'")
        session.execute(old)
    audit.prune(control)
    left = client.get("/api/audit", query_string={"cluster_id": cluster_id}).json["audit"]
    assert [line["action"] for line in left] == ["lifecycle.create"]
