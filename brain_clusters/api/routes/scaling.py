"""Why a cluster has the size it has: the ledger of decisions, the one of now, and a replay by another blueprint."""

from __future__ import annotations

import flask

from brain_clusters.api import views
from brain_clusters.api.context import answer, control
from brain_clusters.api.requests import PAGE, read_body, read_query
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.services import explain, ledger
from brain_clusters.services.requests import REPLAY, Schema, validated

routes = flask.Blueprint("scaling", __name__, url_prefix="/api/clusters")

_FILTERS: Schema = {
    **PAGE,
    "action": {"type": "string", "allowed": ["scale", "hibernate", "reactivate", "destroy", "hold"]},
    "inputs": {"type": "boolean", "default": False},
}


@routes.get("/<cluster_id>/scaling")
def history(cluster_id: str) -> flask.Response:
    """List a cluster's decisions, newest first; with ``inputs=true`` each with all that it was made from."""
    query = read_query(_FILTERS)
    with control().database.transaction() as session:
        page = ledger.listing(
            session, cluster_id, action=query.get("action"), limit=query["limit"], cursor=query.get("cursor")
        )
    return page_of("decisions", page, views.whole_decision if query["inputs"] else views.decision)


@routes.get("/<cluster_id>/scaling/explain")
def now(cluster_id: str) -> flask.Response:
    """Show what the next tick would do, with which signals, and which gate holds what."""
    read_query({})
    return answer(explain.explain(control(), cluster_id))


@routes.post("/<cluster_id>/scaling/replay")
def replay(cluster_id: str) -> flask.Response:
    """Make stored decisions again by the blueprint in the body; show where they differ. Changes nothing."""
    read_query({})
    body = validated(read_body(), REPLAY, "the request body")
    return answer(explain.replay(control(), cluster_id, body["yaml"], limit=body["limit"]))
