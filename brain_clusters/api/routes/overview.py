"""How all clusters are doing, in one look."""

from __future__ import annotations

import flask

from brain_clusters.api import answers
from brain_clusters.api.auth import identity
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import endpoint
from brain_clusters.api.shapes import TEXT, TIME, WHOLE, by_name, listed, or_null, record, told, words
from brain_clusters.domain.access import Role
from brain_clusters.services import overview

routes = flask.Blueprint("overview", __name__, url_prefix="/api/overview")
_COUNTED = record("", {"total": WHOLE, "by_status": by_name(WHOLE)})
_ITEM = record(
    "AttentionItem",
    {
        "kind": words(("alert", "unhealthy", "dead_letters", "operation", "budget", "host")),
        "severity": words(("critical", "warning", "info")), "sentence": TEXT, "at": or_null(TIME), "count": WHOLE,
        "subject": told(TEXT, "The id of the cluster, or of the host."),
        "id": told(or_null(TEXT), "Of the operation, or the alert's name."),
    },
)  # fmt: skip
_OVERVIEW = record(
    "Overview",
    {
        "clusters": _COUNTED, "agents": _COUNTED, "jobs": record("", {"unfinished": WHOLE}),
        "today": answers.TALLY, "currency": TEXT,
        "attention": record("", {"total": WHOLE, "by_kind": by_name(WHOLE), "items": listed(_ITEM)}),
    },
)  # fmt: skip


@routes.get("")
@endpoint(Role.VIEWER, answers={200: _OVERVIEW})
def show() -> flask.Response:
    """Tell how many clusters, agents and jobs there are, what today cost, and what needs attention."""
    found = overview.overview(control(), hosts=identity().sees_all)
    return answer({**found.as_dict(), "currency": control().settings.currency})
