"""Jobs for any cluster that offers a capability."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from flask.testing import FlaskClient

from brain_clusters.api.app import create_app
from brain_clusters.broker import names
from brain_clusters.domain.commands import DestroyCluster, HibernateCluster
from brain_clusters.domain.states import Intent
from tests.integration.stage import Stage


@pytest.fixture
def asked(stage: Stage) -> FlaskClient:
    return create_app(stage.control).test_client()


def send(api: FlaskClient, **more: Any) -> Any:
    response = api.post("/api/jobs", json={"capability": "boxes", "payload": 1, **more})
    assert response.status_code == 202, response.text
    return response.json


def crowd(stage: Stage, cluster_id: str, jobs: int) -> None:
    for number in range(jobs):
        stage.post(cluster_id, to="Packer", payload=number)


def test_the_shortest_expected_wait_wins_and_the_answer_says_why(stage: Stage, asked: FlaskClient) -> None:
    busy, free = stage.active(target_workers=4), stage.active(target_workers=4)
    crowd(stage, busy, 6)
    sent = send(asked)
    routing = sent["routing"]
    assert (sent["job"]["cluster_id"], routing["cluster_id"], routing["group"]) == (free, free, "Packer")
    assert routing["expected_wait"] == 0.0
    assert [(one["cluster_id"], one["expected_wait"] > 0) for one in routing["others"]] == [(busy, True)]
    assert f"the next best is {busy}" in routing["reason"]
    [message] = stage.redis.lrange(names.group_queue(free, "packer"), 0, -1)  # type: ignore[misc]
    assert json.loads(message)["headers"]["brain"] == {"capability": "boxes"}


def test_a_sleeping_cluster_counts_with_the_time_it_takes_to_wake(stage: Stage, asked: FlaskClient) -> None:
    busy, sleeper = stage.active(target_workers=4), stage.active(target_workers=4)
    stage.do(HibernateCluster(cluster_id=sleeper))
    stage.settle(sleeper)
    assert send(asked)["job"]["cluster_id"] == busy
    crowd(stage, busy, 10)
    assert send(asked)["routing"]["cluster_id"] == sleeper
    assert stage.cluster(sleeper).intent is Intent.RUNNING


def test_nobody_offers_it_and_the_answer_says_what_there_is(stage: Stage, asked: FlaskClient) -> None:
    response = asked.post("/api/jobs", json={"capability": "flying"})
    assert (response.status_code, response.json["errors"][0]["pointer"]) == (422, "/capability")
    gone = stage.active()
    stage.do(DestroyCluster(cluster_id=gone))
    assert "are: none" in asked.post("/api/jobs", json={"capability": "boxes"}).text
    stage.active()
    assert "are: 'boxes', 'sums'" in asked.post("/api/jobs", json={"capability": "flying"}).text
    assert asked.post("/api/jobs", json={"payload": 1}).status_code == 422
    assert asked.post("/api/jobs", json={"capability": "boxes", "to": "Packer"}).status_code == 422


def test_a_routed_job_may_be_sent_again(stage: Stage, asked: FlaskClient) -> None:
    stage.active(), stage.active()
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (asked.post("/api/jobs", json={"capability": "sums"}, headers=headers) for _ in range(2))
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert (again.json["job"]["id"], again.json["routing"]) == (first.json["job"]["id"], None)


def test_without_redis_a_job_is_routed_all_the_same(stage: Stage, cut_off: Stage) -> None:
    cluster_id = stage.active()
    sent = send(create_app(cut_off.control).test_client())
    assert (sent["routing"]["cluster_id"], sent["routing"]["expected_wait"]) == (cluster_id, None)
    assert stage.job(sent["job"]["id"]).published_at is None
