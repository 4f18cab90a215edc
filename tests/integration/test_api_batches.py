"""Lists of jobs, and what a job may ask for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from brain_clusters.broker import names
from brain_clusters.db.models import Job
from brain_clusters.domain.jobs import JobOptions
from brain_clusters.services.control import Control

NewCluster = Callable[..., str]


def waiting(control: Control, cluster_id: str, group: str = "clerks") -> list[Any]:
    """Return the messages of a group's list of normal priority, the next first."""
    entries: Any = control.broker.redis.lrange(names.group_queue(cluster_id, group), 0, -1)
    return [json.loads(entry) for entry in reversed(entries)]


def ids_of(messages: list[Any]) -> list[str]:
    return [message["headers"]["id"] for message in messages]


def test_a_list_is_accepted_as_a_whole_and_published_in_order(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    sent = [{"to": "Clerks", "payload": {"n": n}} for n in range(600)] + [{"to": "Head"}, {"capability": "filing"}]
    response = api.post(f"/api/clusters/{cluster_id}/jobs", json=sent)
    assert (response.status_code, response.json["accepted"]) == (202, 602)
    ids = [job["id"] for job in response.json["jobs"]]
    assert len(set(ids)) == 602
    assert ids_of(waiting(control, cluster_id)) == [*ids[:600], ids[601]]
    assert ids_of(waiting(control, cluster_id, "head")) == [ids[600]]
    listed = api.get(f"/api/clusters/{cluster_id}/jobs?limit=2").json
    assert ([row["id"] for row in listed["jobs"]], listed["total"]) == (ids[:-3:-1], 602)
    shown = api.get(f"/api/jobs/{ids[7]}").json
    assert (shown["payload"], shown["group"]) == ({"n": 7}, "Clerks")
    assert shown["published_at"] is not None


def test_one_wrong_job_refuses_all_and_every_fault_names_its_place(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    path = f"/api/clusters/{cluster_id}/jobs"
    wrong = [{"to": "Clerks"}, {"to": "Nobody"}, {"capability": "flying"}, {"delay": "400 days"}, {"expires": 0}]
    response = api.post(path, json=wrong)
    assert response.status_code == 422
    faults = [fault["pointer"] for fault in response.json["errors"]]
    assert faults == ["/1/to", "/2/capability", "/3/delay", "/4/expires"]
    malformed = [{}, 5, {"t0": "x"}, {"payload": {"a": ["\0"]}}, {"key": ""}, {"priority": "urgent"}, {"key": 5}]
    response = api.post(path, data=json.dumps(malformed), content_type="application/json")
    faults = [fault["pointer"] for fault in response.json["errors"]]
    assert faults == ["/1", "/2/t0", "/3/payload/a/0", "/4/key", "/5/priority", "/6/key"]
    assert len(api.post(path, json=[{"to": "Nobody"}] * 5000).json["errors"]) == 100
    assert api.get(path).json["total"] == 0
    assert waiting(control, cluster_id) == []


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_list_has_1_to_10000_jobs(api: FlaskClient, new_cluster: NewCluster, count: int) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/jobs", json=[{}] * count)
    assert response.status_code == 422
    assert "1 to 10000" in response.text


def test_a_list_may_be_larger_than_other_bodies_and_a_payload_may_not(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    path = f"/api/clusters/{cluster_id}/jobs"
    assert api.post(path, json=[{"to": "Clerks", "payload": "x" * 900_000}] * 3).status_code == 202
    assert len(waiting(control, cluster_id)) == 3
    response = api.post(path, json=[{}, {"payload": "x" * (1 << 20)}])
    assert [fault["pointer"] for fault in response.json["errors"]] == ["/1/payload"]
    assert api.post(path, data=b" " * ((16 << 20) + 1), content_type="application/json").status_code == 413
    assert api.post("/api/jobs", data=b" " * ((1 << 20) + 1), content_type="application/json").status_code == 413


def test_a_list_may_be_sent_again(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id, headers = new_cluster(), {"Idempotency-Key": uuid.uuid4().hex}
    path = f"/api/clusters/{cluster_id}/jobs"
    first = api.post(path, json=[{"to": "Clerks"}] * 3, headers=headers)
    again = api.post(path, json=[{"to": "Clerks"}] * 3, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert (again.json["jobs"], again.json["accepted"]) == (first.json["jobs"], 0)
    assert len(waiting(control, cluster_id)) == 3
    assert api.post(path, json=[{"to": "Clerks"}] * 2, headers=headers).status_code == 422


def test_of_jobs_with_the_same_key_there_is_one(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id, other = new_cluster(), new_cluster()
    path = f"/api/clusters/{cluster_id}/jobs"
    first = api.post(path, json=[{"to": "Clerks", "key": "a"}, {"to": "Clerks", "key": "a"}, {"to": "Clerks"}])
    a, twin, _ = first.json["jobs"]
    assert (first.json["accepted"], twin) == (2, {"id": a["id"], "replayed": True})
    single = api.post(path, json={"to": "Clerks", "key": "a"})
    assert (single.json["job"]["id"], single.headers["Idempotency-Replayed"]) == (a["id"], "true")
    more = api.post(path, json=[{"to": "Clerks", "key": key} for key in "ba"])
    assert ([job.get("replayed", False) for job in more.json["jobs"]], more.json["accepted"]) == ([False, True], 1)
    assert len(waiting(control, cluster_id)) == 3
    assert api.post(f"/api/clusters/{other}/jobs", json={"key": "a"}).json["job"]["id"] != a["id"]


def test_the_same_keys_at_once_and_in_any_order_make_one_job_each(
    api_app: Flask, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    keys = [str(number) for number in range(200)]

    def send(turn: int) -> int:
        chosen = [{"to": "Clerks", "key": key} for key in (keys if turn % 2 else keys[::-1])]
        return int(api_app.test_client().post(f"/api/clusters/{cluster_id}/jobs", json=chosen).json["accepted"])

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(send, range(6))) == 200
    assert len(waiting(control, cluster_id)) == 200


def test_options_travel_with_the_job(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    asked = {"timeout": "90 s", "max_attempts": 4, "backoff": 2, "backoff_max": "1 minute", "expires": "1 hour"}
    response = api.post(f"/api/clusters/{cluster_id}/jobs", json={"capability": "filing", **asked})
    job = response.json["job"]
    [message] = waiting(control, cluster_id)
    ends = datetime.fromisoformat(job["expires_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=10)
    assert JobOptions.from_header(message["headers"]["brain"]) == JobOptions(
        timeout_seconds=90.0, max_attempts=4, backoff_seconds=2.0, backoff_max_seconds=60.0,
        expires_at=ends.timestamp(), capability="filing",
    )  # fmt: skip
    assert job["options"] == message["headers"]["brain"]
    assert api.get(f"/api/jobs/{job['id']}").json["options"] == job["options"]


def test_each_priority_goes_to_its_list(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    words = ["low", "high", "normal", "high", "low"]
    sent = [{"to": "Clerks", "priority": word} for word in ["normal", *words]]
    ids = [job["id"] for job in api.post(f"/api/clusters/{cluster_id}/jobs", json=sent).json["jobs"]][1:]
    queue = names.group_queue(cluster_id, "clerks")
    lists: Any = [control.broker.redis.lrange(name, 0, -1)[::-1] for name in names.priority_lists(queue)]  # type: ignore[index]
    high, normal, _, low, _ = ([json.loads(entry)["headers"]["id"] for entry in found] for found in lists)
    # The first of a high list lies before the normal ones, where an idle agent waits.
    assert [*normal[:1], *high] == [ids[1], ids[3]]
    assert normal[2:] == [ids[2]]
    assert low == [ids[0], ids[4]]
    assert api.get(f"/api/clusters/{cluster_id}/jobs?priority=high").json["total"] == 2


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"timeout": 0}, "/timeout"),
        ({"max_attempts": 0}, "/max_attempts"),
        ({"max_attempts": True}, "/max_attempts"),
        ({"backoff": -1}, "/backoff"),
        ({"expires": "yesterday"}, "/expires"),
        ({"expires": "2001-01-01T00:00:00Z"}, "/expires"),
        ({"expires": "9999-12-31T23:59:59-23:59"}, "/expires"),
        ({"expires": 5, "delay": 10}, "/expires"),
        ({"key": "x" * 256}, "/key"),
    ],
)
def test_an_option_that_makes_no_sense_is_422(
    api: FlaskClient, new_cluster: NewCluster, asked: dict[str, Any], pointer: str
) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/jobs", json=asked)
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json["errors"]] == [pointer]


def test_a_list_for_a_sleeping_cluster_wakes_all_its_groups_at_once(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    api.post(f"/api/clusters/{cluster_id}/hibernate")
    api.post(f"/api/clusters/{cluster_id}/jobs", json=[{"to": "Clerks"}, {"to": "Head"}, {"to": "Clerks"}])
    cluster = api.get(f"/api/clusters/{cluster_id}").json
    assert cluster["group_targets"] == {"Head": 1, "Clerks": 1}
    with control.database.transaction() as session:
        assert session.query(Job).filter_by(cluster_id=cluster_id, published_at=None).count() == 0
