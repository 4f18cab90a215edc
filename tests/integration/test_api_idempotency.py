"""``Idempotency-Key``: whatever is sent again, happens once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from brain_clusters.db.models import Cluster, IdempotencyKey, Job, Operation, StoredBlueprint
from brain_clusters.domain.states import OperationStatus
from brain_clusters.services.control import Control
from brain_clusters.services.endings import finish

NewCluster = Callable[..., str]
CREATE = {"blueprint_id": "office", "name": "once"}


def key(text: str | None = None, **others: str) -> dict[str, str]:
    return {"Idempotency-Key": text or uuid.uuid4().hex, **others}


def count(control: Control, model: Any, **where: Any) -> int:
    with control.database.transaction() as session:
        return session.query(model).filter_by(**where).count()


def at_once(app: Flask, times: int, send: Callable[[FlaskClient], TestResponse]) -> list[TestResponse]:
    """Send from many threads, all at the same moment."""
    gate = threading.Barrier(times)

    def one(_: int) -> TestResponse:
        client = app.test_client()
        gate.wait()
        return send(client)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def test_the_same_key_and_body_gives_the_same_operation(api: FlaskClient) -> None:
    headers = key('"quoted key"')
    first = api.post("/api/clusters", json=CREATE, headers=headers)
    again = api.post(
        "/api/clusters",
        data='{ "name": "once",  "blueprint_id": "office" }',
        headers=headers,
        content_type="application/json",
    )
    assert (first.status_code, again.status_code) == (202, 202)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json == first.json
    assert again.headers["Location"] == first.headers["Location"]


def test_a_replay_shows_the_state_of_now(api: FlaskClient, control: Control) -> None:
    headers = key()
    operation = api.post("/api/clusters", json=CREATE, headers=headers).json["operation"]
    with control.database.transaction() as session:
        finish(session, session.get_one(Operation, uuid.UUID(operation["id"])), OperationStatus.SUCCEEDED, None)
    again = api.post("/api/clusters", json=CREATE, headers=headers)
    assert (again.status_code, again.json["operation"]["status"]) == (202, "succeeded")
    waited = api.post("/api/clusters", json=CREATE, headers=headers | {"Prefer": "wait=5"})
    assert (waited.status_code, waited.json["operation"]["id"]) == (200, operation["id"])


def test_the_same_key_with_another_body_or_path_is_422(api: FlaskClient, new_cluster: NewCluster) -> None:
    headers = key()
    api.post("/api/clusters", json=CREATE, headers=headers)
    assert api.post("/api/clusters", json={**CREATE, "name": "twice"}, headers=headers).status_code == 422
    assert api.post(f"/api/clusters/{new_cluster()}/jobs", json={}, headers=headers).status_code == 422


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [
        ("PUT", "", {"name": "x"}),
        ("POST", "/scale", {"target_workers": 3}),
        ("POST", "/hibernate", {}),
        ("DELETE", "", {}),
    ],
)
def test_every_command_may_be_sent_again(
    api: FlaskClient, new_cluster: NewCluster, method: str, suffix: str, body: Any
) -> None:
    path, headers = f"/api/clusters/{new_cluster()}{suffix}", key()
    first = api.open(path, method=method, json=body, headers=headers)
    again = api.open(path, method=method, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202), again.text
    assert again.json["operation"]["id"] == first.json["operation"]["id"]


def test_a_job_may_be_sent_again(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id, headers = new_cluster(), key()
    path = f"/api/clusters/{cluster_id}/jobs"
    first = api.post(path, json={"payload": 1}, headers=headers)
    again = api.post(path, json={"payload": 1}, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json["job"]["id"] == first.json["job"]["id"]
    assert count(control, Job, cluster_id=cluster_id) == 1


def test_twenty_same_requests_at_once_make_one_cluster(api_app: Flask, control: Control) -> None:
    headers = key()
    answers = at_once(api_app, 20, lambda client: client.post("/api/clusters", json=CREATE, headers=headers))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["operation"]["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert count(control, Operation, cluster_id=answers[0].json["cluster"]["id"]) == 1


def test_twenty_same_creations_with_an_id_at_once_all_succeed(api_app: Flask) -> None:
    headers = key()
    answers = at_once(
        api_app, 20, lambda client: client.post("/api/clusters", json={**CREATE, "id": "named"}, headers=headers)
    )
    assert {answer.status_code for answer in answers} == {202}


def test_twenty_same_jobs_at_once_make_one_job(api_app: Flask, new_cluster: NewCluster, control: Control) -> None:
    cluster_id, headers = new_cluster(), key()
    at_once(api_app, 20, lambda client: client.post(f"/api/clusters/{cluster_id}/jobs", json={}, headers=headers))
    assert count(control, Job, cluster_id=cluster_id) == 1


def test_creations_at_once_are_all_counted(api_app: Flask, control: Control) -> None:
    with control.database.transaction() as session:
        before = session.get_one(StoredBlueprint, ("office", "1.0")).instances_created
    answers = at_once(api_app, 20, lambda client: client.post("/api/clusters", json=CREATE, headers=key()))
    assert {answer.status_code for answer in answers} == {202}
    with control.database.transaction() as session:
        assert session.get_one(StoredBlueprint, ("office", "1.0")).instances_created == before + 20


def test_a_command_that_fails_leaves_its_key_unused(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id, headers = new_cluster(), key()
    assert api.post(f"/api/clusters/{cluster_id}/reactivate", headers=headers).status_code == 409
    assert api.post("/api/clusters/nobody/hibernate", headers=headers).status_code == 404
    assert (
        api.post(f"/api/clusters/{cluster_id}/scale", json={"target_workers": 99}, headers=headers).status_code == 422
    )
    assert count(control, IdempotencyKey, key=headers["Idempotency-Key"]) == 0
    assert api.post(f"/api/clusters/{cluster_id}/hibernate", headers=headers).status_code == 202


def test_while_the_first_is_being_answered_the_second_is_409(
    api_app: Flask, api: FlaskClient, control: Control
) -> None:
    headers = key(Prefer="wait=30")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: api_app.test_client().post("/api/clusters", json=CREATE, headers=headers))
        while not count(control, IdempotencyKey, key=headers["Idempotency-Key"]):
            time.sleep(0.01)
        second = api.post("/api/clusters", json=CREATE, headers=headers)
        assert second.status_code == 409
        assert int(second.headers["Retry-After"]) >= 1
        with control.database.transaction() as session:
            known = session.get_one(IdempotencyKey, headers["Idempotency-Key"])
            finish(session, session.get_one(Operation, uuid.UUID(known.subject_id)), OperationStatus.SUCCEEDED, None)
        assert first.result().status_code == 200
    third = api.post("/api/clusters", json=CREATE, headers=headers)
    assert (third.status_code, third.headers["Idempotency-Replayed"]) == (200, "true")


def test_a_first_request_that_died_does_not_block_its_key_for_long(api: FlaskClient, control: Control) -> None:
    headers = key()
    first = api.post("/api/clusters", json=CREATE, headers=headers)
    with control.database.transaction() as session:
        known = session.get_one(IdempotencyKey, headers["Idempotency-Key"])
        known.busy_until = session.get_one(Cluster, first.json["cluster"]["id"]).created_at
    assert api.post("/api/clusters", json=CREATE, headers=headers).json == first.json


@pytest.mark.parametrize("text", ["", "x" * 256, "smörgås", "tab\there"])
def test_a_malformed_key_is_422(api: FlaskClient, text: str) -> None:
    assert api.post("/api/clusters", json=CREATE, headers={"Idempotency-Key": text}).status_code == 422
