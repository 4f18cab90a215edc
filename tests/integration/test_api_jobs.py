"""Jobs over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flask.testing import FlaskClient

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.db.models import Cluster
from brain_clusters.domain.states import Intent, JobStatus
from brain_clusters.services.control import Control

NewCluster = Callable[..., str]


def queue_length(control: Control, cluster_id: str, group: str) -> Any:
    return control.broker.redis.llen(names.group_queue(cluster_id, group))


def report(control: Control, job_id: str, cluster_id: str, status: JobStatus, result: Any = None) -> None:
    """Tell what an agent would tell."""
    now = time.time()
    JobRecords(control.broker.redis).finish(
        JobReport(job_id, cluster_id, "Clerks", "agent-1", status, 1, now - 1, now, result=result)
    )


def test_a_job_is_answered_202_and_waits_in_its_groups_queue(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    payload = {"n": 10**400, "text": "ü✓", "none": None, "list": [1.5, True]}
    response = api.post(f"/api/clusters/{cluster_id}/jobs", json={"to": "Clerks", "payload": payload})
    assert response.status_code == 202
    job = response.json["job"]
    assert response.headers["Location"] == f"/api/jobs/{job['id']}"
    assert (job["status"], job["cluster_id"], job["group"], job["attempts"]) == ("queued", cluster_id, "Clerks", 0)
    assert queue_length(control, cluster_id, "clerks") == 1
    shown = api.get(f"/api/jobs/{job['id']}").json
    assert shown["payload"] == payload
    assert shown["published_at"] is not None


@pytest.mark.parametrize(
    ("body", "group"),
    [({}, "Head"), ({"payload": None}, "Head"), ({"capability": "filing"}, "Clerks"), ({"to": "clerks"}, "Clerks")],
)
def test_a_job_finds_its_group(api: FlaskClient, new_cluster: NewCluster, body: dict[str, Any], group: str) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/jobs", json=body)
    assert response.json["job"]["group"] == group


@pytest.mark.parametrize(
    "body",
    [
        {"to": "Nobody"}, {"capability": "flying"}, {"to": "Clerks", "capability": "filing"}, {"to": 5}, {"t0": "x"},
        {"payload": "a\0b"}, {"payload": {"a\0b": 1}}, {"payload": ["\ud800"]}, {"payload": {"\udc00": 1}}, [],
        "text", 5,
    ],
)  # fmt: skip
def test_an_invalid_job_is_422(api: FlaskClient, new_cluster: NewCluster, body: Any) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/jobs", data=json.dumps(body), content_type="application/json")
    assert response.status_code == 422
    assert response.json["errors"]


def test_a_payload_that_is_nested_too_deep_is_refused(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}/jobs"
    for depth, status in ((50, 202), (70, 422), (100_000, 400)):
        body = '{"payload": ' + "[" * depth + "]" * depth + "}"
        assert api.post(path, data=body, content_type="application/json").status_code == status


def test_a_job_shows_what_its_agent_told(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    job_id = api.post(f"/api/clusters/{cluster_id}/jobs", json={"to": "Clerks"}).json["job"]["id"]
    report(control, job_id, cluster_id, JobStatus.SUCCEEDED, {"sum": 3, "worst": float("nan")})
    shown = api.get(f"/api/jobs/{job_id}").json
    assert (shown["status"], shown["result"], shown["attempts"]) == ("succeeded", {"sum": 3, "worst": None}, 1)
    assert shown["finished_at"] > shown["started_at"]


def test_a_job_that_another_celery_client_queued_is_found(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    report(control, "celery-1", cluster_id, JobStatus.FAILED)
    assert api.get("/api/jobs/celery-1").json["cluster_id"] == cluster_id


def test_jobs_are_listed_by_status_and_group(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}/jobs"
    ids = [api.post(path, json={"to": group}).json["job"]["id"] for group in ("Head", "Clerks", "Clerks")]
    listed = api.get(path).json
    assert [row["id"] for row in listed["jobs"]] == ids[::-1]
    assert listed["total"] == 3
    assert "payload" not in listed["jobs"][0]
    assert api.get(path + "?group=Clerks").json["total"] == 2
    assert api.get(path + "?status=queued&group=Head").json["total"] == 1
    assert api.get(path + "?status=failed").json["total"] == 0
    first = api.get(path + "?limit=2").json
    rest = api.get(path, query_string={"cursor": first["next_cursor"]}).json
    assert [row["id"] for row in rest["jobs"]] == ids[:1]
    assert api.get(path + "?status=lost").status_code == 422


def test_a_job_wakes_a_sleeping_cluster(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    api.post(f"/api/clusters/{cluster_id}/hibernate")
    assert api.post(f"/api/clusters/{cluster_id}/jobs", json={"to": "Clerks"}).status_code == 202
    with control.database.transaction() as session:
        cluster = session.get_one(Cluster, cluster_id)
    assert cluster.intent is Intent.RUNNING
    assert cluster.group_targets["Clerks"] == 1


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [({"delay": "5 minutes"}, 300), ({"delay": 90.5}, 90.5), ({"delay": "30"}, 30), ({"eta": "Z"}, 3600),
     ({"eta": "+02:00"}, 3600)],
)  # fmt: skip
def test_a_job_for_later_is_kept_and_wakes_nobody(
    api: FlaskClient, new_cluster: NewCluster, control: Control, asked: dict[str, Any], seconds: float
) -> None:
    cluster_id = new_cluster()
    api.post(f"/api/clusters/{cluster_id}/hibernate")
    if "eta" in asked:
        zone = timezone(timedelta(hours=2)) if asked["eta"] == "+02:00" else UTC
        asked = {"eta": (datetime.now(zone) + timedelta(seconds=3600)).isoformat().replace("+00:00", "Z")}
    response = api.post(f"/api/clusters/{cluster_id}/jobs", json={"to": "Clerks", "payload": 1, **asked})
    assert response.status_code == 202, response.text
    job = response.json["job"]
    assert (job["status"], job["published_at"]) == ("queued", None)
    eta, made = datetime.fromisoformat(job["eta"]), datetime.fromisoformat(job["created_at"])
    assert (eta - made).total_seconds() == pytest.approx(seconds, abs=0 if "delay" in asked else 600)
    assert api.get(f"/api/jobs/{job['id']}").json["eta"] == job["eta"]
    assert api.get(f"/api/clusters/{cluster_id}/jobs").json["jobs"][0]["eta"] == job["eta"]
    assert queue_length(control, cluster_id, "clerks") == 0
    with control.database.transaction() as session:
        assert session.get_one(Cluster, cluster_id).intent is Intent.ASLEEP


@pytest.mark.parametrize("asked", [{"delay": 0}, {"eta": "2001-01-01T00:00:00Z"}, {"eta": "0001-01-01T00:00:00+23:59"}])
def test_a_time_that_is_past_is_now(
    api: FlaskClient, new_cluster: NewCluster, control: Control, asked: dict[str, Any]
) -> None:
    cluster_id = new_cluster()
    job = api.post(f"/api/clusters/{cluster_id}/jobs", json={"to": "Clerks", **asked}).json["job"]
    assert job["eta"] == job["created_at"]
    assert queue_length(control, cluster_id, "clerks") == 1
    assert api.get(f"/api/jobs/{job['id']}").json["published_at"] is not None


@pytest.mark.parametrize(
    ("asked", "pointer", "told"),
    [
        ({"eta": "tomorrow"}, "/eta", "must be a time with its offset"),
        ({"eta": "2026-10-01T08:00:00"}, "/eta", "must be a time with its offset"),
        ({"eta": "9999-12-31T23:59:59-23:59"}, "/eta", "at most 365 days"),
        ({"eta": 1790000000}, "/eta", ""),
        ({"eta": None}, "/eta", ""),
        ({"delay": "a while"}, "/delay", "must be a duration"),
        ({"delay": -1}, "/delay", "must be a duration"),
        ({"delay": True}, "/delay", ""),
        ({"delay": "53 weeks"}, "/delay", "at most 365 days"),
        ({"eta": "2026-10-01T08:00:00Z", "delay": 5}, "/", ""),
    ],
)
def test_a_time_that_cannot_be_kept_is_422(
    api: FlaskClient, new_cluster: NewCluster, asked: dict[str, Any], pointer: str, told: str
) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/jobs", json=asked)
    assert response.status_code == 422
    assert all(fault["pointer"].startswith(pointer) for fault in response.json["errors"])
    assert told in response.text


def test_a_destroyed_cluster_takes_no_jobs(api: FlaskClient, new_cluster: NewCluster) -> None:
    cluster_id = new_cluster()
    api.delete(f"/api/clusters/{cluster_id}")
    response = api.post(f"/api/clusters/{cluster_id}/jobs", json={})
    assert response.status_code == 409
    assert response.json["possible"] == []
