"""ETags: nobody overwrites what somebody else changed, and nobody is sent what it has; and where faults are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from brain_clusters.db.models import Cluster
from brain_clusters.services.control import Control
from tests.conftest import OFFICE

NewCluster = Callable[..., str]


def test_a_clusters_etag_stays_while_only_figures_change_and_changes_with_what_is_edited(
    api: FlaskClient, new_cluster: NewCluster, control: Control
) -> None:
    path = f"/api/clusters/{new_cluster()}"
    first = api.get(path).headers["ETag"]
    with control.database.transaction() as session:
        figures = {"load_percentage": 50, "current_workers": 2, "health_score": 0.5, "tasks_completed": 9}
        session.execute(update(Cluster).where(Cluster.id == path.rsplit("/", 1)[1]).values(figures))
    assert api.get(path).headers["ETag"] == first
    assert api.post(path + "/scale", json={"target_workers": 3}).headers["ETag"] == first
    changed = api.put(path, json={"description": "new"})
    assert changed.headers["ETag"] == api.get(path).headers["ETag"] != first


def test_who_has_read_something_older_is_refused(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}"
    read = {"If-Match": api.get(path).headers["ETag"]}
    assert api.put(path, json={"name": "mine"}, headers=read).status_code == 202
    for method, suffix, body in (("PUT", "", {"name": "late"}), ("POST", "/hibernate", {}), ("DELETE", "", {})):
        refused = api.open(path + suffix, method=method, json=body, headers=read)
        assert (refused.status_code, refused.json["type"]) == (412, "urn:brain:problem:outdated")
    assert api.get(path).json["name"] == "mine"
    assert api.put(path, json={"description": "any"}, headers={"If-Match": "*"}).status_code == 202
    seen = f'"other", {api.get(path).headers["ETag"]}'
    assert api.put(path, json={"description": "one of two"}, headers={"If-Match": seen}).status_code == 202
    assert api.put("/api/clusters/none", json={"name": "n"}, headers={"If-Match": "*"}).status_code == 404


def test_of_many_who_read_the_same_one_writes(api_app: Flask, new_cluster: NewCluster) -> None:
    """Not checked first and written then: the row is held in between."""
    path, gate = f"/api/clusters/{new_cluster()}", Barrier(8)
    seen = api_app.test_client().get(path).headers["ETag"]

    def write(number: int) -> int:
        gate.wait()
        body, headers = {"name": f"writer {number}"}, {"If-Match": seen}
        return api_app.test_client().put(path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == [202] + [412] * 7


def test_a_repeated_request_is_no_outdated_one(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}"
    headers = {"If-Match": api.get(path).headers["ETag"], "Idempotency-Key": path}
    first, second = (api.put(path, json={"name": "once"}, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.headers["Idempotency-Replayed"] == "true"


def test_a_blueprints_etag_is_of_its_versions(api: FlaskClient) -> None:
    def text(version: str) -> dict[str, str]:
        return {"yaml": OFFICE.replace("id: office", "id: tagged").replace('"1.0"', f'"{version}"')}

    path = "/api/blueprints/tagged"
    made = api.put(path, json=text("1"))
    first = {"If-Match": made.headers["ETag"]}
    assert api.get(path).headers["ETag"] == made.headers["ETag"]
    assert api.put(path, json=text("2"), headers=first).status_code == 201
    assert api.put(path, json=text("2"), headers=first).status_code == 200  # it is done already
    assert api.put(path, json=text("3"), headers=first).status_code == 412
    assert api.delete(path, headers=first).status_code == 412
    assert api.delete(path, headers={"If-Match": api.get(path).headers["ETag"]}).status_code == 204
    assert api.put(path, json=text("4"), headers={"If-Match": "*"}).status_code == 412  # there is none to match


def test_who_has_it_already_is_told_so(api: FlaskClient, new_cluster: NewCluster) -> None:
    for path in (f"/api/clusters/{new_cluster()}", "/api/blueprints/office"):
        tag = api.get(path).headers["ETag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            spared = api.get(path, headers={"If-None-Match": known})
            assert (spared.status_code, spared.data, spared.headers["ETag"]) == (304, b"", tag)
        assert api.get(path, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_fault_says_which_parameter_or_header_or_member_it_is_of(api: FlaskClient, new_cluster: NewCluster) -> None:
    path = f"/api/clusters/{new_cluster()}"

    def fault(method: str, path: str, **sent: object) -> dict[str, object]:
        refused = api.open(path, method=method, **sent)
        assert (refused.status_code, refused.mimetype) == (422, "application/problem+json")
        found: dict[str, object] = refused.json["errors"][0]
        found.pop("detail")
        return found

    limit = {"pointer": "/limit", "in": "query", "parameter": "limit"}
    assert fault("GET", "/api/clusters?limit=0") == limit
    assert fault("GET", "/api/clusters?limit=1&limit=2") == limit
    assert fault("GET", "/api/clusters?cursor=nonsense")["parameter"] == "cursor"
    assert fault("POST", f"{path}/scale?x=1", json={}) == {"pointer": "/x", "in": "query", "parameter": "x"}
    assert fault("POST", f"{path}/scale", json={"target_workers": -1}) == {"pointer": "/target_workers"}
    header = {"pointer": "/Idempotency-Key", "in": "header", "parameter": "Idempotency-Key"}
    assert fault("POST", f"{path}/hibernate", json={}, headers={"Idempotency-Key": "é"}) == header
    header = {"pointer": "/If-Match", "in": "header", "parameter": "If-Match"}
    assert fault("POST", f"{path}/hibernate", json={}, headers={"If-Match": ","}) == header


def test_what_flask_itself_refuses_is_a_problem_too(api: FlaskClient) -> None:
    wrong = api.patch("/api/clusters")
    assert (wrong.status_code, wrong.mimetype) == (405, "application/problem+json")
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    nowhere = api.get("/api/nothing-here")
    assert (nowhere.status_code, nowhere.mimetype) == (404, "application/problem+json")
    assert api.post("/api/clusters", data="x", content_type="text/plain").mimetype == "application/problem+json"


def test_pages_of_agents_and_blueprints_stay_when_rows_come(api: FlaskClient) -> None:
    for number in range(5):
        text = OFFICE.replace("id: office", f"id: paged-{number}")
        assert api.post("/api/blueprints", json={"yaml": text}).status_code == 201
    found: list[str] = []
    path = "/api/blueprints?limit=2"
    page = api.get(path).json
    while True:
        found += [row["id"] for row in page["blueprints"]]
        if page["next_cursor"] is None:
            break
        early = OFFICE.replace("id: office", f"id: a-{len(found)}")  # before all that was read
        assert api.post("/api/blueprints", json={"yaml": early}).status_code == 201
        page = api.get(f"{path}&cursor={page['next_cursor']}").json
    assert found == sorted(set(found))
    assert {f"paged-{number}" for number in range(5)} <= set(found)
