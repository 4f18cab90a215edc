"""Clusters over HTTP: commands, reads, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from brain_clusters.broker import names
from brain_clusters.db.models import Agent, Cluster, Metrics, Operation
from brain_clusters.domain.states import AgentStatus, OperationStatus
from brain_clusters.services import operations
from brain_clusters.services.control import Control
from brain_clusters.services.endings import finish

NewCluster = Callable[..., str]


def end_soon(control: Control, status: OperationStatus, error: dict[str, Any] | None = None) -> threading.Thread:
    """End the next operation that appears, as a worker would, from a thread."""
    with control.database.transaction() as session:
        known = {row.id for row in session.query(Operation).all()}

    def run() -> None:
        for _ in range(500):
            with control.database.transaction() as session:
                for operation in session.query(Operation).filter(Operation.id.not_in(known)):
                    session.get_one(Cluster, operation.cluster_id).current_workers = 2
                    finish(session, operation, status, error)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def start_agents(control: Control, cluster_id: str) -> list[str]:
    """Carry out a cluster's operations up to its agents' rows; return the agents' names."""
    with control.database.transaction() as session:
        pending = [row.id for row in session.query(Operation).filter_by(cluster_id=cluster_id)]
    for operation_id in pending:
        operations.run(control, operation_id)
    with control.database.transaction() as session:
        return [row.agent_id for row in session.query(Agent).filter_by(cluster_id=cluster_id)]


def test_creating_a_cluster_answers_202_with_its_operation_and_the_cluster(api: FlaskClient) -> None:
    asked = {
        "blueprint_id": "office", "name": "Q1 Kampagne ✓", "id": "q1", "type": "project", "target_workers": 3,
        "min_workers": 1, "max_workers": 4, "description": "d", "tags": ["a", "b"],
        "config": {"deep": [1, {"x": None}]},
    }  # fmt: skip
    response = api.post("/api/clusters", json=asked)
    assert response.status_code == 202
    operation, cluster = response.json["operation"], response.json["cluster"]
    assert response.headers["Location"] == f"/api/operations/{operation['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (operation["kind"], operation["status"], operation["cluster_id"]) == ("create", "pending", "q1")
    assert operation["origin"] == "api"
    assert operation["request"]["tags"] == ["a", "b"]
    assert {key: cluster[key] for key in asked} == asked
    assert cluster["status"] == "planning"
    assert cluster["current_workers"] == 0
    assert cluster["group_targets"] == {"Head": 1, "Clerks": 2}
    assert datetime.fromisoformat(cluster["created_at"]).utcoffset() == timedelta(0)
    shown = {key: value for key, value in api.get("/api/clusters/q1").json.items() if key != "standby"}
    assert shown == {**cluster, "backlog": {"waiting": 0, "running": 0}, "rollout": None}
    assert api.get(response.headers["Location"]).json == operation


def test_a_cluster_shows_every_reference_field_and_what_is_possible(api: FlaskClient, new_cluster: NewCluster) -> None:
    shown = api.get(f"/api/clusters/{new_cluster()}").json
    assert set(shown) >= {
        "id", "name", "type", "status", "blueprint_id", "blueprint_version", "parent_cluster_id", "min_workers",
        "max_workers", "current_workers", "target_workers", "health_score", "load_percentage", "tasks_completed",
        "tasks_failed", "created_at", "started_at", "hibernated_at", "destroyed_at", "last_active", "description",
        "tags", "config", "group_targets",
    }  # fmt: skip
    assert shown["possible"] == ["update", "scale", "hibernate", "destroy", "rollout"]


def test_every_lifecycle_command_is_accepted_in_turn(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}"
    for method, suffix, body, kind in [
        ("PUT", "", {"name": "Renamed", "tags": []}, "update"),
        ("POST", "/scale", {"target_workers": 3}, "scale"),
        ("POST", "/scale", {"groups": {"Clerks": 1}}, "scale"),
        ("POST", "/hibernate", None, "hibernate"),
        ("POST", "/reactivate", {}, "reactivate"),
        ("DELETE", "", None, "destroy"),
    ]:
        response = api.open(path + suffix, method=method, json=body)
        assert response.status_code == 202, response.text
        assert response.json["operation"]["kind"] == kind
        assert response.json["cluster"]["name"] == "Renamed"
    assert api.get(path).json["possible"] == []
    listed = api.get("/api/operations", query_string={"cluster_id": path.rsplit("/", 1)[1]}).json
    assert [row["kind"] for row in listed["operations"]] == [
        "destroy", "reactivate", "hibernate", "scale", "scale", "update", "create",
    ]  # fmt: skip


