"""Errors as problem+json (RFC 9457). The one table of HTTP status codes is here."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from brain_clusters.api import pages
from brain_clusters.api.context import answer
from brain_clusters.errors import (
    BrainError,
    Conflict,
    Fault,
    InvalidInput,
    NotFound,
    Outdated,
    SchemaMismatch,
    TemporaryError,
)

log = logging.getLogger(__name__)

# By class of error: status, the end of the problem's type, and its title.
PROBLEMS: dict[type[Exception], tuple[int, str, str]] = {
    InvalidInput: (422, "invalid-input", "The request is not valid"),
    NotFound: (404, "not-found", "There is no such thing"),
    Outdated: (412, "outdated", "It was changed by somebody since"),
    Conflict: (409, "conflict", "This is not possible now"),
    SchemaMismatch: (503, "schema", "The database's schema is not one that this version works with"),
    TemporaryError: (503, "temporary", "A server that is needed does not answer"),
    Exception: (500, "internal", "Something is wrong on our side"),
}


def register(app: flask.Flask) -> None:
    """Have every error of ``app`` answered as a problem."""
    app.register_error_handler(BrainError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def problem(
    status: int, kind: str, title: str, detail: str, *,
    members: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None,
) -> flask.Response:  # fmt: skip
    """Return a problem as a response, on a page as a page. members: what is added to the standard's own."""
    render = pages.renderer()
    if render is not None:
        page = render(status, title, detail)
        page.status_code = status
        page.headers.extend(headers or {})
        return page
    body = {"type": kind, "title": title, "status": status, "detail": detail, "instance": flask.request.path}
    return answer(body | dict(members or {}), status, headers, mimetype="application/problem+json")


def _ours(exc: BrainError) -> flask.Response:
    status, kind, title = next(PROBLEMS[cls] for cls in type(exc).__mro__ if cls in PROBLEMS)
    if status >= 500 and not exc.retryable:
        return _unexpected(exc)
    members: dict[str, Any] = {}
    if isinstance(exc, InvalidInput):
        members["errors"] = [_located(fault, exc.place) for fault in exc.faults]
    if isinstance(exc, Conflict) and exc.status is not None:
        members |= {"cluster_status": exc.status, "possible": list(exc.possible)}
    delay = getattr(exc, "delay_seconds", None)
    headers = {"Retry-After": str(math.ceil(delay))} if exc.retryable and delay is not None else None
    return problem(status, f"urn:brain:problem:{kind}", title, str(exc), members=members, headers=headers)


def _located(fault: Fault, place: str | None) -> dict[str, Any]:
    """Return a fault, with the query parameter or the header that its pointer names. A GET has nothing but a query."""
    told = fault.as_dict()
    if place is None and flask.request.method in ("GET", "HEAD"):
        place = "query"
    name = fault.pointer[1:].partition("/")[0].replace("~1", "/").replace("~0", "~")
    return told | {"in": place, "parameter": name} if place and name else told


def _http(exc: HTTPException) -> flask.Response:
    """Answer what Flask itself found: unknown paths and methods, bodies that are too large or no JSON."""
    headers = {name: value for name, value in exc.get_headers() if name.lower() != "content-type"}
    return problem(exc.code or 500, "about:blank", exc.name, exc.description or exc.name, headers=headers)


def _unexpected(exc: Exception) -> flask.Response:
    """Say nothing of our inside to the caller, and everything to the log."""
    log.error("%s %r failed", flask.request.method, flask.request.path, exc_info=exc)
    status, kind, title = PROBLEMS[Exception]
    return problem(status, f"urn:brain:problem:{kind}", title, "the error is in the API's log")
