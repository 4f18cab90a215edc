"""Each request that changes something, or would have, gets its line in the audit."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import flask

from brain_clusters.api.context import control
from brain_clusters.api.endpoint import declared
from brain_clusters.api.origin import SAFE_METHODS
from brain_clusters.db.scope import narrowed
from brain_clusters.domain.access import Identity
from brain_clusters.errors import BrainError
from brain_clusters.services import audit
from brain_clusters.services.audit import Line

log = logging.getLogger(__name__)


def begin() -> None:
    """Note the request at hand, which is to be called before anything is decided about it."""
    request = flask.request
    if request.method in SAFE_METHODS or not _changes():
        return
    line = flask.g.line = Line(request.endpoint or "none", request.method, request.path, request.remote_addr)
    flask.g.noting = ExitStack()
    flask.g.noting.enter_context(audit.of(line))


def _changes() -> bool:
    endpoint = flask.request.endpoint
    found = declared(flask.current_app.view_functions.get(endpoint)) if endpoint else None
    return found is None or found.changes


def identified(caller: Identity) -> None:
    """Note who sends the request at hand."""
    line: Line | None = flask.g.get("line")
    if line is not None:
        line.caller = caller


def about(detail: str) -> None:
    """Note what the request at hand is about, where its path does not tell. No secret is to be in it."""
    flask.g.line_detail = detail


def finish(response: flask.Response) -> flask.Response:
    """Write the line of the request at hand. A line that cannot be written is in the log."""
    line: Line | None = flask.g.get("line")
    # Refused for coming too often, requests would fill the audit, which is what the limit is against.
    if line is None or (response.status_code == 429 and not line.written):
        return response
    try:
        with narrowed(()):
            audit.close(
                control(), line, response.status_code,
                cluster_id=_cluster_id(line, response.status_code), detail=flask.g.get("line_detail"),
            )  # fmt: skip
    except BrainError as exc:
        who = line.caller.name if line.caller else "unknown"
        told = (who, line.address, line.action, line.path, response.status_code, exc)
        log.warning("audit: actor=%r address=%s action=%s path=%r status=%d is not stored: %s", *told)
    return response


def _cluster_id(line: Line, status: int) -> str | None:
    """Return the cluster of the path, where the caller sees it: or its tenant would read who looked for it in vain."""
    given = (flask.request.view_args or {}).get("cluster_id")
    sees = line.caller is not None and (line.caller.sees_all or status < 400)
    return str(given)[:100] if given is not None and sees else None


def end() -> None:
    """Forget the request at hand."""
    found = flask.g.pop("noting", None)
    if found is not None:
        found.close()