def test_an_impossible_command_is_409_and_says_what_is_possible(api: FlaskClient, new_cluster: NewCluster) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/reactivate")
    assert response.status_code == 409
    assert response.mimetype == "application/problem+json"
    assert response.json["cluster_status"] == "planning"
    assert response.json["possible"] == ["update", "scale", "hibernate", "destroy", "rollout"]
    assert set(response.json) >= {"type", "title", "status", "detail", "instance"}
    assert "planning" in response.json["detail"]


def test_a_second_cluster_with_the_same_id_is_409(api: FlaskClient, new_cluster: NewCluster) -> None:
    new_cluster(id="twin")
    assert api.post("/api/clusters", json={"blueprint_id": "office", "name": "n", "id": "twin"}).status_code == 409


def test_an_invalid_body_is_422_with_every_fault(api: FlaskClient) -> None:
    body = {"name": "", "min_workers": -1, "max_workers": 2**63, "target_workers": True, "type": "gang", "nmae": 1}
    response = api.post("/api/clusters", json=body)
    assert response.status_code == 422
    assert response.mimetype == "application/problem+json"
    assert {fault["pointer"] for fault in response.json["errors"]} >= {
        "/name", "/min_workers", "/max_workers", "/target_workers", "/type", "/blueprint_id",
    }  # fmt: skip
    assert any("did you mean 'name'" in fault["detail"] for fault in response.json["errors"])


def test_what_does_not_fit_together_is_422(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}"
    assert api.post(path + "/scale", json={}).status_code == 422
    assert api.post(path + "/scale", json={"target_workers": 9}).status_code == 422
    assert api.post(path + "/scale", json={"groups": {"Nobody": 1, "Clerks": 99}}).status_code == 422
    assert api.put(path, json={"min_workers": 5, "max_workers": 2}).status_code == 422
    assert (
        api.post("/api/clusters", json={"blueprint_id": "office", "name": "n", "parent_cluster_id": "none"}).status_code
        == 422
    )
    assert api.post(path + "/hibernate", json={"force": True}).status_code == 422


@pytest.mark.parametrize(
    ("method", "suffix"),
    [
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/scale"), ("POST", "/hibernate"), ("POST", "/reactivate"),
        ("GET", "/agents"), ("GET", "/hierarchy"), ("GET", "/metrics"), ("GET", "/events"), ("POST", "/jobs"),
        ("GET", "/jobs"),
    ],
)  # fmt: skip
def test_an_unknown_cluster_is_404(api: FlaskClient, method: str, suffix: str) -> None:
    body = {"groups": {"Head": 1}} if suffix == "/scale" else {}
    for cluster_id in ("nobody", "no\0body", "%00", "x" * 3000, "ü✓", "\ufffd", "a b", ".."):
        path = f"/api/clusters/{cluster_id}{suffix}"
        response = api.open(path, method=method, json=body if method != "GET" else None)
        assert response.status_code == 404, cluster_id
        assert response.mimetype == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/api/operations/nope", "/api/operations/00000000-0000-0000-0000-000000000000", "/api/jobs/nope",
             "/api/blueprints/nope", "/api/jobs/a\0b", "/api/nothing", "/", "/api//clusters", "/api/clusters/"]
)  # fmt: skip
def test_other_unknown_things_are_404(api: FlaskClient, path: str) -> None:
    response = api.get(path)
    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


def test_an_unknown_blueprint_is_404(api: FlaskClient) -> None:
    response = api.post("/api/clusters", json={"blueprint_id": "nope", "name": "n"})
    assert response.status_code == 404


def test_a_wrong_method_is_405_and_names_the_right_ones(api: FlaskClient) -> None:
    response = api.patch("/api/clusters")
    assert response.status_code == 405
    assert {"GET", "POST"} <= {word.strip() for word in response.headers["Allow"].split(",")}
    assert response.mimetype == "application/problem+json"


