"""Why a cluster has the size it has: the ledger of decisions, the one of now, and a replay by another blueprint."""

from __future__ import annotations

import flask

from brain_clusters.api import answers, views
from brain_clusters.api.context import answer, control
from brain_clusters.api.endpoint import Document, endpoint
from brain_clusters.api.requests import PAGE
from brain_clusters.api.routes.clusters import page_of
from brain_clusters.domain.access import Role
from brain_clusters.services import explain, ledger
from brain_clusters.services.requests import REPLAY, Schema

routes = flask.Blueprint("scaling", __name__, url_prefix="/api/clusters")

_FILTERS: Schema = {
    **PAGE,
    "action": {"type": "string", "allowed": ["scale", "hibernate", "reactivate", "destroy", "hold"]},
    "inputs": {"type": "boolean", "default": False},
}


@routes.get("/<cluster_id>/scaling")
@endpoint(Role.VIEWER, query=_FILTERS, answers={200: answers.DECISIONS})
def history(cluster_id: str, query: Document) -> flask.Response:
    """List a cluster's decisions, newest first; with ``inputs=true`` each with all that it was made from."""
    with control().database.transaction() as session:
        page = ledger.listing(
            session, cluster_id, action=query.get("action"), limit=query["limit"], cursor=query.get("cursor")
        )
    return page_of("decisions", page, views.whole_decision if query["inputs"] else views.decision)


@routes.get("/<cluster_id>/scaling/explain")
@endpoint(Role.VIEWER, answers={200: answers.EXPLAINED, 409: answers.A_PROBLEM})
def now(cluster_id: str) -> flask.Response:
    """Show what the next tick would do, with which signals, and which gate holds what."""
    return answer(explain.explain(control(), cluster_id))


@routes.post("/<cluster_id>/scaling/replay")
@endpoint(Role.VIEWER, body=REPLAY, answers={200: answers.REPLAYED}, changes=False)
def replay(cluster_id: str, body: Document) -> flask.Response:
    """Make stored decisions again by the blueprint in the body; show where they differ. Changes nothing."""
    return answer(explain.replay(control(), cluster_id, body["yaml"], limit=body["limit"]))
