"""Jobs over all clusters: listed, searched, treated in bulk; dead letters by error; blueprints that are only judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from brain_clusters.services import jobs as service
from brain_clusters.services.control import Control
from tests.conftest import OFFICE

NewCluster = Callable[..., str]


@pytest.fixture
def two(api: FlaskClient, new_cluster: NewCluster, control: Control) -> tuple[str, str]:
    """Two clusters and no job but theirs: three that wait in each, of which one of each failed, and one of a key."""
    with control.database.transaction() as session:
        session.execute(text("DELETE FROM jobs"))
    made = new_cluster(), new_cluster()
    for cluster_id in made:
        sent = [{"to": "Clerks", "payload": number} for number in range(3)]
        api.post(f"/api/clusters/{cluster_id}/jobs", json=sent)
        failed = api.get(f"/api/clusters/{cluster_id}/jobs").json["jobs"][0]["id"]
        with control.database.transaction() as session:
            session.execute(
                text(
                    "UPDATE jobs SET status = 'failed', finished_at = now(), error_key = 'E: no', "
                    """error = '{"type": "E", "message": "no 7"}' WHERE id = :id"""
                ),
                {"id": failed},
            )
    return made


def listed(api: FlaskClient, **query: Any) -> Any:
    return api.get("/api/jobs", query_string=query).json


def test_jobs_of_all_clusters_are_listed_in_pages(api: FlaskClient, two: tuple[str, str]) -> None:
    first = listed(api, limit=4)
    second = listed(api, limit=4, cursor=first["next_cursor"])
    found = [one["id"] for one in first["jobs"] + second["jobs"]]
    assert (first["total"], len(set(found)), second["next_cursor"]) == (6, 6, None)
    assert {one["cluster_id"] for one in first["jobs"] + second["jobs"]} == set(two)
    assert listed(api, cluster_id=two[0])["total"] == 3
    assert listed(api, status="failed")["total"] == listed(api, error="E: no")["total"] == 2
    assert listed(api, group="Nobody") == {"jobs": [], "total": 0, "next_cursor": None}
    assert listed(api, cluster_id="none")["total"] == 0
    assert api.get("/api/jobs?status=lost").status_code == 422


def test_a_job_is_found_by_the_begin_of_its_id_and_by_its_key(api: FlaskClient, two: tuple[str, str]) -> None:
    path = f"/api/clusters/{two[1]}/jobs"
    job_id = api.post(path, json={"payload": 1, "key": "order-100%"}).json["job"]["id"]
    for query in ({"search": "order-100%"}, {"search": job_id}, {"search": job_id[:13]}):
        assert [one["id"] for one in listed(api, **query)["jobs"]] == [job_id]
        assert [one["id"] for one in api.get(path, query_string=query).json["jobs"]] == [job_id]
    assert listed(api, search="order-100")["total"] == listed(api, search="%")["total"] == 0


def test_the_count_of_all_jobs_has_an_end(
    api: FlaskClient, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_COUNTED", 5)
    assert listed(api)["total"] == 5
    assert len(listed(api)["jobs"]) == 6
    assert len(two) == 2


def test_the_list_of_all_jobs_is_read_by_an_index(control: Control, two: tuple[str, str]) -> None:
    with control.database.transaction() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        query = "EXPLAIN SELECT * FROM jobs ORDER BY created_at DESC, id DESC LIMIT 51"
        plan = "\n".join(session.scalars(text(query)))
    assert "Index Scan Backward using ix_jobs_created_at_id" in plan
    assert "Sort" not in plan
    assert len(two) == 2


def test_all_dead_letters_that_match_are_queued_again_or_put_aside(api: FlaskClient, two: tuple[str, str]) -> None:
    [letters] = api.get("/api/dead-letters").json["dead_letters"]
    assert (letters["error_key"], letters["count"], letters["retryable"]) == ("E: no", 2, 2)
    assert (letters["clusters"], letters["example_message"]) == (sorted(two), "no 7")
    assert api.post("/api/jobs/retry", json={"error": "other"}).json["retried"] == 0
    assert api.post("/api/jobs/retry", json={"status": "succeeded"}).json["retried"] == 0
    done = api.post("/api/jobs/retry", json={"error": "E: no", "limit": 1})
    assert (done.status_code, done.json) == (202, {"retried": 1, "left": 1, "without_payload": 0})
    [left] = listed(api, status="failed")["jobs"]
    body = {"cluster_id": left["cluster_id"], "search": left["id"][:12]}
    assert api.post("/api/jobs/discard", json=body).json == {"discarded": 1, "left": 0, "without_payload": 0}
    assert api.get("/api/dead-letters").json == {"dead_letters": [], "total": 0}
    assert listed(api, status="failed")["total"] == 1
    assert api.post("/api/jobs/retry", json={"cluster_id": "none"}).json["left"] == 0
    assert api.post("/api/jobs/retry", json={"statuses": "dead"}).status_code == 422


def test_all_unfinished_jobs_that_match_are_cancelled(api: FlaskClient, two: tuple[str, str]) -> None:
    assert api.post("/api/jobs/cancel", json={"group": "Nobody"}).json["cancelled"] == 0
    done = api.post("/api/jobs/cancel", json={"cluster_id": two[0], "status": "queued,running"}).json
    assert done == {"cancelled": 2, "cancelling": 0, "more": False}
    assert api.post("/api/jobs/cancel", json={}).json["cancelled"] == 2
    assert listed(api, status="cancelled")["total"] == 4


def test_a_blueprint_is_judged_and_nothing_is_stored(api: FlaskClient) -> None:
    sound = OFFICE.replace("id: office", "id: judged")
    found = api.post("/api/blueprints/validate", json={"yaml": sound}).json
    assert found == {"valid": True, "id": "judged", "name": "An office", "version": "1.0", "errors": []}
    assert api.get("/api/blueprints/judged").status_code == 404
    wrong = api.post("/api/blueprints/validate", json={"yaml": sound.replace("count: 1,", "count: x, kind: y,")})
    assert (wrong.status_code, wrong.json["valid"]) == (200, False)
    assert all(one["line"] == 5 and one["column"] > 1 and one["detail"] for one in wrong.json["errors"])
    assert len(wrong.json["errors"]) == 2


def test_operations_are_filtered_by_kind_and_status(api: FlaskClient, new_cluster: NewCluster) -> None:
    cluster_id = new_cluster()
    api.post(f"/api/clusters/{cluster_id}/hibernate", json={})
    path = f"/api/operations?cluster_id={cluster_id}"
    assert [one["kind"] for one in api.get(f"{path}&kind=hibernate").json["operations"]] == ["hibernate"]
    assert api.get(f"{path}&status=failed").json["total"] == 0
    assert api.get(f"{path}&kind=explode").status_code == 422
