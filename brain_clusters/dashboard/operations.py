"""Operations: what was asked for, by whom, and what became of it."""

from __future__ import annotations

import flask

from brain_clusters.api import views
from brain_clusters.api.context import control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.dashboard.site import page, screen
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import OperationKind, OperationStatus
from brain_clusters.services import feed, operations
from brain_clusters.services.feed import EventFilter
from brain_clusters.services.requests import Schema

routes = screen("operations")

_QUERY: Schema = {
    "cluster": {"type": "string", "maxlength": 200},
    "kind": {"type": "string", "allowed": ["", *(str(kind) for kind in OperationKind)]},
    "status": {"type": "string", "allowed": ["", *(str(status) for status in OperationStatus)]},
    "cursor": {"type": "string", "minlength": 1, "maxlength": 1000},
}
_MANY = 50


@routes.get("/operations")
@endpoint(Role.VIEWER, query=_QUERY, page=True)
def listing(query: Document) -> flask.Response:
    """List operations, the newest first."""
    kind, status = query.get("kind") or None, query.get("status") or None
    with control().database.transaction() as session:
        found = operations.listing(
            session, query.get("cluster") or None, limit=_MANY, cursor=query.get("cursor"),
            kind=OperationKind(kind) if kind else None, status=OperationStatus(status) if status else None,
        )  # fmt: skip
    return page(
        "operations.html", title="Operations", found=found, of=query.get("cluster") or "", kind=kind, status=status,
        kinds=list(OperationKind), statuses=list(OperationStatus), narrowed=any((kind, status, query.get("cluster"))),
    )  # fmt: skip


@routes.get("/operations/<operation_id>")
@endpoint(Role.VIEWER, page=True)
def show(operation_id: str) -> flask.Response:
    """Show an operation with what it was asked, what came of it, and the events it left."""
    with control().database.transaction() as session:
        row = operations.get(session, operation_id)
        wanted = EventFilter(cluster_id=row.cluster_id, operation_id=row.id)
        events, _ = feed.listing(session, wanted, limit=_MANY, cursor=None)
    return page(
        "operation.html", title=f"{row.kind} {row.cluster_id or ''}".strip(), told=views.operation(row),
        events=events.items, poll=2 if row.finished_at is None else 15,
    )  # fmt: skip
