"""Blueprints over HTTP."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

TEXT = """
metadata: {{id: {id}, name: A shop, version: "{version}", tags: [x]}}
cluster: {{type: project, min_workers: 1, max_workers: 2}}
agents:
  - {{role: supervisor, name: Boss, count: 1}}
"""


def body(id: str, version: str = "1.0", extra: str = "") -> dict[str, Any]:
    return {"yaml": TEXT.format(id=id, version=version) + extra}


def test_a_new_blueprint_is_201_and_the_same_again_200(api: FlaskClient) -> None:
    response = api.post("/api/blueprints", json=body("shop"))
    assert response.status_code == 201
    assert response.headers["Location"] == "/api/blueprints/shop"
    shown = response.json
    assert (shown["id"], shown["version"], shown["tags"], shown["instances_created"]) == ("shop", "1.0", ["x"], 0)
    assert api.post("/api/blueprints", json=body("shop")).status_code == 200
    assert api.get("/api/blueprints/shop").json == shown


def test_another_text_for_a_stored_version_is_409(api: FlaskClient) -> None:
    api.post("/api/blueprints", json=body("fixed"))
    assert api.post("/api/blueprints", json=body("fixed", extra="# edited\n")).status_code == 409
    assert api.put("/api/blueprints/fixed", json=body("fixed", "1.1", "# edited\n")).status_code == 201


def test_a_blueprint_shows_its_text_and_its_versions(api: FlaskClient) -> None:
    api.post("/api/blueprints", json=body("many", "1.0"))
    api.put("/api/blueprints/many", json=body("many", "2.0"))
    newest = api.get("/api/blueprints/many").json
    assert newest["version"] == "2.0"
    assert newest["blueprint_yaml"] == body("many", "2.0")["yaml"]
    assert [one["version"] for one in newest["versions"]] == ["2.0", "1.0"]
    assert api.get("/api/blueprints/many?version=1.0").json["version"] == "1.0"
    assert api.get("/api/blueprints/many?version=3").status_code == 404
    assert set(newest) >= {
        "id", "name", "version", "blueprint_yaml", "manifest_path", "description", "author", "tags", "created_at",
        "updated_at", "is_active", "instances_created", "instances_active", "success_rate",
    }  # fmt: skip


def test_the_list_shows_each_blueprint_once_without_its_text(api: FlaskClient) -> None:
    api.post("/api/blueprints", json=body("listed", "1"))
    api.post("/api/blueprints", json=body("listed", "2"))
    listed = api.get("/api/blueprints").json
    assert listed["total"] == len(listed["blueprints"])
    assert [row["version"] for row in listed["blueprints"] if row["id"] == "listed"] == ["2"]
    assert "blueprint_yaml" not in listed["blueprints"][0]


def test_a_put_to_another_blueprints_path_is_refused(api: FlaskClient) -> None:
    assert api.put("/api/blueprints/other", json=body("shop2")).status_code == 409


def test_faults_in_the_text_have_line_and_column(api: FlaskClient) -> None:
    response = api.post("/api/blueprints", json=body("broken", extra="  - {role: boss, name: B}\nunheard: of\n"))
    assert response.status_code == 422
    faults = response.json["errors"]
    assert len(faults) >= 2
    assert all(fault["line"] >= 1 and fault["column"] >= 1 for fault in faults)


def test_bodies_without_text_are_422(api: FlaskClient) -> None:
    for wrong in ({}, {"yaml": ""}, {"yaml": 5}, {"yaml": "a\0b"}, {"yaml": "[" * 5000}, {"text": "x"}, []):
        assert api.post("/api/blueprints", json=wrong).status_code == 422


def test_a_retired_blueprint_is_gone_until_it_is_stored_again(api: FlaskClient) -> None:
    api.post("/api/blueprints", json=body("short"))
    response = api.delete("/api/blueprints/short")
    assert (response.status_code, response.data) == (204, b"")
    assert api.get("/api/blueprints/short").status_code == 404
    assert api.delete("/api/blueprints/short").status_code == 404
    assert api.post("/api/blueprints", json=body("short")).status_code == 201


def test_a_blueprint_in_use_cannot_be_retired(api: FlaskClient) -> None:
    api.post("/api/blueprints", json=body("used"))
    cluster = api.post("/api/clusters", json={"blueprint_id": "used", "name": "n"}).json["cluster"]
    response = api.delete("/api/blueprints/used")
    assert response.status_code == 409
    assert cluster["id"] in response.json["detail"]