# --- lists ------------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_status_type_tag_and_name(api: FlaskClient, new_cluster: NewCluster) -> None:
    wanted = new_cluster(name="Über 100% Filter", type="temporary", tags=["rare"])
    new_cluster(name="Other", type="project")

    def ids(**query: str) -> list[str]:
        response = api.get("/api/clusters", query_string=query)
        assert response.json["total"] == len(response.json["clusters"])
        return [row["id"] for row in response.json["clusters"]]

    assert ids(tag="rare") == [wanted]
    assert ids(name="100% f") == [wanted]
    assert wanted in ids(type="temporary", status="planning")
    assert ids(tag="rare", type="project") == []
    assert ids(status="active", tag="rare") == []


def test_pages_of_clusters_follow_each_other_without_gap(api: FlaskClient, new_cluster: NewCluster) -> None:
    made = [new_cluster(tags=["paged"]) for _ in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"tag": "paged", "limit": 2}
    while True:
        page = api.get("/api/clusters", query_string=query).json
        assert page["total"] == 5
        seen += [row["id"] for row in page["clusters"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


def test_pages_of_operations_follow_each_other_without_gap(api: FlaskClient, new_cluster: NewCluster) -> None:
    cluster_id = new_cluster()
    for number in range(4):
        api.put(f"/api/clusters/{cluster_id}", json={"name": str(number)})
    query: dict[str, Any] = {"cluster_id": cluster_id, "limit": 2}
    seen = []
    for _ in range(3):
        page = api.get("/api/operations", query_string=query).json
        seen += [row["request"]["name"] for row in page["operations"]]
        query["cursor"] = page["next_cursor"]
    assert seen == ["3", "2", "1", "0", "An office"]
    assert query["cursor"] is None


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=0", "at least 1"),
        ("limit=501", "at most 500"),
        ("limit=99999999999999999999999", "whole number"),
        ("limit=ten", "whole number"),
        ("limit=1&limit=2", "given 2 times"),
        ("status=asleep", "planning, spawning"),
        ("stauts=active", "did you mean 'status'"),
        ("zzz=1", "known here: limit, cursor, status, type, tag, name"),
        ("cursor=garbage", "next_cursor"),
        ("cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5IiwgIngiXQ", "next_cursor"),  # year 1 at +23:59
        ("cursor=WyIyMDI2LTAxLTAxVDAwOjAwOjAwIiwgIlx1MDAwMCJd", "next_cursor"),  # an id with a NUL
        ("cursor=WyIyMDI2LTAxLTAxVDAwOjAwOjAwIiwgIlx1ZDgwMCJd", "next_cursor"),  # half a surrogate pair
        ("name=%00", "NUL"),
        ("tag=", "empty"),
    ],
)
def test_a_bad_query_is_422_and_says_what_to_do(api: FlaskClient, query: str, told: str) -> None:
    response = api.get(f"/api/clusters?{query}")
    assert response.status_code == 422, response.text
    assert any(told in fault["detail"] for fault in response.json["errors"]), response.json


# --- what belongs to a cluster ----------------------------------------------------------------------------------


