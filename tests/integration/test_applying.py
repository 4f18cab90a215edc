"""Declared states over HTTP, on a real PostgreSQL and a real Redis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from brain_clusters.api.app import create_app
from brain_clusters.db.models import Cluster, Operation, StoredBlueprint
from brain_clusters.domain.access import Role
from brain_clusters.services import access, blueprints
from brain_clusters.services.access import NewKey

from .stage import Stage

BLUEPRINT = """\
metadata: {id: mill, name: A mill, version: "1"}
cluster: {type: project, min_workers: 1, max_workers: 6, default_workers: 4}
agents:
  - {role: supervisor, name: Head, count: 1, cost: {per_hour: 0.5}}
  - {role: worker, name: Hands, count: 0-5, config: {speed: 1}, cost: {per_hour: 0.25}}
rollout: {min_healthy_time: 0}
"""
SECOND = BLUEPRINT.replace('version: "1"', 'version: "2"').replace("speed: 1", "speed: 2").replace("0.25", "0.75")
CLUSTER = "cluster: {id: mill-1, blueprint: mill, name: The mill, tags: [flour], max_workers: 5}\n"


@pytest.fixture
def mill(stage: Stage) -> Stage:
    stage.sql("DELETE FROM cluster_blueprints WHERE id = 'mill'")
    blueprints._KNOWN.clear()
    return stage


def applied(api: FlaskClient, *documents: str, status: int = 200, **more: Any) -> Any:
    response = api.post("/api/apply", json={"documents": documents, **more})
    assert response.status_code == status, response.text
    return response.json


def planned(api: FlaskClient, *documents: str) -> Any:
    response = api.post("/api/plan", json={"documents": documents})
    assert response.status_code == 200, response.text
    return response.json


def settle(stage: Stage, cluster_id: str) -> None:
    """Do what workers and a host would, until nothing more is to be done."""
    with stage.control.database.transaction() as session:
        pending = session.scalars(select(Operation.id).where(Operation.cluster_id == cluster_id)).all()
    for operation in pending:
        stage.run(stage.operation(operation))
    stage.settle(cluster_id)
    assert stage.tick()


def actions(found: Any) -> list[str]:
    return [change["action"] for change in found["changes"]]


def test_what_is_applied_is_there_and_again_changes_nothing(mill: Stage, api: FlaskClient) -> None:
    plan = planned(api, BLUEPRINT, CLUSTER)
    assert (actions(plan), plan["changed"]) == (["create", "create"], 2)
    assert plan["agents"] == {"replaced": 0, "started": 4, "stopped": 0}
    assert plan["cost_per_hour"] == {"before": 0, "after": 1.25, "unpriced": []}
    with mill.control.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Cluster)) == 0
        assert session.get(StoredBlueprint, ("mill", "1")) is None
    applied(api, BLUEPRINT, CLUSTER, fingerprint=plan["fingerprint"])
    settle(mill, "mill-1")
    row = mill.cluster("mill-1")
    assert (row.name, row.tags, row.max_workers, row.target_workers) == ("The mill", ["flour"], 5, 4)
    for found in (planned(api, BLUEPRINT, CLUSTER), applied(api, BLUEPRINT, CLUSTER)):
        assert (actions(found), found["changed"]) == (["unchanged", "unchanged"], 0)
        assert [change["operations"] for change in found["changes"]] == [[], []]
    assert mill.cluster("mill-1").generation == row.generation


def test_only_what_differs_is_changed(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT, CLUSTER)
    settle(mill, "mill-1")
    changed = "cluster: {id: mill-1, blueprint: mill, max_workers: 3, tags: [flour, oats], paused: true}"
    plan = planned(api, changed)
    assert plan["changes"][0]["fields"] == [
        {"field": "max_workers", "before": 5, "after": 3},
        {"field": "tags", "before": ["flour"], "after": ["flour", "oats"]},
        {"field": "paused", "before": False, "after": True},
    ]
    assert plan["agents"] == {"replaced": 0, "started": 0, "stopped": 1}
    assert plan["cost_per_hour"] == {"before": 1.25, "after": 1, "unpriced": []}
    applied(api, changed)
    row = mill.cluster("mill-1")
    assert (row.name, row.max_workers, row.tags, row.paused) == ("The mill", 3, ["flour", "oats"], True)


def test_a_new_version_is_rolled_out_to_living_clusters(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT, CLUSTER, CLUSTER.replace("mill-1", "mill-2"))
    for cluster_id in ("mill-1", "mill-2"):
        settle(mill, cluster_id)
    api.post("/api/clusters/mill-2/hibernate")
    settle(mill, "mill-2")
    plan = planned(api, SECOND)
    [change] = plan["changes"]
    assert '-metadata: {id: mill, name: A mill, version: "1"}' in change["diff"]
    assert {"field": "agents[Hands].config.speed", "before": 1, "after": 2} in change["fields"]
    awake, asleep = change["clusters"]
    assert awake["agents"] == {"replaced": 3, "started": 0, "stopped": 0}
    assert awake["cost_per_hour"] == {"before": 1.25, "after": 2.75, "unpriced": []}
    assert asleep["agents"] == {"replaced": 0, "started": 0, "stopped": 0}
    told = applied(api, SECOND, fingerprint=plan["fingerprint"])
    assert all(one["operation_id"] for one in told["changes"][0]["clusters"])
    for cluster_id in ("mill-1", "mill-2"):
        settle(mill, cluster_id)
        assert mill.cluster(cluster_id).blueprint_version == "2"
    assert {one.blueprint_version for one in mill.agents("mill-1")} == {"2"}
    assert applied(api, SECOND)["changed"] == 0
    assert applied(api, BLUEPRINT)["changed"] == 0  # an older version takes nobody back


def test_a_cluster_that_went_back_is_not_rolled_out_again_by_the_same_documents(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT, CLUSTER)
    settle(mill, "mill-1")
    applied(api, SECOND)
    settle(mill, "mill-1")
    api.post("/api/clusters/mill-1/rollout/undo")
    settle(mill, "mill-1")
    [move] = applied(api, SECOND)["changes"][0]["clusters"]
    assert (move["action"], move["operation_id"]) == ("held", None)
    assert "went back" in move["reason"]
    pinned = CLUSTER.replace("blueprint: mill", "blueprint: mill, version: 2")
    told = applied(api, SECOND, pinned)
    assert told["changes"][0]["clusters"] == []
    assert told["changes"][1]["fields"] == [{"field": "version", "before": "1", "after": "2"}]
    settle(mill, "mill-1")
    assert mill.cluster("mill-1").blueprint_version == "2"


def test_a_version_and_the_bounds_it_needs_change_together(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT, CLUSTER)
    settle(mill, "mill-1")
    third = BLUEPRINT.replace('version: "1"', "version: 1.10").replace("count: 0-5", "count: 6-9")
    third = third.replace("max_workers: 6", "max_workers: 10").replace("default_workers: 4", "default_workers: 8")
    [move] = planned(api, third)["changes"][0]["clusters"]
    assert move["action"] == "refused"
    assert "at least 7 agents" in move["reason"]
    pinned = "---\ncluster: {id: mill-1, blueprint: mill, version: 1.10, max_workers: 9}\n---\n# nothing\n"
    told = applied(api, f"{third}{pinned}")
    assert [change["document"] for change in told["changes"]] == [0, 0]
    settle(mill, "mill-1")
    assert mill.cluster("mill-1").group_targets == {"Head": 1, "Hands": 6}
    assert mill.cluster("mill-1").blueprint_version == "1.10"


def test_what_cannot_be_is_refused_as_a_whole_and_says_what_to_do(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT, CLUSTER)
    other = BLUEPRINT.replace("speed: 1", "speed: 9")
    made = "cluster: {id: mill-9, blueprint: mill}"
    for document, told in [
        (other, "give metadata.version a new value"),
        (CLUSTER.replace("blueprint: mill", "blueprint: shop"), "choose another id"),
        (CLUSTER.replace("blueprint: mill", "blueprint: mill, version: 7"), "there is no version '7'"),
        (CLUSTER.replace("tags:", "type: team, tags:"), "type cannot be changed"),
        ("cluster: {id: new, blueprint: nothing}", "there is no blueprint 'nothing'"),
        ("cluster: {id: new, blueprint: mill, min_workers: 9, max_workers: 9}", "hold at most 6 agents"),
    ]:
        plan = planned(api, document, made)
        assert (actions(plan), plan["refused"]) == (["refused", "create"], 1)
        assert told in plan["changes"][0]["reason"]
        assert told in applied(api, document, made, status=409)["detail"]
    assert api.get("/api/clusters/mill-9").status_code == 404


def test_a_plan_that_is_not_true_any_more_is_refused(mill: Stage, api: FlaskClient) -> None:
    plan = planned(api, BLUEPRINT, CLUSTER)
    applied(api, BLUEPRINT, CLUSTER)
    assert "plan again" in applied(api, BLUEPRINT, CLUSTER, status=409, fingerprint=plan["fingerprint"])["detail"]


def test_faults_are_told_with_the_place_in_their_text(mill: Stage, api: FlaskClient) -> None:
    bad = f"{BLUEPRINT}---\n# a cluster\n---\ncluster:\n  id: a b\n  blueprnt: mill\n"
    response = api.post("/api/plan", json={"documents": [CLUSTER, bad, "# nothing", "{"]})
    assert response.status_code == 422
    found = {(one["pointer"], one.get("line"), one.get("column")) for one in response.json["errors"]}
    assert {("/documents/1/cluster/id", 11, 7), ("/documents/1/cluster/blueprnt", 12, 3)} <= found
    assert ("/documents/2", 1, 1) in found
    assert any(pointer.startswith("/documents/3") for pointer, _, _ in found)
    twice = api.post("/api/plan", json={"documents": [CLUSTER, CLUSTER]})
    assert "declared twice" in twice.json["errors"][0]["detail"]


def test_a_stored_version_may_be_rolled_out_at_once(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT, CLUSTER)
    settle(mill, "mill-1")
    stored = api.post("/api/blueprints", json={"yaml": SECOND, "rollout": True})
    assert (stored.status_code, stored.json["clusters"][0]["action"]) == (201, "rollout")
    assert mill.cluster("mill-1").blueprint_version == "2"
    assert "clusters" not in api.post("/api/blueprints", json={"yaml": SECOND}).json


def test_blueprints_are_applied_by_admins_and_clusters_by_operators(mill: Stage, api: FlaskClient) -> None:
    applied(api, BLUEPRINT)
    with mill.control.database.transaction() as session:
        _, shown = access.make(session, NewKey(name="op", role=Role.OPERATOR), "a test")
    keyed = replace(mill.control, settings=replace(mill.control.settings, insecure_dev=False))
    operator = create_app(keyed).test_client()
    operator.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {shown}"
    assert "role admin" in applied(operator, SECOND, status=403)["detail"]
    assert actions(applied(operator, CLUSTER)) == ["create"]
    assert actions(planned(operator, SECOND)) == ["create"]
