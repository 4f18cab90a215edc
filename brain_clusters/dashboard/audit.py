"""The audit: who changed what, from where, with which result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import flask

from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard.job_shape import SINCE
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.services import audit
from brain_clusters.services.audit import DONE, FAILED, REFUSED, AuditFilter
from brain_clusters.services.requests import Schema

routes = screen("audit")

_WORD = {"type": "string", "maxlength": 200}
_RESULTS = (DONE, REFUSED, FAILED)
_EQUAL = {"actor": "actor", "action": "action", "cluster": "cluster_id", "key": "key_id", "result": "result"}
_QUERY: Schema = {
    **dict.fromkeys(("actor", "action", "cluster", "key"), _WORD),
    "result": {"type": "string", "allowed": ["", *_RESULTS]},
    "since": {"type": "string", "allowed": ["", *SINCE]},
    "cursor": {"type": "string", "minlength": 1, "maxlength": 1000},
}
_MANY = 50


@routes.get("/audit")
@endpoint(Role.ADMIN, query=_QUERY, page=True)
def listing(query: Document) -> flask.Response:
    """List lines of the audit, the newest first."""
    stated = {name: query[given] for given, name in _EQUAL.items() if query.get(given)}
    since = query.get("since")
    if since:
        stated["since"] = datetime.now(UTC) - timedelta(seconds=SINCE[since])
    with control().database.transaction() as session:
        found = audit.listing(session, AuditFilter(**stated), limit=_MANY, cursor=query.get("cursor"))
    return page(
        "audit.html", title="Audit", found=found, query=query, results=_RESULTS, since=SINCE, narrowed=bool(stated)
    )