def test_agents_are_listed_with_their_group_and_what_their_beats_tell(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    cluster_id = new_cluster(target_workers=3)
    head, first, second = sorted(start_agents(control, cluster_id), key=lambda name: ".clerks." in name)
    with control.database.transaction() as session:
        session.query(Agent).filter_by(agent_id=first).one().status = AgentStatus.IDLE
        session.query(Agent).filter_by(agent_id=first).one().handle = {"pid": 4711}
    beat = {"in_flight": 1, "completed": 7, "failed": 1, "service_time": 0.5, "cpu": 3.5, "memory": 9, "idle_since": 1}
    for agent_id, told in ((first, beat), (head, {**beat, "service_time": None}), (second, {**beat, "cpu": "much"})):
        control.broker.redis.set(names.beat_key(agent_id), json.dumps(told))
    rows = {row["agent_id"]: row for row in api.get(f"/api/clusters/{cluster_id}/agents").json["agents"]}
    assert len(rows) == 3
    fresh = rows[first]
    assert (fresh["status"], fresh["beat"], fresh["group"], fresh["pid"]) == ("busy", "fresh", "Clerks", 4711)
    assert (fresh["tasks_completed"], fresh["tasks_failed"], fresh["avg_task_duration"]) == (7, 1, 0.5)
    assert (fresh["cpu"], fresh["memory"], fresh["in_flight"]) == (3.5, 9, 1)
    assert fresh["supervisor_id"] == rows[head]["id"]
    assert (rows[head]["status"], rows[head]["beat"], rows[head]["tasks_completed"]) == ("starting", "fresh", 7)
    assert (rows[second]["status"], rows[second]["beat"], rows[second]["in_flight"]) == ("starting", "missing", None)
    api.post(f"/api/clusters/{cluster_id}/hibernate")
    start_agents(control, cluster_id)
    assert api.get(f"/api/clusters/{cluster_id}/agents").json["total"] == 1
    ended = api.get(f"/api/clusters/{cluster_id}/agents?ended=true").json
    assert ended["total"] == 3


def test_the_hierarchy_shows_who_reports_to_whom(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    agent_ids = start_agents(control, cluster_id)
    shown = api.get(f"/api/clusters/{cluster_id}/hierarchy").json
    assert shown["cluster_id"] == cluster_id
    top = shown["hierarchy"]
    assert (top["group"], top["role"], [below["group"] for below in top["reports"]]) == (
        "Head",
        "supervisor",
        ["Clerks"],
    )
    assert {agent["agent_id"] for agent in top["agents"] + top["reports"][0]["agents"]} == set(agent_ids)


def test_events_and_metrics_are_paged(api: FlaskClient, new_cluster: NewCluster, control: Control) -> None:
    cluster_id = new_cluster()
    with control.database.transaction() as session:
        for count in range(3):
            session.add(
                Metrics(
                    cluster_id=cluster_id,
                    tasks_per_minute=0.5,
                    error_rate=0,
                    active_agents=count,
                    idle_agents=0,
                    busy_agents=0,
                    failed_agents=0,
                    queue_length=None,
                )
            )
    first = api.get(f"/api/clusters/{cluster_id}/metrics?limit=2").json
    assert [row["active_agents"] for row in first["metrics"]] == [2, 1]
    assert first["total"] == 3
    rest = api.get(f"/api/clusters/{cluster_id}/metrics", query_string={"cursor": first["next_cursor"]}).json
    assert [row["active_agents"] for row in rest["metrics"]] == [0]
    events = api.get(f"/api/clusters/{cluster_id}/events").json
    assert events["events"][0]["kind"] == "operation.accepted"
    assert events["events"][0]["actor"] == "api"
    assert events["total"] == 1


# --- waiting ----------------------------------------------------------------------------------------------------


def test_with_prefer_wait_the_answer_is_the_final_state(api: FlaskClient, control: Control) -> None:
    thread = end_soon(control, OperationStatus.SUCCEEDED)
    response = api.post(
        "/api/clusters", json={"blueprint_id": "office", "name": "n"}, headers={"Prefer": "foo=bar, WAIT=20"}
    )
    thread.join()
    assert response.status_code == 200
    assert response.headers["Preference-Applied"] == "wait=20"
    assert response.headers["Location"] == f"/api/operations/{response.json['operation']['id']}"
    assert response.json["operation"]["status"] == "succeeded"
    assert response.json["cluster"]["current_workers"] == 2


def test_a_failed_operation_is_still_200_with_its_reason(api: FlaskClient, control: Control) -> None:
    thread = end_soon(control, OperationStatus.FAILED, {"type": "timeout", "message": "no host took them"})
    response = api.post("/api/clusters", json={"blueprint_id": "office", "name": "n"}, headers={"Prefer": "wait=20"})
    thread.join()
    assert response.status_code == 200
    assert response.json["operation"]["status"] == "failed"
    assert response.json["operation"]["error"]["message"] == "no host took them"


def test_when_the_time_is_up_the_answer_is_202(api: FlaskClient, new_cluster: NewCluster) -> None:
    response = api.post(f"/api/clusters/{new_cluster()}/hibernate", headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert response.json["operation"]["status"] == "pending"
    assert response.headers["Preference-Applied"] == "wait=1"


def test_waiting_requests_leave_threads_for_the_others(api: FlaskClient, new_cluster: NewCluster) -> None:
    waits = api.application.extensions["brain"].waits
    taken = 0
    while waits.acquire(blocking=False):
        taken += 1
    assert taken == 12  # of sixteen threads
    response = api.post(f"/api/clusters/{new_cluster()}/hibernate", headers={"Prefer": "wait=60"})
    assert response.status_code == 202
    assert "Preference-Applied" not in response.headers
