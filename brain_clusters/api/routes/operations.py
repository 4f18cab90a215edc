"""Operations: what became of the lifecycle commands."""

from __future__ import annotations

import flask

from brain_clusters.api import views
from brain_clusters.api.context import answer, control
from brain_clusters.api.requests import PAGE, read_query
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.services import operations
from brain_clusters.services.requests import Schema

routes = flask.Blueprint("operations", __name__, url_prefix="/api/operations")

_FILTERS: Schema = {**PAGE, "cluster_id": {"type": "string", "minlength": 1, "maxlength": 100}}


@routes.get("")
def listing() -> flask.Response:
    """List operations, newest first."""
    query = read_query(_FILTERS)
    with control().database.transaction() as session:
        page = operations.listing(session, query.get("cluster_id"), limit=query["limit"], cursor=query.get("cursor"))
    return page_of("operations", page, views.operation)


@routes.get("/<operation_id>")
def get(operation_id: str) -> flask.Response:
    """Show an operation."""
    read_query({})
    with control().database.transaction() as session:
        return answer(views.operation(operations.get(session, operation_id)))
