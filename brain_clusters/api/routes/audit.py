"""The audit: who changed what, from where, with which result."""

from __future__ import annotations

import flask

from brain_clusters.api import access_answers, views
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import PAGE
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.domain.access import Role
from brain_clusters.domain.durations import in_utc, parse_instant
from brain_clusters.services import audit
from brain_clusters.services.audit import DONE, FAILED, REFUSED, AuditFilter
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("audit", __name__, url_prefix="/api/audit")

_WORD = {"type": "string", "minlength": 1, "maxlength": 200}
_INSTANT = {"type": "string", "check_with": "instant", "maxlength": 100}
_FILTERS: Schema = {
    **PAGE,
    "actor": _WORD,
    "action": _WORD,
    "cluster_id": _WORD,
    "key_id": _WORD,
    "result": {"type": "string", "allowed": [DONE, REFUSED, FAILED]},
    "since": _INSTANT,
    "until": _INSTANT,
}


@routes.get("")
@endpoint(Role.ADMIN, query=_FILTERS, answers={200: access_answers.AUDIT})
def listing(query: Document) -> flask.Response:
    """List lines of the audit, newest first; to who sees only some clusters, those of its clusters."""
    limit, cursor = query.pop("limit"), query.pop("cursor", None)
    for name in ("since", "until"):
        if name in query:
            query[name] = in_utc(parse_instant(query[name]))
    with control().database.transaction() as session:
        page = audit.listing(session, AuditFilter(**query), limit=limit, cursor=cursor)
    return page_of("audit", page, views.audit)
