"""The OpenAPI document: it is sound, it has every route, and says of bodies what validates them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from brain_clusters.api.endpoint import declared
from brain_clusters.blueprints import jsonschema
from brain_clusters.blueprints.validation import check
from brain_clusters.services import requests
from tests import documented


@pytest.fixture(scope="module")
def document(api_app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = api_app.test_client().get("/api/openapi.json").json
    return found


def test_it_is_a_sound_document(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_it_has_every_route_with_its_method_role_and_path_parameters(api_app: Flask, document: dict[str, Any]) -> None:
    expected = {}
    for rule in api_app.url_map.iter_rules():
        told = declared(api_app.view_functions[rule.endpoint])
        if told is not None and not told.page:
            path = re.sub(r"<(?:[^:<>]+:)?([^:<>]+)>", r"{\1}", rule.rule)
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                expected[path, method.lower()] = told.role and str(told.role), set(rule.arguments), set(told.query)
    found = {
        (path, method): (operation.get("x-role"), _named(operation, "path"), _named(operation, "query"))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert found == expected


def _named(operation: dict[str, Any], place: str) -> set[str]:
    return {one["name"] for one in operation["parameters"] if one["in"] == place}


def test_every_endpoint_says_what_it_is_for_and_what_it_answers(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            good = [status for status in operation["responses"] if status < "400"]
            assert operation["summary"].endswith("."), (path, method)
            assert good, f"declare the answers of {method} {path} with its endpoint"


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (requests.CREATE, {"blueprint_id": "office", "name": "n"}),
        (requests.CREATE, {"blueprint_id": "office", "name": "n", "tags": ["a"], "config": {"x": [1]}}),
        (requests.CREATE, {"blueprint_id": "office", "name": "n", "type": "project", "target_workers": 0}),
        (requests.CREATE, {"name": "n"}),
        (requests.CREATE, {"blueprint_id": "no good!", "name": "n"}),
        (requests.CREATE, {"blueprint_id": "office", "name": ""}),
        (requests.CREATE, {"blueprint_id": "office", "name": "n", "unknown": 1}),
        (requests.CREATE, {"blueprint_id": "office", "name": "n", "min_workers": True}),
        (requests.CREATE, {"blueprint_id": "office", "name": "n", "max_workers": 0}),
        (requests.SCALE, {"groups": {"Clerks": 2}}),
        (requests.SCALE, {"groups": {"Clerks": -1}}),
        (requests.JOB, {"payload": None, "priority": "high", "delay": 5}),
        (requests.JOB, {"priority": "urgent"}),
        (requests.BLUEPRINT, {"yaml": ""}),
    ],
)
def test_the_document_allows_just_what_validates(schema: Any, body: Any) -> None:
    allowed = Draft202012Validator(jsonschema.mapping(schema)).is_valid(body)
    assert allowed == (not check(body, schema)[1])


def test_an_answer_that_is_not_documented_is_found_out() -> None:
    path = "/api/operations/{operation_id}"
    assert "responses" in str(documented.document()["paths"][path]["get"])
    told = documented.fault("GET", path, 200, "application/json", b'{"id": "x"}')
    assert told is not None
    assert "is a required property" in told
    assert "declare it" in str(documented.fault("GET", path, 418, "application/json", b"{}"))
    assert documented.fault("GET", path, 404, "application/problem+json",
                            b'{"type":"a","title":"t","status":404,"detail":"d","instance":"/"}') is None  # fmt: skip


def test_the_page_and_its_files_are_ours_and_nothing_is_inline(api: FlaskClient) -> None:
    page = api.get("/api/docs")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [name for name in names if name.startswith("/api/docs/")] == names[1:]
    for name in names[1:]:
        found = api.get(name)
        assert (found.status_code, len(found.data) > 100) == (200, True), name
    assert not re.search(r"<script(?![^>]*src=)|<style|style=|\son\w+=", page.text)
    assert api.get("/api/docs/README.md").status_code == 404
