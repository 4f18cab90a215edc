"""Jobs that ended without success or are to end: dead letters, retries, cancellation, filters, and their time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from brain_clusters.broker import names
from brain_clusters.broker.jobs import JobRecords, JobReport
from brain_clusters.broker.notes import PROGRESS_FIELD, JobNotes
from brain_clusters.domain.states import JobStatus
from brain_clusters.services import expiry, outcomes
from brain_clusters.services.control import Control

NewCluster = Callable[..., str]
Until = Callable[..., Any]


@pytest.fixture
def records(control: Control) -> JobRecords:
    return JobRecords(control.broker.redis)


def send(api: FlaskClient, cluster_id: str, count: int, **job: Any) -> list[str]:
    sent = [{"to": "Clerks", "payload": number, **job} for number in range(count)]
    return [one["id"] for one in api.post(f"/api/clusters/{cluster_id}/jobs", json=sent).json["jobs"]]


def end(control: Control, cluster_id: str, job_id: str, status: JobStatus, message: str = "") -> None:
    """Have an agent take a job and end it, and the tick store that."""
    records, now = JobRecords(control.broker.redis), time.time()
    control.broker.redis.rpop(names.group_queue(cluster_id, "clerks"))
    records.begin(job_id, "agent-1")
    error = {"type": "E", "message": message} if status is not JobStatus.SUCCEEDED else None
    records.finish(JobReport(job_id, cluster_id, "Clerks", "agent-1", status, 1, now - 1, now, error=error))
    outcomes.collect(control)


def waiting(control: Control, cluster_id: str) -> list[str]:
    entries: Any = control.broker.redis.lrange(names.group_queue(cluster_id, "clerks"), 0, -1)
    return [json.loads(entry)["headers"]["id"] for entry in reversed(entries)]


def status(api: FlaskClient, job_id: str) -> str:
    return str(api.get(f"/api/jobs/{job_id}").json["status"])


# --- dead letters -----------------------------------------------------------------------------------------------


def test_dead_letters_are_grouped_by_what_went_wrong(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    a, b, c, d, e = send(api, cluster_id, 5)
    for job_id, number in ((a, 1), (b, 22)):
        end(control, cluster_id, job_id, JobStatus.FAILED, f"no row {number}")
    end(control, cluster_id, c, JobStatus.DEAD, "no file 'x'")
    end(control, cluster_id, d, JobStatus.SUCCEEDED)
    end(control, cluster_id, e, JobStatus.CANCELLED, "somebody asked for it")
    found = api.get(f"/api/clusters/{cluster_id}/dead-letters").json
    rows, file = found["dead_letters"]
    assert (found["total"], rows["error_key"], rows["count"], rows["retryable"]) == (3, "E: no row <n>", 2, 2)
    assert (rows["example_id"], rows["example_message"], rows["group"]) == (b, "no row 22", "Clerks")
    assert rows["first_at"] <= rows["last_at"]
    assert (file["error_key"], file["count"]) == ("E: no file <text>", 1)
    path = f"/api/clusters/{cluster_id}/jobs"
    assert api.get(path, query_string={"error": "E: no row <n>"}).json["total"] == 2
    assert api.get(path + "?status=failed,dead").json["total"] == 3
    assert api.get(f"/api/jobs/{a}").json["payload"] == 0
    assert api.get(f"/api/jobs/{d}").json["payload"] is None
    assert api.get(f"/api/clusters/{cluster_id}").json["tasks_failed"] == 3
    assert api.get("/api/clusters/nobody/dead-letters").status_code == 404


def test_all_that_match_are_queued_again_and_begin_anew(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    ids = send(api, cluster_id, 4)
    for job_id in ids[:3]:
        end(control, cluster_id, job_id, JobStatus.FAILED, f"no row {job_id}")
    end(control, cluster_id, ids[3], JobStatus.DEAD, "other")
    path = f"/api/clusters/{cluster_id}/dead-letters/retry"
    first = api.post(path, json={"error_key": "E: no row <id>", "limit": 2})
    assert (first.status_code, first.json) == (202, {"retried": 2, "left": 1, "without_payload": 0})
    assert waiting(control, cluster_id) == ids[:2]
    shown = api.get(f"/api/jobs/{ids[0]}").json
    wanted = {"status": "queued", "attempts": 0, "error": None, "error_key": None, "finished_at": None, "payload": 0}
    assert {key: shown[key] for key in wanted} == wanted
    assert records.begin(ids[0], "agent-2").attempt == 1
    assert api.post(path, json={}).json == {"retried": 2, "left": 0, "without_payload": 0}
    assert waiting(control, cluster_id) == ids
    assert api.post(path, json={"limit": 0}).status_code == 422


def test_an_outcome_of_the_last_life_does_not_end_the_next_one(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1)
    end(control, cluster_id, job_id, JobStatus.FAILED, "m")
    control.broker.redis.xadd(names.FINISHED_STREAM, {"id": job_id})  # a collector died before it forgot it
    assert api.post(f"/api/jobs/{job_id}/retry").status_code == 202
    outcomes.collect(control)
    assert status(api, job_id) == "queued"
    end(control, cluster_id, job_id, JobStatus.SUCCEEDED)
    assert status(api, job_id) == "succeeded"


def test_a_retry_between_reading_and_storing_outcomes_is_not_undone(
    api: FlaskClient, api_app: Flask, new_cluster: NewCluster, control: Control, records: JobRecords, until: Until
) -> None:
    cluster_id = new_cluster()
    slow, again = send(api, cluster_id, 2)
    end(control, cluster_id, again, JobStatus.FAILED, "m")
    records.begin(slow, "agent-1")
    now = time.time()
    records.finish(JobReport(slow, cluster_id, "Clerks", "agent-1", JobStatus.SUCCEEDED, 1, now - 1, now))
    control.broker.redis.xadd(names.FINISHED_STREAM, {"id": again})

    def stuck(count: int) -> bool:
        with control.database.transaction() as session:
            told = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(session.execute(text(told)).scalar_one() >= count)

    def retry() -> int:
        return api_app.test_client().post(f"/api/jobs/{again}/retry").status_code

    with ThreadPoolExecutor(2) as pool:
        with control.database.transaction() as session:
            session.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": slow})
            collecting = pool.submit(outcomes.collect, control)
            until(lambda: stuck(1), "the collector waits")
            retrying = pool.submit(retry)
            until(lambda: retrying.done() or stuck(2), "the retry waits, or did not")
        collecting.result()
        assert retrying.result() == 202
    assert status(api, again) == "queued"


def test_what_is_put_aside_is_no_dead_letter_any_more(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    ids = send(api, cluster_id, 3)
    for job_id in ids:
        end(control, cluster_id, job_id, JobStatus.FAILED, "m")
    path = f"/api/clusters/{cluster_id}/dead-letters"
    assert api.post(f"{path}/discard", json={"limit": 2, "group": "Clerks"}).json["discarded"] == 2
    assert api.get(path).json["total"] == 1
    assert api.get(f"/api/clusters/{cluster_id}/jobs?status=failed").json["total"] == 3
    [left] = [one["example_id"] for one in api.get(path).json["dead_letters"]]
    aside = next(job_id for job_id in ids if job_id != left)
    response = api.post(f"/api/jobs/{aside}/retry")
    assert (response.status_code, "payload" in response.json["detail"]) == (409, True)


def test_a_job_of_another_client_cannot_be_queued_again_without_its_payload(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster()
    end(control, cluster_id, "celery-7", JobStatus.FAILED, "m")
    assert api.post("/api/jobs/celery-7/retry").status_code == 409
    found = api.post(f"/api/clusters/{cluster_id}/dead-letters/retry", json={}).json
    assert found == {"retried": 0, "left": 1, "without_payload": 1}


def test_a_payload_of_null_is_known(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1, payload=None)
    end(control, cluster_id, job_id, JobStatus.FAILED, "m")
    assert api.post(f"/api/jobs/{job_id}/retry").status_code == 202


@pytest.mark.parametrize("ended", [None, JobStatus.SUCCEEDED])
def test_only_what_ended_without_success_is_retried(
    api: FlaskClient, new_cluster: NewCluster, control: Control, ended: JobStatus | None
) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1)
    if ended:
        end(control, cluster_id, job_id, ended)
    response = api.post(f"/api/jobs/{job_id}/retry")
    assert response.status_code == 409
    assert f"the job is {ended or 'queued'}" in response.json["detail"]
    assert api.post("/api/jobs/nobody/retry").status_code == 404


# --- cancellation -----------------------------------------------------------------------------------------------


def test_a_job_that_waits_is_cancelled_at_once_and_never_begun(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    for job in ({}, {"delay": 3600}):
        [job_id] = send(api, cluster_id, 1, **job)
        response = api.post(f"/api/jobs/{job_id}/cancel")
        assert (response.status_code, response.json["job"]["status"]) == (202, "cancelled")
        assert records.begin(job_id, "agent-1").cancelled
        assert api.post(f"/api/jobs/{job_id}/cancel").status_code == 202


def test_a_job_that_runs_is_asked_to_end(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1)
    records.begin(job_id, "agent-1")
    response = api.post(f"/api/jobs/{job_id}/cancel", json={"grace": "30 s"})
    assert (response.status_code, response.json["job"]["status"]) == (202, "running")
    told: Any = control.broker.redis.get(names.cancel_key(job_id))
    assert json.loads(told)["grace"] == 30.0
    end(control, cluster_id, job_id, JobStatus.CANCELLED)
    assert status(api, job_id) == "cancelled"
    assert api.post(f"/api/jobs/{job_id}/cancel", json={"grace": "a while"}).status_code == 422


def test_a_finished_job_cannot_be_cancelled(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1)
    end(control, cluster_id, job_id, JobStatus.SUCCEEDED)
    assert api.post(f"/api/jobs/{job_id}/cancel").status_code == 409
    assert api.post("/api/jobs/nobody/cancel").status_code == 404


@pytest.mark.parametrize("record", [None, "queued"], ids=["before it began", "between two attempts"])
def test_a_cancelled_job_that_is_retried_before_anybody_met_its_message_has_one_message(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords, record: str | None
) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1)
    if record:
        control.broker.redis.hset(names.job_key(job_id), "status", record)
    api.post(f"/api/jobs/{job_id}/cancel")
    assert api.post(f"/api/jobs/{job_id}/retry").json["job"]["status"] == "queued"
    assert waiting(control, cluster_id) == [job_id]
    assert not records.begin(job_id, "agent-1").cancelled


def test_a_cancelled_job_that_is_retried_after_its_message_was_met_is_sent_anew(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    [job_id] = send(api, cluster_id, 1)
    api.post(f"/api/jobs/{job_id}/cancel")
    end(control, cluster_id, job_id, JobStatus.CANCELLED)
    assert waiting(control, cluster_id) == []
    assert api.post(f"/api/jobs/{job_id}/retry").status_code == 202
    assert waiting(control, cluster_id) == [job_id]


def test_all_that_match_are_cancelled(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    path = f"/api/clusters/{cluster_id}/jobs/cancel"
    low, normal = send(api, cluster_id, 2, priority="low"), send(api, cluster_id, 3)
    [done] = send(api, cluster_id, 1)
    end(control, cluster_id, done, JobStatus.SUCCEEDED)
    records.begin(normal[0], "agent-1")
    assert api.post(path, json={"priority": "low"}).json == {"cancelled": 2, "cancelling": 0, "more": False}
    assert api.post(path, json={"status": "running", "grace": 5}).json["cancelling"] == 1
    assert status(api, normal[1]) == "queued"
    assert api.post(path, json={"group": "Clerks"}).json == {"cancelled": 2, "cancelling": 1, "more": False}
    found = [status(api, job_id) for job_id in [*low, *normal, done]]
    assert found == ["cancelled", "cancelled", "running", "cancelled", "cancelled", "succeeded"]
    assert api.post(path, json={"status": "failed"}).status_code == 422
    assert api.post("/api/clusters/nobody/jobs/cancel", json={}).status_code == 404


# --- filters and time -------------------------------------------------------------------------------------------


def test_jobs_that_run_are_told_from_those_that_wait(
    api: FlaskClient, new_cluster: NewCluster, control: Control, records: JobRecords
) -> None:
    cluster_id = new_cluster()
    ids = send(api, cluster_id, 5)
    for job_id in ids[:2]:
        records.begin(job_id, "agent-1")
    JobNotes(control.broker.redis).write(ids[0], PROGRESS_FIELD, '{"fraction": 0.5}')
    path = f"/api/clusters/{cluster_id}/jobs"
    assert [row["id"] for row in api.get(path + "?status=running&limit=2").json["jobs"]] == ids[1::-1]
    assert [row["id"] for row in api.get(path + "?status=queued").json["jobs"]] == ids[:1:-1]
    assert api.get(path + "?status=queued,running").json["total"] == 5
    assert api.get(path + "?status=queued,lost").status_code == 422
    assert api.get(f"/api/jobs/{ids[0]}").json["progress"] == {"fraction": 0.5}


def test_jobs_are_listed_by_time_capability_and_parent(api: FlaskClient, new_cluster: NewCluster) -> None:
    cluster_id = new_cluster()
    path = f"/api/clusters/{cluster_id}/jobs"
    api.post(path, json=[{"capability": "filing"}, {"to": "Clerks"}, {}])
    made = [row["created_at"] for row in api.get(path).json["jobs"]]
    assert api.get(path, query_string={"since": made[1]}).json["total"] == 2
    assert api.get(path, query_string={"until": made[1]}).json["total"] == 1
    assert api.get(path, query_string={"until": "0001-01-01T00:00:00+23:59"}).json["total"] == 0
    assert api.get(path, query_string={"since": "9999-12-31T23:59:59-23:59"}).json["total"] == 0
    assert api.get(path + "?capability=filing").json["total"] == 1
    assert api.get(path + "?parent=none").json["total"] == 0


def test_dead_letters_outlive_other_jobs(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    done, failed, queued = send(api, cluster_id, 3)
    end(control, cluster_id, done, JobStatus.SUCCEEDED)
    end(control, cluster_id, failed, JobStatus.FAILED, "m")
    control.broker.redis.delete(names.job_key(done), names.job_key(failed))

    def age(seconds: int) -> None:
        with control.database.transaction() as session:
            moved = text("UPDATE jobs SET finished_at = now() - make_interval(secs => :seconds) WHERE cluster_id = :id")
            session.execute(moved.bindparams(seconds=seconds, id=cluster_id))

    age(control.settings.job_ttl_seconds + 60)
    assert expiry.prune(control) == 1
    assert api.get(f"/api/jobs/{done}").status_code == 404
    assert (status(api, failed), status(api, queued)) == ("failed", "queued")
    age(control.settings.dead_letter_ttl_seconds + 60)
    assert expiry.prune(control) == 1
    assert api.get(f"/api/jobs/{failed}").status_code == 404
