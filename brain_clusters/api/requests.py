"""Reading requests: bodies, query parameters and headers, each refused with what to do instead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import flask
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge, UnsupportedMediaType

from brain_clusters.blueprints.messages import pointer_to
from brain_clusters.blueprints.validation import check
from brain_clusters.errors import Fault, InvalidInput
from brain_clusters.services import etags, idempotency
from brain_clusters.services.paging import MOST_PER_PAGE
from brain_clusters.services.requests import Schema

BODY_LIMIT_BYTES = 1 << 20
BATCH_LIMIT_BYTES = 16 << 20
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

PAGE: Schema = {
    "limit": {
        "type": "integer", "min": 1, "max": MOST_PER_PAGE, "default": 50,
        "meta": {"description": "The most that a page has."},
    },
    "cursor": {
        "type": "string", "minlength": 1, "maxlength": 1000,
        "meta": {"description": "The next_cursor of the page before, for the one after it."},
    },
}  # fmt: skip
# Of what was without pages once, and seldom is more than one.
LONG_PAGE: Schema = {**PAGE, "limit": {**PAGE["limit"], "default": MOST_PER_PAGE}}


def read_body(limit_bytes: int = BODY_LIMIT_BYTES) -> Any:
    """Return the JSON of the body, {} without one. Raises what becomes 400, 413 or 415."""
    data = _body_bytes(limit_bytes)
    if not data:
        return {}
    if flask.request.mimetype != "application/json" or flask.request.content_encoding:
        raise UnsupportedMediaType("send plain JSON with Content-Type: application/json")
    try:
        return json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as exc:
        told = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise BadRequest(f"the body is no JSON that can be read: {told}") from exc


def _body_bytes(limit_bytes: int) -> bytes:
    # One more than is allowed: Werkzeug cuts a chunked body there without a word, and so it is seen here.
    flask.request.max_content_length = limit_bytes + 1
    try:
        data = flask.request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as exc:  # the server has errors of its own for broken chunks and lost connections
        raise BadRequest("the body could not be read to its end") from exc
    if len(data) > limit_bytes:
        raise RequestEntityTooLarge(f"a body has at most {limit_bytes} bytes")
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is stated twice in the same object")
    return found


def read_query(schema: Schema) -> dict[str, Any]:
    """Return the query parameters with their defaults; raise InvalidInput with every fault."""
    document: dict[str, Any] = {}
    faults = []
    for name, values in flask.request.args.lists():
        document[name] = _typed(values[0], schema.get(name, {}))
        if len(values) > 1:
            faults.append(Fault(pointer_to((name[:40],)), f"'{name[:40]}' is given {len(values)} times; give it once"))
    found, more = check(document, schema)
    if faults or more:
        raise InvalidInput("the query parameters are not valid", [*faults, *more], place="query")
    return found


def _typed(text: str, rule: Mapping[str, Any]) -> Any:
    """Return what ``text`` means to ``rule``; what it cannot mean stays text, for the check to refuse."""
    if rule.get("type") == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if rule.get("type") == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def read_key(body: Any, wait_seconds: float = 0.0) -> idempotency.Key | None:
    """Return the request's Idempotency-Key with what it stands for; raise InvalidInput for a malformed one."""
    text = flask.request.headers.get("Idempotency-Key")
    if text is None:
        return None
    if not _KEY.fullmatch(text):
        told = "an Idempotency-Key has 1 to 255 printable ASCII characters"
        raise InvalidInput(told, [Fault("/Idempotency-Key", told)], place="header")
    stands_for = idempotency.fingerprint([flask.request.method, flask.request.path], body)
    # Of each caller's own: what another one's request made is nobody else's answer.
    # A Genesis service knows no callers, but that they have its key.
    caller = flask.g.get("identity")
    owner = None if caller is None else caller.key_id
    return idempotency.Key(f"{owner}/{text}" if owner else text, stands_for, wait_seconds)


def read_if_match() -> tuple[str, ...]:
    """Return the ETags of If-Match, () without the header; raise InvalidInput when it names none."""
    if "If-Match" not in flask.request.headers:
        return ()
    found = flask.request.if_match
    if found.star_tag:
        return (etags.ANY,)
    seen = tuple(sorted(found.as_set(include_weak=True)))
    if not seen:
        told = 'If-Match names no ETag; send that of a GET, as "3f2a...", or *'
        raise InvalidInput(told, [Fault("/If-Match", told)], place="header")
    return seen
