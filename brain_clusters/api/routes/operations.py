"""Operations: what became of the lifecycle commands."""

from __future__ import annotations

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import PAGE
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.domain.access import Role
from brain_clusters.domain.states import OperationKind, OperationStatus
from brain_clusters.services import operations
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("operations", __name__, url_prefix="/api/operations")

_FILTERS: Schema = {
    **PAGE,
    "cluster_id": {"type": "string", "minlength": 1, "maxlength": 100},
    "kind": {"type": "string", "allowed": [str(kind) for kind in OperationKind]},
    "status": {"type": "string", "allowed": [str(status) for status in OperationStatus]},
}


@routes.get("")
@endpoint(Role.VIEWER, query=_FILTERS, answers={200: answers.OPERATIONS})
def listing(query: Document) -> flask.Response:
    """List operations, newest first."""
    with control().database.transaction() as session:
        page = operations.listing(
            session, query.get("cluster_id"), limit=query["limit"], cursor=query.get("cursor"),
            kind=OperationKind(query["kind"]) if "kind" in query else None,
            status=OperationStatus(query["status"]) if "status" in query else None,
        )  # fmt: skip
    return page_of("operations", page, views.operation)


@routes.get("/<operation_id>")
@endpoint(Role.VIEWER, answers={200: answers.OPERATION})
def get(operation_id: str) -> flask.Response:
    """Show an operation."""
    with control().database.transaction() as session:
        return answer(views.operation(operations.get(session, operation_id)))
