"""Whether answers are as the OpenAPI document says: asked of every answer of the test run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from brain_clusters.api import openapi
from brain_clusters.api.app import create_app
from brain_clusters.config import Settings
from brain_clusters.services.control import Control

_URI = "urn:brain:openapi"


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the document, made as the API makes it; no server is asked."""
    settings = Settings(home=Path("/nowhere"), database_url="postgresql://nobody@127.0.0.1:9/none",
                        redis_url="redis://127.0.0.1:9/0", insecure_dev=True)  # fmt: skip
    control = Control.open(settings, application="tests")
    try:
        found: dict[str, Any] = json.loads(json.dumps(openapi.document(create_app(control))))
        return found
    finally:
        control.close()


@lru_cache
def _validator(*keys: str) -> Draft202012Validator:
    pointer = "/".join(key.replace("~", "~0").replace("/", "~1") for key in keys)
    registry: Registry[Any] = Registry().with_resource(_URI, Resource(document(), DRAFT202012))
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator({"$ref": f"{_URI}#/{pointer}"}, registry=registry, format_checker=checker)


def template_of(path: str) -> str | None:
    """Return the documented path that ``path`` is one of."""
    for template in sorted(document()["paths"], key=lambda one: one.count("{")):
        if re.fullmatch(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)), path):
            return str(template)
    return None


def fault_at(method: str, path: str, status: int, content_type: str, body: bytes) -> str | None:
    """Do as ``fault`` for the path of a request, with its query; None where it is none of the API's."""
    template = template_of(path.partition("?")[0])
    kind = content_type.partition(";")[0].strip()
    return None if template is None else fault(method, template, status, kind, body)


def fault(method: str, template: str, status: int, kind: str, body: bytes) -> str | None:
    """Return a sentence when an answer is none of those that the document has for ``template``; None when it is."""
    what = f"{method} {template} answered {status}"
    paths: Mapping[str, Any] = document()["paths"]
    operation = paths.get(template, {}).get(method.lower())
    if operation is None:
        return f"{what}, and the document does not have it"
    told = operation["responses"].get(str(status))
    if told is None:
        return f"{what}, and the document has only {', '.join(operation['responses'])}: declare it with the endpoint"
    if "content" not in told:
        return f"{what} with a body, and the document has none" if body else None
    if kind not in told["content"]:
        return f"{what} with {kind}, and the document has {', '.join(told['content'])}"
    if not kind.endswith("json"):
        return None
    validator = _validator("paths", template, method.lower(), "responses", str(status), "content", kind, "schema")
    wrong = next(iter(validator.iter_errors(json.loads(body))), None)
    return wrong and f"{what} with a body that is not as documented, at {wrong.json_path}: {wrong.message[:500]}"
