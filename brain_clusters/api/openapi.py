"""The OpenAPI 3.1 document: made of the URL map and of what ``endpoint`` declares, which is what validates, too."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flask

from brain_clusters import __version__
from brain_clusters.api import answers
from brain_clusters.api.endpoint import Endpoint, declared
from brain_clusters.api.shapes import Media, Shape
from brain_clusters.blueprints import jsonschema

_VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^:<>]+)>")
_ABOUT = (
    "Plain Celery workers as clusters that are declared in YAML, scaled by what waits, put to sleep and woken.\n\n"
    "What holds for every route (errors, pages, ETags, idempotency, waiting, the stream of events) is in docs/api.md."
)
_HEADERS: dict[str, tuple[str, Shape]] = {
    "Prefer": ("`wait=SECONDS`, at most 60: the answer comes when the operation is done.", {"type": "string"}),
    "Idempotency-Key": ("Sent again with the same key, a request is done once.", {"type": "string", "maxLength": 255}),
    "If-Match": ("An ETag: 412 when it was changed by somebody since.", {"type": "string"}),
    "If-None-Match": ("ETags: 304 when it is still one of them.", {"type": "string"}),
    "Last-Event-ID": ("Begin after this position, or after the event of this id.", {"type": "string"}),
}
# Where a module's routes are shown, if not under its name.
_TAGS = {"lifecycle": "clusters", "documents": "system"}
_TITLES = {
    200: "Done", 201: "Made", 202: "Accepted", 204: "Done", 304: "It is as you have it", 303: "Go on there",
    400: "The body cannot be read", 401: "No key, or none that is good", 403: "Your key may not do this",
    404: "There is no such thing", 409: "This is not possible now", 412: "It was changed by somebody since",
    413: "The body is too large", 415: "The body is no JSON", 422: "The request is not valid",
    429: "Too many requests", 500: "Something is wrong on our side", 503: "A server that is needed does not answer",
}  # fmt: skip


def document(app: flask.Flask) -> dict[str, Any]:
    """Return the document of ``app``."""
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, Shape] = {}
    for path, method, name, found in operations(app):
        view = app.view_functions[name]
        paths.setdefault(path, {})[method.lower()] = _hoisted(_operation(path, method, name, view, found), components)
    for shape in (answers.BRANCH, answers.NODE, answers.PROBLEM):
        _hoisted(shape, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "BRAiN Clusters", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in sorted({one["tags"][0] for path in paths.values() for one in path.values()})],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key; BRAIN_HOME/admin.key has one."},
                "session": {"type": "apiKey", "in": "cookie", "name": "brain_session"},
            },
        },
    }


def operations(app: flask.Flask) -> Iterator[tuple[str, str, str, Endpoint]]:
    """Yield path, method, name and declaration of all that programs may call."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        found = declared(app.view_functions.get(rule.endpoint))
        if found is not None and not found.page:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield _VARIABLE.sub(r"{\1}", rule.rule), method, rule.endpoint, found


def _operation(path: str, method: str, name: str, view: Any, found: Endpoint) -> dict[str, Any]:
    told = inspect.cleandoc(view.__doc__ or name).split("\n\n", 1)
    operation: dict[str, Any] = {
        "operationId": name.replace(".", "_"),
        "tags": [_TAGS.get(area := name.partition(".")[0], area).replace("_", " ")],
        "summary": " ".join(told[0].split()),
        "parameters": [*_path_parameters(path), *_query_parameters(found.query), *map(_header, found.headers)],
        "responses": {str(status): _response(status, shape) for status, shape in sorted(_answers(path, found).items())},
        "security": [{"bearer": []}, {"session": []}] if found.role is not None else [],
    }
    if len(told) > 1:
        operation["description"] = told[1]
    if found.role is not None:
        operation["x-role"] = str(found.role)
    body = found.reads if found.body is None else found.body
    if body is not None and method != "GET":
        shape = body_shape(body)
        content: dict[str, Any] = {"schema": shape} | ({"example": found.example} if found.example else {})
        operation["requestBody"] = {
            "required": bool(shape.get("required") or "anyOf" in shape),
            "content": {"application/json": content},
        }
    return operation


def body_shape(body: Any) -> Shape:
    """Return a body's schema: of Cerberus, or several of them in a tuple, of which one in a list is many of it."""
    if isinstance(body, tuple):
        return {"anyOf": [body_shape(one) for one in body]}
    if isinstance(body, list):
        return {"type": "array", "minItems": 1, "items": body_shape(body[0])}
    return jsonschema.mapping(body)


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{([^}]+)}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, rule in schema.items():
        shape = jsonschema.rule(rule)
        about = shape.pop("description", None)
        parameter = {"name": name, "in": "query", "required": bool(rule.get("required")), "schema": shape}
        found.append(parameter | ({"description": about} if about else {}))
    return found


def _header(name: str) -> dict[str, Any]:
    about, shape = _HEADERS[name]
    return {"name": name, "in": "header", "required": False, "description": about, "schema": shape}


def _answers(path: str, found: Endpoint) -> dict[int, Any]:
    """Return what is declared, and the problems that follow from it."""
    reads = found.body is not None or found.reads is not None
    problems = {422, 500, 503}
    problems |= {400, 409, 413, 415} if reads else set()
    problems |= {401, 429} if reads or found.role is not None else set()
    problems |= {403} if found.role is not None or reads else set()
    problems |= {404} if "{" in path or reads else set()
    problems |= {412} if "If-Match" in found.headers else set()
    more: dict[int, Any] = {304: None} if "If-None-Match" in found.headers else {}
    return {**dict.fromkeys(problems, answers.A_PROBLEM), **more, **found.answers}


def _response(status: int, shape: Any) -> dict[str, Any]:
    if shape is None:
        return {"description": _TITLES[status]}
    shapes = shape.shapes if isinstance(shape, Media) else {"application/json": shape}
    return {"description": _TITLES[status], "content": {kind: {"schema": one} for kind, one in shapes.items()}}


def _hoisted(found: Any, components: dict[str, Shape]) -> Any:
    """Return ``found`` with references in place of titled shapes, which are put into ``components``."""
    if isinstance(found, list):
        return [_hoisted(one, components) for one in found]
    if not isinstance(found, dict):
        return found
    moved = {key: _hoisted(value, components) for key, value in found.items()}
    title = found.get("title")
    if not isinstance(title, str) or "type" not in found:
        return moved
    known = components.setdefault(title, moved)
    if known != moved:
        raise ValueError(f"two shapes are called {title}")
    return {"$ref": f"#/components/schemas/{title}"}
